"""report.py: what it collects, whom it declares the winner, and what it writes."""

import copy
import csv
import dataclasses
import functools
import io
import itertools
import json
import shlex
import shutil
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import wandb_workspaces.workspaces
import yaml
from conftest import THOROUGH, composed, run
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pyarrow import parquet

from lottery import files, tensors
from lottery.analysis import (
    collect,
    configs,
    grids,
    layers,
    overrides,
    plots,
    report,
    report_options,
    selection,
    table,
    tables,
    ticket,
    workspace,
)
from lottery.analysis.collect import Cell
from lottery.errors import LotteryError
from lottery.points import Point

EXAMPLES = 10_000
LAYERS = {"conv/kernel": {"size": 400, "kept": 0}, "classifier/kernel": {"size": 600, "kept": 0}}


def outcome(val: float, test: float = 0.5, seconds: float = 90.0) -> dict[str, Any]:
    """The results of one run, as the store has them."""
    return {
        "val_loss": 1.0, "val_top1": round(val * EXAMPLES) / EXAMPLES, "val_top5": 0.9,
        "test_loss": 1.0, "test_top1": test, "test_top5": 0.9,
        "val_examples": EXAMPLES, "test_examples": EXAMPLES,
        "val_majority": EXAMPLES // 100, "classes": 100, "val_images": "01ab",
        "epochs": 2, "seconds": seconds, "images_per_second": 1000.0,
    }  # fmt: skip


def answers(result: dict[str, Any]) -> dict[str, np.ndarray]:
    """Networks fail on the same images, as far as they fail on as many."""
    named = {"validation": "val", "test": "test"}
    hits = {split: round(result[f"{s}_top1"] * EXAMPLES) for split, s in named.items()}
    return {split: np.arange(EXAMPLES) < count for split, count in hits.items()}


def mask_of(percentile: float) -> dict[str, Any]:
    kept = 1000 - int(10 * percentile)
    return {
        "percentile": percentile, "prunable": 1000, "kept": kept, "density": kept / 1000,
        "total_parameters": 1100, "density_of_all": (kept + 100) / 1100,
        "layers": {n: {**c, "kept": int(c["size"] * kept / 1000)} for n, c in LAYERS.items()},
    }  # fmt: skip


@functools.cache
def plain(model: str) -> Any:
    config = OmegaConf.structured(composed(f"model={model}", "logger=csv"))
    return OmegaConf.to_container(config, resolve=True)


def configured(model: str, options: dict[str, Any]) -> dict[str, Any]:
    """A config with options by their dotted names, without OmegaConf, which takes a while."""
    config: dict[str, Any] = copy.deepcopy(plain(model))
    for name, value in options.items():
        *groups, option = name.split(".")
        group = functools.reduce(dict.__getitem__, groups, config)
        group[option] = float(value) if isinstance(group.get(option), float) else value
    return config


class Sweep:
    """A sweep's folder and store, written file by file as prune.py writes them."""

    def __init__(self, root: Path, plan: bool = True) -> None:
        self.folder, self.store, self.plan = root / "prune" / "sweep", root / "store", plan
        self.cells: list[dict[str, Any]] = []
        self.folder.mkdir(parents=True)
        (self.store / "leases").mkdir(parents=True)
        files.write_json(self.store / "store.json", {"version": 1})

    def add(
        self,
        percentile: float,
        epoch: int,
        val: float | None = None,
        *,
        dense: float = 0.9,
        seed: int = 0,
        status: str = "done",
        result: bool = True,
        stored: bool = True,
        test: float = 0.5,
        error: str | None = None,
        rival: str = "dense",
        **options: Any,
    ) -> Path:
        """One cell; without ``val`` it has no result."""
        number = len(self.cells)
        swept = {"mask.percentile": percentile, "rewind.epoch": epoch, "seed": seed, **options}
        overrides = [f"{k}={v}" for k, v in swept.items()]
        name = "-".join(str(v) for v in swept.values())
        keys = {"dense": f"{rival}-{seed}", "ticket": f"ticket-{name}"}
        self.cells.append({"num": number, "overrides": overrides, **keys})
        if self.plan:
            about = {"version": 2, "study": "prune", "script": "prune.py",
                     "typed": ["model=lenet_300_100"], "revision": "0123456789ab-dirty",
                     "store": str(self.store), "cells": self.cells, "plan": {}}  # fmt: skip
            files.write_json(self.folder / "sweep.json", about)
        folder = self.folder / str(number)
        if status == "missing" and val is None:
            return folder
        (folder / ".hydra").mkdir(parents=True)
        typed = ["model=lenet_300_100", *overrides]
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(typed))
        config = configured(str(swept.pop("model", "lenet_300_100")), swept)
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        about = {"status": status, "started": 1.0, "updated": 2.0}
        files.write_json(folder / "status.json", about | ({"error": error} if error else {}))
        if val is None:
            return folder
        mask = mask_of(percentile)
        runs = {"dense": outcome(dense), "ticket": outcome(val, test)}
        if stored:
            for kind, first in (("dense", 0), ("ticket", epoch)):
                path = self.store / kind / keys[kind]
                path.mkdir(parents=True, exist_ok=True)
                rewind = {k: v for k, v in (("epoch", epoch), ("name", options.get("rewind.name")))
                          if v is not None}  # fmt: skip
                identity = {"dense": keys["dense"], "mask": "m", "rewind": rewind}
                files.write_json(path / "done.json", {"key": keys[kind], "identity": identity})
                files.write_json(path / "result.json", runs[kind])
                files.write_json(path / "config.json", config)
                tensors.write_booleans(path / "correct.safetensors", answers(runs[kind]))
                rows = ["epoch,loss,val_top1,input_wait,gpu_utilisation"]
                final = runs[kind]["val_top1"]
                rows += [f"{e + 1},1.0,{final},0.02," for e in range(first, 2)]
                (path / "metrics.csv").write_text("\n".join(rows) + "\n")
            files.write_json(self.store / "ticket" / keys["ticket"] / "mask.json", mask)
        if result:
            files.write_json(folder / "result.json", {
                "study": "prune", "version": 2, "doubt": None, "level": 0.05,
                "interval": [-1.0, 1.0], "shown": True,
                **{kind: {"key": keys[kind], **runs[kind]} for kind in runs},
                "mask": mask, "rewind": {"name": "weights", "epoch": epoch, "optimizer": "restore"},
                "matched": True, "tolerance": 1.0, "store": str(self.store),
            })  # fmt: skip
        return folder

    def choose(self, override: str) -> None:
        """Say that the last cell was asked for with a choice of a whole group too."""
        self.cells[-1]["overrides"].append(override)
        about = json.loads((self.folder / "sweep.json").read_text())
        files.write_json(self.folder / "sweep.json", about | {"cells": self.cells})
        typed = self.folder / str(self.cells[-1]["num"]) / ".hydra" / "overrides.yaml"
        if typed.exists():
            typed.write_text(yaml.safe_dump([*yaml.safe_load(typed.read_text()), override]))


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def reported(folder: Path, mode: str = "disabled", pictures: bool = THOROUGH) -> Path:
    """The folder of a report on a sweep, made in this process; its pictures take seconds."""
    options = report_options.Options(sweep=str(folder), logger=report_options.Wandb(mode=mode))
    with pytest.MonkeyPatch.context() as patch:
        if not pictures:
            patch.setattr(plots, "write", lambda *_: [])
        report.main(OmegaConf.structured(options))
    return folder / "report"


