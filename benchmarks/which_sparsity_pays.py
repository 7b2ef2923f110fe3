"""Which tickets train and run faster, at which loss of accuracy: weights, channels, n of m.

python benchmarks/which_sparsity_pays.py outputs/prune [--rounds 10] [--csv FILE] [--figure PNG]

Takes the cells of the sweeps in a folder, each pattern and percentile with all its seeds. Accuracy
is that of the results. Times are those of the ticket with the first seed, each taking turns with
its dense network in one process: a training step as trainer.compact=null trains it, and as a masked
network of full size; one image in LiteRT on one thread of this CPU; and in a browser, where there
is one (export.py).
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt
from compact_step import of_ticket, step
from measure import alternating

from lottery import load_run
from lottery.training import devices
from lottery.training.timing import ratios

LABELS = {"weight": "weights", "channel": "channels", "n_of_m": "n of m"}
COLOURS = {"weights": "tab:blue", "channels": "tab:orange", "n of m": "tab:green"}
TIMES = {
    "step": "a training step",
    "litert": "one image, LiteRT on x86",
    "browser": "one image, in a browser",
}


def cells(folder):
    """(pattern, percentile) -> seed -> (folder of the run, its result)."""
    found = {}
    for path in sorted(folder.glob("**/result.json")):
        result = json.loads(path.read_text())
        if result.get("study") != "prune" or "ticket" not in result:
            continue
        run = load_run(path.parent)
        pattern = run.config["mask"]["pattern"]
        name = LABELS[pattern["name"]]
        key = name, f"{pattern['n']} of {pattern['m']}" if name == "n of m" else "", (
            result["mask"]["percentile"])  # fmt: skip
        found.setdefault(key, {})[run.config["seed"]] = path.parent, result
    return dict(sorted(found.items()))


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


def step_times(folder, rounds):
    """Time of a step against dense: as it is trained, and masked at full size."""
    ticket = load_run(folder)
    batch = ticket.config["trainer"]["batch_size"]
    loops = {
        "dense": of_ticket(ticket, masked=False),
        "step": of_ticket(ticket, compact=None),
        "masked_step": of_ticket(ticket, compact=False),
    }
    found = ratios(alternating({n: step(own, batch) for n, own in loops.items()}, rounds), "dense")
    return {name: round(found[name], 3) for name in ("step", "masked_step")}


def inference_times(folder):
    """Time of one image against dense, and the multiply-adds that a computer must do for it."""
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "export"
        subprocess.run(
            [sys.executable, Path(__file__).parents[1] / "export.py", f"ticket={folder}",
             "benchmark=true", "seconds=3", f"output={output}"],
            check=True, capture_output=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        found = json.loads((output / "benchmark.json").read_text())
    dense, ticket = (found["models"][name] for name in ("dense", "ticket"))
    row = {
        "inference_multiply_adds": round(ticket["multiply_adds"] / dense["multiply_adds"], 3),
        "surviving_multiply_adds": round(
            ticket["surviving_multiply_adds"] / dense["multiply_adds"], 3
        ),
    }
    for name in ("litert", "browser"):
        alone = [
            entry for entry in found["latency"]
            if (entry["runtime"], entry["batch"], entry["threads"]) == (name, 1, 1)
        ]  # fmt: skip
        for entry in alone:
            row[name] = round(entry["ticket"]["median_ms"] / entry["dense"]["median_ms"], 3)
    return row


def measured(folder, rounds):
    for (name, which, percentile), seeds in cells(folder).items():
        first, result = seeds[min(seeds)]
        work = result["ticket"].get("multiply_adds", {})
        row = {
            "pattern": name, "which": which, "percentile": percentile, "seeds": len(seeds),
            "density_of_kernels": round(result["mask"]["density_of_kernels"], 4), **accuracy(seeds),
            **step_times(first, rounds), **inference_times(first),
        }  # fmt: skip
        if work:
            row["computed_multiply_adds"] = round(work["computed"] / work["network"], 3)
        print(json.dumps(row), flush=True)
        yield row


def draw(rows, path):
    there = [name for name in TIMES if any(row.get(name) for row in rows)]
    fig, axes = plt.subplots(1, len(there), figsize=(4 * len(there), 4), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], there, strict=True):
        for pattern, colour in COLOURS.items():
            own = [row for row in rows if row["pattern"] == pattern and row.get(name)]
            axis.errorbar(
                [float(row[name]) for row in own], [float(row["test_points"]) for row in own],
                [float(row["test_sd"]) for row in own], fmt="o", color=colour, label=pattern,
                capsize=3,
            )  # fmt: skip
            for row in own:
                label = row["which"] or f"{float(row['percentile']):g} %"
                place = float(row[name]), float(row["test_points"])
                axis.annotate(label, place, (5, 5), textcoords="offset points", fontsize=8)
        axis.axvline(1, color="grey", linewidth=0.8)
        axis.axhline(0, color="grey", linewidth=0.8)
        axis.set_xlabel(f"time of {TIMES[name]}, dense = 1")
        axis.set_xlim(left=0)
    axes[0][0].set_ylabel("points of test top-1 against dense")
    axes[0][0].legend(loc="lower left", title="pruned:")
    fig.tight_layout()
    fig.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--csv", type=Path, help="rows to write; drawn without measuring if there")
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    if given.csv and given.csv.exists():
        with given.csv.open() as file:
            rows = list(csv.DictReader(file))
    else:
        devices.configure(precision="float32", deterministic=False)
        rows = list(measured(given.folder, given.rounds))
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
