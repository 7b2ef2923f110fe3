"""GPU telemetry through the real NVML client, against a library of two made-up GPUs."""

import ast
import itertools
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, TINY, environment, result_folder, run
from PIL import Image
from test_tracking import GPU_METRICS, tracked

from lottery.experiment import train_dense
from lottery.files import read_csv, read_json
from lottery.training import callbacks, telemetry
from lottery.training.callbacks import InputBound

OFFLINE = tuple(o for o in TINY if o != "logger=csv")
UUIDS = ["GPU-aaaa0000", "GPU-aabb0000"]


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """The folder of a libnvidia-ml.so.1 of ours."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (gcc) to build a made-up NVML with")
    folder = tmp_path_factory.mktemp("nvml")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", folder / "libnvidia-ml.so.1",
         REPOSITORY / "tests" / "fake_nvml.c"],
        check=True,
    )  # fmt: skip
    return folder


class Trained:
    """A run of train.py on a machine with the made-up GPUs, to its end."""

    def __init__(self, library: Path, folder: Path, devices: str, mode: str = "") -> None:
        self.log = folder / "nvml.log"
        process = run(
            "train.py", *OFFLINE, f"paths.outputs={folder}", before=("env",),
            LD_LIBRARY_PATH=str(library), CUDA_VISIBLE_DEVICES=devices,
            FAKE_NVML=mode, FAKE_NVML_LOG=str(self.log),
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        self.said = process.stdout
        output = result_folder(process.stdout)
        (records,) = output.glob("wandb/offline-run-*/*.wandb")
        self.tracked = tracked(records).history
        self.rows = read_csv(output / "metrics.csv")
        self.result = read_json(output / "result.json")["dense"]
        assert len(self.rows) == len(self.tracked) == 2

    def questions(self) -> list[tuple[str, int]]:
        lines = [line.split() for line in self.log.read_text().splitlines()]
        ours = lines[0][0]  # W&B may look at GPUs too, in a process of its own
        return [(question, int(device)) for pid, question, device in lines if pid == ours]


@pytest.mark.slow
def test_a_run_reports_the_gpus_it_may_use_and_no_others(library, tmp_path):
    trained = Trained(library, tmp_path, devices="1")
    expected = {"gpu_utilisation": 40, "gpu_memory_gib": 2, "gpu_power_watts": 150}
    for row, record in zip(trained.rows, trained.tracked, strict=True):
        assert {name: float(row[name]) for name in GPU_METRICS} == expected
        assert {name: record[name] for name in GPU_METRICS} == expected
    assert trained.said.count("  GPU 40 %, 2.0 GiB, 150 W\n") == 2
    asked = trained.questions()
    assert [device for question, device in asked if question == "init"] == [-1]  # once
    assert {device for question, device in asked if question != "init"} == {1}
    # The counter has 150 J more at each question, and the first one of an epoch is where it starts.
    counted = [question for question, _ in asked].count("energy")
    joules = [float(row["gpu_energy_joules"]) for row in trained.rows]
    assert min(joules) >= 150
    assert sum(joules) == trained.result["gpu_energy_joules"] == 150 * (counted - 2)
    assert [record["gpu_energy_joules"] for record in trained.tracked] == joules


@pytest.mark.slow
def test_energy_is_power_over_time_where_a_gpu_does_not_count_it(library, tmp_path):
    trained = Trained(library, tmp_path, devices="1", mode="no_energy")
    joules = [float(row["gpu_energy_joules"]) for row in trained.rows]
    assert sum(joules) == trained.result["gpu_energy_joules"]
    # At 150 W all the time, of which validation is left out.
    assert 0 < sum(joules) / 150 < trained.result["seconds"]


@pytest.mark.slow
def test_what_a_gpu_does_not_tell_stays_empty(library, tmp_path):
    trained = Trained(library, tmp_path, devices="GPU-bbbb,GPU-aaaa", mode="no_power")
    for row, record in zip(trained.rows, trained.tracked, strict=True):
        assert float(row["gpu_utilisation"]) == record["gpu_utilisation"] == 65
        assert float(row["gpu_memory_gib"]) == record["gpu_memory_gib"] == 5
        for name in ("gpu_power_watts", "gpu_energy_joules"):
            assert row[name] == ""
            assert name not in record
    assert "gpu_energy_joules" not in trained.result
    assert trained.said.count("  GPU 65 %, 5.0 GiB\n") == 2


@pytest.mark.slow
def test_a_driver_that_does_not_answer_is_no_error(library, tmp_path):
    trained = Trained(library, tmp_path, devices="0", mode="broken")
    assert all(row[name] == "" for row in trained.rows for name in GPU_METRICS)
    assert not any(GPU_METRICS & set(record) for record in trained.tracked)
    assert trained.questions() == [("init", -1)]


@pytest.mark.parametrize(
    ("setting", "left"),
    [
        (None, [0, 1]),
        ("", []),
        ("-1", []),
        ("1,0", [1, 0]),
        ("0,-1,1", [0]),
        ("2", []),
        ("GPU-aabb", [1]),
        ("GPU-aa", []),  # names both
        ("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", ["MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"]),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(setting, left):
    assert telemetry.visible(setting, UUIDS) == left


def test_an_epochs_figure_is_the_mean_of_its_samples(monkeypatch):
    values, enough = iter(range(100)), threading.Event()

    def sample() -> dict[str, float]:
        value = next(values)
        if value == 5:
            enough.set()
        return {"gpu_utilisation": value} | ({"gpu_power_watts": 7} if value == 3 else {})

    monkeypatch.setattr(telemetry, "SECONDS", 0.001)
    monkeypatch.setattr(telemetry, "sample", sample)
    monkeypatch.setattr(telemetry, "gpus", lambda: ("a GPU",))
    counter = itertools.count(5000, 3)
    monkeypatch.setattr(telemetry, "energy", lambda: next(counter))
    with telemetry.GpuSampler() as sampler:
        assert enough.wait(60)
    assert sampler.joules() == next(counter) - 3 - 5000
    means = sampler.means()
    assert means == {"gpu_utilisation": (next(values) - 1) / 2, "gpu_power_watts": 7}


def test_without_a_gpu_there_is_no_thread(monkeypatch):
    monkeypatch.setattr(telemetry, "gpus", lambda: ())
    before = threading.active_count()
    with telemetry.GpuSampler() as sampler:
        assert threading.active_count() == before
    assert sampler.means() == {}
    assert sampler.joules() is None


# -- input-bound runs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waited", "trained", "decodes", "said"),
    [
        (43.0, 100.0, True, ["waited for its input 43 % of the time", "preprocess.py", "records"]),
        (43.0, 100.0, False, ["43 %", "more CPU cores (it has 2)", "faster storage"]),
        (14.0, 100.0, True, None),
        (0.9, 1.0, True, None),  # a second says nothing
        (0.0, 0.0, False, None),
    ],
)
def test_a_network_that_waits_for_its_input_is_told_of(waited, trained, decodes, said):
    sentence = telemetry.input_bound(waited, trained, decodes=decodes, cores=2)
    assert (sentence is None) == (said is None)
    assert all(word in sentence for word in said or ())


def sentences(caplog, waits: list[float]) -> list[str]:
    """What a training of epochs of ten steps of a second says, given each one's share."""
    callback = InputBound(decodes=True)
    callback.set_params({"steps": 10})
    caplog.clear()
    for epoch, wait in enumerate(waits):
        callback.on_epoch_end(epoch, {"step_seconds": 1.0, "input_wait": wait})
    callback.on_train_end()
    return [r.message.partition(" of the time")[0].rpartition("input ")[2] for r in caplog.records]


