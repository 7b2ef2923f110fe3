"""report.py on tickets that were moved and exported: tables, latencies, the winner's file."""

import io
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run
from omegaconf import OmegaConf
from pyarrow import parquet
from test_report import Sweep, reported, rows
from test_report import sweep as sweep

from lottery import files, tickets
from lottery.analysis import (
    deployment,
    deployment_page,
    deployment_tables,
    latencies,
    plots,
    report,
    report_options,
    table,
    transfers,
)
from lottery.errors import LotteryError
from lottery.tickets.ticket import Network, Ticket

TITLES = {
    "ticket": "the ticket", "fresh": "its mask, fresh weights",
    "random": "random mask, fresh weights", "dense": "dense parent, fine-tuned",
    "scratch": "from scratch, same epochs", "scratch_time": "from scratch, same time",
}  # fmt: skip
TOP1 = {"ticket": 0.72, "fresh": 0.41, "random": 0.38, "dense": 0.73, "scratch": 0.23,
        "scratch_time": 0.31}  # fmt: skip
MILLISECONDS = {("litert", 1): 16.0, ("litert", 2): 9.5, ("browser", 1): 48.0, ("keras", 1): 34.0}


def moved(
    outputs: Path,
    key: str,
    *,
    stamp: str = "2026-01-01_12-00-00/0",
    top1: float = 0.72,
    density: float = 0.13,
    missing: str | None = None,
    runs: tuple[str, ...] = tuple(TITLES),
    data: tuple[str, list[str]] = ("digits", ["4", "5", "6", "7", "8", "9"]),
    rate: float = 0.01,
    ticket: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A result.json as transfer.py writes it; controls keep their distance to the ticket."""
    made = []
    for name in runs:
        if name == missing:
            made.append({"name": name, "title": TITLES[name], "missing": "its parent is gone"})
            continue
        val = TOP1[name] + top1 - TOP1["ticket"]
        made.append({
            "name": name, "title": TITLES[name], "key": f"{name}-{key}-{settings.get('seed', 0)}",
            "density": density if name in ("ticket", "fresh", "random") else 1.0,
            "epochs": 9 if name == "scratch_time" else 5,
            "learning_rate": rate if name in ("ticket", "dense") else 10 * rate,
            "val_top1": val, "val_top5": val + 0.2, "val_loss": 1.0,
            "test_top1": val - 0.01, "test_top5": val + 0.19, "test_loss": 1.1,
            "seconds": 95.0, "val_examples": 500, "test_examples": 500,
            "images_per_second": 900.0,
        })  # fmt: skip
    path = outputs / "transfer" / stamp / "result.json"
    path.parent.mkdir(parents=True)
    about = {"key": key, "digest": "0" * 64, "file": "ticket.safetensors",
             "density": 1 - float(key.split("-")[1]) / 100 if "-" in key else density,
             "network": "lenet_300_100", "data": "digits"}  # fmt: skip
    files.write_json(path, {
        "study": "transfer", "version": 1, "seen": [], "ticket": about | (ticket or {}),
        "data": {"name": data[0], "classes": data[1]},
        "transfer": {"weights": "trained", "train": "all", "epochs": 5, "seed": 0, **settings},
        "runs": made, "store": str(outputs / "store"),
    })  # fmt: skip
    return path


def exported(
    outputs: Path,
    key: str,
    density: float,
    *,
    stamp: str = "2026-01-01_12-00-00",
    cpu: str = "a CPU",
    factor: float = 1.0,
    batches: tuple[int, ...] = (1, 32),
    precisions: tuple[str, ...] = ("float32", "float16", "int8"),
) -> Path:
    """A benchmark.json as export.py writes it: browsers gain by sparsity, nothing else does."""
    noise = random.Random(key)
    measured = []
    for (runtime, threads), whole in MILLISECONDS.items():
        for batch in batches:
            for precision in precisions:
                dense = factor * whole * batch * (0.5 if precision == "int8" else 1.0)
                faster = min(0.9 / density, 3.5) if runtime == "browser" else 1.1
                sparse = dense / faster * noise.uniform(0.97, 1.03)
                measured.append({
                    "runtime": runtime, "precision": precision, "batch": batch,
                    "threads": threads, "speedup": dense / sparse,
                    **{kind: {"median_ms": t, "low_ms": 0.96 * t, "high_ms": 1.09 * t}
                       for kind, t in (("dense", dense), ("ticket", sparse))},
                })  # fmt: skip
    path = outputs / "export" / stamp / "benchmark.json"
    path.parent.mkdir(parents=True)
    one = {"parameters": 1000, "multiply_adds": 1_000_000, "files": {}, "accuracy": {}}
    files.write_json(path, {
        "version": 1,
        "ticket": {"key": key, "digest": "0" * 64, "file": "t", "density": density,
                   "network": "lenet_300_100", "data": "digits"},
        "machine": {"cpu": cpu, "cores": 2, "browser": "Chromium 140"},
        "models": {
            "dense": {**one, "surviving_multiply_adds": 1_000_000},
            "ticket": {**one, "surviving_multiply_adds": round(1_000_000 * (density + 0.04))},
        },
        "latency": measured, "memory": {}, "browser": {"missing": "not asked for"},
    })  # fmt: skip
    return path


def seeded(sweep: Sweep, percentiles: tuple[float, ...] = (80,), seeds: int = 1) -> Path:
    """A study whose tickets match; ticket keys are ``ticket-<percentile>-<epoch>-<seed>``."""
    for seed in range(seeds):
        for percentile in percentiles:
            sweep.add(percentile, 1, 0.9 + seed / 2000, seed=seed, dense=0.9)
    return sweep.store.parent


def found(sweep: Sweep, **told: Any) -> deployment.Deployment:
    return deployment.collect(
        *report.judge(report_options.Options(sweep=str(sweep.folder))), **told
    )


def printed(sweep: Sweep, width: int = 80) -> str:
    """What a report prints of transfers and latencies."""
    study, chosen = report.judge(report_options.Options(sweep=str(sweep.folder)))
    deployed = deployment.collect(study, chosen)
    console = table.terminal(width=width, record=True, file=io.StringIO())
    panels = latencies.panels(deployed.latencies)
    deployment_tables.show(deployed, panels, chosen.winner, console)
    return console.export_text()


# Which files count


def test_only_transfers_and_benchmarks_of_the_study_count(sweep: Sweep) -> None:
    outputs = seeded(sweep)
    moved(outputs, "ticket-80-1-0")
    moved(outputs, "another", stamp="2026-01-02_12-00-00")
    exported(outputs, "ticket-80-1-0", 0.2)
    exported(outputs, "another", 0.2, stamp="2026-01-02_12-00-00")
    deployed = found(sweep)
    assert [t.cell.seed for t in deployed.transfers] == [0]
    assert {m.cell.name for m in deployed.latencies} == {"0"}
    assert deployed.notes == ()


def test_other_folders_can_be_named(sweep: Sweep, tmp_path: Path) -> None:
    outputs = seeded(sweep)
    single = moved(tmp_path / "far", "ticket-80-1-0").parent
    exported(tmp_path / "far", "ticket-80-1-0", 0.2)
    assert found(sweep) == deployment.Deployment()
    assert len(found(sweep, moved=str(single)).transfers) == 1
    assert len(found(sweep, exported=str(tmp_path / "far" / "export")).latencies) == 24
    with pytest.raises(LotteryError, match="there is no folder"):
        found(sweep, moved=str(outputs / "nowhere"))


def test_of_a_repeated_measurement_the_last_counts(sweep: Sweep) -> None:
    outputs = seeded(sweep)
    moved(outputs, "ticket-80-1-0", stamp="2026-01-03_12-00-00", top1=0.7)
    moved(outputs, "ticket-80-1-0", stamp="2026-01-02_12-00-00/1", top1=0.5)
    exported(outputs, "ticket-80-1-0", 0.2, stamp="2026-01-03_12-00-00", factor=3)
    exported(outputs, "ticket-80-1-0", 0.2, stamp="2026-01-02_12-00-00/1")
    deployed = found(sweep)
    (table,) = transfers.tables(deployed.transfers)
    assert table.rows[0].values["val_top1"].mean == pytest.approx(70)
    assert max(m.dense.median for m in deployed.latencies if m.batch == 1) == 3 * 48


def test_a_benchmark_of_a_ticket_that_was_moved_is_not_the_cells(sweep: Sweep) -> None:
    outputs = seeded(sweep)
    own = exported(outputs, "ticket-80-1-0", 0.2)
    # The run of its transfer, and files from before such a ticket had a key of its own.
    exported(outputs, "ticket-ticket-80-1-0", 0.2, stamp="2026-01-02_12-00-00")
    exported(outputs, "ticket-80-1-0", 0.21, stamp="2026-01-03_12-00-00")
    deployed = found(sweep)
    assert {m.file for m in deployed.latencies} == {own}
    assert deployed.notes == ()


def test_of_two_benchmarks_on_one_machine_the_later_counts(sweep: Sweep) -> None:
    outputs = seeded(sweep)
    for day, cpu in ((3, "a CPU"), (1, "a CPU"), (2, "another CPU")):
        exported(outputs, "ticket-80-1-0", 0.2, stamp=f"2026-01-0{day}_12-00-00", cpu=cpu)
    files_of = {m.machine: m.file.parent.name for m in found(sweep).latencies}
    assert files_of == {
        "a CPU, 2 cores": "2026-01-03_12-00-00",
        "another CPU, 2 cores": "2026-01-02_12-00-00",
    }
    assert len(found(sweep).latencies) == 2 * 24


def test_a_transfer_repeated_without_controls_keeps_them(sweep: Sweep) -> None:
    outputs = seeded(sweep)
    first = moved(outputs, "ticket-80-1-0", stamp="2026-01-01_12-00-00", top1=0.5, controls="all")
    again = moved(outputs, "ticket-80-1-0", stamp="2026-01-02_12-00-00", top1=0.6,
                  runs=("dense", "ticket"), missing="dense")  # fmt: skip
    deployed = found(sweep)
    (table,) = transfers.tables(deployed.transfers)
    assert table.transfers == 1
    assert [row.name for row in table.rows] == list(TITLES)
    by_name = {row.name: row for row in table.rows}
    assert by_name["ticket"].values["val_top1"].mean == pytest.approx(60)
    assert by_name["fresh"].values["val_top1"].mean == pytest.approx(41 - 22)
    assert by_name["dense"].values["val_top1"].mean == pytest.approx(73 - 22)  # no reason beats it
    folders = {row["run"]: row["folder"] for row in transfers.rows(deployed.transfers)}
    assert folders["ticket"] == str(again.parent)
    assert folders["scratch"] == str(first.parent)


def test_controls_of_another_experiment_are_not_mixed_in(sweep: Sweep) -> None:
    outputs = seeded(sweep)
    moved(outputs, "ticket-80-1-0", stamp="2026-01-01_12-00-00")
    last = moved(outputs, "ticket-80-1-0", stamp="2026-01-02_12-00-00", runs=("ticket",))
    # Such as another batch size, which a result.json does not tell.
    _changed(last, ("runs", 0, "key"), "another run")
    (one,) = found(sweep).transfers
    assert [run.name for run in one.runs] == ["ticket"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("[1]", "it has no version"),
        ('{"version": 1}', " without "),
        ('{"ticket": {"key": "ticket-80-1-0"}}', "it has no version"),
        (b"\xff\xfe", "can't decode"),
    ],
)
def test_damaged_and_foreign_files_become_notes(
    sweep: Sweep, text: str | bytes, reason: str
) -> None:
    outputs = seeded(sweep)
    for path in (moved(outputs, "ticket-80-1-0"), exported(outputs, "ticket-80-1-0", 0.2)):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    deployed = found(sweep)
    assert (deployed.transfers, deployed.latencies) == ((), ())
    assert len(deployed.notes) == 2
    assert all(reason in note for note in deployed.notes)


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        (("runs", 0, "val_top1"), "high", "val_top1 is no finite number"),
        (("runs", 0, "seconds"), float("nan"), "seconds is no finite number"),
        (("runs", 1), 3, "name is missing"),
        (("runs",), {}, "a damaged runs"),
        (("runs", 0, "name"), "another", "runs has none of the ticket"),
        (("data", "name"), 5, "name is no text"),
        (("transfer", "train"), "tail", "transfer.train=tail is unknown"),
        (("seen",), [{"data": "digits"}], "told is missing"),
    ],
)
def test_a_transfer_of_another_schema_is_a_note(
    sweep: Sweep, where: tuple[Any, ...], value: Any, reason: str
) -> None:
    _changed(moved(seeded(sweep), "ticket-80-1-0"), where, value)
    (note,) = found(sweep).notes
    assert reason in note


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        (("version",), 2, "version 2, and this program reads version 1"),
        (("latency", 0, "dense", "median_ms"), 0, "median_ms is not above zero"),
        (("latency", 0, "ticket"), None, "ticket is no object"),
        (("models", "dense", "multiply_adds"), None, "multiply_adds is no finite number"),
        (("machine", "cpu"), "", "cpu is no text"),
    ],
)
def test_a_benchmark_of_another_schema_is_a_note(
    sweep: Sweep, where: tuple[Any, ...], value: Any, reason: str
) -> None:
    _changed(exported(seeded(sweep), "ticket-80-1-0", 0.2), where, value)
    (note,) = found(sweep).notes
    assert reason in note


def _changed(path: Path, where: tuple[Any, ...], value: Any) -> None:
    about = inner = json.loads(path.read_text())
    for step in where[:-1]:
        inner = inner[step]
    inner[where[-1]] = value
    path.write_text(json.dumps(about))


# Transfers


def test_tickets_of_several_seeds_are_one_table(sweep: Sweep) -> None:
    outputs = seeded(sweep, seeds=3)
    for seed, top1 in enumerate((0.70, 0.72, 0.77)):
        moved(outputs, f"ticket-80-1-{seed}", stamp=f"2026-01-01_12-00-00/{seed}", top1=top1,
              seed=seed)  # fmt: skip
    (table,) = transfers.tables(found(sweep).transfers)
    assert table.target == "digits [4, 5, 6, 7, 8, 9]"
    assert table.seeds == (0, 1, 2)
    assert [row.title for row in table.rows] == list(TITLES.values())
    ticket, scratch = table.rows[0], table.rows[4]
    assert ticket.values["val_top1"].mean == pytest.approx(np.mean([70, 72, 77]))
    assert ticket.values["val_top1"].sd == pytest.approx(np.std([70, 72, 77], ddof=1))
    assert scratch.difference is not None
    assert scratch.difference.mean == pytest.approx(-49)
    assert scratch.difference.sd == pytest.approx(0, abs=1e-9)  # paired by seed


def test_images_that_a_ticket_had_seen_are_said_with_its_accuracies(sweep: Sweep) -> None:
    outputs = seeded(sweep, seeds=2)
    for seed, told in enumerate(("3 of 50 test images", "")):
        path = moved(outputs, f"ticket-80-1-{seed}", stamp=f"2026-01-01_12-00-00/{seed}", seed=seed)
        _changed(path, ("seen",), [{"data": "digits", "told": told}])
    (one,) = transfers.tables(found(sweep).transfers)
    words = "seen by the ticket before, with digits: 3 of 50 test images"
    assert one.seen == (words,)
    assert words in " ".join(printed(sweep).split())
    assert words in "".join(deployment_page.transfers_of(found(sweep), None))
    assert [r["seen"] for r in transfers.rows(found(sweep).transfers)][::6] == [words, ""]


@pytest.mark.parametrize(
    "other",
    [
        {"weights": "rewound"}, {"train": "head"}, {"epochs": 10}, {"rate": 0.001},
        {"data": ("letters", ["5", "6", "7", "8", "9"])}, {"data": ("digits", ["7", "8", "9"])},
    ],
)  # fmt: skip
def test_other_settings_are_other_tables(sweep: Sweep, other: dict[str, Any]) -> None:
    outputs = seeded(sweep, seeds=2)
    moved(outputs, "ticket-80-1-0", stamp="2026-01-01_12-00-00/0", top1=0.7)
    moved(outputs, "ticket-80-1-1", stamp="2026-01-01_12-00-00/1", top1=0.6, **other)
    tables = transfers.tables(found(sweep).transfers)
    assert sorted(t.rows[0].values["val_top1"].mean for t in tables) == pytest.approx([60, 70])


def test_another_rewind_epoch_is_no_seed(sweep: Sweep) -> None:
    for epoch in (0, 1):
        sweep.add(80, epoch, 0.9)
        moved(sweep.store.parent, f"ticket-80-{epoch}-0", stamp=f"2026-01-01_12-00-00/{epoch}")
    tables = transfers.tables(found(sweep).transfers)
    assert [t.rows[0].values["val_top1"].sd for t in tables] == [None, None]


def test_several_transfers_of_a_ticket_are_no_further_seeds(sweep: Sweep) -> None:
    outputs = seeded(sweep)
    for seed, top1 in enumerate((0.6, 0.7)):
        moved(outputs, "ticket-80-1-0", stamp=f"2026-01-01_12-00-00/{seed}", top1=top1, seed=seed)
    (table,) = transfers.tables(found(sweep).transfers)
    top1 = table.rows[0].values["val_top1"]
    assert (top1.mean, top1.sd) == (pytest.approx(65), None)
    assert "2 transfers" in table.setting


def test_a_control_that_all_tickets_share_has_no_spread(sweep: Sweep) -> None:
    outputs = seeded(sweep, seeds=2)
    for seed in (0, 1):
        path = moved(outputs, f"ticket-80-1-{seed}", stamp=f"{seed}", top1=0.7 + seed / 10)
        about = json.loads(path.read_text())
        shared = next(r for r in about["runs"] if r["name"] == "scratch")
        shared |= {"key": "the same", "val_top1": 0.2}
        files.write_json(path, about)
    (table,) = transfers.tables(found(sweep).transfers)
    by_name = {row.name: row for row in table.rows}
    assert by_name["scratch"].values["val_top1"] == transfers.Spread(pytest.approx(20), None)
    assert by_name["fresh"].values["val_top1"].sd == pytest.approx(np.std([0, 10], ddof=1))


def test_controls_may_be_absent_or_missing(sweep: Sweep) -> None:
    outputs = seeded(sweep, seeds=2)
    moved(outputs, "ticket-80-1-0", stamp="2026-01-01_12-00-00/0", missing="dense",
          runs=("scratch", "dense", "ticket"))  # fmt: skip
    (table,) = transfers.tables(found(sweep).transfers)
    assert [row.name for row in table.rows] == ["ticket", "dense", "scratch"]
    assert (table.rows[1].values, table.rows[1].missing) == ({}, "its parent is gone")
    assert "its parent is gone" in " ".join(printed(sweep).split())
    moved(outputs, "ticket-80-1-1", stamp="2026-01-01_12-00-00/1")
    (table,) = transfers.tables(found(sweep).transfers)
    by_name = {row.name: row for row in table.rows}
    assert by_name["dense"].missing == "1 of 2 seeds"
    assert by_name["dense"].values["val_top1"].mean == pytest.approx(73)


def test_the_table_on_the_terminal_fits_80_columns(sweep: Sweep) -> None:
    outputs = seeded(sweep, (50, 80), seeds=3)
    for seed in range(3):
        for percentile in (50, 80):
            moved(outputs, f"ticket-{percentile}-1-{seed}", top1=0.7 + seed / 100,
                  stamp=f"2026-01-01_12-00-00/{seed}{percentile}")  # fmt: skip
    text = printed(sweep)
    assert max(map(len, text.splitlines())) <= 80
    assert "Transfer to digits [4, 5, 6, 7, 8, 9]" in text
    assert "the winning ticket: 80 % pruned" in text
    (row,) = (line.split() for line in text.splitlines() if line.strip().startswith("the ticket "))
    assert row[2:] == ["71.00", "/", "91.00", "70.00", "/", "90.00", "13", "%", "5", "0.01", "1:35"]
    assert "±1.00 / ±1.00" in text
    assert "1 other ticket or setting in report.html" in text


# Transfers outside of a report


def test_a_control_that_was_not_run_says_why_below_the_table(tmp_path: Path) -> None:
    path = moved(tmp_path, "ticket-80-1-0", missing="dense")
    result = json.loads(path.read_text())
    result["runs"][3]["missing"] = "its parent [0] is gone"
    assert len(table._transfer(result).columns) == 6
    console = table.terminal(width=80, record=True, file=io.StringIO())
    table.show_transfer(result, path, console)
    lines = [line.strip() for line in console.export_text().splitlines()]
    assert f"{TITLES['dense']} not run" in [" ".join(line.split()) for line in lines]
    assert f"{TITLES['dense']}: its parent [0] is gone" in lines


def of_sweep(*folders: Path) -> str:
    """What a sweep of transfer.py prints in the end."""
    console = table.terminal(width=80, record=True, file=io.StringIO())
    deployment_tables.show_sweep(folders, console)
    return console.export_text()


def ticket_file(path: Path, seed: int, epoch: int = 1) -> dict[str, Any]:
    """A ticket of 80 % on disk, and what a transfer says of it."""
    kernel = np.zeros((5, 2), np.float32)
    config = {"seed": seed, "mask": {"percentile": 80}, "paths": {"outputs": str(path)},
              "data": {"source": "digits"}}  # fmt: skip
    made = Ticket(
        Network("lenet_300_100", (8, 8, 1)), ("0", "1"), (0.5,), (0.5,),
        {"a/kernel": kernel == 1}, {"a/kernel": kernel}, {"a/kernel": kernel},
        {"runs": {"ticket": f"ticket-80-{epoch}-{seed}", "dense": "dense"}, "data": "digits",
         "config": config, "mask": {"percentile": 80}, "rewound_to": f"{epoch}ep",
         "pristine": epoch == 0, "seen": [], "seconds": 1.0},
    )  # fmt: skip
    tickets.write(made, path)
    return {"file": str(path), "digest": made.digest}


def test_a_sweep_over_seeds_of_the_transfer_ends_with_one_table(tmp_path: Path) -> None:
    cells = [
        moved(tmp_path, "ticket-80-1-0", stamp=str(seed), top1=top1, seed=seed).parent
        for seed, top1 in enumerate((0.70, 0.72, 0.74))
    ]
    (tmp_path / "empty").mkdir()
    text = of_sweep(*cells, tmp_path / "empty", tmp_path / "never")
    assert text.count("Transfer to digits") == 1
    flat = " ".join(text.split())
    assert "ticket: 80 % pruned, lenet_300_100 found on digits" in flat
    assert "seeds 0, 1, 2 top-1 / top-5 in percent, mean ± sd over seeds" in flat
    assert "the ticket 72.00 / 92.00" in flat
    assert "±2.00 / ±2.00" in flat
    assert max(map(len, text.splitlines())) <= 80


def test_a_sweep_over_tickets_is_over_their_seeds_place_by_place(tmp_path: Path) -> None:
    cells = []
    for number, (epoch, seed) in enumerate([(1, 0), (1, 1), (0, 0)]):
        about = ticket_file(tmp_path / f"{number}.safetensors", seed, epoch)
        for own in (0, 1):  # transfers of one ticket, which are no further tickets
            cells.append(moved(tmp_path, f"ticket-80-{epoch}-{seed}", stamp=f"{number}{own}",
                               top1=0.7 + seed / 10, ticket=about, seed=own).parent)  # fmt: skip
    first, second = of_sweep(*cells).split("Transfer to")[1:]
    if "rewound to epoch 0" in first:
        first, second = second, first
    assert "rewound to epoch 1" in first
    assert "seeds 0, 1, 4 transfers" in " ".join(first.split())
    assert "75.00 / 95.00" in first
    assert "±7.07" in first  # of 70 and 80
    assert "rewound to epoch 0" in second
    assert "70.00 / 90.00" in second
    # A file that was replaced since does not speak for the ticket that was moved.
    ticket_file(tmp_path / "1.safetensors", 1, epoch=5)
    (tmp_path / "0.safetensors").unlink()
    assert of_sweep(*cells).count("Transfer to") == 3


def test_a_sweep_without_results_prints_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = moved(tmp_path, "ticket-80-1-0")
    damaged.write_text('{"ticket": {"key": "a"}}')
    deployment_tables.show_sweep([damaged.parent, tmp_path / "nowhere"])
    assert capsys.readouterr().out == ""


# Latencies


def test_a_line_runs_from_the_dense_twin_to_the_sparsest(sweep: Sweep) -> None:
    outputs = seeded(sweep, (50, 80, 95))
    for percentile in (95, 50, 80):
        exported(outputs, f"ticket-{percentile}-1-0", 1 - percentile / 100, stamp=f"{percentile}")
    panels = latencies.panels(found(sweep).latencies)
    assert list(panels) == [f"{p}, batch {b}" for b in (1, 32)
                            for p in ("float32", "float16", "int8")]  # fmt: skip
    lines = latencies.shown(panels)
    assert lines is panels["float32, batch 1"]
    assert [line.label for line in lines] == [
        "browser", "LiteRT, 1 thread", "LiteRT, 2 threads", "Keras, 1 thread",
    ]  # fmt: skip
    for line in lines:
        assert [d.density for d in line.dots] == pytest.approx([100, 50, 20, 5])
        twin = line.dots[0]
        assert (twin.cell, twin.ideal) == (None, twin.time.median)
        shares = [d.ideal / twin.time.median for d in line.dots]
        assert shares == pytest.approx([1, 0.54, 0.24, 0.09])
    assert lines[0].dots[0].time == latencies.Quartiles(48.0, 0.96 * 48.0, 1.09 * 48.0)
    colours = {(line.label, line.colour) for group in panels.values() for line in group}
    assert len(colours) == len(lines)  # the same in every group


def test_seeds_and_machines_of_latencies(sweep: Sweep) -> None:
    outputs = seeded(sweep, seeds=3)
    for seed, factor in enumerate((1.0, 1.1, 3.0)):
        exported(outputs, f"ticket-80-1-{seed}", 0.2, stamp=f"{seed}", factor=factor)
    lines = latencies.shown(latencies.panels(found(sweep).latencies))
    assert len(lines) == 4
    assert lines[0].dots[0].time.median == pytest.approx(48 * 1.1)
    exported(outputs, "ticket-80-1-0", 0.2, stamp="3", cpu="another CPU")
    lines = latencies.shown(latencies.panels(found(sweep).latencies))
    assert len(lines) == 8  # machines are not mixed
    assert sum(", another CPU, 2 cores" in line.label for line in lines) == 4


def test_theory_and_measurement_are_said_side_by_side(sweep: Sweep) -> None:
    outputs = seeded(sweep, (50, 80, 95))
    for percentile in (50, 95):
        exported(outputs, f"ticket-{percentile}-1-0", 1 - percentile / 100, stamp=f"{percentile}")
    study, chosen = report.judge(report_options.Options(sweep=str(sweep.folder)))
    panels = latencies.panels(deployment.collect(study, chosen).latencies)
    text = latencies.summary(panels, chosen.winner)
    browser = next(line for line in latencies.shown(panels) if line.label == "browser")
    assert "With 5 % of its weights the winning ticket has 9 % of the dense network's" in text
    assert "in theory it is 11.1 times as fast" in text
    assert f"{browser.dots[-1].speedup:.3g} times (browser)" in text
    assert "Measured in float32, batch 1: " in text
    flat = " ".join(printed(sweep).split())
    assert text in flat
    assert "latency.png" in flat


def test_without_the_winners_latency_the_sparsest_ticket_is_spoken_of(sweep: Sweep) -> None:
    outputs = seeded(sweep, (30, 50, 80))
    for percentile in (30, 50):
        exported(outputs, f"ticket-{percentile}-1-0", 1 - percentile / 100, stamp=f"{percentile}")
    assert "With 50 % of its weights the ticket has 54 %" in " ".join(printed(sweep).split())


# What is written


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on a study with transfers to two data sets, benchmarks and a damaged file."""
    sweep = Sweep(tmp_path_factory.mktemp("deployed"))
    outputs = seeded(sweep, (50, 80, 95), 3)
    for seed in range(3):
        for percentile in (80, 95):
            moved(outputs, f"ticket-{percentile}-1-{seed}", top1=0.7 + seed / 100,
                  density=1 - percentile / 100,
                  stamp=f"2026-01-01_12-00-00/{seed}{percentile}")  # fmt: skip
    moved(outputs, "ticket-95-1-0", stamp="2026-01-02_12-00-00", missing="dense",
          data=("<i>cifar100</i>", [f"class {n}" for n in range(100)]))  # fmt: skip
    for percentile in (50, 80, 95):
        exported(outputs, f"ticket-{percentile}-1-0", 1 - percentile / 100, stamp=f"{percentile}")
    damaged = outputs / "export" / "damaged"
    damaged.mkdir()
    (damaged / "benchmark.json").write_text("{")
    return reported(sweep.folder, pictures=True)


def test_tables_and_pictures_are_written(deployed: Path) -> None:
    table = rows(deployed, "transfers")
    assert len(table) == 7 * len(TITLES)
    assert parquet.read_table(deployed / "transfers.parquet").num_rows == len(table)
    (gone,) = (row for row in table if row["missing"])
    assert (gone["run"], gone["val_top1"], gone["missing"]) == ("dense", "", "its parent is gone")
    own = next(
        r for r in table if (r["run"], r["seed"], r["percentile"]) == ("ticket", "1", "80.0")
    )
    assert float(own["val_top1"]) == pytest.approx(0.71)
    times = rows(deployed, "latencies")
    assert len(times) == 3 * 24
    assert parquet.read_table(deployed / "latencies.parquet").num_rows == len(times)
    assert {float(r["multiply_adds_left"]) for r in times} == {0.54, 0.24, 0.09}
    first = times[0]
    assert float(first["dense_low_ms"]) < float(first["dense_median_ms"])
    assert (deployed / "latency.png").stat().st_size > 10_000
    assert (deployed / "latency.svg").exists()
    page = (deployed / "report.html").read_text()
    assert "transfers.csv" in page
    assert re.search(r"left out: [^ ]*/benchmark.json is damaged: ", page)


def test_nothing_is_written_of_a_study_that_stayed_at_home(sweep: Sweep) -> None:
    seeded(sweep)
    output = reported(sweep.folder)
    assert not {p.stem for p in output.iterdir()} & {"transfers", "latencies", "latency"}
    page = (output / "report.html").read_text()
    assert "<h2>Transfer" not in page
    assert "<h2>Latency" not in page


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_shows_them_in_a_browser(deployed: Path, width: int) -> None:
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("no chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    complaints: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": 900})
        tab.on("console", lambda m: complaints.append(m.text))
        tab.on("pageerror", lambda e: complaints.append(str(e)))
        tab.goto((deployed / "report.html").as_uri())
        tab.wait_for_selector("#latency svg.main-svg", state="attached")
        dots = "#latency .scatterlayer .point"
        assert tab.locator(dots).count() == 4 * (1 + 3)
        assert tab.locator("#latency .legendtext").count() == 5
        heads = tab.locator("section h2").all_inner_texts()
        assert "Transfer to digits [4, 5, 6, 7, 8, 9]" in heads
        assert "Transfer to <i>cifar100</i> (100 classes)" in heads
        title = "Transfer to digits"
        section = tab.locator("section", has=tab.get_by_role("heading", name=title))
        assert section.locator("table").count() == 2
        assert section.locator("tr.winner").first.inner_text().split("\t")[1] == "71.00 ± 1.00"
        before = tab.locator("#latency .ytick text").all_text_contents()
        tab.select_option("#speed", "int8, batch 32")
        tab.wait_for_timeout(200)
        assert tab.locator(dots).count() == 4 * (1 + 3)
        after = tab.locator("#latency .ytick text").all_text_contents()
        assert "1" in before
        assert "1000" in after  # this group's ticks are there, too
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.locator(dots).nth(1).scroll_into_view_if_needed()
        box = tab.locator(dots).nth(1).bounding_box()
        tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.wait_for_selector("#run[open]")
        assert "mask.percentile: 50" in tab.inner_text("#run-config")
        browser.close()
    assert complaints == []


