"""Which tickets train and run faster, at which loss of accuracy: weights, channels, n of m.

python benchmarks/which_sparsity_pays.py outputs/prune --size 96 --batch 64 [--rounds 10]
    [--csv FILE] [--figure PNG]

Takes the cells of the sweeps in a folder, each pattern and percentile with all its seeds. Accuracy
is that of the results. Times are those of the ticket with the first seed, each taking turns with
its dense network in one process: a training step as trainer.compact=null trains it, and as a masked
network of full size; one image in LiteRT on one thread of this CPU; and in a browser, where there
is one. With ``--size`` they are those of the same sparse network on larger images: the kernels of a
convolutional network fit all. Rows that the CSV has already are not measured again.
"""

import argparse
import csv
import json
import os
import statistics
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt
import numpy as np
from compact_step import network_of, of_ticket, step
from measure import alternating

from lottery import load_run
from lottery.compaction.folding import fold
from lottery.compaction.inference import compact
from lottery.errors import BrowserError
from lottery.export import browser, latency, litert
from lottery.export.interpreter import Interpreter
from lottery.models import cost
from lottery.training import devices
from lottery.training.timing import ratios

PAGES = 3  # of a browser: in some, one of the two networks is slow from beginning to end
LABELS = {"weight": "weights", "channel": "channels", "n_of_m": "n of m"}
COLOURS = {"weights": "tab:blue", "channels": "tab:orange", "n of m": "tab:green"}
TIMES = {
    "step": "training step",
    "litert": "image, LiteRT on x86",
    "browser": "image, browser",
}


def cells(folder):
    """(pattern, which of its kind, percentile) -> seed -> (run, its result)."""
    found = {}
    for path in sorted(folder.glob("**/result.json")):
        result = json.loads(path.read_text())
        if result.get("study") != "prune" or "ticket" not in result:
            continue
        run = load_run(path.parent)
        mask = run.config["mask"]
        name = LABELS[mask["pattern"]["name"]]
        which = "of each layer" if mask["scope"]["name"] == "layer" else ""
        if name == "n of m":
            which = f"{mask['pattern']['n']} of {mask['pattern']['m']}"
        key = name, which, result["mask"]["percentile"]
        found.setdefault(key, {})[run.config["seed"]] = run, result
    return dict(sorted(found.items()))


def identity(row):
    """What tells a row from others, also from a CSV."""
    return row["pattern"], row["which"], float(row["percentile"])


def accuracy(seeds):
    """Points of top-1 below dense, on validation and test: mean and standard deviation."""
    row = {}
    for split in ("val", "test"):
        lost = [
            100 * (r["ticket"][f"{split}_top1"] - r["dense"][f"{split}_top1"])
            for _, r in seeds.values()
        ]
        spread = statistics.stdev(lost) if len(lost) > 1 else 0.0
        row |= {f"{split}_points": round(statistics.mean(lost), 2), f"{split}_sd": round(spread, 2)}
    return row


def step_times(ticket, size, batch, rounds):
    """Time of a training step against dense: as it is trained, and masked at full size."""
    batch = batch or ticket.config["trainer"]["batch_size"]
    loops = {
        "dense": of_ticket(ticket, masked=False, size=size, batch=batch),
        "step": of_ticket(ticket, compact=None, size=size, batch=batch),
        "masked_step": of_ticket(ticket, compact=False, size=size, batch=batch),
    }
    found = ratios(alternating({n: step(own, batch) for n, own in loops.items()}, rounds), "dense")
    trained = cost.multiply_adds(loops["step"].model) / cost.multiply_adds(loops["dense"].model)
    return {name: round(found[name], 3) for name in ("step", "masked_step")} | {
        "step_multiply_adds": round(trained, 3)
    }


def inference_times(ticket, size, seconds):
    """Time of one image against dense, and the multiply-adds that a computer must do for it."""
    dense, sparse = (
        fold(with_weights(network_of(ticket, size)(), ticket.parent)),
        compact(with_weights(network_of(ticket, size)(), ticket)),
    )
    row = {
        "inference_multiply_adds": cost.multiply_adds(sparse) / cost.multiply_adds(dense),
        "surviving_multiply_adds": cost.surviving_multiply_adds(sparse) / cost.multiply_adds(dense),
    }
    with tempfile.TemporaryDirectory() as temporary:
        files = {n: Path(temporary, f"{n}.tflite") for n in ("dense", "ticket")}
        for name, model in (("dense", dense), ("ticket", sparse)):
            files[name].write_bytes(litert.convert(model))
        row["litert"] = 1 / latency.litert(*files.values(), seconds=seconds).speedup
        try:
            row["browser"] = statistics.median(in_a_page(files, seconds) for _ in range(PAGES))
        except BrowserError as error:
            print(error)
    return {name: round(value, 3) for name, value in row.items()}


