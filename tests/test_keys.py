"""What a key holds: every option that has an effect and none that has not; whose code it is."""

from dataclasses import asdict, fields, replace
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import TINY, composed, laboratory

from lottery import choices, stability
from lottery.config import Config
from lottery.data import load
from lottery.experiment import train_dense
from lottery.lineage import epoch_steps, lineage
from lottery.options import options
from lottery.rewinding import without_slots
from lottery.store import Store
from lottery.training.checkpoints import equal
from lottery.training.optimizers.sgd import Sgd
from lottery.training.schedules import unchanging

NODES = ("dense", "mask", "ticket")


@pytest.fixture(scope="module")
def base() -> Config:
    config: Config = composed(*TINY, "seed=3")
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> dict[str, Any]:
    """Options of a folder of 8x8 images with test folders of its own."""
    root, rng = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 4), ("val", 5)):
        for name in ("a", "b", "c"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 256, (8, 8, 3), np.uint8)
                cv2.imwrite(str(root / part / name / f"{i}.png"), image)
    return {"data.source": "folder", "data.dir": str(root), "trainer.batch_size": 16}


def having(config: Config, changes: dict[str, Any]) -> Config:
    """The config with other values, by dotted name."""
    for name, value in changes.items():
        config = changed(config, name.split("."), value)
    return config


def changed(group: Any, path: list[str], value: Any) -> Any:
    if isinstance(group, dict):  # of several choices
        return {**group, path[0]: changed(group[path[0]], path[1:], value)}
    (f,) = (f for f in fields(group) if f.name == path[0])
    if (kind := f.metadata.get("kind")) and path[1:] == [kind.key]:
        old = getattr(group, f.name)
        before = asdict(old) if old is not None else {}  # what it has in common with another choice
        new = kind.of(kind.known_part({**before, kind.key: value}))
    elif path[1:]:
        new = changed(getattr(group, f.name), path[1:], value)
    else:
        new = value
    return replace(group, **{f.name: new})


def keys(config: Config) -> dict[str, str]:
    """Those of the dense network, of the last mask before it is shuffled, and of the ticket."""
    chain = lineage(config, Store("nowhere"))
    last = chain.rounds[-1]
    assert chain.dense is not None
    return {
        "dense": chain.dense.key,
        "mask": last.mask and last.mask.key,
        "ticket": last.ticket.key,
    }


def differing(one: Config, other: Config) -> tuple[str, ...]:
    """The nodes that are not the same."""
    a, b = keys(one), keys(other)
    return tuple(node for node in NODES if a[node] != b[node])


ADAM, STEP, BATCH_NORM = (
    {"optimizer.name": "adam"},
    {"schedule.name": "step", "schedule.milestones": [0.5]},
    {"model.name": "mobilenet_v2", "model.width": 0.25},
)
WSD = {"schedule.name": "wsd"}
CUTOUT = {"augmentation": choices.augmentation.all_of({"cutout": {"name": "cutout"}})}
STOPPING = {"callback": choices.callback.all_of({"early_stopping": {"name": "early_stopping"}})}
FOLDER = {"data.source": "folder"}  # completed by the fixture
RESIZED = {"data.crop": "resized"}
RIGL = {"mask.during.name": "rigl"}

