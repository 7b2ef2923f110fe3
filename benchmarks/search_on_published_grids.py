"""search=sparsest on grids that others trained in full: is its answer theirs, and at what price?

python benchmarks/search_on_published_grids.py --data <folder with grid.csv and dense.csv>

The real proposer and the real rule; only the training is replaced, by looking its result up.
``grid.csv`` has the columns network, iterative, rewind, density, rewind_epoch, epochs, trial,
val_top1, and may have pattern; ``dense.csv`` network, val_top1. A cell passes if the mean of its
trials is at least that of all dense networks - tolerance (``--level``: if a test shows so). A cell
is a density and a rewind epoch, with all its trials.

A ticket costs its epochs from the rewind epoch on, in an iterative chain every round; a dense
network all of its epochs, once a trial, on both sides. ``waves_1`` and ``search_epochs`` are those
of ``search.waves=many``; ``waves_20`` and ``epochs_20`` of ``few`` with 20 cells at a time.
``--synthetic 40`` plays as many made-up grids of each of several sizes instead.
"""

import argparse
import csv
import json
import random
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from lottery.sweep.proposers import Candidate
from lottery.sweep.proposers.sparsest import Sparsest
from lottery.verdict.rule import Rule, walk

TOLERANCES = (0.25, 0.5, 1.0)
CELLS = 20


@dataclass(frozen=True)
class Grid:
    """Validation accuracy by density, rewind epoch and trial; mean accuracy of dense networks."""

    network: str
    iterative: bool
    rewind: str
    epochs: int
    accuracy: dict[tuple[float, int, int], float]
    dense: float
    images: int

    @property
    def densities(self):
        return sorted({density for density, *_ in self.accuracy}, reverse=True)

    @property
    def cells(self):
        """Trials by density and rewind epoch."""
        found = defaultdict(list)
        for density, epoch, trial in sorted(self.accuracy):
            found[density, epoch].append(trial)
        return found

    @property
    def trials(self):
        """Of a whole cell."""
        return max(map(len, self.cells.values()))

    def result(self, cell):
        """What prune.py would have left, as far as a proposer reads it."""
        runs = {"dense": self.dense, "ticket": self.accuracy[cell]}
        return {n: {"val_top1": top1, "val_examples": self.images} for n, top1 in runs.items()}

    def runs(self, density, epoch, trial):
        """Epochs of each run of a cell, by its key."""
        rounds = [d for d in self.densities if d > density] if self.iterative else []
        left = self.epochs - epoch
        tickets = {f"ticket {d} {epoch} {trial}": left for d in [*rounds, density]}
        return {f"dense {trial}": self.epochs, **tickets}


def read(folder, images):
    """The grids of unstructured masks rewound by weights or learning rate."""
    dense, tables, epochs = defaultdict(list), defaultdict(dict), {}
    with (folder / "dense.csv").open() as file:
        for row in csv.DictReader(file):
            dense[row["network"]].append(float(row["val_top1"]))
    with (folder / "grid.csv").open() as file:
        for row in csv.DictReader(file):
            kind = row.get("pattern", "Unstructured"), row["rewind"]
            if kind[0] != "Unstructured" or kind[1] not in ("weights", "lr") or not row["val_top1"]:
                continue
            grid = row["network"], bool(int(row["iterative"])), row["rewind"]
            cell = float(row["density"]), int(row["rewind_epoch"]), int(row["trial"])
            tables[grid][cell] = float(row["val_top1"])
            epochs[grid] = int(row["epochs"])
    return [
        Grid(*grid, epochs[grid], table, statistics.fmean(own), images or _images(own))
        for grid, table in sorted(tables.items())
        if (own := dense[grid[0]])
    ]


def _images(accuracies):
    """2,000 where all accuracies are whole images of so many, as of CIFAR-10; else 5,000."""
    whole = all(abs(2000 * a - round(2000 * a)) < 1e-6 for a in accuracies)
    return 2000 if whole else 5000


