"""Our training loop against keras.Model.fit: the same dense network and data, in memory.

python benchmarks/loop_against_fit.py [--rounds 5] [--epochs 1] [--only mobilenet_v2]

Both train as many epochs a round, and measure top-1 and top-5 on training and validation images
after each; ours saves a checkpoint of each besides. ``fit`` is given float32 images that are
normalised already; ours starts from uint8 and normalises in the step.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from measure import alternating, report

from lottery import models
from lottery.config import Data
from lottery.data import Description, Splits
from lottery.data.arrays import ArraySplit
from lottery.data.preprocessing import Preprocessing
from lottery.interrupts import StopSignals
from lottery.training import devices
from lottery.training.checkpoints import CheckpointFolder, Progress
from lottery.training.loop import Length, Loop
from lottery.training.schedules import unchanging

# name: (images, side, channels, batch, width, steps per call of ours)
NETWORKS = {
    "lenet_300_100": (51_200, 28, 1, 128, 1.0, 50),
    "mobilenet_v2": (1_280, 8, 1, 64, 0.35, 1),
}


def measure(name, rounds, epochs):
    count, side, channels, batch, width, per_call = NETWORKS[name]
    shape = (side, side, channels)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *shape), np.uint8)
    labels = generator.integers(0, 10, count).astype(np.int32)

    def network():
        keras.utils.set_random_seed(0)
        return models.build(name, shape, 10, width=width)

    def optimizer():
        return keras.optimizers.SGD(unchanging(0.01), momentum=0.9, name="optimizer")

    plain = network()
    plain.compile(
        optimizer(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(5)],
        jit_compile=False,
    )
    floats = ((images / 255 - 0.5) / 0.5).astype(np.float32)
    few = ArraySplit(images[:batch], labels[:batch])
    data = Splits(
        Description(name, shape, shape, tuple("0123456789"), {}, {}, Data()),
        ArraySplit(images, labels),
        few,
        few,
        "the first batch",
        "the first batch",
        summary=None,  # for people, and results
    )

    def ours(steps_per_call):
        loop = Loop(
            network=network,
            optimizer=optimizer,
            preprocessing=Preprocessing(shape, 0, False, (0.5,), (0.5,)),
            batch_size=batch,
            eval_batch_size=batch,
            seed=0,
            strategy=devices.strategy("one"),
        )
        steps = count // batch

        def train():
            with tempfile.TemporaryDirectory() as folder, StopSignals() as signals:
                loop.fit(
                    data,
                    Length(epochs * steps, steps, steps_per_call),
                    Progress(0),
                    checkpoints=CheckpointFolder(Path(folder)),
                    checkpoint_steps=steps,
                    callbacks=[],
                    signals=signals,
                )

        return train

    def fit():
        plain.fit(
            floats, labels, batch, epochs=epochs, verbose=0,
            validation_data=(floats[:batch], labels[:batch]), validation_batch_size=batch,
        )  # fmt: skip

    variants = {"fit": fit, "ours, a step a call": ours(1)}
    if per_call > 1:
        variants[f"ours, {per_call} steps a call"] = ours(per_call)
    seconds = alternating(variants, rounds)
    report("loop_against_fit", "fit", seconds, network=name, batch=batch, epochs=epochs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=NETWORKS, choices=NETWORKS)
    given = parser.parse_args()
    devices.configure(precision="float32", deterministic=False)
    for name in given.only:
        measure(name, given.rounds, given.epochs)


if __name__ == "__main__":
    main()
