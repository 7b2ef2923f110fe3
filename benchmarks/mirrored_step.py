"""What a mask costs in a training step under MirroredStrategy, on two virtual CPU devices.

python benchmarks/mirrored_step.py [--rounds 10] [--size 96] [--batch 64]
"""

import tensorflow as tf
from masked_step import PERCENTILE, loop, magnitude_mask, options, random_batch
from measure import alternating, report

from lottery.training import devices

REPLICAS = 2


def on_replicas(strategy, part):
    """Each replica's rows of a global batch [1, B, ...]."""
    parts = tf.split(part, REPLICAS, axis=1)
    return strategy.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group]
    )


def main():
    given = options(batch=64).parse_args()
    size, batch = given.size, given.batch
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * REPLICAS
    )
    names = [f"CPU:{i}" for i in range(REPLICAS)]
    strategy = devices._strategies["mirrored"] = tf.distribute.MirroredStrategy(names)

    dense = loop(size, batch, strategy="mirrored")
    masked = loop(size, batch, magnitude_mask(dense.model), strategy="mirrored")
    images, labels = (on_replicas(strategy, part) for part in random_batch(size, batch))

    def step(network):
        return lambda: network._train_call(images, labels, tf.constant(0, tf.int64)).numpy()

    seconds = alternating({"dense": step(dense), "masked": step(masked)}, given.rounds)
    report(
        "mirrored_step", "dense", seconds, size=size, batch=batch, replicas=REPLICAS,
        percentile=PERCENTILE,
    )  # fmt: skip


if __name__ == "__main__":
    main()
