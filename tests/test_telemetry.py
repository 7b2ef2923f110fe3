"""GPU telemetry through the real NVML client, against a library of two made-up GPUs."""

import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import REPOSITORY, TINY, result_folder, run
from test_tracking import GPU_METRICS, tracked

from lottery.files import read_csv
from lottery.training import telemetry

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
            "train.py", *OFFLINE, f"paths.outputs={folder}",
            LD_LIBRARY_PATH=str(library), CUDA_VISIBLE_DEVICES=devices,
            FAKE_NVML=mode, FAKE_NVML_LOG=str(self.log),
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        self.said = process.stdout
        output = result_folder(process.stdout)
        (records,) = output.glob("wandb/offline-run-*/*.wandb")
        self.tracked = tracked(records).history
        self.rows = read_csv(output / "metrics.csv")
        assert len(self.rows) == len(self.tracked) == 2

    def questions(self) -> list[tuple[str, int]]:
        lines = [line.split() for line in self.log.read_text().splitlines()]
        ours = lines[0][0]  # W&B's own processes look at GPUs too
        return [(question, int(device)) for pid, question, device in lines if pid == ours]


def test_a_run_reports_the_gpus_it_may_use_and_no_others(library, tmp_path):
    trained = Trained(library, tmp_path, devices="1")
    expected = {"gpu_utilisation": 40, "gpu_memory_gib": 2, "gpu_power_watts": 150}
    for row, record in zip(trained.rows, trained.tracked, strict=True):
        assert {name: float(row[name]) for name in GPU_METRICS} == expected
        assert {name: record[name] for name in GPU_METRICS} == expected
    assert trained.said.count("  GPU 40 %") == 2
    asked = trained.questions()
    assert [device for question, device in asked if question == "init"] == [-1]  # once
    assert {device for question, device in asked if question != "init"} == {1}


def test_what_a_gpu_does_not_tell_stays_empty(library, tmp_path):
    trained = Trained(library, tmp_path, devices="GPU-bbbb,GPU-aaaa", mode="no_power")
    for row, record in zip(trained.rows, trained.tracked, strict=True):
        assert float(row["gpu_utilisation"]) == record["gpu_utilisation"] == 65
        assert float(row["gpu_memory_gib"]) == record["gpu_memory_gib"] == 5
        assert row["gpu_power_watts"] == ""
        assert "gpu_power_watts" not in record


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
    with telemetry.GpuSampler() as sampler:
        assert enough.wait(60)
    means = sampler.means()
    assert means == {"gpu_utilisation": (next(values) - 1) / 2, "gpu_power_watts": 7}


def test_without_a_gpu_there_is_no_thread(monkeypatch):
    monkeypatch.setattr(telemetry, "gpus", lambda: ())
    before = threading.active_count()
    with telemetry.GpuSampler() as sampler:
        assert threading.active_count() == before
    assert sampler.means() == {}
