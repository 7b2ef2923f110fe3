"""train.py profile=true, run as a user does: on data in memory and on images to be decoded."""

import math
import shutil
from pathlib import Path

import pytest
from conftest import TINY, result_folder, run

from lottery.files import read_json
from lottery.training import profile

STAGES = {"pipeline", "copy", "augment", "step"}


def profiled(folder: Path, *overrides: str) -> tuple[str, dict]:
    process = run("train.py", "profile=true", *TINY, f"paths.outputs={folder}", *overrides)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    output = result_folder(process.stdout)
    assert process.stdout.rstrip().endswith(f"result: {output / 'profile.json'}")
    assert read_json(output / "status.json")["status"] == "done"
    assert "profile: true" in (output / "config.yaml").read_text()
    assert list((output / "tensorboard").glob("plugins/profile/*/*.xplane.pb"))
    assert [p.name for p in folder.iterdir()] == ["train"]  # no store
    found = read_json(output / "profile.json")
    rates = [found["cached"], found["real"], *found["stages"].values()]
    assert all(r["seconds"] > 0 and r["images_per_second"] > 0 for r in rates)
    lost = 1 - found["real"]["images_per_second"] / found["cached"]["images_per_second"]
    assert math.isclose(found["lost_to_input"], lost)
    assert found["verdict"] in process.stdout
    table = process.stdout.partition("batches of")[2].partition(found["verdict"])[0]
    assert max(map(len, table.splitlines())) <= 80
    return process.stdout, found


@pytest.mark.slow
def test_of_data_in_memory(tmp_path):
    said, found = profiled(tmp_path, "trainer.steps_per_call=3", "trainer.batch_size=100")
    assert set(found["stages"]) == STAGES
    assert found["steps_per_call"] == 3
    assert found["stages"]["step"] == found["cached"]
    assert "preprocess.py" not in said


@pytest.mark.slow
def test_of_images_that_are_decoded_anew(real_data, tmp_path):
    folder = tmp_path / "images"
    originals = sorted((real_data / "imagenet_sample" / "train").glob("*/*.*"))[:40]
    for i, original in enumerate(originals):
        (folder / f"class_{i % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(original, folder / f"class_{i % 2}")
    said, found = profiled(
        tmp_path / "outputs", "data=folder", f"data.dir={folder}", "data.in_memory=false",
        "data.stored_size=40", "data.image_size=32", "trainer.batch_size=4",
    )  # fmt: skip
    assert set(found["stages"]) == {"read", "decode"} | STAGES
    # A network of a few thousand weights, behind JPEGs of half a megapixel.
    assert found["lost_to_input"] > profile.LOST
    assert "preprocess.py" in found["verdict"]
    assert said.count("preprocess.py does it once") == 1  # the hint at the start


@pytest.mark.parametrize(
    ("script", "overrides", "reason"),
    [
        ("prune.py", ["profile=true"], "profile=true is for train.py"),
        ("train.py", ["-m", "profile=true", "seed=0,1"], "profile=true measures one configuration"),
    ],
)
def test_refusals_are_one_line(tmp_path, script, overrides, reason):
    process = run(script, *overrides, *TINY, f"paths.outputs={tmp_path}")
    assert process.returncode == 1
    assert reason in process.stderr
    assert "Traceback" not in process.stderr
    assert "training" not in process.stdout


@pytest.mark.parametrize(
    ("lost", "step", "augment", "decodes", "per_call", "words"),
    [
        (0.43, 0.1, 0.01, True, 1, ["input bounds this run, 43 % is lost", "preprocess.py"]),
        (0.43, 0.1, 0.01, False, 1, ["input bounds this run", "CPU cores (it has 2)"]),
        (0.02, 0.1, 0.01, True, 1, ["the network bounds this run, 2 % is lost", "jit_compile"]),
        (-0.3, 0.1, 0.01, True, 1, ["the network bounds this run, nothing is lost"]),
        (0.02, 0.1, 0.06, True, 1, ["augmentation takes 60 % of its step"]),
        (0.02, 0.001, 0.0001, False, 1, ["trainer.steps_per_call"]),
        (0.02, 0.001, 0.0001, False, 8, ["jit_compile"]),
    ],
)
def test_the_verdict_names_what_bounds_the_run(lost, step, augment, decodes, per_call, words):
    said = profile.verdict(lost, step, augment, decodes=decodes, per_call=per_call, cores=2)
    assert all(word in said for word in words), said