def candidates(grid, tolerance, level):
    """The grid as a sweep would type it."""
    return {
        (density, epoch, trial): Candidate(
            (f"mask.percentile={100 - 100 * density:g}", f"rewind.epoch={epoch}", f"seed={trial}"),
            f"rewind.epoch={epoch}",
            100 - 100 * density,
            trial,
            grid.runs(density, epoch, trial),
            network=grid.network,
            position=epoch / grid.epochs,
            iterative=grid.iterative,
            tolerance=tolerance,
            level=level,
        )
        for density, epoch, trial in sorted(grid.accuracy, key=lambda c: (c[1], -c[0], c[2]))
    }


def answer(grid, tolerance, level):
    """Rungs of the sparsest cell by the rule and the walk, and of the sparsest that passes.

    -1 without one. Cells that lack trials do not count.
    """
    whole = {place: [grid.result((*place, t)) for t in trials]
             for place, trials in grid.cells.items() if len(trials) == grid.trials}  # fmt: skip
    rung = {density: i for i, density in enumerate(grid.densities)}
    rows = sorted({epoch for _, epoch in whole})
    rule = Rule(tolerance, level, len(rows), len(rung))
    judged = rule.judge({place: [(r["dense"], r["ticket"]) for r in results]
                         for place, results in whole.items()})  # fmt: skip
    passed = {place: verdict.not_inferior for place, verdict in judged.items()}
    walked = [walk((rung[d], ok) for (d, e), ok in passed.items() if e == row) for row in rows]
    anywhere = [rung[density] for (density, _), ok in passed.items() if ok]
    return max((r for r in walked if r is not None), default=-1), max(anywhere, default=-1)


def searched(grid, cells, waves):
    """Rung, cells, epochs and waves of a search."""
    search = Sparsest(waves=waves, confirm=0)
    proposer = search.proposer(list(cells.values()), CELLS * grid.trials)
    by_overrides = {c.overrides: place for place, c in cells.items()}
    paid = {f"dense {trial}" for _, _, trial in cells}
    told, looked, count = set(), set(), 0
    while asked := proposer.ask():
        count += 1
        for overrides in asked:
            place = by_overrides[tuple(overrides)]
            looked.add(place[:2])
            paid |= cells[place].epochs.keys()
        for place, cell in cells.items():  # rounds on the way are told too
            if place not in told and cell.epochs.keys() <= paid:
                told.add(place)
                proposer.tell(cell.overrides, grid.result(place))
    (record,) = proposer.record()["networks"]
    assert record["certified"]
    winner = record["winner"]
    rung = record["percentiles"].index(winner["percentile"]) if winner else -1
    return rung, len(looked), sum(e for key, e in every_run(cells).items() if key in paid), count


def every_run(cells):
    """Epochs of all runs of a grid, by key."""
    return {key: epochs for cell in cells.values() for key, epochs in cell.epochs.items()}


def compare(grid, tolerance, level):
    """One line of the output."""
    cells = candidates(grid, tolerance, level)
    whole, anywhere = answer(grid, tolerance, level)
    rung, looked, epochs, waves = searched(grid, cells, "many")
    rung_20, _, epochs_20, waves_20 = searched(grid, cells, "few")
    density = dict(enumerate(grid.densities)).get
    return {
        "network": grid.network, "iterative": grid.iterative, "rewind": grid.rewind,
        "tolerance": tolerance, "grid_density": density(whole), "search_density": density(rung),
        "grid_cells": len(grid.cells), "search_cells": looked,
        "grid_epochs": sum(every_run(cells).values()), "search_epochs": epochs,
        "waves_1": waves, "waves_20": waves_20, "epochs_20": epochs_20,
        "density_20": density(rung_20), "density_anywhere": density(anywhere),
        "rungs_apart": abs(rung - whole), "rungs_apart_20": abs(rung_20 - whole),
    }  # fmt: skip


