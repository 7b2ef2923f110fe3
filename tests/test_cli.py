"""The entry scripts as a user meets them: processes, their output, exit codes and files."""

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, TINY, command, environment, result_folder, run
from PIL import Image

from lottery import choices
from lottery.files import read_csv, read_json, write_json
from lottery.points import Point
from lottery.runs import load_run
from lottery.store import VERSION
from lottery.training.checkpoints import equal

IMPORT_TIMES = ("-X", "importtime")  # lists every module on standard error
HEAVY = {"tensorflow", "keras", "sklearn", "wandb", "matplotlib", "tensorflow_datasets"}
RUN_FIELDS = {
    "key", "val_top1", "val_top5", "val_loss", "test_top1", "test_top5", "test_loss", "epochs",
    "seconds", "images_per_second", "images_trained", "multiply_adds", "training_multiply_adds",
}  # fmt: skip
OF_DATA = {
    "val_examples", "val_majority", "val_images", "test_examples", "test_images", "classes",
    "train_examples", "image_sides",
}  # fmt: skip
SETTING = {"replicas", "devices", "deterministic", "jit_compile", "tensorflow", "per_replica"}
MASK_FIELDS = {
    "percentile", "prunable", "kept", "density", "kernels", "density_of_kernels", "left_out",
    "total_parameters", "density_of_all", "layers", "pattern",
}  # fmt: skip
SWEEP = ("mask.percentile=70,80,...,90", "rewind.epoch=0,1")


def imported(process: subprocess.CompletedProcess[str]) -> set[str]:
    """Top-level names of the modules that a process run with ``IMPORT_TIMES`` imported."""
    times = [line for line in process.stderr.splitlines() if line.startswith("import time:")]
    assert times
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in times}


def snapshot(*roots: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for root in roots for p in root.rglob("*") if p.is_file()}


def store_of(outputs: Path) -> dict[Path, bytes]:
    """Its files, without those that say who asked."""
    found = snapshot(outputs / "store")
    return {path: content for path, content in found.items() if "asked" not in path.parts}


def error_line(process: subprocess.CompletedProcess[str]) -> str:
    """The one line that a refused command leaves on standard error."""
    assert process.returncode == 1
    assert "Traceback" not in process.stdout + process.stderr
    lines = process.stderr.splitlines()
    assert len(lines) == 1, process.stderr
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


# -- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["train.py", "prune.py"])
def test_help_is_light_and_lists_every_choice(script):
    process = run(script, "--help", python=IMPORT_TIMES)
    assert process.returncode == 0
    assert not imported(process) & HEAVY
    for group in (REPOSITORY / "conf").iterdir():
        names = {path.stem for path in group.glob("*.yaml")}
        names |= {n for k in choices.KINDS if k.group == group.name for n in k.names()}
        if names:
            assert f"\n{group.name}: {', '.join(sorted(names))}\n" in process.stdout


@pytest.mark.parametrize(
    "script",
    ["report.py", "preprocess.py", "transfer.py", "export.py", "stability.py", "store.py"],
)
def test_help_of_the_others_is_light_and_names_their_options(script):
    process = run(script, "--help", python=IMPORT_TIMES)
    assert process.returncode == 0
    assert not imported(process) & HEAVY
    assert f"python {script} " in process.stdout
    assert max(map(len, process.stdout.splitlines())) <= 110


# -- one run -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def finished(outputs) -> subprocess.CompletedProcess[str]:
    process = run("prune.py", *TINY, f"paths.outputs={outputs}")
    assert process.returncode == 0, process.stderr
    return process


def test_a_run_ends_with_the_table_and_the_path_of_its_result(finished, outputs):
    assert finished.stderr == ""
    lines = finished.stdout.splitlines()
    assert lines[-1] == f"result: {result_folder(finished.stdout) / 'result.json'}"
    assert result_folder(finished.stdout).parent == outputs / "prune"
    table = finished.stdout[finished.stdout.index("top-1 / top-5") :]
    assert re.search(r"validation +test +weights +density +time", table)
    percent = r"\d+\.\d\d / \d+\.\d\d"
    assert re.search(rf"\n *dense +{percent} +{percent} +2,320 +100.00 % +\d+:\d\d", table)
    assert re.search(rf"\n *ticket +{percent} +{percent} +279 +12.03 % +\d+:\d\d", table)
    assert re.search(r"\n(not )?matched: validation top-1 is .* dense", table)
    # Not a terminal: one line an epoch instead of bars.
    assert len(re.findall(r"epoch +\d/2 .*val top-1", finished.stdout)) == 3


