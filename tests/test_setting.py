"""What a training ran on: recorded, and said where it is more than rounding."""

import logging
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, composed
from test_data import RESIZED

from lottery import experiment, files, replay, trainings
from lottery.analysis import collect
from lottery.errors import ConfigError
from lottery.points import Point
from lottery.runs import Run, runs_of
from lottery.training import devices
from lottery.training.recipe import from_scratch
from lottery.training.setting import Setting, inexact, mixture, result

ONE = Setting(1, "NVIDIA A100", deterministic=True, jit_compile=False, tensorflow="2.21.0")


@pytest.mark.parametrize(
    ("here", "dense", "reason"),
    [
        (ONE, ONE, None),
        (ONE, None, "not known"),
        (ONE, replace(ONE, deterministic=False), "dense run was trained without deterministic"),
        (replace(ONE, deterministic=False), ONE, "operations here are not deterministic"),
        (replace(ONE, replicas=4), ONE, "number of devices is 4, and was 1"),
        (replace(ONE, devices="NVIDIA H100"), ONE, "is NVIDIA H100, and was NVIDIA A100"),
        (replace(ONE, jit_compile=True), ONE, "jit_compile is True, and was False"),
        (replace(ONE, tensorflow="2.22.0"), ONE, "TensorFlow is 2.22.0, and was 2.21.0"),
    ],
)
def test_a_replay_is_exact_only_where_everything_repeats(here, dense, reason):
    found = inexact(here, dense)
    assert found == reason if reason is None else reason in str(found)


def test_replicas_matter_where_the_network_sees_their_parts_of_a_batch():
    norm = replace(ONE, per_replica="batch normalisation")
    assert mixture([ONE, replace(ONE, replicas=2)]) is None  # rounding only
    assert mixture([norm, norm]) is None
    assert mixture([norm, replace(norm, devices="NVIDIA H100")]) is None
    said = "trained on 1 and 4 devices, and batch normalisation depends on their number"
    assert said in str(mixture([replace(norm, replicas=4), norm]))
    continued = result([norm, replace(norm, replicas=4)])
    assert said in continued["mixed"]
    assert (continued["replicas"], continued["deterministic"]) == (4, False)


def test_a_network_names_what_its_replicas_change(monkeypatch):
    from lottery.training import run

    norm = ("model=resnet20", "model.width=0.1")
    named = []
    for options in ((), ("model.dropout=0.5",), norm, (*norm, "trainer.sync_batch_norm=true")):
        config = composed(*TINY, *options)
        data = trainings.load_data(config.data)
        loop, _ = run.build(from_scratch(config, 1), data, {})
        named.append(loop.setting.per_replica)
    assert named == ["", "dropout", "batch normalisation", ""]
    assert (loop.setting.replicas, loop.setting.tensorflow) == (1, tf.__version__)
    assert loop.setting.deterministic
    here = loop.setting.devices
    assert re.search(r", \d+ threads?$", here)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # threads divide sums
    assert loop.setting.devices == re.sub(r", \d+ threads?$", ", 1 thread", here)


@pytest.mark.slow
def test_a_replay_and_another_number_of_devices_are_said(lab, monkeypatch, caplog):
    network = (*TINY, "model.dropout=0.5")
    late = composed(*network, "rewind.epoch=2", "mask.percentile=50")
    dense = runs_of(experiment.find_ticket(late, lab))["dense"]
    assert dense.points == [Point(0), Point(2)]

    def ticket(percentile: int) -> Run:
        config = composed(*network, f"mask.percentile={percentile}")
        return runs_of(experiment.find_ticket(config, lab))["ticket"]

    same = ticket(60)
    assert same.result["replayed"] == "exactly"
    assert "mixed" not in same.result
    assert collect.from_store(lab.store.root, {}).notes == ()
    (state,) = (lab.store.root / "state").iterdir()
    files.write_json(state / "replay.json", {"replayed": "operations here are not deterministic"})
    here = devices.setting
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(
            devices, "setting",
            lambda strategy, **how: replace(here(strategy, **how), replicas=2),
        )  # fmt: skip
        other = ticket(70)
    assert other.result["replayed"] == "operations here are not deterministic"
    assert "trained on 1 and 2 devices, and dropout depends" in other.result["mixed"]
    assert other.result["mixed"] in caplog.text
    notes = collect.from_store(lab.store.root, {}).notes
    assert [note.partition(" devices")[0] for note in notes] == [
        "networks of this study were trained on 1 and 2",
        f"1 tickets come from a state that is not exactly one of their dense network ({other.key})"
        ": it was not kept, and operations here are not deterministic",
    ]


def test_a_replay_that_is_not_exact_warns_before_it_trains(lab, monkeypatch, caplog):
    config = composed(*TINY, "rewind.epoch=2")
    dense = experiment.train_dense(config, lab)
    here = devices.setting
    monkeypatch.setattr(
        devices, "setting",
        lambda strategy, **how: replace(here(strategy, **how), deterministic=False),
    )  # fmt: skip
    _, replayed = replay.dense_state_and_replay(config, lab, dense, Point(1))
    assert replayed == "operations here are not deterministic"
    assert "rewind.keep=[1] or trainer.deterministic=true" in caplog.text


def test_a_mask_of_a_state_that_was_not_exactly_replayed_says_so(lab, monkeypatch):
    experiment.train_dense(composed(*TINY), lab)
    here = devices.setting
    monkeypatch.setattr(
        devices, "setting",
        lambda strategy, **how: replace(here(strategy, **how), deterministic=False),
    )  # fmt: skip
    for own in (), ("mask.shuffle=true",):
        config = composed(*TINY, "mask.at=5it", *own)
        ticket = runs_of(experiment.find_ticket(config, lab))["ticket"]
        assert ticket.result["replayed"] == "operations here are not deterministic"
    config = composed(*TINY, "mask.at=end")
    assert "replayed" not in runs_of(experiment.find_ticket(config, lab))["ticket"].result


def test_mixup_takes_partners_whatever_the_number_of_replicas():
    p = replace(RESIZED, mixup=0.4)
    inputs = tf.random.stateless_normal([12, 2, 2, 3], [1, 2])
    step = tf.constant(9, tf.int64)
    whole = p.mixed(inputs, tf.eye(12), seed=0, step=step)
    for replicas in (2, 3, 6):
        rows = 12 // replicas
        parts = [
            p.mixed(inputs[i : i + rows], tf.eye(12)[i : i + rows], seed=0, step=step,
                    first_row=i, global_batch=12)
            for i in range(0, 12, rows)
        ]  # fmt: skip
        for got, want in zip(zip(*parts, strict=True), whole, strict=True):
            assert np.array_equal(np.concatenate(got), want)
    odd = p.mixed(inputs[:3], tf.eye(3), seed=0, step=step)[1].numpy()
    assert odd[2, 1] == pytest.approx(1 - odd[2, 2])  # all have one


def test_pairs_are_not_torn_apart():
    devices.check_batch(12, 2, in_pairs=True)
    devices.check_batch(9, 1, in_pairs=True)
    devices.check_batch(10, 2)
    with pytest.raises(ConfigError, match=r"batch_size=10 over 2 devices .* odd number: take 12"):
        devices.check_batch(10, 2, in_pairs=True)