# option, another value, the first node that it determines, beside which other values.
EFFECTS: list[tuple[str, Any, str, dict[str, Any]]] = [
    ("seed", 4, "dense", {}),
    ("data.source", "folder", "dense", FOLDER),
    ("data.test", "val", "dense", FOLDER),
    ("data.stored_size", 4, "dense", FOLDER),
    ("data.validation", 0.3, "dense", {}),
    ("data.test_fraction", 0.3, "dense", {}),
    ("data.split_seed", 1, "dense", {}),
    ("data.classes", [1, 0], "dense", {"trainer.batch_size": 16}),
    ("data.classes", [1, 0, 2, 3, 4, 5, 6, 7, 8, 9], "dense", {}),
    ("data.image_size", 6, "dense", {}),
    ("data.resize", 10, "dense", {}),
    ("data.crop", "resized", "dense", {}),
    ("data.crop_padding", 3, "dense", {}),
    ("data.crop_area", [0.5, 1.0], "dense", RESIZED),
    ("data.crop_aspect", [1.0, 1.0], "dense", RESIZED),
    ("data.flip", True, "dense", {}),
    ("data.mixup", 0.2, "dense", {}),
    ("data.label_noise", 0.2, "dense", {}),
    ("data.mean", [0.1], "dense", {}),
    ("data.std", [0.1], "dense", {}),
    ("data.std", [0.376, 0.376, 0.2], "dense", FOLDER),
    ("model.name", "conv_2", "dense", {}),
    ("model.architecture", "{}", "dense", {"model.name": "given"}),
    ("model.width", 0.2, "dense", {}),
    ("model.dropout", 0.1, "dense", {}),
    ("model.batch_norm_momentum", 0.9, "dense", BATCH_NORM),
    ("optimizer.name", "adam", "dense", {}),
    ("optimizer.learning_rate", 0.2, "dense", {}),
    ("optimizer.momentum", 0.5, "dense", {}),
    ("optimizer.nesterov", False, "dense", {}),
    ("optimizer.beta_1", 0.8, "dense", ADAM),
    ("optimizer.beta_2", 0.9, "dense", ADAM),
    ("optimizer.epsilon", 1e-3, "dense", ADAM),
    ("optimizer.beta_1", 0.8, "dense", {"optimizer.name": "adamw"}),
    ("optimizer.weight_decay", 0.1, "dense", {}),
    ("optimizer.clip_norm", 1.0, "dense", {}),
    ("augmentation.cutout.size", 3, "dense", CUTOUT),
    ("callback.early_stopping.monitor", "val_top1", "dense", STOPPING),
    ("callback.early_stopping.min_delta", 0.1, "dense", STOPPING),
    ("callback.early_stopping.patience", 3, "dense", STOPPING),
    ("callback.early_stopping.mode", "max", "dense", STOPPING),
    ("callback.early_stopping.baseline", 1.0, "dense", STOPPING),
    ("callback.early_stopping.restore_best_weights", True, "dense", STOPPING),
    ("callback.early_stopping.start_from_epoch", 2, "dense", STOPPING),
    ("schedule.name", "constant", "dense", {}),
    ("schedule.warmup", 0.3, "dense", {}),
    ("schedule.final", 0.5, "dense", {}),
    ("schedule.milestones", [0.25], "dense", STEP),
    ("schedule.factor", 0.5, "dense", STEP),
    ("schedule.decay", 0.5, "dense", WSD),
    ("schedule.decay", "1ep", "dense", WSD),
    ("schedule.shape", "sqrt", "dense", WSD),
    ("schedule.final", 0.5, "dense", WSD),
    ("schedule.warmup", "5it", "dense", {}),
    ("schedule.milestones", ["1ep"], "dense", STEP),
    ("trainer.epochs", 3, "dense", {}),
    ("trainer.batch_size", 128, "dense", {}),
    ("trainer.label_smoothing", 0.1, "dense", {}),
    ("trainer.class_weights", "balanced", "dense", {}),
    ("trainer.class_weights", {"3": 2.0}, "dense", {}),
    ("trainer.precision", "mixed_bfloat16", "dense", {}),
    ("trainer.sync_batch_norm", True, "dense", BATCH_NORM),
    ("trainer.validation_steps", 3, "dense", {}),
    ("mask.percentile", 50.0, "mask", {}),
    ("mask.scope.name", "layer", "mask", {}),
    ("mask.score.name", "random", "mask", {}),
    ("mask.pattern.name", "block", "mask", {}),
    ("mask.at", "start", "mask", {}),
    ("mask.at", "1ep", "mask", {}),
    ("mask.during.name", "rigl", "mask", {}),
    ("mask.during.initial", 20.0, "ticket", {"mask.during.name": "gradual"}),
    ("mask.during.frequency", 3, "ticket", RIGL),
    ("mask.during.drop", 0.2, "ticket", RIGL),
    ("mask.during.end", 0.5, "ticket", RIGL),
    ("mask.scope.name", "erk", "ticket", RIGL),
    ("mask.percentile", 70.0, "ticket", RIGL),
    ("mask.during.begin", 0.2, "ticket", {"mask.during.name": "gradual"}),
    ("mask.score.of", "weight", "mask", {"mask.score.name": "movement"}),
    ("mask.score.per_class", 3, "mask", {"mask.score.name": "snip"}),
    ("mask.score.temperature", 3.0, "mask", {"mask.score.name": "grasp"}),
    ("mask.score.rounds", 3, "mask", {"mask.score.name": "synflow"}),
    ("mask.scope.factors", {"*": 0.5}, "mask", {"mask.scope.name": "rates"}),
    ("mask.scope.first", 0.5, "mask", {"mask.scope.name": "rates"}),
    ("mask.scope.last", 1.0, "mask", {"mask.scope.name": "rates"}),
    ("mask.pattern.n", 1, "mask", {"mask.pattern.name": "n_of_m"}),
    ("mask.pattern.m", 8, "mask", {"mask.pattern.name": "n_of_m"}),
    ("mask.pattern.pad", True, "mask", {"mask.pattern.name": "n_of_m"}),
    ("mask.pattern.rows", 2, "mask", {"mask.pattern.name": "block"}),
    ("mask.pattern.columns", 2, "mask", {"mask.pattern.name": "block"}),
    ("mask.pattern.alive", 2, "mask", {"mask.pattern.name": "channel"}),
    ("mask.rate", 20.0, "mask", {}),
    ("mask.depthwise", True, "mask", BATCH_NORM),
    ("mask.skip_first", True, "mask", {}),
    ("mask.skip_first", True, "mask", {"mask.percentile": 0.0}),
    ("mask.skip_last", True, "mask", {}),
    ("mask.shuffle", True, "ticket", {}),
    ("rewind.name", "lr", "ticket", {}),
    ("rewind.epoch", 2, "ticket", {}),
    ("rewind.epoch", 2, "ticket", {"rewind.name": "lr"}),
    ("rewind.step", 3, "ticket", {}),
    ("rewind.epoch", 2, "ticket", {"rewind.name": "finetune"}),
    ("rewind.optimizer", "reset", "ticket", {}),
    ("rewind.optimizer", "reset", "ticket", {"rewind.name": "lr", "rewind.epoch": 0}),
    ("rewind.optimizer", "reset", "ticket", {"rewind.epoch": 2, **ADAM}),
]
# An option, and beside which other values it has no effect.
NO_EFFECTS: list[tuple[str, Any, dict[str, Any]]] = [
    ("data.name", "mine", FOLDER),
    ("data.test_fraction", 0.3, FOLDER),
    ("data.stored_size", 8, {}),
    ("data.stored_size", 8, FOLDER),
    ("data.image_size", 8, {}),
    ("data.resize", 8, {}),
    ("data.resize", 6, {"data.image_size": 6}),
    ("data.classes", list(range(10)), {}),
    ("data.mean", [0.3053] * 3, FOLDER),
    ("data.crop_area", [0.5, 1.0], {}),
    ("data.crop_aspect", [1.0, 1.0], {}),
    ("optimizer.nesterov", False, {"optimizer.momentum": 0.0}),
    ("trainer.class_weights", [1.0] * 10, {}),
    ("trainer.class_weights", {9: 3, "2": 2}, {"trainer.class_weights": {2: 2.0, 9: 3.0}}),
    ("schedule.factor", 0.5, {"schedule.name": "step"}),
    ("trainer.sync_batch_norm", True, {}),
    ("trainer.sync_batch_norm", True, {**BATCH_NORM, "trainer.strategy": "one"}),
    ("mask.scope.name", "layer", {"mask.percentile": 0.0}),
    ("mask.pattern.name", "block", {"mask.percentile": 0.0}),
    ("mask.score.name", "random", {"mask.percentile": 0.0}),
    ("mask.at", "start", {"mask.percentile": 0.0}),
    ("mask.score.name", "random", RIGL),
    ("rewind.epoch", 2, RIGL),
    ("mask.shuffle", True, {"mask.percentile": 0.0}),
    ("mask.rate", 20.0, {"mask.percentile": 20.0}),
    ("mask.rate", 20.0, {"mask.percentile": 0.0}),
    ("mask.depthwise", True, {}),
    ("mask.depthwise", True, {"model.name": "ResNet50"}),
    ("rewind.epoch", 2, {"rewind.name": "reinit"}),
    ("rewind.epoch", 2, {"rewind.step": 3}),
    ("rewind.step", 3, {"rewind.name": "reinit"}),
    ("rewind.step", 4, {"rewind.epoch": 1}),
    ("rewind.optimizer", "reset", {"rewind.epoch": 0}),
    ("rewind.optimizer", "reset", {"rewind.name": "reinit"}),
    ("rewind.optimizer", "reset", {"optimizer.momentum": 0.0}),
]


