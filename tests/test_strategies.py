"""Two replicas do what one device does. In a process of its own: devices are split at its start."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lottery.errors import ConfigError
from lottery.training import devices

SCRIPT = """
import json, os, sys, tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from conftest import TINY, composed, laboratory

from lottery import choices, experiment, trainings
from lottery.data.preprocessing import Preprocessing
from lottery.errors import ConfigError
from lottery.training import devices
from lottery.training.checkpoints import CheckpointFolder, Progress, equal
from lottery.interrupts import StopSignals
from lottery.pruning.dynamics import Course
from lottery.training.length import Length
from lottery.training.loop import Loop

devices._strategies["mirrored"] = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
data = trainings.load_data(composed().data)
shape = data.description.input_shape
cutout = choices.augmentation.of({"name": "cutout", "size": 3})
mask = np.random.default_rng(0).random((3, 3, 1, 8)) < 0.5
of_channels = np.broadcast_to(np.arange(8) % 2 == 0, mask.shape)
kept = []


def network(dropout, sync):
    layers = keras.layers
    image = keras.Input(shape, name="image")
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(momentum=0.9, synchronized=sync, name="norm")(x)
    # Smooth: where a ReLU's input is almost zero, rounding decides whether a gradient flows.
    x = layers.Flatten(name="flatten")(layers.Activation("tanh", name="tanh")(x))
    x = layers.Dropout(dropout, name="dropout")(x) if dropout else x
    return keras.Model(image, layers.Dense(10, dtype="float32", name="classifier")(x), name="small")


def loop(
    strategy, augment=True, precision="float32", dropout=0.0, sync=True, course=None, **channels
):
    devices.configure(precision=precision, deterministic=None)
    keras.utils.set_random_seed(0)
    rate = keras.optimizers.schedules.CosineDecay(0.05, 20)
    # Kept: TensorFlow waits up to a minute when it deletes an iterator over several devices.
    kept.append(Loop(
        network=lambda: network(dropout, sync),
        optimizer=lambda: keras.optimizers.SGD(
            rate, momentum=0.9, nesterov=True, weight_decay=1e-3, global_clipnorm=0.5,
            name="optimizer",
        ),
        preprocessing=Preprocessing(
            shape, int(augment), augment, (0.5,), (0.5,), further=(cutout,) if augment else ()
        ),
        batch_size=32, eval_batch_size=64, seed=0, strategy=devices.strategy(strategy),
        mask={"conv/kernel": of_channels if channels else mask}, course=course, head_rate=2.0,
        whole_channels=bool(channels), **channels,
    ))
    return kept[-1]


def fit(strategy, state=None, first=0, last=20, per_call=1, **options):
    made = loop(strategy, **options)
    if state is None:
        state = made.state()
        state["model/conv/kernel"] *= mask
    made.load(state)
    losses, call = [], made._train_call

    def recorded(*arguments):
        sums = call(*arguments)
        losses.append(float(sums[0] / sums[3]))
        return sums

    made._train_call = recorded
    with tempfile.TemporaryDirectory() as folder:
        made.fit(
            data,
            Length(last, 10, per_call, made.course.changes, made.course.measures)
            if made.course else Length(last, 10, per_call),
            Progress(first), callbacks=[],
            checkpoints=CheckpointFolder(Path(folder)), checkpoint_steps=100,
            signals=StopSignals(),
        )
    return made, losses


def apart(a, b):
    return max(float(np.abs(a[n] - b[n]).max()) for n in a if a[n].dtype != bool)


one, losses_of_one = fit("one")
two, losses_of_two = fit("mirrored")
facts = {"replicas": two.replicas}
facts["augmented"] = float(np.abs(np.subtract(losses_of_one, losses_of_two)).max())
facts["states"] = apart(one.state(), two.state())
unsynchronised = fit("mirrored", sync=False, last=2)[0]
facts["replicas_agree"] = [
    all((a.numpy() == b.numpy()).all() for a, b in (v.value.values for v in made.model.variables))
    for made in (two, unsynchronised)
]
facts["pruned"] = [
    float(np.abs(r.numpy()[~mask]).max())
    for name, v in two.variables().items() if "conv" in name for r in v.value.values
]
facts["examples"] = two.evaluate(data.test).examples == data.test.size

shared = loop("mirrored")
shared.load(one.state())
facts["correct"] = [
    [made.evaluation(split).correct.tolist() for made in (one, shared)]
    for split in (data.validation, data.test)
]

plain = [fit(s, augment=False)[1] for s in ("one", "mirrored")]
facts["plain"] = float(np.abs(np.subtract(*plain)).max())

compact, masked = (
    [fit(s, compact=c, dropout=0.2)[0] for s in ("mirrored", "one")] for c in (True, False)
)
facts["compact"] = {
    "channels": [m.model.get_layer("conv").filters for m in (*compact, *masked)],
    "apart": [apart(a.state(), b.state()) for a, b in zip(compact, masked)],
    "cut_off": float(np.abs(compact[0].state()["model/conv/kernel"][~of_channels]).max()),
}

by_four = fit("mirrored", per_call=4)[0]
facts["steps_per_call"] = equal(by_four.state(), two.state())

for a, b in (("one", "mirrored"), ("mirrored", "one")):
    half = fit(a, last=10)[0].state()
    facts[f"{a}_then_{b}"] = apart(fit(b, state=half, first=10)[0].state(), one.state())

