"""What W&B's offline files hold, read back record by record."""

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import TINY, run
from wandb.proto import wandb_internal_pb2 as protocol

from lottery.files import read_csv, read_json
from lottery.tracking import Tracker
from lottery.training import telemetry

pytestmark = pytest.mark.slow

EPOCH_METRICS = {
    "epoch", "loss", "top1", "top5", "val_loss", "val_top1", "val_top5", "learning_rate",
    "images_per_second", "step_seconds", "input_wait",
}  # fmt: skip
GPU_METRICS = {"gpu_utilisation", "gpu_memory_gib", "gpu_power_watts"}
# W&B's server process and ours talk through a file: without any network it must all still work.
OFF_THE_NETWORK = ("unshare", "--map-root-user", "--net")


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log format after a header of seven bytes."""
    data = path.read_bytes()
    assert data.startswith(b":W&B")
    at, record = 7, b""
    while at + 7 <= len(data):
        left_in_block = 32768 - at % 32768
        if left_in_block < 7:  # too little for a header: padding
            at += left_in_block
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last of several pieces
            yield protocol.Record.FromString(record)
            record = b""


def values(items: Any) -> dict[str, Any]:
    return {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}


def tracked(path: Path) -> SimpleNamespace:
    """One W&B run: its start record, config, epochs, defined metrics, summary and exit code."""
    found = SimpleNamespace(path=path, history=[], axes={}, summary={}, exit_code=None)
    for record in records(path):
        match record.WhichOneof("record_type"):
            case "run":
                found.run = record.run
                found.config = values(record.run.config.update)
            case "history":
                found.history.append(values(record.history.item))
            case "metric":
                found.axes[record.metric.name or record.metric.glob_name] = record.metric
            case "summary":
                found.summary |= values(record.summary.update)
            case "exit":
                found.exit_code = record.exit.exit_code
    return found


def runs_in(folder: Path) -> dict[str, SimpleNamespace]:
    """The W&B runs of a cell by job type; its dense network has a job, and a folder, of its own."""
    cells = read_json(folder.parent / "sweep.json")["cells"]
    dense = folder.parent / f"dense_{cells[int(folder.name)]['dense'][:8]}"
    found = [
        tracked(path) for f in (dense, folder) for path in f.glob("wandb/offline-run-*/*.wandb")
    ]
    return {t.run.job_type: t for t in found}


@pytest.fixture(scope="module")
def process(tmp_path_factory) -> subprocess.CompletedProcess[str]:
    """Defaults of the logger; a job that ends well and one that diverges; no network at all."""
    outputs = tmp_path_factory.mktemp("outputs")
    possible = subprocess.run([*OFF_THE_NETWORK, "true"], capture_output=True, check=False)
    overrides = [o for o in TINY if o != "logger=csv"]
    return run(
        "prune.py", "-m", *overrides, "optimizer.learning_rate=0.05,1e30",
        "logger.tags=[test]", f"paths.outputs={outputs}",
        before=OFF_THE_NETWORK if possible.returncode == 0 else (),
        HOME=str(outputs / "home"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(process) -> Path:
    """The cell that ended well."""
    return Path(process.stdout.rstrip().rpartition("\nsweep: ")[2]) / "0"


def test_each_training_is_a_run_of_its_own(folder):
    result = read_json(folder / "result.json")
    runs = runs_in(folder)
    assert set(runs) == {"dense", "ticket"}
    for kind, tracked_run in runs.items():
        record = tracked_run.run
        assert record.run_id == result[kind]["key"]
        assert record.run_group == folder.parent.name  # the sweep
        assert record.project == "lottery"
        own = ["percentile=88", "rewind=1", "weights"] if kind == "ticket" else []
        assert list(record.tags) == ["test", *own]
        assert record.display_name == " ".join([kind, "lenet_300_100", "digits", *own, "seed=0"])
        assert tracked_run.exit_code == 0
        assert tracked_run.config["model"]["name"] == "lenet_300_100"
        assert tracked_run.config["mask"]["percentile"] == 88
        assert tracked_run.config["optimizer"]["learning_rate"] == 0.05


def test_every_epoch_is_one_row_with_the_metrics_of_the_contract(folder):
    rows = read_csv(folder / "metrics.csv")
    for kind, tracked_run in runs_in(folder).items():
        expected = [row for row in rows if row["run"] == kind]
        assert [row["epoch"] for row in tracked_run.history] == [int(r["epoch"]) for r in expected]
        wanted = EPOCH_METRICS | (set(telemetry.sample()))
        for row, other in zip(tracked_run.history, expected, strict=True):
            assert {name for name in row if not name.startswith("_")} == wanted
            assert all(row[name] == float(other[name]) for name in wanted)


def test_the_axis_of_every_metric_is_the_epoch(folder):
    for tracked_run in runs_in(folder).values():
        assert tracked_run.axes["epoch"].options.defined
        assert tracked_run.axes["*"].step_metric == "epoch"


def test_final_figures_are_in_the_summary(folder):
    result = read_json(folder / "result.json")
    runs = runs_in(folder)
    for kind, tracked_run in runs.items():
        assert tracked_run.summary["val_top1"] == result[kind]["val_top1"]
        assert tracked_run.summary["test_top1"] == result[kind]["test_top1"]
    assert runs["ticket"].summary["mask_density"] == result["mask"]["density"]
    for path, layer in result["mask"]["layers"].items():
        assert runs["ticket"].summary[f"density/{path}"] == layer["kept"] / layer["size"]
    assert not [name for name in runs["dense"].summary if name.startswith("density/")]
    assert runs["ticket"].summary["matched"] == result["matched"]
    assert runs["ticket"].summary["dense_val_top1"] == result["dense"]["val_top1"]


def test_a_failed_run_ends_as_failed(process, folder):
    assert process.returncode == 1
    failed = folder.parent / "1"
    assert read_json(failed / "status.json")["status"] == "failed"
    runs = runs_in(failed)
    assert set(runs) == {"dense"}
    assert runs["dense"].exit_code == 1
    assert runs["dense"].run.run_id != runs_in(folder)["dense"].run.run_id


def test_wandb_asks_nothing_and_writes_only_below_the_output_folder(process, folder):
    said = process.stdout + process.stderr
    assert "wandb" not in said.lower()
    outputs = folder.parents[2]
    assert {p.name for p in outputs.iterdir()} <= {"prune", "store", "home"}
    home = [p for p in (outputs / "home").rglob("*") if p.is_file()]
    assert not [p for p in home if "wandb" in str(p).lower()], home


@pytest.mark.parametrize("options", [["logger=csv"], ["logger.mode=disabled"]])
def test_wandb_is_imported_only_if_it_is_the_logger(tmp_path, config, monkeypatch, options):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would fail
    logger = config(*options).logger
    with Tracker(logger, tmp_path, "group", {}).run("key", "dense") as track:
        assert track.callbacks
    assert not list(tmp_path.iterdir())


def test_gpu_columns_are_empty_without_a_gpu(folder):
    if telemetry.gpus():
        pytest.skip("there is a GPU")
    rows = read_csv(folder / "metrics.csv")
    assert all(row[name] == "" for row in rows for name in (*GPU_METRICS, "gpu_energy_joules"))