def in_a_page(files, seconds):
    """Time of one image in a browser against dense."""
    shape = Interpreter(files["dense"]).input.shape[1:]
    noise = np.random.default_rng(0).standard_normal(shape).astype("float32")
    trials = browser.run(files, noise, seconds=seconds)
    times = {name: trial.milliseconds for name, trial in trials.items()}
    return 1 / latency.compare("browser", times).speedup


def with_weights(model, run):
    """The network with the final weights of a run."""
    weights = run.weights()
    for variable in model.variables:
        if variable.path in weights:  # not the states of random generators
            variable.assign(weights[variable.path])
    return model


def measured(folder, known, given):
    """A row for each group of cells that is not among the ``known`` ones."""
    for (name, which, percentile), seeds in cells(folder).items():
        ticket, result = seeds[min(seeds)]
        row = {
            "pattern": name, "which": which, "percentile": percentile, "seeds": len(seeds),
            "density_of_kernels": round(result["mask"]["density_of_kernels"], 4), **accuracy(seeds),
        }  # fmt: skip
        if identity(row) in known:
            continue
        row |= step_times(ticket, given.size, given.batch, given.rounds)
        row |= inference_times(ticket, given.size, given.seconds)
        print(json.dumps(row), flush=True)
        yield row


def draw(rows, path):
    """A line for each kind of ticket: its accuracy, and the times that were measured."""
    rows = sorted(rows, key=lambda row: (list(COLOURS).index(row["pattern"]), identity(row)))[::-1]
    places = range(len(rows))
    colours = [COLOURS[row["pattern"]] for row in rows]
    there = [name for name in TIMES if any(row.get(name) for row in rows)]
    fig, axes = plt.subplots(1, 1 + len(there), figsize=(11, 0.8 + 0.3 * len(rows)), sharey=True)
    points, spreads = ([float(row[f"test_{k}"]) for row in rows] for k in ("points", "sd"))
    axes[0].errorbar(points, places, xerr=spreads, fmt="none", ecolor="grey", capsize=3)
    axes[0].scatter(points, places, color=colours)
    axes[0].axvline(0, color="grey", linewidth=0.8)
    axes[0].set_title("test top-1", fontsize=10)
    axes[0].set_xlabel("points above dense")
    axes[0].set_ylabel("pruned")
    axes[0].set_yticks(places, map(label, rows))
    for axis, name in zip(axes[1:], there, strict=True):
        times = [float(row[name]) if row.get(name) else float("nan") for row in rows]
        axis.barh(places, times, color=colours, height=0.6)
        for place, time in zip(places, times, strict=True):
            axis.text(time + 0.02, place, f"{time:.2f}", va="center", fontsize=8)
        axis.axvline(1, color="grey", linewidth=0.8)
        axis.set_title(TIMES[name], fontsize=10)
        axis.set_xlabel("time, dense = 1")
        axis.set_xlim(0, 1.25)
    fig.tight_layout()
    fig.savefig(path, dpi=150)


def label(row):
    if row["pattern"] == "n of m":
        return f"all but {row['which']} weights"
    return " ".join((f"{float(row['percentile']):g} % of", row["pattern"], row["which"])).strip()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?", help="none: draws the CSV alone")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--size", type=int, help="pixels, if not those of the cells")
    parser.add_argument("--batch", type=int, help="of a training step, if not that of the cells")
    parser.add_argument("--seconds", type=float, default=3, help="of each timing of one image")
    parser.add_argument("--csv", type=Path, help="rows to read and add to")
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    rows = []
    if given.csv and given.csv.exists():
        with given.csv.open() as file:
            rows = list(csv.DictReader(file))
    devices.configure(precision="float32", deterministic=False)
    known = {identity(row) for row in rows}
    for row in measured(given.folder, known, given) if given.folder else ():
        rows.append(row)
        if given.csv:
            names = list(dict.fromkeys(name for row in rows for name in row))
            with given.csv.open("w") as file:
                writer = csv.DictWriter(file, names, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    if given.figure:
        draw(rows, given.figure)


if __name__ == "__main__":
    main()