def shares(lines):
    """Over several grids."""
    spent = sum(line["grid_epochs"] for line in lines)
    return {
        "grids": len(lines),
        "same_density": round(statistics.fmean(not line["rungs_apart"] for line in lines), 3),
        "furthest_rungs": max(line["rungs_apart"] for line in lines),
        "epochs": round(sum(line["search_epochs"] for line in lines) / spent, 3),
        "waves_1": round(statistics.fmean(line["waves_1"] for line in lines), 1),
        "same_density_20": round(statistics.fmean(not line["rungs_apart_20"] for line in lines), 3),
        "furthest_rungs_20": max(line["rungs_apart_20"] for line in lines),
        "epochs_20": round(sum(line["epochs_20"] for line in lines) / spent, 3),
        "waves_20": round(statistics.fmean(line["waves_20"] for line in lines), 2),
        "most_waves_20": max(line["waves_20"] for line in lines),
        "more_than_3_waves_20": sum(line["waves_20"] > 3 for line in lines),
        "walk_differs": sum(line["grid_density"] != line["density_anywhere"] for line in lines),
    }


def made_up(draw, rungs, rows, trials, iterative):
    """A grid of noise around losses that grow from some rung on, which peaks at some row."""
    peak, width, steep = draw.uniform(0.1, 0.6), draw.uniform(0.2, 1.5), draw.uniform(0.03, 0.5)
    sparsest, gain, spread = (
        draw.uniform(0.2, 1),
        draw.choice((0, 0.2, 0.4)),
        draw.uniform(0.2, 0.6),
    )
    ragged, accuracy = draw.choice((0, 1)), {}
    for row in range(rows):
        edge = rungs * (sparsest - width * abs(row / rows - peak)) + draw.gauss(0, ragged)
        for rung in range(rungs):
            loss = gain - steep * max(0, rung - edge) ** 1.4 + draw.gauss(0, 0.1 * ragged)
            for trial in range(trials):
                top1 = 0.91 + (loss + draw.gauss(0, spread)) / 100
                accuracy[0.8 ** (rung + 1), 182 * row // rows, trial] = round(2000 * top1) / 2000
    return Grid(f"{rungs} x {rows} x {trials}", iterative, "made up", 182, accuracy, 0.91, 2000)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="folder with grid.csv and dense.csv")
    parser.add_argument("--level", type=float, help="of a test; without, means decide")
    parser.add_argument("--images", type=int, help="validation images, if not 2,000 or 5,000")
    parser.add_argument("--synthetic", type=int, help="made-up grids of each size instead")
    given = parser.parse_args()
    if given.synthetic:
        draw = random.Random(0)
        sizes = [(10, 10, 3), (20, 5, 3), (8, 5, 3), (10, 10, 5), (10, 5, 2), (20, 5, 1)]
        for size in sizes:
            for iterative in (False, True):
                lines = [
                    compare(made_up(draw, *size, iterative), draw.choice(TOLERANCES), given.level)
                    for _ in range(given.synthetic)
                ]
                about = {"size": lines[0]["network"], "iterative": iterative}
                print(json.dumps({**about, **shares(lines)}), flush=True)
        return
    if given.data is None:
        parser.error("--data is the folder with grid.csv and dense.csv")
    lines = []
    for grid in read(given.data, given.images):
        for tolerance in TOLERANCES:
            lines.append(compare(grid, tolerance, given.level))
            print(json.dumps(lines[-1]), flush=True)
    if not lines:
        raise SystemExit(f"{given.data} has no unstructured grid of weights or lr rewinding")
    kinds = {"all": lines, "one_shot": [line for line in lines if not line["iterative"]]}
    kinds["iterative"] = [line for line in lines if line["iterative"]]
    print(json.dumps({kind: shares(own) for kind, own in kinds.items() if own}))


if __name__ == "__main__":
    main()
