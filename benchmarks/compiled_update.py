"""The update of a step by TensorFlow's kernels and compiled by XLA, and what compiling costs.

python benchmarks/compiled_update.py [--steps 100]

In CPU time of this process, which other processes hardly change. `MOST_VARIABLES` of
lottery.training.update was chosen by it.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from lottery import models
from lottery.training import devices, update
from lottery.training.masking import Masking

NETWORKS = {
    "lenet_300_100": (28, 28, 1), "resnet20": (32, 32, 3), "mobilenet_v2": (96, 96, 3),
}  # fmt: skip
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(1e-3, momentum=0.9, name="optimizer"),
    "adam": lambda: keras.optimizers.Adam(1e-3, name="optimizer"),
}


def seconds(act):
    started = time.process_time()
    act()
    return time.process_time() - started


def measure(network, optimizer, most, steps):
    """Seconds of the first call, tracing and compiling, and of each later one."""
    update.MOST_VARIABLES = most
    model = models.build(network, NETWORKS[network], 10)
    made = OPTIMIZERS[optimizer]()
    made.build(model.trainable_variables)
    masking = Masking(model, made, {}, None)
    own = update.Update(made, model.trainable_variables, masking, devices.strategy("one"))
    gradients = [tf.ones(v.shape) for v in model.trainable_variables]
    call = tf.function(lambda: own(gradients), autograph=False)
    first = seconds(call)

    def repeat():
        for _ in range(steps):
            call()

    return first, seconds(repeat) / steps, len(gradients)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    steps = parser.parse_args().steps
    devices.configure(precision="float32", deterministic=False)
    for network in NETWORKS:
        for optimizer in OPTIMIZERS:
            traced, by_kernels, count = measure(network, optimizer, 0, steps)
            compiled, by_xla, _ = measure(network, optimizer, 10**6, steps)
            line = {
                "network": network, "optimizer": optimizer, "variables": count,
                "compile_seconds": round(compiled - traced, 2),
                "by_kernels_ms": round(1000 * by_kernels, 2),
                "compiled_ms": round(1000 * by_xla, 2),
            }  # fmt: skip
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