# The winner's ticket file


def test_the_winner_leaves_as_a_file(real_sweep: Path, tmp_path: Path) -> None:
    process = run("report.py", f"sweep={real_sweep}", f"output={tmp_path}", "tolerance=100",
                  "logger.mode=disabled")  # fmt: skip
    assert process.returncode == 0, process.stderr
    winner = json.loads((tmp_path / "winning_ticket.json").read_text())["winner"]
    assert winner["ticket_file"] == str(tmp_path / "winning_ticket.safetensors")
    assert winner["seed"] == 0
    assert tickets.load_ticket(tmp_path).key == winner["runs"][0]["ticket"]
    assert " winning_ticket.safetensors " in process.stdout
    assert 'href="winning_ticket.safetensors"' in (tmp_path / "report.html").read_text()


def test_without_the_store_the_jobs_own_file_is_taken(
    real_sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "write", lambda *_: [])  # they take seconds
    outputs = tmp_path / "outputs"
    shutil.copytree(real_sweep, outputs)
    for path in outputs.glob("*/result.json"):
        path.write_text(path.read_text().replace(str(real_sweep.parents[1] / "store"), "/gone"))
    plan = outputs / "sweep.json"
    plan.write_text(plan.read_text().replace(str(real_sweep.parents[1] / "store"), "/gone"))

    def verdict() -> dict[str, Any]:
        options = report_options.Options(
            str(outputs), tolerance=100, logger=report_options.Wandb("disabled")
        )
        report.main(OmegaConf.structured(options))
        about: dict[str, Any] = json.loads(
            (outputs / "report-tolerance-100/winning_ticket.json").read_text()
        )
        return about

    winner = verdict()["winner"]
    assert tickets.read(Path(winner["ticket_file"])).key == winner["runs"][0]["ticket"]
    own = Path(winner["runs"][0]["folder"]) / tickets.FILE
    other = next(p for p in outputs.glob(f"*/{tickets.FILE}") if p != own)
    shutil.copy(other, own)
    about = verdict()
    assert (about["winner"]["ticket_file"], about["winner"]["seed"]) == (None, None)
    assert "is of another run" in about["notes"][-1]
    assert not (
        outputs / "report-tolerance-100/winning_ticket.safetensors"
    ).exists()  # the one of before
    own.unlink()
    assert "the store has no /gone/ticket/" in verdict()["notes"][-1]
