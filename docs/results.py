"""Tables and picture of docs/results.md, from the output folders of the studies it describes.

python docs/results.py outputs/prune [--figure docs/lenet_fashion_mnist.png] [--methods] [--starts]
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

import yaml

from lottery import choices, tickets
from lottery.runs import runs_of
from lottery.trainings import load_data

METHODS = {"weights": "magnitude, rewound", "random mask": "magnitude, rewound, shuffled"}


def cells(folder: Path):
    """(network, kind of run, percentile, rewind epoch) -> seed -> (result of prune.py)."""
    found = defaultdict(dict)
    for path in sorted(folder.glob("**/result.json")):
        result = json.loads(path.read_text())
        config = yaml.safe_load((path.parent / "config.yaml").read_text())
        if "ticket" not in result:
            continue
        kind = "random mask" if config["mask"]["shuffle"] else config["rewind"]["name"]
        kind = method(config["mask"]) or kind
        network = config["model"]["name"]
        key = (network, kind, config["mask"]["percentile"], config["rewind"]["epoch"])
        found[key][config["seed"]] = result
    return found


def method(mask):
    """How a mask was made; empty if by magnitude after training, as most are."""
    if during := (mask["during"] or {}).get("name"):
        return during
    score = mask["score"]["name"]
    words = [score, *(["at the start"] if mask["at"] == "start" and score == "magnitude" else [])]
    return "" if words == ["magnitude"] else ", ".join([*words, *["shuffled"] * mask["shuffle"]])


def spread(values):
    """Mean and sample standard deviation in percent."""
    values = [100 * v for v in values]
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def tables(found):
    for network in sorted({k[0] for k in found}):
        own = {k: v for k, v in found.items() if k[0] == network}
        dense = {s: r["dense"] for v in own.values() for s, r in v.items()}
        print(f"\n### {network}, {len(dense)} seeds: top-1 in percent, mean ± standard deviation\n")
        print("| run | rewound to | weights left | seeds | validation | test |")
        print("|---|---|---|---|---|---|")
        print(
            f"| dense | | 100 % | {len(dense)} | {spread([d['val_top1'] for d in dense.values()])} "
            f"| {spread([d['test_top1'] for d in dense.values()])} |"
        )
        for (_, kind, _, epoch), runs in sorted(own.items(), key=lambda i: (i[0][2], i[0][1:])):
            density = next(iter(runs.values()))["mask"]["density"]
            tickets = [r["ticket"] for r in runs.values()]
            name = {"weights": "ticket", "reinit": "reinitialised"}.get(kind, kind)
            print(
                f"| {name} | {'' if kind == 'reinit' else epoch} | {100 * density:.1f} % "
                f"| {len(runs)} | {spread([t['val_top1'] for t in tickets])} "
                f"| {spread([t['test_top1'] for t in tickets])} |"
            )


def methods(found):
    """One row a method, one column a density: test top-1, best method first by the sparsest."""
    densities = sorted({d for v in found.values() for d in map(density, v.values())}, reverse=True)
    rows = defaultdict(dict)
    for (_, kind, _, _), runs in found.items():
        (left,) = set(map(density, runs.values()))
        rows[METHODS.get(kind, kind)][left] = [r["ticket"]["test_top1"] for r in runs.values()]
    columns = " | ".join(f"{d:g} %" for d in densities)
    print(f"\n| method | {columns} |\n|{'---|' * (len(densities) + 1)}")
    dense = {s: r["dense"]["test_top1"] for v in found.values() for s, r in v.items()}
    print(f"| dense: {spread(dense.values())} |{' |' * len(densities)}")
    last = densities[-1]
    for name, row in sorted(rows.items(), key=lambda i: -statistics.mean(i[1].get(last, [0]))):
        cells = " | ".join(spread(row[d]) if d in row else "" for d in densities)
        print(f"| {name} | {cells} |")


def starts(found):
    """Loss and norm of the survivors' gradient where tickets start, on validation images."""
    print("\n| method | weights left | loss | gradient norm |\n|---|---|---|---|")
    for (_, kind, _, _), runs in sorted(found.items(), key=lambda i: (i[0][2], i[0][1])):
        (left,) = set(map(density, runs.values()))
        losses, norms = zip(*map(start, runs.values()), strict=True)
        losses, norms = statistics.mean(losses), statistics.mean(norms)
        print(f"| {METHODS.get(kind, kind)} | {left:g} % | {losses:.2f} | {norms:.2f} |")


def start(result):
    """Loss and norm of the gradient by biases and surviving weights, before a ticket's training."""
    import tensorflow as tf

    run = runs_of(result)["ticket"]
    ticket = tickets.of_run(run)
    model, data = ticket.model("rewound"), load_data(choices.source.of(run.config["data"]))
    ((images, labels, _),) = data.validation.evaluation(data.validation.size)
    with tf.GradientTape() as tape:
        logits = model(ticket.normalised(images.numpy()))
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        )
    gradients = tape.gradient(loss, model.trainable_variables)
    kept = [
        gradient * ticket.mask.get(v.path, 1)
        for gradient, v in zip(gradients, model.trainable_variables, strict=True)
    ]
    return float(loss), float(tf.linalg.global_norm(kept))


def density(result):
    """Weights left, in percent."""
    return round(100 * result["mask"]["density"], 1)


def figure(found, network, path):
    """Test accuracy against density, mean and range over the seeds."""
    import matplotlib.pyplot as plt

    styles = {
        "weights": ("winning ticket (rewound)", "tab:blue", "o"),
        "random mask": ("random mask, same layers", "tab:orange", "s"),
        "reinit": ("same mask, fresh weights", "tab:red", "^"),
    }
    fig, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    dense = [r["dense"]["test_top1"] * 100 for k, v in found.items() if k[0] == network
             for r in v.values()]  # fmt: skip
    axes.axhspan(min(dense), max(dense), color="0.85", label="dense, range over seeds")
    for kind, (label, colour, marker) in styles.items():
        points = sorted(
            (100 * next(iter(v.values()))["mask"]["density"],
             [100 * r["ticket"]["test_top1"] for r in v.values()])
            for k, v in found.items() if k[0] == network and k[1] == kind
        )  # fmt: skip
        if points:
            x = [p[0] for p in points]
            mean = [statistics.mean(p[1]) for p in points]
            low = [m - min(p[1]) for m, p in zip(mean, points, strict=True)]
            high = [max(p[1]) - m for m, p in zip(mean, points, strict=True)]
            axes.errorbar(
                x, mean, yerr=[low, high], label=label, color=colour, marker=marker, capsize=3
            )
    axes.set_xscale("log")
    axes.invert_xaxis()
    ticks = sorted({round(100 * next(iter(v.values()))["mask"]["density"], 1)
                    for k, v in found.items() if k[0] == network})  # fmt: skip
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("weights left, percent (log scale)")
    axes.set_ylabel("test top-1, percent")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    fig.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="lenet_300_100")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--methods", action="store_true", help="a table of methods instead")
    parser.add_argument("--starts", action="store_true", help="loss and gradient before training")
    options = parser.parse_args()
    found = cells(options.folder)
    if options.starts:
        starts(found)
    else:
        (methods if options.methods else tables)(found)
    if options.figure:
        figure(found, options.network, options.figure)


if __name__ == "__main__":
    main()