def verdict(folder: Path, **told: Any) -> dict[str, Any]:
    """The content of winning_ticket.json, without the pictures, which take seconds."""
    return ticket.verdict(*report.judge(report_options.Options(sweep=str(folder), **told)))


def printed(folder: Path) -> str:
    """What a report on a sweep prints."""
    console = table.terminal(width=200, record=True, file=io.StringIO())
    judged = report.judge(report_options.Options(sweep=str(folder)))
    tables.show(*judged, console)
    tables.show_end(*judged, [Path("page")], console)
    return console.export_text()


def rows(folder: Path, name: str = "cells") -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# Collecting


def test_a_real_sweep_is_reported(real_sweep: Path, tmp_path: Path) -> None:
    before = set(Path.cwd().iterdir())
    process = run(
        "report.py", f"sweep={real_sweep}", f"output={tmp_path}", "tolerance=100",
        "table=latex,markdown", "table.columns=n,test",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert set(Path.cwd().iterdir()) == before  # nothing of Hydra's lies about
    names = {path.name for path in tmp_path.iterdir()}
    drawn = "accuracy", "accuracy_test", "heatmap", "layers", "curves", "cost"
    near = {path.stem for path in tmp_path.glob("*_near_dense.png")}
    pictures = {f"{name}.{suffix}" for name in (*drawn, *near) for suffix in ("png", "svg")}
    assert names == pictures | {
        "cells.csv", "cells.parquet", "grid.csv", "grid.parquet", "layers.csv", "layers.parquet",
        "report.html", "table_cells.tex", "table_cells.md",
        "winning_ticket.json", "winning_ticket.safetensors", "wandb_workspace.json",
    }  # fmt: skip
    results = {f.name: json.loads((f / "result.json").read_text())
               for f in real_sweep.iterdir() if f.name.isdecimal()}  # fmt: skip
    cells = parquet.read_table(tmp_path / "cells.parquet").to_pylist()
    assert {r["cell"]: r["val_top1"] for r in cells} == {
        n: r["ticket"]["val_top1"] for n, r in results.items()
    }
    winner = json.loads((tmp_path / "winning_ticket.json").read_text())["winner"]
    assert winner["percentile"] == 80
    own = results[winner["runs"][0]["cell"]]
    assert winner["runs"][0]["ticket"] == own["ticket"]["key"]
    assert winner["test_top1"]["values"] == [100 * own["ticket"]["test_top1"]]
    for result in results.values():
        assert f"{100 * result['ticket']['val_top1']:.2f}" in process.stdout
    assert process.stdout.rstrip().endswith(f"report: {tmp_path / 'report.html'}")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["sweep", "store"])
