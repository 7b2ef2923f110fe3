"""Two replicas do what one device does. In a process of its own: devices are split at its start."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from conftest import TINY, composed

from lottery import experiment
from lottery.rewinding import Start
from lottery.training import devices, run
from lottery.training.checkpoints import CheckpointFolder, Progress
from lottery.training.interrupts import StopSignals

devices._strategies["mirrored"] = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
states, metrics = {}, {}
for strategy in ("one", "mirrored"):
    config = composed(*TINY, f"trainer.strategy={strategy}")  # augmentation included
    data = experiment._load(config.data)
    loop, length = run.build(config, data, start=Start(), last_epoch=2, mask={})
    path = next(p for p in loop.variables() if p.startswith("model/") and p.endswith("kernel"))
    shape = loop.state()[path].shape
    mask = np.random.default_rng(0).random(shape) < 0.3
    mask = {path.removeprefix("model/"): mask}
    loop, length = run.build(config, data, start=Start(), last_epoch=2, mask=mask)
    with tempfile.TemporaryDirectory() as folder:
        loop.fit(
            data, length, Progress(0), checkpoints=CheckpointFolder(Path(folder)),
            checkpoint_steps=length.steps_per_epoch, callbacks=[], signals=StopSignals(),
        )
    states[strategy], metrics[strategy] = loop.state(), loop.evaluate(data.test)
    assert not states[strategy][path][~mask[path.removeprefix("model/")]].any()
    if strategy == "mirrored":
        assert loop.replicas == 2
        for replica in loop.variables()[path].value.values:
            assert not replica.numpy()[~mask[path.removeprefix("model/")]].any()
for name, array in states["one"].items():
    np.testing.assert_allclose(array, states["mirrored"][name], atol=1e-5, err_msg=name)
assert metrics["one"].examples == metrics["mirrored"].examples == data.test.size
print("agreed")
"""


def test_a_mirrored_strategy_agrees_with_one_device():
    tests = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent / "src")]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "agreed", done.stderr[-2000:]
