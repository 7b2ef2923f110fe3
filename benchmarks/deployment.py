"""What a ticket of MobileNetV2 costs to store and load, and what compaction is worth.

python benchmarks/deployment.py

Targets: the file of a ticket with 12 % of its weights is at most 1/5 of the dense float32 file; it
is read and verified in less than a second; where the mask empties half of the channels,
multiply-adds and latency fall to at most 0.55x.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from safetensors.numpy import save_file

from lottery import choices, models, tickets
from lottery.compaction.folding import fold
from lottery.compaction.inference import compact
from lottery.export import latency, litert
from lottery.models import cost
from lottery.models.kernels import kernels
from lottery.pruning import masks

SHAPE, CLASSES, PERCENTILE = (224, 224, 3), 1000, 88


def network():
    keras.utils.set_random_seed(0)
    return models.build("mobilenet_v2", SHAPE, CLASSES)


def ticket_of(model):
    """A ticket by magnitude of the initial weights: as large as a trained one."""
    weights = {v.path: np.asarray(v) for v in model.variables}
    prunable = masks.prunable(kernels(model), depthwise=False, skip_first=False, skip_last=False)
    scores = {path: np.abs(weights[path]) for path in prunable}
    mask = masks.make(
        scores,
        PERCENTILE,
        allocation=choices.allocation.of({"name": "global"}),
        pattern=choices.pattern.of({"name": "weight"}),
    )
    sparse = masks.apply(mask, weights, lambda name: name)
    about = {"runs": {"ticket": "none", "dense": "none"}, "data": "none"}
    return weights, tickets.Ticket(
        network=tickets.Network("mobilenet_v2", SHAPE),
        classes=tuple(map(str, range(CLASSES))),
        mean=(0.5,), std=(0.5,), mask=mask, trained=sparse, rewound=sparse, provenance=about,
    )  # fmt: skip


def files(folder):
    weights, ticket = ticket_of(network())
    file = folder / tickets.FILE
    tickets.write(ticket, file)
    save_file(weights, folder / "one")
    states = {f"{s}/{p}": a for s in ("trained", "rewound") for p, a in weights.items()}
    save_file(states, folder / "two")
    size, one, two = ((folder / n).stat().st_size for n in (tickets.FILE, "one", "two"))
    print(f"ticket file, {PERCENTILE} % pruned, trained and rewound weights  {size / 1e6:6.2f} MB")
    print(f"dense float32 file of the same two states        {two / 1e6:6.2f} MB  {size / two:.3f}")
    print(f"dense float32 file of one state                  {one / 1e6:6.2f} MB  {size / one:.3f}")
    times = []
    for _ in range(7):
        started = time.perf_counter()
        tickets.read(file)
        times.append(time.perf_counter() - started)
    print(f"read and verified in {statistics.median(times):.3f} s (slowest {max(times):.3f} s)")


def emptied(model):
    """Every second channel of every hidden layer without weights, bias or shift."""
    for layer in model.layers[:-1]:
        for v in layer.variables:
            if v.path.endswith(("_conv/kernel", "beta", "moving_mean")):
                array = np.array(v)
                if array.ndim != 4 or array.shape[-1] != 1:  # depthwise: its input is gone
                    array[..., ::2] = 0
                v.assign(array)
    return model


def compaction(folder):
    dense, small = fold(network()), compact(emptied(network()))
    before, after = cost.multiply_adds(dense), cost.multiply_adds(small)
    print(
        f"half of the channels empty: multiply-adds {before:,} -> {after:,}  {after / before:.2f}x"
    )
    for name, model in (("dense", dense), ("small", small)):
        (folder / name).write_bytes(litert.convert(model))
    for threads in (1, 2):
        found = latency.litert(folder / "dense", folder / "small", threads=threads, seconds=10)
        ratio = found.ticket.median_ms / found.dense.median_ms
        print(
            f"LiteRT, {threads} threads: {found.dense.median_ms:.2f} -> "
            f"{found.ticket.median_ms:.2f} ms  {ratio:.2f}x"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        files(Path(temporary))
        compaction(Path(temporary))
