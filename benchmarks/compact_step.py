"""A training step without what the mask has cut off: against the masked one, and against dense.

python benchmarks/compact_step.py --network mobilenet_v2 --size 96 --batch 64
python benchmarks/compact_step.py --network resnet20 --size 32 --batch 128
python benchmarks/compact_step.py --ticket outputs/prune/<run> [--size 96 --batch 64] [--rounds 10]

The mask prunes half of the channels of every layer, at random; or it is that of a ticket, also of
one that was found on images of another size: the kernels of a convolutional network fit all.
``built`` is a network that never had more channels than are left, without a mask.

Targets: compact / masked at most 0.58 (MobileNetV2 1.0, 96 px, batch 64) and 0.54 (ResNet-20, batch
128); compact / built at most 1.05 for both.
"""

import argparse
import os
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from measure import alternating, report

from lottery import choices, load_run, models
from lottery.compaction.ties import ties
from lottery.data.preprocessing import Preprocessing
from lottery.models.cost import multiply_adds
from lottery.models.kernels import kernels
from lottery.pruning import masks
from lottery.pruning.units import prunes_channels
from lottery.training import devices
from lottery.training.loop import Loop


def loop(build, batch, mask=None, *, compact=False, whole_channels=False):
    """A training loop over a network, with its mask if it has one."""
    keras.utils.set_random_seed(0)
    shape = build().input_shape[1:]
    keras.utils.set_random_seed(0)
    return Loop(
        network=build,
        optimizer=lambda: keras.optimizers.SGD(1e-3, momentum=0.9, name="optimizer"),
        preprocessing=Preprocessing(shape, 4, True, (0.5,), (0.5,)),
        batch_size=batch,
        eval_batch_size=batch,
        seed=0,
        strategy=devices.strategy("one"),
        mask=mask or {},
        whole_channels=whole_channels,
        compact=compact,
    )


def half_of_each_layer(network):
    """A mask without half of the channels of every layer that may lose any, drawn by lot."""
    generator = np.random.default_rng(0)
    return masks.make(
        {k.path: generator.random(k.shape) for k in kernels(network) if k.kind != "depthwise"},
        50,
        allocation=choices.allocation.of({"name": "layer"}),
        pattern=choices.pattern.of({"name": "channel"}),
        ties=ties(network),
    )


def network_of(ticket, size=None):
    """What builds the network of a finished run, for images of ``size`` pixels or its own."""
    chosen = dict(ticket.config["model"])
    height, width, channels = ticket.input_shape
    shape = (size or height, size or width, channels)
    return partial(models.build, chosen.pop("name"), shape, len(ticket.classes), **chosen)


def of_ticket(ticket, *, masked=True, compact=False, size=None, batch=None):
    """A loop over the network of a finished run: dense, masked, or without what is cut off."""
    whole = prunes_channels(choices.pattern.of(ticket.config["mask"]["pattern"]))
    mask = ticket.mask if masked else None
    batch = batch or ticket.config["trainer"]["batch_size"]
    return loop(network_of(ticket, size), batch, mask, compact=compact, whole_channels=whole)


def step(own, batch):
    """What takes a step on noise."""
    generator = np.random.default_rng(0)
    shape, classes = own.model.input_shape[1:], own.model.output_shape[-1]
    images = tf.constant(generator.integers(0, 256, (1, batch, *shape)), tf.uint8)
    labels = tf.constant(generator.integers(0, classes, (1, batch)), tf.int32)
    return lambda: own.train(images, labels, 0).numpy()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--size", type=int, help="default: 32, or that of the ticket's images")
    parser.add_argument("--batch", type=int, help="default: 128, or that of the ticket")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--ticket", help="folder of a prune.py run")
    given = parser.parse_args()
    devices.configure(precision="float32", deterministic=False)
    if given.ticket:
        ticket = load_run(given.ticket)
        batch = given.batch or ticket.config["trainer"]["batch_size"]
        own = partial(of_ticket, ticket, size=given.size, batch=batch)
        loops = {"dense": own(masked=False), "masked": own(), "compact": own(compact=True)}
    else:
        shape = (given.size or 32, given.size or 32, 3)
        build = partial(models.build, given.network, shape, given.classes)
        mask, batch = half_of_each_layer(build()), given.batch or 128
        loops = {
            "dense": loop(build, batch),
            "masked": loop(build, batch, mask, whole_channels=True),
            "compact": loop(build, batch, mask, compact=True, whole_channels=True),
        }
    small = loops["compact"].model
    loops["built"] = loop(lambda: keras.models.clone_model(small), batch)
    seconds = alternating({n: step(own, batch) for n, own in loops.items()}, given.rounds)
    about = {
        "network": given.ticket or given.network, "pixels": small.input_shape[1], "batch": batch,
        "multiply_adds_left": round(multiply_adds(small) / multiply_adds(loops["dense"].model), 4),
    }  # fmt: skip
    report("compact_step", "masked", seconds, **about)
    report("compact_step", "built", seconds, **about)


if __name__ == "__main__":
    main()
