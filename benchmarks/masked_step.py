"""What a mask costs in a training step: ours, a Keras constraint, a callback with get/set_weights.

python benchmarks/masked_step.py [--rounds 10] [--network mobilenet_v2] [--size 96] [--batch 128]
    [--optimizer momentum] [--precision mixed_bfloat16] [--jit-compile] [--steps 1]
    [--only dense ours]

For LeNet-300-100, `--network lenet_300_100 --size 28 --steps 50`. `dense, by kernels` and `ours, by
kernels` make the update with TensorFlow's kernels, one after the other, as several replicas do.
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
from lottery.training import devices, update
from lottery.training.loop import Loop

PERCENTILE = 88
# name: channels, classes, crop padding and flip
NETWORKS = {
    "mobilenet_v2": (3, 1000, 4, True),
    "resnet20": (3, 10, 4, True),
    "lenet_300_100": (1, 10, 0, False),
}


class Masked(keras.constraints.Constraint):
    """The mask as a constraint, applied by the optimizer after each update."""

    def __init__(self, mask):
        self.mask = tf.constant(mask, tf.float32)

    def __call__(self, weights):
        return weights * self.mask


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.0012),
}


def loop(
    size, batch, mask=None, strategy="one", jit_compile=False, network="mobilenet_v2",
    optimizer="momentum",
):  # fmt: skip
    """A training loop over a network of :data:`NETWORKS` at ``size`` pixels."""
    shape, classes = (size, size, NETWORKS[network][0]), NETWORKS[network][1]
    keras.utils.set_random_seed(0)
    return Loop(
        network=lambda: models.build(network, shape, classes),
        optimizer=OPTIMIZERS[optimizer],
        preprocessing=Preprocessing(shape, *NETWORKS[network][2:], (0.5,), (0.5,)),
        batch_size=batch,
        eval_batch_size=batch,
        seed=0,
        strategy=devices.strategy(strategy),
        mask=mask or {},
        jit_compile=jit_compile,
    )


def random_batch(size, batch, network="mobilenet_v2"):
    """One step's images and labels."""
    channels, classes = NETWORKS[network][:2]
    generator = np.random.default_rng(0)
    images = tf.constant(generator.integers(0, 256, (1, batch, size, size, channels)), tf.uint8)
    return images, tf.constant(generator.integers(0, classes, (1, batch)), tf.int32)


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
    parser.add_argument("--network", default="mobilenet_v2", choices=NETWORKS)
    parser.add_argument("--optimizer", default="momentum", choices=OPTIMIZERS)
    parser.add_argument("--steps", type=int, default=1, help="a measurement takes so many")
    ways = ["dense", "ours", "constraint", "callback", "dense, by kernels", "ours, by kernels"]
    parser.add_argument("--only", nargs="+", default=ways[:4], choices=ways)
    given = parser.parse_args()
    size, batch = given.size, given.batch
    devices.configure(precision=given.precision, deterministic=False)
    build = partial(
        loop, size, batch, jit_compile=given.jit_compile, network=given.network,
        optimizer=given.optimizer,
    )  # fmt: skip
    images, labels = random_batch(size, batch, given.network)
    mask = magnitude_mask(build().model)
    first = tf.constant(0, tf.int64)

    def repeated(network, after=lambda: None):
        def run():
            for _ in range(given.steps):
                sums = network._train_call(images, labels, first)
                after()
            sums.numpy()

        return run

    def by_kernels(network):
        run = repeated(network)
        most, update.MOST_VARIABLES = update.MOST_VARIABLES, 0
        run()  # which chooses
        update.MOST_VARIABLES = most
        return run

    def constrained():
        network = build()
        for v in network.model.trainable_variables:
            if v.path in mask:
                v.constraint = Masked(mask[v.path])
        return repeated(network)

    def called_back():
        network = build()

        def after():
            for layer in network.model.layers:  # as the reference study did after each batch
                paths = [w.path for w in layer.weights]
                if any(p in mask for p in paths):
                    values = zip(paths, layer.get_weights(), strict=True)
                    layer.set_weights([w * mask[p] if p in mask else w for p, w in values])

        return repeated(network, after)

    made = {
        "dense": lambda: repeated(build()),
        "ours": lambda: repeated(build(mask)),
        "constraint": constrained,
        "callback": called_back,
        "dense, by kernels": lambda: by_kernels(build()),
        "ours, by kernels": lambda: by_kernels(build(mask)),
    }
    seconds = alternating({name: made[name]() for name in given.only}, given.rounds)
    report(
        "masked_step", given.only[0], seconds, network=given.network, size=size, batch=batch,
        optimizer=given.optimizer, percentile=PERCENTILE, precision=given.precision,
        jit_compile=given.jit_compile, steps=given.steps,
    )  # fmt: skip


if __name__ == "__main__":
    main()