def test_the_printed_command_repeats_the_winner(
    real_sweep: Path, tmp_path: Path, source: str
) -> None:
    store = real_sweep.parents[1] / "store"
    told = {"sweep": real_sweep, "store": store}[source]
    process = run(
        "report.py", f"{source}={told}", f"output={tmp_path}", "tolerance=100",
        "logger.mode=disabled",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    winner = json.loads((tmp_path / "winning_ticket.json").read_text())["winner"]
    python, script, *arguments = shlex.split(winner["command"])
    assert (python, script) == ("python", "prune.py")
    again = run(script, *arguments)
    assert again.returncode == 0, again.stderr
    assert "training" not in again.stdout  # the store has it: it is the same run
    result = Path(again.stdout.rstrip().rpartition("result: ")[2])
    assert json.loads(result.read_text())["ticket"]["key"] == winner["runs"][0]["ticket"]


def test_nothing_is_lost_of_an_unfinished_sweep(sweep: Sweep) -> None:
    sweep.add(50, 0, 0.9)
    sweep.add(50, 1, status="failed", error="the loss is no longer a finite number")
    sweep.add(80, 0, status="running")
    sweep.add(80, 1, status="missing")
    sweep.add(90, 0, 0.8)
    output, text = reported(sweep.folder), printed(sweep.folder)
    assert [r["status"] for r in rows(output)] == [
        "done", "failed", "running", "missing", "done",
    ]  # fmt: skip
    assert verdict(sweep.folder)["cells"] == {"done": 2, "all": 5, "not_needed": 0}
    assert "the loss is no longer a finite number" in text
    assert "5 cells: 2 done, 1 running, 1 failed, 1 missing" in text
    grid = [line.split() for line in text.splitlines() if "%" in line][:3]
    assert [line[-2:] for line in grid] == [["*90.00", "x"], ["…", "·"], ["80.00", "·"]]
    page = (output / "report.html").read_text()
    assert "the loss is no longer a finite number" in page


def test_a_grid_wider_than_the_terminal_is_shown_whole(sweep: Sweep) -> None:
    for epoch in range(28):
        sweep.add(50, epoch, 0.5 + epoch / 100)
    (row,) = (line.split() for line in printed(sweep.folder).splitlines() if "50 %  " in line)
    assert [v.strip("*") for v in row[4:]] == [f"{50 + epoch}.00" for epoch in range(28)]


def test_a_cell_that_never_began_has_its_place_in_the_grid(sweep: Sweep) -> None:
    sweep.add(50, 0, 0.9)
    sweep.add(80, 1, status="missing")
    cell = collect.from_sweep(sweep.folder).cells[1]
    assert (cell.percentile, cell.rewound, cell.status) == (80, Point(1), "missing")
    assert cell.config["model.name"] == "lenet_300_100"
    assert cell.overrides[0] == "model=lenet_300_100"


def test_a_ticket_in_the_store_counts_though_its_job_left_nothing(sweep: Sweep) -> None:
    folder = sweep.add(50, 0, 0.9, result=False, status="queued")
    cell = collect.from_sweep(sweep.folder).cells[0]
    assert cell.done
    assert cell.ticket is not None
    assert cell.ticket["val_top1"] == 0.9
    shutil.rmtree(folder)
    assert collect.from_sweep(sweep.folder).cells[0].done


def test_the_result_of_an_earlier_sweep_in_the_folder_does_not_count(sweep: Sweep) -> None:
    folder = sweep.add(50, 0, 0.9, stored=False)
    result = json.loads((folder / "result.json").read_text())
    result["ticket"]["key"] = "another"
    files.write_json(folder / "result.json", result)
    study = collect.from_sweep(sweep.folder)
    assert not study.cells[0].done
    assert "of another run than planned" in study.notes[0]


def test_a_damaged_result_is_noted(sweep: Sweep) -> None:
    folder = sweep.add(50, 0, 0.9, stored=False)
    (folder / "result.json").write_text('{"dense": ')
    study = collect.from_sweep(sweep.folder)
    assert not study.cells[0].done
    assert "is damaged" in study.notes[0]


def test_an_old_sweep_without_a_plan_is_read_from_its_folders(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, plan=False)
    for percentile in range(50, 61):  # eleven: 10 comes after 9
        sweep.add(percentile, 0, 0.9)
    study = collect.from_sweep(sweep.folder)
    assert [c.percentile for c in study.cells] == list(range(50, 61))
    assert "no sweep.json" in study.notes[0]


@pytest.mark.parametrize(
    ("study", "script", "message"),
    [
        ("train", "train.py", "is a sweep of train.py: dense networks, no tickets$"),
        ("transfer", "transfer.py", "is a sweep of transfer.py: its tickets' own sweep shows them: "
                                    "report.py sweep=<the sweep that found the tickets>$"),
        ("another", "mine.py", "is a sweep of mine.py: no cell has a mask.percentile$"),
    ],
)  # fmt: skip
def test_a_sweep_of_another_script_is_said(
    tmp_path: Path, study: str, script: str, message: str
) -> None:
    cells = [{"num": n, "overrides": [f"seed={n}"], "dense": "a", "ticket": None} for n in (0, 1)]
    files.write_json(
        tmp_path / "sweep.json",
        {"study": study, "script": script, "store": str(tmp_path), "cells": cells},
    )
    for name, left in (("0", {"ticket": {"key": "a"}, "runs": [], "store": ""}), ("1", ["a"])):
        (tmp_path / name).mkdir()
        files.write_json(tmp_path / name / "status.json", {"status": "done"})
        files.write_json(tmp_path / name / "result.json", left)
    with pytest.raises(LotteryError, match=message) as caught:
        collect.from_sweep(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_result_that_is_not_of_prune_is_no_result(sweep: Sweep) -> None:
    sweep.add(50, 0, 0.9)
    folder = sweep.add(80, 0, 0.9, stored=False)
    files.write_json(folder / "result.json", {"ticket": {"key": "ticket-80-0-0"}, "runs": []})
    study = collect.from_sweep(sweep.folder)
    assert [cell.status for cell in study.cells] == ["done", "failed"]
    assert "left no ticket's result" in str(study.cells[1].error)


def test_curves_survive_the_loss_of_the_store(sweep: Sweep) -> None:
    folder = sweep.add(50, 0, 0.9)
    shutil.rmtree(sweep.store)
    (folder / "metrics.csv").write_text(
        "run,epoch,val_top1,gpu_utilisation\ndense,1,0.5,\nticket,1,0.6,\nticket,2,0.7,\n"
    )
    cell = collect.from_sweep(sweep.folder).cells[0]
    assert [r["val_top1"] for r in cell.curve("ticket")] == [0.6, 0.7]
    assert cell.curve("dense") == [{"epoch": 1.0, "val_top1": 0.5}]


def test_a_round_on_the_way_is_the_ticket_it_is_not_the_one_asked_for(sweep: Sweep) -> None:
    """Iterative rounds carry the config of the study that asked: its final percentile, control."""
    sweep.add(50, 1, 0.9, **{"mask.rate": 20.0, "rewind.name": "reinit", "mask.shuffle": True})
    (run_folder,) = (sweep.store / "ticket").iterdir()
    files.write_json(run_folder / "mask.json", mask_of(36.0))
    about = json.loads((run_folder / "done.json").read_text())
    about["identity"]["rewind"] = {"name": "weights", "point": "1ep"}
    files.write_json(run_folder / "done.json", about)
    defaults = configs.flat(dataclasses.asdict(composed()))
    (cell,) = collect.from_store(sweep.store, defaults).cells
    assert (cell.percentile, cell.rewound, cell.control) == (36.0, Point(1), False)
    assert cell.config["rewind.name"] == "weights"
    assert "mask.percentile=36.0" in cell.overrides
    assert "mask.rate=20.0" in cell.overrides
    assert not any(o.startswith(("mask.shuffle", "rewind.name")) for o in cell.overrides)


def test_what_is_not_rewound_has_no_point_and_is_no_control(sweep: Sweep) -> None:
    """A mask that changes begins with the weights of the dense network, whatever rewind says."""
    changing = {"mask.during": {"name": "gradual"}, "mask.score": {"name": "magnitude"}}
    sweep.add(80, 1, 0.9, **changing, **{"rewind.name": "reinit"})
    (about,) = (sweep.store / "ticket").glob("*/done.json")
    identity = {"dense": "dense-0", "mask": None, "during": {"name": "gradual"}}
    files.write_json(about, {"key": about.parent.name, "identity": identity})
    sweep.add(80, 1, 0.9, **{"rewind.name": "signs"})
    defaults = configs.flat(dataclasses.asdict(composed()))
    in_store = collect.from_store(sweep.store, defaults).cells
    for cell in (*collect.from_sweep(sweep.folder).cells, *in_store):
        gradual = cell.config.get("mask.during.name") is not None
        assert cell.rewound is None
        assert cell.control == (not gradual)
        assert cell.config.get("rewind.name") == (None if gradual else "signs")
        assert not any("reinit" in o for o in cell.overrides) or cell not in in_store
    sweep.add(80, 1, 0.9)
    study = collect.from_sweep(sweep.folder)
    series = {
        "method=gradual",
        *(f"method=magnitude, rewind.name={n}" for n in ("signs", "weights")),
    }
    assert {study.series(cell) for cell in study.cells} == series
    # Each series has one start, so they are rows of one table.
    rows = [line.strip() for line in printed(sweep.folder).splitlines() if "method=" in line]
    ours = "method=magnitude, rewind.name="
    beginnings = ["method=gradual", f"{ours}signs", f"{ours}weights, rewound to 1"]
    assert [row.rpartition(" ")[0].strip() for row in rows[:3]] == beginnings
    assert "by weights pruned" in printed(sweep.folder)
    sweep.add(80, 2, 0.9)
    headings = [
        line.split()[3:] for line in printed(sweep.folder).splitlines() if " pruned " in line
    ]
    assert headings == [["afresh"], ["afresh"], ["1", "2"]]


def test_what_each_layer_keeps_is_told_series_by_series(sweep: Sweep) -> None:
    for score, percentile in itertools.product(("magnitude", "taylor"), (80, 90)):
        sweep.add(percentile, 1, 0.9, **{"mask.score": {"name": score}})
    shown = printed(sweep.folder)
    heading = shown.index("weights left by layer in percent, 90 % pruned")
    told = [line.split() for line in shown[heading:].splitlines() if "method=" in line][:2]
    assert [(line[0], *line[-2:]) for line in told] == [
        ("method=magnitude,", "10", "10"), ("method=taylor,", "10", "10"),
    ]  # fmt: skip
    found = layers.rows(selected(sweep))
    assert {(r["series"], r["percentile"]) for r in found} == {
        (f"method={score}", percentile)
        for score, percentile in itertools.product(("magnitude", "taylor"), (80.0, 90.0))
    }


def test_of_many_layers_those_that_keep_least_and_most_are_said() -> None:
    counts = {f"layer_{n}/kernel": {"size": 200, "kept": 2 * n} for n in range(1, 14)}
    assert layers.sentence({"layers": counts}) == (
        "weights left by layer: from 1 % (layer_1) to 13 % (layer_13), 13 layers"
    )
    few = dict(list(counts.items())[:2])
    assert layers.sentence({"layers": few}) == "weights left by layer: layer_1 1 %, layer_2 2 %"
    assert layers.sentence(None) is None


def test_series_with_other_dense_networks_have_tables_of_their_own(sweep: Sweep) -> None:
    for rate in 0.1, 0.2:
        sweep.add(80, 1, 0.9, **{"optimizer.learning_rate": rate})
    one = grids.grids(selected(sweep))
    assert [(grid.of_series, grid.rows) for grid in one] == [
        (False, tuple(f"optimizer.learning_rate={r}, rewound to 1" for r in (0.1, 0.2)))
    ]
    sweep.add(80, 1, 0.9, rival="other", **{"optimizer.learning_rate": 0.4})
    several = grids.grids(selected(sweep))
    assert [(grid.of_series, grid.columns) for grid in several] == [(True, ("1",))] * 3


def test_a_choice_that_has_not_begun_is_not_described_by_another(sweep: Sweep) -> None:
    for name in ("magnitude", "snip"):
        for percentile in (50, 80):
            begun = (name, percentile) != ("snip", 80)
            options = {"mask.score": {"name": name}} if begun else {}
            sweep.add(percentile, 0, 0.9 if begun else None, status="done" if begun else "missing",
                      **options)  # fmt: skip
            sweep.choose(f"mask={name}")
    sweep.add(80, 0, status="missing", **{"mask.rate": 20})
    sweep.choose("mask=taylor")
    cells = collect.from_sweep(sweep.folder).cells
    late = "snip, at the end"
    methods = ["magnitude", "magnitude", late, late, "taylor"]
    assert [cell.config["method"] for cell in cells] == methods
    assert [cell.percentile for cell in cells] == [50, 80, 50, 80, 80]
    assert cells[3].config["mask.score.name"] == "snip"
    assert "mask.score.name" not in cells[4].config
    assert cells[4].config["mask.rate"] == 20


def test_points_are_ordered_by_the_steps_behind_them(sweep: Sweep) -> None:
    sweep.add(80, 1, 0.9)
    sweep.add(80, 5, 0.9, **{"rewind.step": 2000})
    sweep.add(80, 5, **{"rewind.step": 3}, status="missing")
    for path in (sweep.store / "dense").iterdir():
        files.write_json(path / "network.json", {"steps_per_epoch": 400})
    found = selection.points(collect.from_sweep(sweep.folder))
    assert [p.rewound for p in found] == [Point(0, 3), Point(1), Point(5)]
    for path in (sweep.store / "dense").iterdir():
        (path / "network.json").unlink()
    assert Point(0, 2000) in {cell.rewound for cell in collect.from_sweep(sweep.folder).cells}


def test_series_are_told_apart_by_the_fewest_options(sweep: Sweep) -> None:
    for name in ("lenet_300_100", "mobilenet_v2_small"):
        sweep.add(50, 0, 0.9, model=name)
    assert collect.from_sweep(sweep.folder).varied == ("model.name",)


def test_where_keeps_what_matches(sweep: Sweep) -> None:
    for percentile in (50, 80, 90):
        for seed in (0, 1):
            sweep.add(percentile, 0, 0.9, seed=seed)
    study = collect.from_sweep(sweep.folder)
    kept = collect.where(study, {"seed": 1, "mask.percentile": [50, 90]}).cells
    assert [(c.percentile, c.seed) for c in kept] == [(50, 1), (90, 1)]
    with pytest.raises(LotteryError, match=r"seeed is unknown; did you mean seed"):
        collect.where(study, {"seeed": 1})
    with pytest.raises(LotteryError, match=r"no cell has seed=7 \(there are 0, 1\)"):
        collect.where(study, {"seed": 7})


# Selecting

settings.register_profile("report", deadline=None)  # the first test imports SciPy
settings.load_profile("report")
ACCURACY = st.integers(0, EXAMPLES).map(lambda n: n / EXAMPLES)


def cell(percentile: float, epoch: int, seed: int, val: float, dense: float, test: float) -> Cell:
    config = {"mask.percentile": percentile, "rewind.epoch": epoch, "seed": seed}
    return Cell(
        f"{percentile}-{epoch}-{seed}", "done", config,
        dense={"key": str(seed), **outcome(dense, test)},
        ticket={"key": "t", **outcome(val, test)}, mask=mask_of(percentile),
    )  # fmt: skip


@st.composite
def studies(draw: st.DrawFn, seeds: int | None = None) -> list[Cell]:
    """Grids of a few cells with one to three seeds; near dense, so that some match."""
    count = seeds or draw(st.integers(1, 3))
    dense = [draw(st.integers(8900, 9100)) / EXAMPLES for _ in range(count)]
    return [
        cell(p, e, s, dense[s] + draw(st.integers(-250, 100)) / EXAMPLES, dense[s], draw(ACCURACY))
        for p in draw(st.lists(st.sampled_from([50.0, 80.0, 90.0, 95.0]), unique=True, min_size=1))
        for e in draw(st.lists(st.integers(0, 3), unique=True, min_size=1))
        for s in range(count)
    ]


def selected(sweep: Sweep) -> selection.Selection:
    return selection.select(selection.points(collect.from_sweep(sweep.folder)), 1.0, 0.05)


def chosen(cells: list[Cell], tolerance: float = 1.0, level: float = 0.05) -> selection.Selection:
    study = collect.Study(Path(), tuple(cells))
    return selection.select(selection.points(study), tolerance, level)


def where(judged: selection.Judged | None) -> tuple[float, int | None] | None:
    if judged is None:
        return None
    at = judged.point.rewound
    return judged.point.percentile, at and at.epochs


@given(studies(), st.randoms())
def test_test_data_decide_nothing(cells: list[Cell], random: Any) -> None:
    values = [c.ticket["test_top1"] for c in cells if c.ticket]
    random.shuffle(values)
    swapped = [
        dataclasses.replace(
            c, ticket={**(c.ticket or {}), "test_top1": v, "test_top5": v, "test_loss": -v},
            dense={**(c.dense or {}), "test_top1": 1 - v},
        )
        for c, v in zip(cells, values, strict=True)
    ]  # fmt: skip
    before, after = chosen(cells), chosen(swapped)
    assert where(before.winner) == where(after.winner)
    assert where(before.nearest) == where(after.nearest)
    assert [j.comparison for j in before.judged] == [j.comparison for j in after.judged]


@given(studies())
def test_the_sparsest_that_matches_wins(cells: list[Cell]) -> None:
    found = chosen(cells)
    matching = [j.point.percentile for j in found.judged if j.matches]
    if matching:
        assert found.winner is not None
        assert found.winner.matches
        assert found.winner.point.percentile == max(matching)
        assert found.reason is None
    else:
        assert found.winner is None
        assert found.reason
        assert found.nearest is not None


@given(studies(), st.randoms())
def test_the_order_of_the_cells_does_not_matter(cells: list[Cell], random: Any) -> None:
    shuffled = list(cells)
    random.shuffle(shuffled)
    before, after = chosen(cells), chosen(shuffled)
    assert before == after


@given(studies(seeds=1))
def test_an_untested_mean_is_compared_in_whole_examples(cells: list[Cell]) -> None:
    found = selection.select(selection.points(collect._study(Path("sweep"), cells)), 1.0, None)
    for judged in found.judged:
        (one,) = judged.point.done
        assert one.dense is not None
        assert one.ticket is not None
        assert judged.comparison is not None
        lost = round(EXAMPLES * one.dense["val_top1"]) - round(EXAMPLES * one.ticket["val_top1"])
        assert judged.comparison.passes == (lost <= EXAMPLES // 100)


@pytest.mark.parametrize("dense", [0.9, 0.57, 0.29, 0.03])
def test_exactly_the_tolerance_below_matches_untested_and_is_never_shown(dense: float) -> None:
    for lost, accepted in ((100, True), (101, False)):
        cells = [cell(50, 0, 0, dense - lost / EXAMPLES, dense, 0.5)]
        found = selection.points(collect._study(Path("sweep"), cells))
        assert (selection.select(found, 1.0, None).winner is not None) == accepted
        assert chosen(cells).winner is None


def test_too_few_seeds_to_be_sure_do_not_win() -> None:
    """Two seeds whose mean is within the tolerance, but whose spread does not exclude more."""
    cells = [cell(90, 0, s, 0.9 + d, 0.9, 0.5) for s, d in enumerate((-0.015, 0.005))]
    found = chosen(cells)
    assert found.winner is None
    assert "shown" in str(found.reason)
    assert where(found.nearest) == (90, 0)


def test_a_cell_with_fewer_seeds_than_others_is_noted_and_cannot_win() -> None:
    cells = [cell(80, 0, s, 0.9 + s / 1000, 0.9, 0.5) for s in range(3)]
    cells += [cell(95, 0, s, 0.9 + s / 1000, 0.9, 0.5) for s in range(2)]
    found = chosen(cells)
    assert where(found.winner) == (80, 0)
    assert [where(j) for j in found.left_out] == [(95, 0)]


def test_controls_are_compared_but_never_win(sweep: Sweep) -> None:
    sweep.add(50, 0, 0.9)
    sweep.add(90, 0, 0.9, **{"mask.shuffle": True})
    sweep.add(95, 0, 0.9, **{"rewind.name": "reinit"})
    found = verdict(sweep.folder)
    assert found["winner"]["percentile"] == 50
    series = found["sparsest_match_by_series"].values()
    assert sorted((s["percentile"], s["control"]) for s in series) == [
        (50, False), (90, True), (95, True),
    ]  # fmt: skip


# The verdict


def test_the_verdict_of_several_seeds_states_its_test(sweep: Sweep) -> None:
    for seed in range(3):
        for percentile, loss in ((50, 0.0), (80, 0.002), (90, 0.03)):
            sweep.add(percentile, 1, 0.9 - loss + seed / 2000, seed=seed, test=0.8)
    found = verdict(sweep.folder)
    winner = found["winner"]
    assert (winner["percentile"], winner["seeds"]) == (80, [0, 1, 2])
    assert winner["test_top1"]["mean"] == pytest.approx(80)
    assert set(winner["neighbours"]) == {"denser", "sparser"}
    assert winner["neighbours"]["sparser"]["passes"] is False
    assert winner["comparison"]["p_value"] < 0.05 < winner["comparison"]["power"]
    assert found["selection"]["level"] == 0.05
    assert "over all cells" in found["selection"]["holds"]
    assert found["selection"]["looks"] == 3
    words = shlex.split(winner["command"])
    assert words[:3] == ["python", "prune.py", "-m"]
    assert {"model=lenet_300_100", "mask.percentile=80", "seed=0,1,2"} <= set(words)
    assert found["revision"] == "0123456789ab-dirty"


def test_one_seed_has_an_interval_by_images_and_is_about_its_ticket(sweep: Sweep) -> None:
    sweep.add(50, 0, 0.899)
    found = verdict(sweep.folder)
    assert found["selection"]["about"] == "that very ticket"
    assert "about that very ticket" in printed(sweep.folder)
    compared = found["winner"]["comparison"]
    assert compared["paired_by_image"] is True
    assert compared["interval"] == pytest.approx([-0.167, -0.06], abs=0.005)
    assert compared["p_value"] < 0.01
    assert compared["sd"] is None


def test_answers_that_are_gone_or_damaged_are_not_needed(sweep: Sweep) -> None:
    sweep.add(50, 0, 0.899)
    kept = next(sweep.store.glob("ticket/*/correct.safetensors"))
    kept.write_bytes(b"damaged")
    assert verdict(sweep.folder, level=0.5)["winner"]["comparison"]["paired_by_image"] is False
    kept.unlink()
    assert verdict(sweep.folder, level=0.5)["winner"]["comparison"]["paired_by_image"] is False


def test_a_tolerance_of_nothing_is_one(sweep: Sweep) -> None:
    sweep.add(50, 0, 0.899, **{"verdict.tolerance": 0.0})
    found = verdict(sweep.folder)
    assert found["selection"]["tolerance_points"] == 0
    assert found["winner"] is None


def test_untested_the_mean_decides(sweep: Sweep) -> None:
    sweep.add(50, 0, 0.89)
    assert verdict(sweep.folder)["winner"] is None
    found = verdict(sweep.folder, level="mean")
    assert found["winner"]["percentile"] == 50
    assert found["selection"]["test"] is None


def test_no_winner_says_why_and_names_the_nearest_miss(sweep: Sweep) -> None:
    sweep.add(50, 0, 0.85)
    sweep.add(80, 0, 0.86)
    output = reported(sweep.folder)
    found = json.loads((output / "winning_ticket.json").read_text())
    assert found["winner"] is None
    reason = "no cell is shown to be at most 1 point below dense on validation"
    assert found["reason"] == reason
    assert found["nearest_miss"]["percentile"] == 80
    page = (output / "report.html").read_text()
    for text in (printed(sweep.folder), page):
        assert f"No winning ticket: {reason}" in text
    assert verdict(sweep.folder, tolerance=6.0)["winner"]["percentile"] == 80


def test_a_sweep_that_failed_whole_is_reported(sweep: Sweep) -> None:
    for percentile in (50, 80):
        sweep.add(percentile, 0, status="failed", error="the disk is full")
    output = reported(sweep.folder, pictures=True)
    found = json.loads((output / "winning_ticket.json").read_text())
    assert (found["winner"], found["nearest_miss"]) == (None, None)
    assert found["reason"] == "no cell has a result yet"
    assert "failed (0, 1): the disk is full" in printed(sweep.folder)
    assert [r["error"] for r in rows(output)] == ["the disk is full"] * 2
    assert (output / "report.html").exists()


def test_runs_that_disagree_on_the_tolerance_need_one(sweep: Sweep) -> None:
    sweep.add(50, 0, 0.9, **{"verdict.tolerance": 0.5})
    sweep.add(80, 0, 0.9, **{"verdict.tolerance": 2})
    with pytest.raises(LotteryError, match=r"different tolerances \(0.5, 2\)"):
        verdict(sweep.folder)
    assert verdict(sweep.folder, tolerance=1.0)["winner"]["percentile"] == 80


def test_means_are_over_the_seeds_of_a_point(sweep: Sweep) -> None:
    values = [0.9, 0.905, 0.91]
    for seed, value in enumerate(values):
        sweep.add(50, 0, value, seed=seed, dense=value)
    _, chosen = report.judge(report_options.Options(sweep=str(sweep.folder)))
    (row,) = tables.grid(chosen)
    assert row["val_top1"] == pytest.approx(100 * statistics.fmean(values))
    assert (row["seeds_done"], row["difference"]) == (3, 0.0)


# The command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to report on: sweep=<folder of a sweep>, or store=<run store>"),
        (
            ["sweep={sweep}", "tolerence=1"],
            "option tolerence is unknown; did you mean tolerance or",
        ),
        (["sweep={sweep}", "level=high"], "level=high must be a number, or mean"),
        (["sweep={sweep}", "where={model.nam: x}"], "did you mean model.name"),
        pytest.param(
            ["sweep={sweep}", "logger.mode=online"],
            "the report is written, but W&B did not take",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, sweep: Sweep, arguments: list[str], message: str
) -> None:
    sweep.add(50, 0, 0.9)
    told = [a.replace("{sweep}", str(sweep.folder)) for a in arguments]
    nowhere = str(tmp_path / "nowhere")  # no account
    process = run("report.py", *told, NETRC=nowhere, WANDB_CONFIG_DIR=nowhere)
    assert process.returncode == 1
    assert process.stderr.startswith("error: ")
    assert len(process.stderr.splitlines()) == 1
    assert message in process.stderr


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"sweep": "{sweep}", "store": "x"}, "not both"),
        ({"sweep": "{root}/nowhere"}, "there is no folder"),
        ({"sweep": "{root}"}, r"is no sweep \(no sweep.json, no numbered job folders\)$"),
        ({"sweep": "{sweep}/.."}, "the newest sweep in it is .*/sweep$"),
        ({"sweep": "{sweep}/0"}, "is a single run, not a sweep"),
        ({"sweep": "{root}/store"}, "is a run store, not a sweep: store="),
        ({"sweep": "{sweep}", "level": 0.0}, "level=0 must be > 0 and <= 0.5"),
        ({"sweep": "{sweep}", "level": "high"}, "level=high must be a number, or mean"),
        ({"sweep": "{sweep}", "tolerance": -1.0}, "tolerance=-1 must be >= 0"),
        ({"sweep": "{sweep}", "where": 3}, "where needs options and values"),
        ({"sweep": "a\udcff"}, r"sweep='a\\udcff' is not text in UTF-8"),
        (
            {"sweep": "{sweep}", "logger": report_options.Wandb(mode="on")},
            "logger.mode=on is unknown",
        ),
    ],
)
def test_what_cannot_be_reported_is_said(
    tmp_path: Path, sweep: Sweep, told: dict[str, Any], message: str
) -> None:
    sweep.add(50, 0, 0.9)
    places = {"{root}": str(tmp_path), "{sweep}": str(sweep.folder)}
    for mark, place in places.items():
        told = {k: v.replace(mark, place) if isinstance(v, str) else v for k, v in told.items()}
    with pytest.raises(LotteryError, match=message):
        report.main(OmegaConf.structured(report_options.Options(**told)))