def test_a_run_leaves_exactly_the_contracts_files_and_fields(finished):
    folder = result_folder(finished.stdout)
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "result.json", "config.yaml", "metrics.csv", "status.json", "prune.log", ".hydra",
        "ticket.safetensors",
    }  # fmt: skip

    result = read_json(folder / "result.json")
    assert set(result) == {
        "study", "version",
        "dense", "ticket", "mask", "rewind", "matched", "doubt", "tolerance", "store",
        "level", "interval", "shown",
    }  # fmt: skip
    for kind in ("dense", "ticket"):
        # What the shares are of, in addition to the contract.
        own = {"effective_density"} if kind == "ticket" else set()
        assert set(result[kind]) == RUN_FIELDS | OF_DATA | SETTING | own
        assert all(0 <= result[kind][f"{s}_top{k}"] <= 1 for s in ("val", "test") for k in (1, 5))
    assert (result["dense"]["epochs"], result["ticket"]["epochs"]) == (2, 1)
    mask = result["mask"]
    assert set(mask) == MASK_FIELDS
    assert mask["percentile"] == 88
    assert mask["kept"] == mask["prunable"] - int(0.88 * mask["prunable"])
    assert mask["density"] == mask["kept"] / mask["prunable"]
    assert sum(layer["kept"] for layer in mask["layers"].values()) == mask["kept"]
    assert sum(layer["size"] for layer in mask["layers"].values()) == mask["prunable"]
    assert result["rewind"] == {
        "name": "weights", "epoch": 1, "step": None, "optimizer": "restore",
    }  # fmt: skip

    loss = result["dense"]["val_top1"] - result["ticket"]["val_top1"]
    assert result["matched"] == (100 * loss <= result["tolerance"] == 1.0)
    low, high = result["interval"]
    assert low < -100 * loss < high
    assert result["shown"] == (low > -result["tolerance"])

    status = read_json(folder / "status.json")
    assert status["status"] == "done"
    assert status["started"] <= status["updated"]
    assert "traceback" not in status


def test_the_config_that_a_run_leaves_is_resolved(finished, outputs):
    text = (result_folder(finished.stdout) / "config.yaml").read_text()
    assert "${" not in text
    assert "???" not in text
    config = yaml.safe_load(text)
    assert config["mask"]["percentile"] == 88
    assert config["paths"]["store"] == str(outputs / "store")


def test_metrics_have_one_row_an_epoch(finished):
    rows = read_csv(result_folder(finished.stdout) / "metrics.csv")
    assert [(r["run"], r["epoch"]) for r in rows] == [
        ("dense", "1"), ("dense", "2"), ("ticket", "2"),
    ]  # fmt: skip
    measured = ("loss", "top1", "top5", "val_loss", "val_top1", "val_top5", "learning_rate")
    timed = ("images_per_second", "step_seconds", "input_wait")
    assert all(float(row[name]) >= 0 for row in rows for name in (*measured, *timed))
    result = read_json(result_folder(finished.stdout) / "result.json")
    assert float(rows[1]["val_top1"]) == result["dense"]["val_top1"]
    assert float(rows[2]["val_loss"]) == pytest.approx(result["ticket"]["val_loss"])