def beside(base: Config, changes: dict[str, Any], folder: dict[str, Any]) -> Config:
    return having(base, changes | (folder if changes.get("data.source") == "folder" else {}))


@pytest.mark.parametrize(("option", "value", "first", "others"), EFFECTS)
def test_an_option_determines_a_node_and_all_that_come_from_it(
    base, folder, option, value, first, others
):
    config = beside(base, others, folder)
    other = having(config, {option: value})
    if option == "data.source":
        config = base
    assert differing(config, other) == NODES[NODES.index(first) :]


@pytest.mark.parametrize(("option", "value", "others"), NO_EFFECTS)
def test_an_option_without_effect_is_in_no_key(base, folder, option, value, others):
    config = beside(base, others, folder)
    assert differing(config, having(config, {option: value})) == ()


def test_a_point_of_a_schedule_has_one_key_however_it_is_written(base):
    spe = epoch_steps(base)
    for values, same, other in (
        (
            {"schedule.warmup": "1ep"},
            {"schedule.warmup": f"{spe}it"},
            {"schedule.warmup": "1ep1it"},
        ),
        (
            STEP | {"schedule.milestones": ["1ep"]},
            STEP | {"schedule.milestones": [f"{spe}it"]},
            STEP | {"schedule.milestones": ["2ep"]},
        ),
        (WSD | {"schedule.decay": "1ep"}, WSD | {"schedule.decay": f"{spe}it"}, WSD),
    ):
        config = having(base, values)
        assert differing(config, having(base, same)) == ()
        assert differing(config, having(base, other)) == NODES