def test_a_folder_that_is_no_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(LotteryError, match="is no run store"):
        collect.from_store(tmp_path, {})


def test_help_imports_nothing_heavy() -> None:
    process = run("report.py", "--help", python=("-X", "importtime"))
    assert "sweep=" in process.stdout
    heavy = ("tensorflow", "numpy", "matplotlib", "plotly", "pyarrow", "scipy", "wandb")
    loaded = {line.rpartition("|")[2].strip().partition(".")[0]
              for line in process.stderr.splitlines()}  # fmt: skip
    assert not loaded & set(heavy)


def test_the_workspace_shows_what_matters(sweep: Sweep) -> None:
    sweep.add(50, 0, 0.9)
    study = collect.from_sweep(sweep.folder)
    path = workspace.write(study, sweep.folder, "lottery", None)
    spec = json.loads(path.read_text())
    sections = spec["section"]["panelBankConfig"]["sections"]
    panels = [p["config"] for s in sections for p in s["panels"]]
    metrics = {m for p in panels for m in p.get("metrics", [])}
    assert {"val_top1", "gpu_utilisation", "images_per_second", "input_wait"} <= metrics
    scatter = next(p for p in panels if p.get("yAxis"))
    assert (scatter["xAxis"], scatter["yAxis"]) == ("summary:mask_density", "summary:val_top1")
    assert scatter["xAxisLogScale"] is True
    assert "dense-0" in json.dumps(spec["section"]["runSets"])