for precision in ("mixed_float16", "mixed_bfloat16"):
    for strategy in ("one", "mirrored"):
        made, losses = fit(strategy, precision=precision, last=4)
        facts[f"{precision}_{strategy}"] = {
            "losses": losses,
            "steps": int(made.state()["optimizer/iteration"]),
            "scale": float(made.state().get("loss_scale/dynamic_scale", 0)),
            "pruned": float(np.abs(made.state()["model/conv/kernel"][~mask]).max()),
        }

for name in ("gradual", "set", "rigl"):
    dynamics = choices.dynamics.of({"name": name, "frequency": 3})
    course = Course(dynamics, 75.0, choices.allocation.of({"name": "global"}), 0, 0, 20)
    made = [fit(s, course=course)[0] for s in ("one", "mirrored", "mirrored")]
    states = [m.state() for m in made]
    facts[f"changing_{name}"] = {
        "masks": [bool((s["mask/conv/kernel"] == states[0]["mask/conv/kernel"]).all())
                  for s in states],
        "changed": bool((states[0]["mask/conv/kernel"] != mask).any()),
        "apart": apart(states[0], states[1]),
        "repeats": equal(states[1], states[2]),
        "pruned": [
            float(np.abs(r.numpy()[~states[1]["mask/conv/kernel"]]).max())
            for name, v in made[1].variables().items() if "conv" in name for r in v.value.values
        ],
    }

alone, shared = loop("one", dropout=0.5), loop("mirrored", dropout=0.5)
for _ in range(2):  # as initialised, and as loaded
    (name,) = (n for n in alone.variables() if "seed_generator" in n)
    facts["seeds"] = [v.numpy().tolist() for v in shared.variables()[name].value.values]
    facts["seed_of_one"] = alone.state()[name].tolist()
    facts["seed_stored"] = shared.state()[name].tolist()
    shared.load(alone.state())

with tempfile.TemporaryDirectory() as folder:
    lab = laboratory(Path(folder))
    odd = composed(*TINY, "trainer.batch_size=33", "trainer.strategy=mirrored")
    try:
        experiment.train_dense(odd, lab)
    except ConfigError as error:
        facts["refused"] = str(error)
    facts["written"] = [str(p) for p in Path(folder).glob("store/[dw]*/*/*")]
print(json.dumps(facts), flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    tests = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent / "src")]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_a_smaller_network_trains_as_the_masked_one(facts: dict[str, Any]) -> None:
    found = facts["compact"]
    assert found["channels"] == [4, 4, 8, 8]
    assert max(found["apart"]) < 1e-5
    assert found["cut_off"] == 0


def test_two_replicas_agree_with_one_device(facts):
    """Augmentation, synchronised BatchNorm, clipping and weight decay included, over 20 steps."""
    assert facts["replicas"] == 2
    assert facts["augmented"] < 1e-5
    assert facts["plain"] < 1e-5
    assert facts["states"] < 1e-5
    assert facts["examples"]


@pytest.mark.slow
def test_two_replicas_tell_which_images_are_right_in_the_order_of_one(facts):
    for one, two in facts["correct"]:
        assert len(one) % 64  # the last batch is filled up
        assert 0.1 < sum(one) / len(one) < 0.9
        assert two == one


@pytest.mark.slow
def test_replicas_hold_the_same_network(facts):
    assert facts["replicas_agree"] == [True, True]  # unsynchronised BatchNorm's statistics too
    assert facts["pruned"] == [0.0] * 4  # kernel and momentum, on both


@pytest.mark.slow
def test_several_steps_a_call_change_nothing(facts):
    assert facts["steps_per_call"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradual", "set", "rigl"])
def test_a_mask_changes_in_the_same_way_on_two_replicas(facts, name):
    found = facts[f"changing_{name}"]
    assert found["changed"]
    assert found["masks"] == [True] * 3
    assert found["apart"] < 1e-5
    assert found["repeats"]
    assert found["pruned"] == [0.0] * 4


@pytest.mark.slow
def test_checkpoints_fit_other_strategies(facts):
    assert facts["one_then_mirrored"] < 1e-5
    assert facts["mirrored_then_one"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["one", "mirrored"])
def test_mixed_precision(facts, strategy):
    half, brain = (facts[f"mixed_{kind}_{strategy}"] for kind in ("float16", "bfloat16"))
    for found in (half, brain):
        assert found["steps"] == 4  # none skipped
        assert all(0 < loss < 4 for loss in found["losses"])
        assert found["pruned"] == 0
    assert half["scale"] == 2**15  # Keras's first
    assert brain["scale"] == 0


@pytest.mark.slow
def test_each_replica_has_dropout_of_its_own(facts):
    first, second = facts["seeds"]
    assert first != second
    assert facts["seed_of_one"] == facts["seed_stored"] == first


@pytest.mark.slow
def test_a_batch_that_does_not_divide_is_refused_before_anything_is_written(facts):
    assert facts["refused"] == (
        "trainer.batch_size=33 does not divide over 2 devices: take 32 or 34, "
        "or trainer.strategy=one"
    )
    assert facts["written"] == []


def test_bfloat16_needs_a_gpu_that_has_it():
    devices.check_precision("mixed_bfloat16", "NVIDIA A100", (8, 0))
    devices.check_precision("mixed_float16", "Tesla V100", (7, 0))
    devices.check_precision("mixed_bfloat16", "unknown", None)
    with pytest.raises(ConfigError, match=r"8\.0, and Tesla V100 has 7\.0: take mixed_float16"):
        devices.check_precision("mixed_bfloat16", "Tesla V100", (7, 0))
