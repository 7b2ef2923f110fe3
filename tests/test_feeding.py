"""Batches lie on the GPU of a single replica before they are asked for."""

import numpy as np
import pytest
import tensorflow as tf

from lottery.training import devices, feeding
from lottery.training.feeding import Feed

BATCHES = tf.data.Dataset.from_tensor_slices((np.arange(12).reshape(6, 2), np.arange(6)))


def values(batches):
    return [(images.numpy().tolist(), int(labels)) for images, labels in batches]


def test_on_a_cpu_the_batches_are_taken_as_they_are(monkeypatch):
    assert devices.gpu() is None
    assert feeding.ahead(BATCHES, None) is BATCHES

    def unexpected(*arguments):
        raise AssertionError("nothing has to be moved")

    monkeypatch.setattr(tf.data.experimental, "prefetch_to_device", unexpected)
    assert values(Feed(tf.distribute.get_strategy())(BATCHES)) == values(BATCHES)


@pytest.mark.parametrize("device", ["/CPU:0", "/device:CPU:0"])
def test_the_batches_of_a_device_are_the_same_in_the_same_order(device):
    ahead = feeding.ahead(BATCHES, device)
    assert ahead is not BATCHES
    assert values(iter(ahead)) == values(BATCHES)


def test_a_single_replica_is_fed_on_its_gpu(monkeypatch):
    asked = []
    monkeypatch.setattr(devices, "gpu", lambda: "/CPU:0")  # stands in for one
    original = tf.data.experimental.prefetch_to_device
    monkeypatch.setattr(
        tf.data.experimental, "prefetch_to_device",
        lambda device, size: asked.append((device, size)) or original(device, size),
    )  # fmt: skip
    assert values(Feed(tf.distribute.get_strategy())(BATCHES)) == values(BATCHES)
    assert asked == [("/CPU:0", feeding.BATCHES_AHEAD)]