def test_online_sends_the_workspace(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep.add(50, 0, 0.9)
    sent = []

    def save(built: Any) -> Any:
        sent.append(built)
        return SimpleNamespace(url="https://address")

    monkeypatch.setattr(wandb_workspaces.workspaces.Workspace, "save", save)
    address = workspace.send(collect.from_sweep(sweep.folder), "lottery", "team")
    assert address == "https://address"
    assert (sent[0].entity, sent[0].project) == ("team", "lottery")


# The page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two series, several seeds, a hole and a failure."""
    sweep = Sweep(tmp_path_factory.mktemp("page"))
    for seed in range(2):
        for percentile, val in ((50, 0.9), (80, 0.899), (90, 0.6)):
            for epoch in (0, 1):
                for scope in ("global", "layer"):
                    sweep.add(percentile, epoch, val + seed / 5000, seed=seed, dense=0.9,
                              **{"mask.scope": scope})  # fmt: skip
    sweep.add(95, 0, status="failed", error="<script>alert('no')</script>")
    sweep.add(95, 1, status="missing")
    return reported(sweep.folder) / "report.html"


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(page: Path, width: int) -> None:
    """It draws everything, with no network, script error or sideways scrolling; links lead on."""
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("no chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    complaints: list[str] = []
    requests: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": 900})
        tab.on("console", lambda m: complaints.append(m.text))
        tab.on("pageerror", lambda e: complaints.append(str(e)))

        def gate(route: Any) -> None:
            if route.request.url == page.as_uri():
                route.continue_()
            else:
                requests.append(route.request.url)
                route.abort()

        tab.route("**/*", gate)
        tab.goto(page.as_uri())
        plots = "accuracy", "heat-0", "heat-1", "layers", "curves", "minutes", "throughput"
        for name in plots:
            tab.wait_for_selector(f"#{name} svg.main-svg", state="attached")
        marks = {n: tab.locator(f"#{n} .point, #{n} .hm image, #{n} .js-line").count()
                 for n in plots}  # fmt: skip
        assert all(marks.values()), marks
        assert marks["accuracy"] >= 12  # a dot for each point
        assert marks["minutes"] == marks["throughput"] == 24  # and here for each seed
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        for name in plots:  # its drawing fits its card
            box = tab.locator(f"#{name} svg.main-svg").first.bounding_box()
            assert box["width"] <= width - 32

        top = tab.locator("#heat-0 .xtitle, #heat-0 .xtitle tspan").last.bounding_box()["y"]
        labels = [e.bounding_box() for e in tab.locator("#heat-0 .xtick").all()]
        assert all(top >= box["y"] + box["height"] - 4 for box in labels)  # not over them

        links = tab.eval_on_selector_all("a[href]", "all => all.map(a => a.getAttribute('href'))")
        on_disk = {link for link in links if not link.startswith("#")}
        assert {f"../{n}/config.yaml" for n in range(24)} <= on_disk
        assert all((page.parent / link).exists() for link in on_disk)

        tab.locator("#accuracy .scatterlayer .point").first.scroll_into_view_if_needed()
        dot = tab.locator("#accuracy .scatterlayer .point").first.bounding_box()
        tab.mouse.click(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
        tab.wait_for_selector("#run[open]")
        assert "mask.percentile: 50" in tab.inner_text("#run-config")
        assert tab.get_attribute("#run-file", "href").endswith("/config.yaml")
        tab.click("#run-close")
        tab.select_option("#group", index=1)
        assert tab.locator("#curves .js-line").count() > 0
        browser.close()
    assert complaints == []
    assert requests == []


def test_the_command_is_quoted_for_the_shell() -> None:
    one = cell(50, 0, 0, 0.9, 0.9, 0.5)
    one = dataclasses.replace(one, overrides=("data.classes=[0,1]", "data.dir=/my data"))
    study = collect.Study(Path(), (one,))
    command = ticket.command(study, selection.points(study)[0])
    assert command == "python prune.py 'data.classes=[0,1]' 'data.dir=/my data'"


def test_the_command_has_plugins_and_dictionaries() -> None:
    """In Hydra's grammar; a flat config has the values of a dictionary alone."""
    defaults = collect.flat(dataclasses.asdict(composed()))
    factors = "mask.scope.factors={dense*/kernel:0.5,a:0.25}"
    config = composed("mask.scope=rates", factors, "plugins=[os]")
    found = list(overrides.differences(collect.flat(dataclasses.asdict(config)), defaults))
    assert {"mask/scope=rates", factors, "plugins=[os]"} <= set(found)
    assert composed(*found) == config