def test_the_same_command_again_answers_from_the_store_without_tensorflow(finished, outputs):
    before = store_of(outputs)
    again = run("prune.py", *TINY, f"paths.outputs={outputs}", python=IMPORT_TIMES)
    assert again.returncode == 0
    assert not imported(again) & HEAVY
    assert "training" not in again.stdout
    assert store_of(outputs) == before
    first, second = (result_folder(p.stdout) for p in (finished, again))
    assert first != second
    for name in ("result.json", "metrics.csv", "config.yaml"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.slow
def test_training_does_not_wait_for_packages_that_it_does_not_use():
    check = (
        "import sys; from lottery import choices, cli, trainings;"
        "trainings._imported();"
        "trainings.load_data(choices.source.of({'source': 'digits'}));"
        "assert 'tensorflow' in sys.modules;"
        "print({'sklearn', 'scipy.stats', 'matplotlib'} & set(sys.modules));"
        "import matplotlib.pyplot, sklearn"  # the report of a sweep in the same process may
    )
    process = subprocess.run(
        [sys.executable, "-c", check], env=environment(), capture_output=True, text=True
    )
    assert process.stdout == "set()\n", process.stderr
    assert process.returncode == 0, process.stderr


def test_only_the_verdict_depends_on_the_tolerance(finished, outputs):
    results = []
    for tolerance in (100, 0):
        process = run(
            "prune.py", *TINY, f"paths.outputs={outputs}", f"verdict.tolerance={tolerance}"
        )
        assert "training" not in process.stdout
        results.append(read_json(result_folder(process.stdout) / "result.json"))
    generous, strict = results
    assert generous["matched"]
    assert strict["matched"] == (generous["ticket"]["val_top1"] >= generous["dense"]["val_top1"])
    assert generous["ticket"] == strict["ticket"]


def test_train_finds_the_dense_run_that_prune_trained(finished, outputs):
    process = run("train.py", *TINY, f"paths.outputs={outputs}")
    assert process.returncode == 0
    assert "training" not in process.stdout
    folder = result_folder(process.stdout)
    assert folder.parent.name == "train"
    pruned = read_json(result_folder(finished.stdout) / "result.json")
    result = read_json(folder / "result.json")
    assert set(result) == {"study", "version", "dense", "store"}
    assert result["dense"] == pruned["dense"]
    assert load_run(folder).key == pruned["dense"]["key"]


# -- sweeps ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    outputs = tmp_path_factory.mktemp("sweep")
    process = run("prune.py", "-m", *TINY, *SWEEP, f"paths.outputs={outputs}")
    assert process.returncode == 0, process.stderr
    return process, outputs


@pytest.mark.slow
def test_a_sweep_trains_one_dense_network_for_all_its_tickets(sweep):
    process, outputs = sweep
    assert process.stdout.count("training dense") == 1
    assert process.stdout.count("training ticket") == 6
    store = outputs / "store"
    assert [len(list((store / kind).iterdir())) for kind in ("dense", "mask", "ticket")] == [
        1,
        3,
        6,
    ]
    (folder,) = (outputs / "prune").iterdir()
    results = [read_json(folder / str(job) / "result.json") for job in range(6)]
    assert len({r["dense"]["key"] for r in results}) == 1
    assert len({r["ticket"]["key"] for r in results}) == 6
    cells = {(r["mask"]["percentile"], r["rewind"]["epoch"]) for r in results}
    assert cells == {(p, k) for p in (70, 80, 90) for k in (0, 1)}
    assert process.stdout.count("\nresult: ") == 7  # the dense network has a job of its own
    assert "6 cells: 6 done" in process.stdout
    assert all(read_json(folder / f"{job}/status.json")["status"] == "done" for job in range(6))


@pytest.mark.slow
def test_an_ellipsis_is_logged_expanded_and_kept_as_typed(sweep):
    process, outputs = sweep
    assert "mask.percentile=70,80,90\n" in process.stdout
    (folder,) = (outputs / "prune").iterdir()
    typed = yaml.safe_load((folder / "multirun.yaml").read_text())["hydra"]["overrides"]["task"]
    assert "mask.percentile=70,80,...,90" in typed
    configs = [yaml.safe_load((folder / f"{job}/config.yaml").read_text()) for job in range(6)]
    assert {c["mask"]["percentile"] for c in configs} == {70, 80, 90}
    overrides = yaml.safe_load((folder / "0/.hydra/overrides.yaml").read_text())
    assert "mask.percentile=70" in overrides


@pytest.mark.slow
def test_a_sweep_repeated_trains_nothing(sweep):
    _, outputs = sweep
    before = store_of(outputs)
    again = run(
        "prune.py", "-m", *TINY, *SWEEP, f"paths.outputs={outputs}", python=IMPORT_TIMES
    )  # fmt: skip
    assert again.returncode == 0
    assert not imported(again) & HEAVY
    assert "training" not in again.stdout
    assert "6 cells: 6 done" in again.stdout
    assert store_of(outputs) == before
    _, folder = sorted((outputs / "prune").iterdir())
    for job in range(6):  # complete like the first
        assert {f.name for f in (folder / str(job)).iterdir()} == {
            ".hydra", "config.yaml", "metrics.csv", "result.json", "status.json",
            "ticket.safetensors",
        }  # fmt: skip
        assert read_json(folder / f"{job}/status.json")["status"] == "done"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        # Out of range, after an ellipsis; of another type; unknown; added; missing.
        (["mask.percentile=80,90,...,100"], ["mask.percentile=100.0 must be >= 0 and < 100"]),
        (
            ["mask.percentile=80,abc", "rewind.epoch=1,3"],
            ["mask.percentile=abc", "rewind.epoch=3 lies after trainer.epochs=2"],
        ),
        (["data=digits,digit"], ["data=digit is unknown; did you mean digits"]),
        (["model.name=lenet_300_100,lenet"], ["model=lenet is unknown"]),
        (["+trainer.foo=1,2"], ["option trainer.foo is unknown"]),
        (["data=digits,folder"], ["data.source=folder needs data.dir="]),
        (
            ["data=digits,folder", "+data.dir=/nowhere"],
            ["option data.dir is unknown", "there is no folder /nowhere"],
        ),
    ],
)
def test_a_sweep_with_a_bad_value_launches_nothing_and_names_it(tmp_path, bad, said):
    process = run("prune.py", "-m", *TINY, *bad, f"paths.outputs={tmp_path}")
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert process.stderr.startswith("error: nothing was launched:\n")
    assert len(process.stderr.splitlines()) == 1 + len(said)
    assert all(text in process.stderr for text in said), process.stderr
    assert "Launching" not in process.stdout
    assert not list(tmp_path.rglob("status.json"))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("bad", ["5,...", "1,1,...,4"])
