"""Channels that a pattern removes together are those that compaction can then take out."""

import json
from dataclasses import asdict

import keras
import numpy as np
import pytest
from keras import layers

from lottery import choices, models
from lottery.compaction.inference import compact, removed
from lottery.compaction.ties import ties
from lottery.models.kernels import kernels
from lottery.pruning import masks
from lottery.pruning.units import Ties


def mixed():
    """A gate, an addition, a concatenation, depthwise and separable layers, dropout, Flatten."""
    image = keras.Input((8, 8, 3), name="image")
    x = stem = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="deep")(x)
    x = layers.Dropout(0.5, name="noise")(layers.ReLU(name="relu")(x))
    x = layers.Conv2D(8, 1, use_bias=False, name="project")(x)
    x = layers.Add(name="add")([stem, x])
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    gate = layers.Conv2D(4, 1, activation="relu", name="reduce")(gate)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="expand")(gate)
    x = layers.Multiply(name="gated")([x, gate])
    y = layers.SeparableConv2D(6, 3, padding="same", use_bias=False, name="separable")(x)
    x = layers.Concatenate(name="both")([x, y])
    x = layers.Flatten(name="flat")(layers.MaxPooling2D(4, name="pool")(x))
    return keras.Model(image, layers.Dense(3, name="head")(x), name="mixed")


def twice():
    """One layer used at two places, of which the second feeds something unknown."""
    image = keras.Input((4, 4, 5), name="image")
    shared = layers.Conv2D(5, 1, name="shared")
    x = shared(layers.ReLU(name="relu")(shared(image)))
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Conv2D(6, 1, name="next")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(3, name="head")(x), name="twice")


NETWORKS = {
    "lenet": lambda: models.build("lenet_300_100", (8, 8, 1), 10, width=0.1),
    "resnet20": lambda: models.build("resnet20", (16, 16, 3), 10, width=0.5, dropout=0.2),
    "mobilenet": lambda: models.build("mobilenet_v2", (8, 8, 1), 10, width=0.35, dropout=0.2),
    "mixed": mixed,
}


def channel_mask(model, percentile, *, depthwise=False):
    generator = np.random.default_rng(0)
    paths = masks.prunable(kernels(model), depthwise=depthwise, skip_first=False, skip_last=False)
    shapes = {k.path: k.shape for k in kernels(model)}
    return masks.make(
        {path: generator.random(shapes[path]) for path in paths},
        percentile,
        allocation=choices.allocation.find("global")(),
        pattern=choices.pattern.find("channel")(),
        ties=ties(model),
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_compaction_takes_out_every_channel_that_is_removed(name):
    model = NETWORKS[name]()
    last = kernels(model)[-1]
    mask = channel_mask(model, 40)
    assert last.path not in mask
    for variable in model.variables:
        if variable.path in mask:
            variable.assign(variable.numpy() * mask[variable.path])
    after = removed(model, compact(model))
    gone = 0
    for path, m in mask.items():
        dead = int((~m.any(axis=tuple(range(m.ndim - 1)))).sum())
        before, now = after[path.rpartition("/")[0]]
        assert before == m.shape[-1]
        assert now <= before - dead, path
        gone += dead
    assert gone > 0


def test_who_is_tied_to_whom():
    found = ties(mixed())
    assert Ties(**json.loads(json.dumps(asdict(found)))) == found
    classes = {p.rpartition("/")[0]: c for p, c in {**found.made, **found.passed}.items()}
    assert classes["stem"] == classes["project"] == classes["expand"]
    assert found.passed["deep/kernel"] == np.repeat(classes["stem"], 2).tolist()
    assert found.passed["separable/depthwise_kernel"] == classes["stem"]
    assert len(set(found.made["separable/pointwise_kernel"])) == 6
    assert len(set(classes["reduce"])) == 4
    assert not set(classes["stem"]) & set(classes["reduce"])
    assert set(classes["head"]) == {-1}


def test_shortcuts_that_pad_tie_stages_of_different_width():
    found = ties(NETWORKS["resnet20"]()).made
    stem, second, third = (
        found[f"{name}_conv/kernel"] for name in ("stem", "stage_2_block_0_b", "stage_3_block_2_b")
    )
    assert second[: len(stem)] == stem
    assert third[: len(second)] == second
    assert len({*third}) == len(third) == 4 * len(stem)
    inner = found["stage_1_block_0_a_conv/kernel"]
    assert not {*inner} & {*third}


def test_depthwise_kernels_lose_the_channels_that_they_read():
    model = NETWORKS["mobilenet"]()
    mask = channel_mask(model, 40, depthwise=True)
    passed = ties(model).passed
    assert passed.keys() <= mask.keys()
    stem = mask["stem_conv/kernel"].any(axis=(0, 1, 2))
    for path in passed:
        expanded = mask.get(path.replace("depthwise", "expand"))
        read = stem if expanded is None else expanded.any(axis=(0, 1, 2))
        assert (mask[path].any(axis=(0, 1, 3)) == read).all()
    assert not stem.all()


def test_a_layer_that_is_used_twice_keeps_what_one_use_needs():
    found = ties(twice()).made
    assert set(found["shared/kernel"]) == {-1}
    assert set(found["next/kernel"]) == set(range(6))