def test_it_is_told_of_in_the_first_epoch_that_shows_it_and_at_the_end(caplog):
    assert sentences(caplog, [0.0, 0.4, 0.8, 0.4]) == ["40 %", "40 %"]
    assert sentences(caplog, [0.4]) == ["40 %"]
    assert sentences(caplog, [0.0, 0.2, 0.0]) == ["20 %"]
    assert sentences(caplog, [0.14, 0.05]) == []
    assert sentences(caplog, []) == []


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_training_is_judged_by_how_its_images_are_read(
    lab, config, tmp_path, monkeypatch, in_memory
):
    asked = []
    monkeypatch.setattr(callbacks, "input_bound", lambda *args, **how: asked.append((args, how)))
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(10):
            pixels = np.full((8, 8, 3), 10 * i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{i}.png")
    train_dense(
        config(
            *TINY, "data=folder", f"data.dir={tmp_path / 'images'}", "data.stored_size=8",
            "data.image_size=8", f"data.in_memory={in_memory}", "trainer.batch_size=4",
        ),
        lab,
    )  # fmt: skip
    assert len(asked) == 3  # two epochs and all of it
    assert all(how["decodes"] == (not in_memory) for _, how in asked)
    (first, second, total) = (args for args, _ in asked)
    assert total == tuple(map(sum, zip(first, second, strict=True)))
    assert 0 < total[0] < total[1]


def test_power_energy_and_memory_of_several_gpus_are_sums_and_utilisation_is_a_mean(
    library, tmp_path
):
    found = subprocess.run(
        [sys.executable, "-c", "from lottery.training import telemetry as t; "
         "print((t.sample(), t.energy() - t.energy()))"],
        env=environment(LD_LIBRARY_PATH=str(library), FAKE_NVML_LOG=str(tmp_path / "log"))
        | {"CUDA_VISIBLE_DEVICES": "0,1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ast.literal_eval(found.stdout) == (
        {"gpu_utilisation": 65, "gpu_memory_gib": 5, "gpu_power_watts": 450}, -450,
    )  # fmt: skip