# Of stability.py: option, another value, what it determines of dense network, children and line,
# beside which other values. Whatever determines a dense network is in the table above.
STABILITY: list[tuple[str, Any, tuple[str, ...], dict[str, Any]]] = [
    ("seed", 4, ("dense", "child", "line"), {}),
    ("rewind.epoch", 2, ("child", "line"), {}),
    ("rewind.step", 3, ("child", "line"), {}),
    ("mask.percentile", 50.0, ("child", "line"), {}),
    ("mask.rate", 20.0, ("child", "line"), {"mask.percentile": 50.0}),
    ("mask.shuffle", True, ("child", "line"), {"mask.percentile": 50.0}),
    ("stability.points", 5, ("line",), {}),
    ("stability.batches", 1, ("line",), BATCH_NORM),
    ("stability.batches", 1, (), {}),
    ("stability.batches", 200, (), BATCH_NORM),  # an epoch has fewer
    ("rewind.step", 4, (), {"rewind.epoch": 1}),
    ("mask.score.name", "random", (), {}),
    ("mask.shuffle", True, (), {}),
    ("mask.rate", 20.0, (), {}),
    ("rewind.keep", [2], (), {}),
]


@pytest.mark.parametrize(("option", "value", "determined", "others"), STABILITY)
def test_an_option_determines_children_and_their_line(option, value, determined, others):
    def found(config: Any) -> dict[str, Any]:
        chain = stability.chain(config, Store("nowhere"))
        children = [branch.node.key for branch in chain.branches]
        assert len({*children}) == 2
        assert chain.dense is not None
        assert chain.measured is not None
        return {"dense": chain.dense.key, "child": children, "line": chain.measured.key}

    config = having(composed(*TINY, "seed=3", name="stability"), others)
    one, other = found(config), found(having(config, {option: value}))
    assert tuple(node for node in one if one[node] != other[node]) == determined


