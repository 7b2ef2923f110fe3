"""What a mask costs in a training step: ours, a Keras constraint, a callback with get/set_weights.

python benchmarks/masked_step.py [--rounds 10] [--size 96] [--batch 128]
    [--precision mixed_bfloat16] [--jit-compile] [--only dense ours]
"""

import argparse
import os
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from measure import alternating, report

from lottery import choices, models
from lottery.data.preprocessing import Preprocessing
from lottery.models.kernels import kernels
from lottery.pruning import masks
from lottery.training import devices
from lottery.training.loop import Loop

PERCENTILE = 88


class Masked(keras.constraints.Constraint):
    """The mask as a constraint, applied by the optimizer after each update."""

    def __init__(self, mask):
        self.mask = tf.constant(mask, tf.float32)

    def __call__(self, weights):
        return weights * self.mask


def loop(size, batch, mask=None, strategy="one", jit_compile=False):
    """A training loop over MobileNetV2 at ``size`` pixels with 1,000 classes."""
    keras.utils.set_random_seed(0)
    return Loop(
        network=lambda: models.build("mobilenet_v2", (size, size, 3), 1000),
        optimizer=lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        preprocessing=Preprocessing((size, size, 3), 4, True, (0.5,), (0.5,)),
        batch_size=batch,
        eval_batch_size=batch,
        seed=0,
        strategy=devices.strategy(strategy),
        mask=mask or {},
        jit_compile=jit_compile,
    )


def random_batch(size, batch):
    """One step's images and labels."""
    generator = np.random.default_rng(0)
    images = tf.constant(generator.integers(0, 256, (1, batch, size, size, 3)), tf.uint8)
    return images, tf.constant(generator.integers(0, 1000, (1, batch)), tf.int32)


def magnitude_mask(network):
    """The global mask of :data:`PERCENTILE` over the network's weights."""
    weights = {v.path: v.numpy() for v in network.variables}
    paths = masks.prunable(kernels(network), depthwise=False, skip_first=False, skip_last=False)
    return masks.make(
        {path: np.abs(weights[path]) for path in paths},
        PERCENTILE,
        allocation=choices.allocation.of({"name": "global"}),
        pattern=choices.pattern.of({"name": "weight"}),
    )


def options(batch):
    """A parser of rounds, size and batch; ``batch`` is the default."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=batch)
    return parser


def main():
    parser = options(batch=128)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--jit-compile", action="store_true")
    ways = ["dense", "ours", "constraint", "callback"]
    parser.add_argument("--only", nargs="+", default=ways, choices=ways)
    given = parser.parse_args()
    size, batch = given.size, given.batch
    devices.configure(precision=given.precision, deterministic=False)
    build = partial(loop, size, batch, jit_compile=given.jit_compile)
    images, labels = random_batch(size, batch)
    dense = build()
    mask = magnitude_mask(dense.model)
    ours = build(mask)
    constrained = build()
    for v in constrained.model.trainable_variables:
        if v.path in mask:
            v.constraint = Masked(mask[v.path])
    called_back = build()

    def step(network):
        return lambda: network._train_call(images, labels, tf.constant(0, tf.int64)).numpy()

    def step_and_callback():
        step(called_back)()
        for layer in called_back.model.layers:  # as the reference study did after each batch
            paths = [w.path for w in layer.weights]
            if any(p in mask for p in paths):
                values = layer.get_weights()
                layer.set_weights(
                    [w * mask[p] if p in mask else w for p, w in zip(paths, values, strict=True)]
                )

    steps = {
        "dense": step(dense),
        "ours": step(ours),
        "constraint": step(constrained),
        "callback": step_and_callback,
    }
    seconds = alternating({name: steps[name] for name in given.only}, given.rounds)
    report(
        "masked_step", given.only[0], seconds, size=size, batch=batch, percentile=PERCENTILE,
        precision=given.precision, jit_compile=given.jit_compile,
    )  # fmt: skip


if __name__ == "__main__":
    main()