def test_a_malformed_ellipsis_is_a_clear_error(tmp_path, bad):
    process = run("prune.py", "-m", *TINY, f"mask.percentile={bad}", f"paths.outputs={tmp_path}")
    assert error_line(process).startswith(f"mask.percentile={bad}")
    assert not list(tmp_path.rglob("status.json"))


# -- jobs that fail ----------------------------------------------------------------------------


def class_folders(root: Path, classes: str = "ab", images: int = 30) -> Path:
    """A folder of class folders of random 8x8 images."""
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(images):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


@pytest.mark.slow
def test_a_failing_job_says_why_and_its_siblings_finish(tmp_path):
    """A loss that is no number, images that cannot be decoded, and a job without fault."""
    good, bad = (class_folders(tmp_path / name) for name in ("good", "bad"))
    for name in ("a/03.png", "b/07.png", "b/08.png"):
        image = bad / name
        image.write_bytes(image.read_bytes()[:60])
    process = run(
        "prune.py", "-m", *TINY, "data=folder", "data.stored_size=8", "data.image_size=8",
        "trainer.batch_size=16", f"data.dir={good},{bad}", "optimizer.learning_rate=1e30,0.05",
        "data.test_fraction=0.5", f"paths.outputs={tmp_path / 'outputs'}",
    )  # fmt: skip
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert process.stderr.splitlines()[-1].startswith("error: 3 of 4 cells failed; the same comm")
    (folder,) = (tmp_path / "outputs" / "prune").iterdir()
    jobs = [read_json(folder / str(job) / "status.json") for job in range(4)]
    assert [job["status"] for job in jobs] == ["failed", "done", "failed", "failed"]
    assert (folder / "1" / "result.json").exists()

    # All of them could not even train their dense network.
    diverged, undecodable = jobs[0], jobs[2]
    assert diverged["error"].startswith(
        "its dense network failed: the loss is not a finite number by step"
    )
    assert "DivergedError" in diverged["traceback"]
    assert "Traceback (most recent call last)" in diverged["traceback"]
    bad_ones = "a/03.png, b/07.png, b/08.png"  # in whichever splits they are
    assert undecodable["error"].endswith(f"failed: 3 of 60 images cannot be decoded: {bad_ones}")
    assert "DataError" in undecodable["traceback"]
    for i, job in enumerate(jobs):
        if job["status"] == "failed":
            assert not (folder / str(i) / "result.json").exists()
            assert job["error"].removeprefix("its dense network ") in process.stdout
    logs = [path.read_text() for path in folder.glob("dense_*/prune.log")]
    assert sum("failed: the loss is not a finite number" in text for text in logs) == 1
    assert sum("failed: 3 of 60 images cannot be decoded" in text for text in logs) == 2
    assert len(list((tmp_path / "outputs/store/dense").iterdir())) == 1


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (["mask.percentile=100"], "mask.percentile=100.0 must be >= 0 and < 100"),
        (["mask.percentile=many"], "mask.percentile=many"),
        (["rewind.epoch=3"], "rewind.epoch=3 lies after trainer.epochs=2"),
        (["data=cifra10"], "data=cifra10 is unknown; did you mean cifar10"),
        (["model=resnet2"], "model=resnet2 is unknown; did you mean resnet20"),
        (["model.name=resnet2"], "model=resnet2 is unknown; did you mean resnet20"),
        (["optimizer=adamm"], "optimizer=adamm is unknown; did you mean adam"),
        (["experiment=lenet_mnist"], "experiment=lenet_mnist is unknown; did you mean lenet_fash"),
        (["hydra/launcher=slurm"], "hydra/launcher=slurm is unknown; did you mean submitit_slurm"),
        (["mask.percentil=80"], "mask.percentil is unknown; did you mean mask.percentile"),
        (["trainer.lr=0.1"], "option trainer.lr is unknown"),
        (["+trainer.lr=0.1"], "option trainer.lr is unknown"),
        (["data=folder"], "data.source=folder needs data.dir=<folder of class folders"),
        (["data=cifar10"], "data.root=<TensorFlow Datasets directory>"),
        (["data=cifar10", "data.root=/nowhere"], "no TensorFlow Datasets directory /nowhere"),
        (["data=folder"], "data.dir=<folder of class folders of images>"),
        (["data=folder", "data.dir=/nowhere"], "there is no folder /nowhere (data.dir)"),
        (["data.classes=[3]"], "data.classes=[3] leaves fewer than two classes"),
        (["data.classes=[1,77]"], "digits has classes 0 to 9, not 77"),
        (["trainer.batch_size=2000"], "a batch of 2000 is larger than the training split of 1222"),
        (["mask.percentile=70,...,99"], "mask.percentile=70,...,99"),  # without -m
        (["data.name=a\udcff"], r"'data.name=a\udcff' is not text in UTF-8"),
        ([f"paths.outputs={'x' * 300}"], f"cannot write or read {'x' * 100}…: File name too long"),
    ],
    ids=lambda value: value[-1][:50] if isinstance(value, list) else "",
)
def test_bad_input_is_one_clear_line_and_nothing_is_written_over(finished, outputs, bad, said):
    before = snapshot(outputs)
    process = run("prune.py", *TINY, f"paths.outputs={outputs}", *bad)
    if "Ambiguous value" in process.stderr:  # Hydra's advice takes three more lines
        assert said in process.stderr.splitlines()[0]
        assert process.returncode == 1
    else:
        assert said in error_line(process)
    assert {path: path.read_bytes() for path in before} == before
    assert store_of(outputs).keys() <= before.keys()
    for status in set(outputs.rglob("status.json")) - before.keys():
        assert said in read_json(status)["error"]


