"""What scores that look at the network cost, in epochs of 10,000 images.

python benchmarks/scores.py [--size 96] [--batch 128] [--steps 6] [--only snip grasp synflow]

A network in this process scores all its kernels, with what it takes to build and compile the
passes, and is pruned to 10 % by them. The epoch is a number of training steps after the first,
scaled up: without the time to compile, to validate and to save.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import noise

from lottery import choices, trainings
from lottery.config import Trainer, Training
from lottery.models.kernels import kernels
from lottery.pruning import masks
from lottery.pruning.evidence import Evidence
from lottery.pruning.scores import scored
from lottery.training import passes, run
from lottery.training.loop import Chunk
from lottery.training.recipe import from_scratch

EPOCH = 10_000
PERCENTILE = 90.0


def configuration(size, batch):
    """MobileNetV2 1.0 on noise."""
    return Training(
        data=noise.NoiseData(side=size),
        model=choices.model.of({"name": "mobilenet_v2"}),
        optimizer=choices.optimizer.of({"name": "sgd"}),
        schedule=choices.schedule.of({"name": "cosine"}),
        trainer=Trainer(epochs=1, batch_size=batch, strategy="one"),
    )


def seconds_of_an_epoch(config, steps):
    """Seconds of :data:`EPOCH` images at the rate of the median step, and the fresh weights."""
    data = trainings.load_data(config.data)
    batch = config.trainer.batch_size
    per_epoch = data.train.size // batch
    loop, _ = run.build(from_scratch(config, per_epoch), data, {})
    weights = {v.path: v.numpy() for v in loop.model.variables}
    paths = tuple(k.path for k in kernels(loop.model))
    chunks = [Chunk(step, 1) for step in range(steps + 1)]
    taken = []
    for chunk, (images, labels) in zip(
        chunks, loop.batches(data.train, chunks, per_epoch), strict=True
    ):
        started = time.perf_counter()
        loop.train(images, labels, chunk.first_step).numpy()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:]) * EPOCH / batch, weights, paths


def seconds_of_a_mask(config, name, weights, paths):
    """Seconds from weights to the mask, by a score at its defaults."""
    passes._network.cache_clear()
    pruned = partial(
        masks.make,
        allocation=choices.allocation.find("global")(),
        pattern=choices.pattern.find("weight")(),
    )
    with tempfile.TemporaryDirectory() as work:
        started = time.perf_counter()
        offered = passes.NetworkPasses(config, trainings.load_data, Path(work))
        known = Evidence(weights, paths, PERCENTILE, offered=offered, pruned=pruned)
        known.prune(scored(choices.score.find(name)(), known), PERCENTILE)
        return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6)
    names = ["snip", "grasp", "synflow"]
    parser.add_argument("--only", nargs="+", default=names)
    given = parser.parse_args()
    config = configuration(given.size, given.batch)
    epoch, weights, paths = seconds_of_an_epoch(config, given.steps)
    for name in given.only:
        seconds = seconds_of_a_mask(config, name, weights, paths)
        print(json.dumps({
            "benchmark": "scores", "score": name, "seconds": round(seconds, 2),
            "epoch_seconds": round(epoch, 2), "epochs": round(seconds / epoch, 4),
            "parameters": sum(weights[p].size for p in paths), "keras": keras.__version__,
            **vars(given),
        }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