def test_every_option_of_stability_is_in_the_tables():
    own = {n for n, *_ in options(composed(*TINY, name="stability"))}
    known = {n for n, *_ in options(composed(*TINY))} | {option for option, *_ in STABILITY}
    assert own - known == {"ticket"}  # whose mask is in the key: test_stability.py


def test_every_option_is_in_the_table_or_plumbing(base):
    fields_of = {name: f for name, f, _ in options(base)}
    for kind in choices.KINDS:
        for name in kind.shipped():
            place = f"{kind.option}.{name}" if kind.several else kind.option
            named = {kind.key} if kind.several else set()  # by its place
            own = [f for f in fields(kind.find(name)) if f.name not in named]
            fields_of |= {f"{place}.{f.name}": f for f in own}
    asks = f"{choices.search.option}."  # which cells there are, not what is in them
    nested = {
        kind.option for kind in choices.KINDS if "/" in kind.group
    }  # the names stand for them
    determining = {
        name
        for name, f in fields_of.items()
        if f.metadata["identity"] and not name.startswith(asks) and name not in nested
    }
    assert {option for option, *_ in EFFECTS} == determining
    for name, f, value in options(base):
        if f.metadata["identity"] or name == "model.weights":  # in the key by what they hold
            continue  # which test_pretrained.py shows
        new = not value if isinstance(value, bool) else [1] if isinstance(value, list) else "other"
        if name == "trainer.strategy":
            new = "mirrored"
        assert differing(base, having(base, {name: new})) == (), name


def test_options_that_name_what_there_is_anyway_change_no_example(base):
    """The declarations about data are true of the data."""
    said = {
        "data.stored_size": 8, "data.image_size": 8,
        "data.classes": list(range(10)),
    }  # fmt: skip
    one, other = (load(config.data) for config in (base, having(base, said)))
    for part in ("train", "validation", "test"):
        a, b = getattr(one, part), getattr(other, part)
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


# -- the declarations are true -------------------------------------------------------------------


def test_options_without_effect_change_no_bit_of_a_training(base, tmp_path):
    config = having(base, {"schedule.name": "constant", "trainer.epochs": 1, "rewind.epoch": 0})
    other = having(
        config,
        {
            "data.stored_size": 8, "data.image_size": 8,
            "data.resize": 8, "data.classes": list(range(10)), "data.crop_area": [0.5, 1.0],
            "data.crop_aspect": [1.0, 1.0],
            "trainer.sync_batch_norm": True, "mask.percentile": 0.0, "rewind.optimizer": "reset",
        },
    )  # fmt: skip
    runs = [
        train_dense(c, laboratory(tmp_path / name)) for name, c in (("a", config), ("b", other))
    ]
    assert runs[0].key == runs[1].key
    assert equal(runs[0].state(), runs[1].state())
    begin = runs[0].state(0)
    assert any(name.endswith("_momentum") for name in begin)
    assert equal(without_slots(begin), begin)  # so that resetting them at epoch 0 does nothing


def test_without_momentum_there_is_neither_nesterov_nor_anything_to_reset():
    import keras

    ends = []
    for nesterov in (False, True):
        optimizer = Sgd(momentum=0.0, nesterov=nesterov).build(unchanging(0.1))
        weight = keras.Variable(np.ones(3, np.float32), name="weight")
        optimizer.build([weight])
        optimizer.apply([np.arange(3, dtype=np.float32)])
        ends.append(np.array(weight))
        assert {v.name for v in optimizer.variables} == {"iteration"}
    assert not np.array_equal(ends[0], np.ones(3))
    np.testing.assert_array_equal(*ends)