def test_an_unwritable_output_folder(finished, outputs, tmp_path):
    (tmp_path / "file").write_text("precious")
    for option in ("paths.outputs", "paths.store", "hydra.run.dir"):
        below = tmp_path / "file" / "below"
        others = () if option == "paths.outputs" else (f"paths.outputs={tmp_path / 'other'}",)
        process = run("prune.py", *TINY, *others, f"{option}={below}")
        assert re.fullmatch(
            rf"cannot write or read {below}\S*: Not a directory", error_line(process)
        )
    assert (tmp_path / "file").read_text() == "precious"


def test_a_store_of_a_newer_version_is_left_alone(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    write_json(store / "store.json", {"version": VERSION + 1})
    before = snapshot(store)
    process = run("prune.py", *TINY, f"paths.outputs={tmp_path}")
    assert "was written by a newer version" in error_line(process)
    assert snapshot(store) == before


@pytest.mark.slow
def test_a_half_written_tfds_directory(real_data, tmp_path):
    source = real_data / "tensorflow_datasets" / "cifar10"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    for original in source.glob("*/*"):
        copy = tmp_path / "data" / "cifar10" / original.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(original.read_bytes())
    shard = next((tmp_path / "data").rglob("*train*"))
    os.truncate(shard, shard.stat().st_size // 2)
    arguments = ("data=cifar10", f"data.root={tmp_path / 'data'}", f"paths.outputs={tmp_path}")
    line = error_line(run("prune.py", *TINY, *arguments))
    assert f"{shard.parent} is half-written or damaged: the train shards hold" in line
    shard.unlink()
    assert f"{shard.name} is missing" in error_line(run("prune.py", *TINY, *arguments))
    shutil.rmtree(shard.parent)
    line = error_line(run("prune.py", *TINY, *arguments))
    assert "holds no complete version of the data set" in line


def test_undecodable_images_of_a_single_run_are_one_clear_line(tmp_path):
    # Without a readable header they are found before TensorFlow is imported.
    images = class_folders(tmp_path / "images")
    for name in ("a/00.png", "b/01.png"):
        (images / name).write_text("no image")
    process = run(
        "prune.py", *TINY, "data=folder", f"data.dir={images}", "data.stored_size=null",
        "data.image_size=8", "trainer.batch_size=16", f"paths.outputs={tmp_path}",
    )  # fmt: skip
    assert error_line(process) == "2 of 60 images cannot be decoded: a/00.png, b/01.png"


@pytest.mark.slow
def test_undecodable_images_that_are_streamed_are_named_even_in_the_test_split(tmp_path):
    class_folders(tmp_path / "images" / "train")
    bad = class_folders(tmp_path / "images" / "test") / "b" / "01.png"
    bad.write_bytes(bad.read_bytes()[:60])
    process = run(
        "prune.py", *TINY, "data=folder", f"data.dir={tmp_path / 'images'}", "data.stored_size=8",
        "data.image_size=8", "data.in_memory=false", "trainer.batch_size=16", "trainer.epochs=1",
        "rewind.epoch=0", f"paths.outputs={tmp_path}",
    )  # fmt: skip
    line = error_line(process)
    assert line == "test split: 1 of 60 images cannot be decoded: test/b/01.png"


def test_a_traceback_is_there_for_those_who_ask(finished, outputs):
    process = run("prune.py", *TINY, f"paths.outputs={outputs}", "seed=-1", HYDRA_FULL_ERROR="1")
    assert process.returncode == 1
    assert "Traceback" in process.stderr
    assert process.stderr.splitlines()[-1].endswith(
        "ConfigError: seed=-1 must be >= 0 and < 2.14748e+09"
    )


# -- the disk ----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a small disk here: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_clearly_and_it_goes_on_when_there_is_space(small_disk):
    # A checkpoint of the whole LeNet takes 0.4 MB: the third one does not fit.
    arguments = (*TINY, "model.width=1", "trainer.epochs=3", f"paths.outputs={small_disk}")
    process = run("prune.py", *arguments)
    assert "training dense" in process.stdout
    line = error_line(process)
    assert "No space left on device" in line
    assert str(small_disk) in line
    assert not list((small_disk / "store" / "dense").iterdir())
    (folder,) = (small_disk / "prune").iterdir()
    status = read_json(folder / "status.json")
    assert status["status"] == "failed"
    assert "No space left on device" in status["error"]

    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    process = run("prune.py", *arguments)
    assert process.returncode == 0, process.stderr
    assert "resuming after step" in process.stdout
    ticket = load_run(result_folder(process.stdout))
    assert [row["epoch"] for row in ticket.parent.metrics] == [1, 2, 3]
    assert {p.name for p in (small_disk / "store" / "work").iterdir()} == set()


# -- a damaged checkpoint, on a terminal -------------------------------------------------------


def run_on_a_terminal(script: str, *arguments: str) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(script, *arguments),
        env=environment(COLUMNS="120", TERM="xterm"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while some := os.read(ours, 65536):
            shown += some
    except OSError:  # how Linux says that the other end was closed
        pass
    os.close(ours)
    return process.wait(), shown.decode()


@pytest.mark.slow
def test_a_damaged_checkpoint_gives_way_to_the_one_before(finished, tmp_path):
    original = load_run(result_folder(finished.stdout)).parent
    assert original is not None
    shutil.copytree(original.path.parents[1], tmp_path / "store")
    # The dense run as it was when interrupted in its second epoch, then damaged by one bit.
    work = tmp_path / "store" / "work" / f"dense-{original.key}.killed"
    (tmp_path / "store" / "dense" / original.key).rename(work)
    for name in ("done.json", "result.json"):
        (work / name).unlink()
    _, newest, end = sorted((work / "checkpoints").iterdir())
    shutil.rmtree(end)
    state = newest / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-100] ^= 4
    state.write_bytes(content)

    code, shown = run_on_a_terminal("prune.py", *TINY, f"paths.outputs={tmp_path}")
    assert code == 0, shown
    assert f"{newest.name} is damaged" in shown
    assert "falling back to the one before" in shown
    assert "resuming after step 0 of 8" in shown
    (log,) = (tmp_path / "prune").rglob("prune.log")
    repaired = load_run(log.parent).parent
    assert repaired is not None
    assert repaired.key == original.key
    assert repaired.points == original.points == [Point(0), Point(1), Point(2)]
    assert all(equal(repaired.state(k), original.state(k)) for k in original.points)

    # Bars on the terminal; the lines are for the log file.
    assert "4/4" in shown
    assert "━" in shown
    assert not re.search(r"epoch +1/2  loss", shown)
    assert re.search(r"epoch +1/2  loss", log.read_text())
