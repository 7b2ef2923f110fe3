"""Every config file against the schema, every mistake against its message, every key."""

import dataclasses
import math
import os
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from conftest import REPOSITORY, TINY, composed
from hydra import compose, initialize_config_dir
from hydra.errors import CompactHydraException
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from lottery import choices, cli, experiment, models, rewinding, studies, trainings
from lottery.config import Config, TransferConfig, typed
from lottery.data.sources import digits
from lottery.errors import ConfigError
from lottery.files import read_json, write_json
from lottery.options import identity, option, options
from lottery.sweep.progression import expand
from lottery.training.checkpoints import Progress
from lottery.training.roles import Chief
from lottery.training.schedules import unchanging
from lottery.validation import range_errors

CONF = REPOSITORY / "conf"
# Hydra's own groups, and those of preprocess.py and report.py, are no part of a study.
GROUPS = sorted({p.name for p in CONF.iterdir() if p.is_dir()} - {"hydra", "preprocess", "table"})
FILES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
# What a file leaves for the command line to say.
MISSING_VALUES = {
    ("data", "tfds"): ["data.name=mnist"],
    ("data", "folder"): ["data.dir=somewhere"],
    ("data", "records"): ["data.dir=somewhere"],
    ("experiment", "imagenet_mobilenet_v2"): ["data.dir=somewhere"],
}
PEAK = 0.1

errors = studies.find("prune").check


def files(group: str) -> list[str]:
    return [name for g, name in FILES if g == group]


# -- config files --------------------------------------------------------------------------------


def test_there_is_a_group_for_every_part_of_the_schema():
    alone = {"seed", "profile", "plugins", "verdict", "sweep"}
    alone |= {"augmentation", "callback", "search"}  # which need no file
    parts = {f.name for f in dataclasses.fields(Config)} - alone
    assert parts | {"experiment"} == set(GROUPS)


@pytest.mark.parametrize(("group", "name"), FILES)
def test_every_file_composes_into_valid_values(group, name):
    config = composed(f"{group}={name}", *MISSING_VALUES.get((group, name), []))
    assert isinstance(config, Config)
    assert range_errors(config) == []


@pytest.mark.parametrize(("group", "name"), MISSING_VALUES)
def test_what_a_file_leaves_open_must_be_given(group, name):
    try:
        found = errors(composed(f"{group}={name}"))
    except ConfigError as error:
        found = [str(error)]
    option = MISSING_VALUES[group, name][0].partition("=")[0]
    assert len(found) == 1
    assert option in found[0]


@pytest.mark.parametrize(("group", "name"), FILES)
def test_every_option_of_a_file_is_documented(group, name):
    documented = {n: f.metadata.get("doc") for n, f, _ in every_option()}
    content = OmegaConf.load(CONF / group / f"{name}.yaml")
    for hydras_own in ("defaults", "hydra"):
        content.pop(hydras_own, None)
    prefix = "" if group == "experiment" else f"{group}."
    for leaf in leaves(content, prefix):
        assert documented[leaf], leaf


def every_option():
    """Those of the schema, and those of all choices that come with the package."""
    yield from options(Config())
    for kind in choices.KINDS:
        for choice in kind.shipped():
            yield from options(kind.find(choice)(), f"{kind.option}.")


def leaves(config: DictConfig, prefix: str) -> list[str]:
    names = []
    for key in config:
        child = config._get_node(key)
        nested = isinstance(child, DictConfig)
        names += leaves(child, f"{prefix}{key}.") if nested else [f"{prefix}{key}"]
    return names


def test_every_option_is_documented_in_one_line():
    for name, f, _ in every_option():
        assert f.metadata["doc"].strip(), name
        assert "\n" not in f.metadata["doc"], name


@pytest.mark.parametrize("name", files("mask"))
def test_every_mask_file_can_run(name):
    assert errors(composed(f"mask={name}")) == []


@pytest.mark.parametrize(
    ("mask", "epoch"), [("magnitude", 5), ("snip", 0), ("random", 0), ("lenet", 5)]
)
def test_a_mask_that_is_made_before_training_is_rewound_to_the_start(mask, epoch):
    assert composed(f"mask={mask}").rewind.epoch == epoch
    assert composed(f"mask={mask}", "rewind.epoch=3").rewind.epoch == 3


@pytest.mark.parametrize("name", files("rewind"))
def test_every_rewind_file_names_a_rewinding(name):
    assert isinstance(composed(f"rewind={name}").rewind, rewinding.Rewinding)


@pytest.mark.parametrize("name", [*files("model"), "VGG16"])
def test_every_model_file_builds(name):
    chosen = composed(f"model={name}").model
    model = models.build_choice(chosen, (32, 32, 3), 7)
    assert model.output_shape == (None, 7)


# -- values out of range -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("mask.percentile=100", "mask.percentile=100.0 must be >= 0 and < 100"),
        ("mask.percentile=-0.5", "mask.percentile=-0.5 must be >= 0 and < 100"),
        ("mask.percentile=nan", "mask.percentile=nan must be"),
        ("mask.rate=0", "mask.rate=0.0 must be > 0 and < 100"),
        ("rewind.epoch=31", "rewind.epoch=31 lies after trainer.epochs=30"),
        ("rewind.epoch=-1", "rewind.epoch=-1 must be >= 0"),
        ("rewind.keep=[5,-1]", "rewind.keep=[5, -1] must hold numbers >= 0"),
        ("data.classes=[3]", "data.classes=[3] leaves fewer than two classes"),
        ("data.classes=[]", "data.classes=[] leaves fewer than two classes"),
        ("data.classes=[1,2,1]", "data.classes=[1, 2, 1] names a class twice"),
        ("data.validation=0", "data.validation=0.0 must be > 0 and < 1"),
        ("data.validation=1", "data.validation=1.0 must be > 0 and < 1"),
        ("data.std=[0]", "data.std=[0.0] must hold numbers > 0"),
        ("data.std=[nan]", "data.std=[nan] must hold numbers > 0"),
        ("data.mean=[nan]", "data.mean=[nan] must be finite"),
        ("data.mean=[inf]", "data.mean=[inf] must be finite"),
        ("data.crop_aspect=[1,inf]", "data.crop_aspect=[1.0, inf] must be finite"),
        (
            "schedule=step schedule.milestones=[0.5,nan]",
            "schedule.milestones=[0.5, nan] must be finite",
        ),
        ("data.classes=[1,-1]", "data.classes=[1, -1] must hold numbers >= 0"),
        ("data.crop_area=[0.5,1.5]", "data.crop_area=[0.5, 1.5] must be two values above 0"),
        ("data.crop_area=[0.5]", "data.crop_area=[0.5] must be two values above 0"),
        ("data.crop_aspect=[2,0.5]", "data.crop_aspect=[2.0, 0.5] must be two values above 0"),
        (
            "data.crop=random",
            "data.crop=random is unknown; did you mean window? (known: window, resized)",
        ),
        ("data.mean=[0.5,0.5]", "differ in length"),
        ("schedule.warmup=1", "schedule.warmup=1 must be >= 0 and < 1"),
        (
            "schedule=step schedule.milestones=[0.75,0.5]",
            "schedule.milestones=[0.75, 0.5] must increase",
        ),
        (
            "schedule=step schedule.milestones=[0.5,0.5]",
            "schedule.milestones=[0.5, 0.5] must increase",
        ),
        (
            "schedule.warmup=5x",
            "schedule.warmup=5x is neither a share of the training, as 0.1, nor",
        ),
        ("schedule.warmup=true", "schedule.warmup=True is neither a share of the training"),
        ("schedule=step schedule.milestones=[30,60]", "epochs are written 30ep"),
        ("schedule=step schedule.milestones=[soon]", "schedule.milestones=soon is neither a share"),
        ("schedule=step schedule.milestones=[0.5,9ep]", "mixes shares of the training with points"),
        ("schedule=step schedule.milestones=[9ep,9ep]", "schedule.milestones=['9ep', '9ep'] must"),
        (
            "schedule=step schedule.milestones=[1ep] schedule.warmup=1ep",
            "after the end of the warm",
        ),
        ("schedule=wsd schedule.decay=last", "schedule.decay=last is neither a share"),
        ("schedule=wsd schedule.decay=0", "schedule.decay=0 must be > 0"),
        (
            "schedule=wsd schedule.shape=exponential schedule.final=0",
            "never reaches schedule.final",
        ),
        (
            "schedule=wsd schedule.warmup=0.5 schedule.decay=0.6",
            "longer than the training together",
        ),
        ("schedule=wsd schedule.decay=31ep", "longer than the training together"),
        ("schedule.warmup=30ep", "is not shorter than the training"),
        ("schedule=step schedule.milestones=[0,0.5]", "must increase between 0 and 1"),
        ("schedule=step schedule.milestones=[0.5,1]", "must increase between 0 and 1"),
        (
            "schedule=step schedule.milestones=[0.2,0.5] schedule.warmup=0.2",
            "schedule.milestones=[0.2, 0.5] must lie after the end of the warm-up, "
            "schedule.warmup=0.2",
        ),
        ("optimizer.learning_rate=0", "optimizer.learning_rate=0.0 must be > 0"),
        ("optimizer.learning_rate=inf", "optimizer.learning_rate=inf must be"),
        ("optimizer.weight_decay=-1e-4", "optimizer.weight_decay=-0.0001 must be >= 0"),
        ("trainer.epochs=0", "trainer.epochs=0 must be >= 1"),
        ("trainer.batch_size=0", "trainer.batch_size=0 must be >= 1"),
        ("model.width=0", "model.width=0.0 must be > 0"),
        ("model.width=1e9", "model.width=1000000000.0 must be > 0 and <= 1000"),
        ("data.resize=100000", "data.resize=100000 must be >= 1 and <= 65536"),
        (f"data.crop_padding={10**21}", f"data.crop_padding={10**21} must be >= 0 and <= 65536"),
        (f"trainer.eval_batch_size={10**21}", "must be >= 1 and < 2.14748e+09"),
        ("paths.store='/tmp/a\udcff'", "paths.store='/tmp/a\\udcff' is not text in UTF-8"),
        ("data=tfds data.name='a\udcff'", "data.name='a\\udcff' is not text in UTF-8"),
        ("logger.tags=['a\udcff']", "logger.tags=['a\\udcff'] is not text in UTF-8"),
        ("seed=-1", "seed=-1 must be >= 0"),
        ("verdict.tolerance=-1", "verdict.tolerance=-1.0 must be >= 0"),
        ("trainer.precision=float16", "trainer.precision=float16 is unknown; did you mean"),
        ("trainer.strategy=mirored", "trainer.strategy=mirored is unknown; did you mean mirrored"),
        ("rewind.optimizer=rest", "rewind.optimizer=rest is unknown; did you mean reset"),
        ("logger.mode=ofline", "logger.mode=ofline is unknown; did you mean offline"),
        # Beyond ranges: names of modules and what the data set can give.
        ("mask=snip mask.rate=20", "mask.rate=20 scores what each of its rounds has trained, and"),
        ("mask.at=soon", "mask.at=soon is no point in training: write start, end, or epochs"),
        ("mask.at=31ep", "mask.at=31ep lies after trainer.epochs=30"),
        ("mask=lenet mask.skip_last=true", "mask.skip_last=true leaves the last layer dense, so"),
        ("mask=rigl mask.score=snip", "mask.score=snip does not go with mask.during=rigl"),
        ("mask=set mask.pattern=block", "mask.pattern=block does not go with mask.during=set"),
        ("mask=2_of_4 mask.percentile=60", "mask.percentile=60 is not what 2 of 4 weights leave"),
        ("mask=2_of_4 mask.scope=erk", "mask.scope=erk has no effect with mask.pattern=n_of_m"),
        ("mask=2_of_4 mask.rate=20", "mask.percentile=20 is not what 2 of 4 weights leave"),
        ("mask=2_of_4 mask.score=synflow", "mask.score=synflow prunes in rounds of its own, and"),
        ("mask.scope=lamp mask.score=grasp", "those of mask.score=grasp may be negative"),
        ("mask.scope=lamp mask.score=synflow", "those of mask.score=synflow may be negative"),
        ("mask.scope=lamp mask.score=movement", "those of mask.score=movement may be negative"),
        ("mask.score=movement mask.at=start", "mask.score=movement compares weights with those"),
        ("mask=rigl mask.during.frequency=999", "mask.during.frequency=999 changes the mask never"),
        ("mask=gradual mask.during.initial=90", "mask.during.initial=90 is above mask.percentile="),
        ("mask.scope=null", "mask.scope has no value"),
        ("data.classes=[1,10]", "data.classes=[1, 10]: digits has classes 0 to 9, not 10"),
        ("trainer.batch_size=1223", "a batch of 1223 is larger than the training split of 1222"),
    ],
)
def test_a_bad_value_is_one_clear_line(override, said):
    found = errors(composed(*override.split(" ")))
    assert len(found) == 1
    assert said in found[0]
    assert "\n" not in found[0]


@pytest.mark.parametrize("which", ["current", "output"])
def test_a_folder_that_no_file_could_name_is_refused(which, tmp_path, monkeypatch):
    """What a run leaves names it: ``result: …``, the record of a sweep."""
    output = tmp_path / os.fsdecode(b"a\xff")
    output.mkdir()
    hydra = OmegaConf.create({"job": {"chdir": False}})
    cli.check_folder(hydra, tmp_path)
    if which == "current":
        monkeypatch.chdir(output)
    with pytest.raises(ConfigError, match=r"a\\udcff' is not text in UTF-8$"):
        cli.check_folder(hydra, tmp_path if which == "current" else output)


def test_too_little_memory_is_answered_with_what_takes_it():
    import tensorflow as tf

    with pytest.raises(MemoryError) as numpys:
        np.zeros((10**6, 10**12))
    # Its words; it tries for ten seconds before it says them.
    words = "OOM when allocating tensor with shape[64,300000000000] and type float on /job:local"
    tensorflows = tf.errors.ResourceExhaustedError(None, None, words)
    for error in (numpys.value, tensorflows):
        said = cli.explain(error) or ""
        assert said.startswith("there is not enough memory for an array of shape")
        assert "lower trainer.batch_size, trainer.eval_batch_size, model.width, or" in said
        assert "\n" not in said


def test_the_largest_valid_values_are_valid():
    for override in (
        "mask.percentile=99.99", "mask.percentile=0", "rewind.epoch=30", "data.classes=[9,0]",
        "schedule.warmup=0.99", "trainer.batch_size=1222",
    ):  # fmt: skip
        assert errors(composed(override)) == [], override


def test_what_is_refused_of_one_score_or_percentile_is_taken_of_others():
    for override in (
        "mask.scope=lamp mask.score=synflow mask.score.rounds=1",
        "mask.scope=lamp mask.score=movement mask.score.of=weight",
        "mask.scope=lamp mask.score=grasp mask.percentile=0",
        "mask=2_of_4 mask.score=synflow mask.score.rounds=1",
        "mask=2_of_4 mask.rate=50",
        "mask.score=movement mask.at=start mask.percentile=0",
    ):
        assert errors(composed(*override.split(" "))) == [], override


def test_all_bad_values_are_reported_at_once():
    found = errors(composed("mask.percentile=100", "seed=-1", "optimizer.momentum=2"))
    assert [e.partition("=")[0] for e in found] == ["seed", "optimizer.momentum", "mask.percentile"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.name=adam", "optimizer.name=adam: choose it by optimizer=adam"),
        ("optimizer.name=adan", "optimizer=adan is unknown; did you mean adam or nadam"),
        ("model.name=resnet2", "model=resnet2 is unknown; did you mean resnet20"),
        ("rewind.name=weigths", "rewind=weigths is unknown; did you mean weights"),
        ("data.source=digit", "data=digit is unknown; did you mean digits"),
        ("+model.depth=3", "option model.depth is unknown"),
        ("+optimizer.beta_1=0.5", "option optimizer.beta_1 is unknown"),
    ],
)
def test_what_another_choice_is_about_is_refused(override, said):
    with pytest.raises(ConfigError, match=said):
        composed(override)


@pytest.mark.parametrize("option", ["foo", "trainer.foo"])
def test_options_that_the_schema_lacks_are_refused_even_when_added(option):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"+{option}=1"])
    with pytest.raises(ConfigError, match=rf"^option {option} is unknown"):
        typed(config)


# -- identity ------------------------------------------------------------------------------------


def test_defaults_are_no_part_of_an_identity():
    chosen = {f.name for f in dataclasses.fields(Config) if f.metadata.get("kind")}
    groups = {*GROUPS, "verdict", "sweep"} - {"experiment"} - chosen
    assert identity(Config()) == {f: {} for f in groups}


def test_the_order_of_a_dictionary_is_part_of_an_identity():
    """Of ``mask.scope.factors``, the first that fits counts."""
    wide, narrow = "dense*: 0.5", "dense_1*: 0.25"
    one, other = (
        composed("mask.scope=rates", f"mask.scope.factors={{{', '.join(order)}}}").mask.scope
        for order in ((wide, narrow), (narrow, wide))
    )
    assert one == other  # as Python compares dictionaries
    assert identity(one)["factors"] == [["dense*", 0.5], ["dense_1*", 0.25]]
    assert identity(other)["factors"] == [["dense_1*", 0.25], ["dense*", 0.5]]


def test_an_option_may_be_set_to_null_where_a_choice_is_optional():
    for override in ("mask.during=null", "mask/during=null"):
        assert composed("mask=rigl", override).mask.during is None


def test_a_new_option_leaves_old_identities_as_they_were():
    config = composed(*TINY)
    new = ("brightness", float, option(0.0, "of the screen"))
    extended = dataclasses.make_dataclass(
        "Extended", [new], bases=(type(config.data),), frozen=True
    )
    newer = dataclasses.replace(config, data=extended(**vars(config.data)))
    assert identity(newer) == identity(config)
    bright = dataclasses.replace(newer, data=dataclasses.replace(newer.data, brightness=0.5))
    assert identity(bright) != identity(config)


def test_writing_out_a_default_changes_nothing():
    assert identity(composed("model.dropout=0.0")) == identity(composed())
    assert identity(composed("model.dropout=0.1")) != identity(composed())


class FakeTraining:
    """Leaves what a training leaves, in no time."""

    KERNELS = (("a/kernel", "conv"), ("b/kernel", "depthwise"), ("c/kernel", "dense"))
    Chief = Chief

    def train(self, recipe, data, chief):
        kernels = [{"path": p, "kind": k, "shape": [4], "matrix": True} for p, k in self.KERNELS]
        whole = {"parameters": 12, "kernels": 12, "left_out": []}
        spe = recipe.last_step // recipe.config.trainer.epochs
        network = {"steps_per_epoch": spe, "whole": whole, "kernels": kernels}
        write_json(chief.work / "network.json", network)
        write_json(chief.work / "result.json", {"val_top1": 0.5, "val_examples": 10})
        for step in {*recipe.keep_steps, recipe.last_step}:
            rng = np.random.default_rng(step)
            state = {f"model/{p}": rng.normal(size=4) for p, _ in self.KERNELS}
            state["optimizer/iteration"] = np.array(step)
            chief.checkpoints(recipe).save(state, Progress(step))


@pytest.fixture
def keys(lab, monkeypatch):
    """The store's keys of the dense run and the ticket of a config, without training anything."""
    monkeypatch.setattr(trainings, "training_module", lambda config: FakeTraining())
    monkeypatch.setattr(trainings, "load_data", lambda data: None)
    # Another data set of the same name has another fingerprint, whatever the config says.
    monkeypatch.setattr(digits.DigitsData, "open", lambda config: digits.Digits())

    def of(config):
        result = experiment.find_ticket(config, lab)
        return result["dense"]["key"], result["ticket"]["key"]

    return of


def test_what_is_plumbing():
    """Spelt out, because an option wrongly marked would mix up or orphan runs."""
    plumbing = {name for name, f, _ in every_option() if not f.metadata["identity"]}
    whole = ("logger.", "paths.", "verdict.", "sweep.")
    assert {name for name in plumbing if not name.startswith(whole)} == {
        "profile", "plugins", "search", "data.name", "data.root", "data.digest", "data.dir",
        "data.download", "data.file", "data.in_memory", "data.max_unreadable", "model.weights",
        "data.memory_limit",
        "trainer.strategy", "trainer.jit_compile", "trainer.steps_per_call",
        "trainer.deterministic", "trainer.eval_batch_size", "trainer.checkpoint_epochs",
        "trainer.compact", "trainer.measure_step",
        "rewind.keep",
    }  # fmt: skip
    assert all(name in plumbing for name, _, _ in options(Config()) if name.startswith(whole))


def test_the_rewind_epoch_of_a_control_that_starts_afresh_is_no_part_of_its_key(keys):
    one, other = (composed(*TINY, "rewind=reinit", f"rewind.epoch={k}") for k in (0, 1))
    assert keys(one) == keys(other)


@pytest.mark.parametrize(
    ("rewind", "epoch", "pristine"),
    [
        ("weights", 0, True), ("weights", 1, False), ("reinit", 1, True),
        ("lr", 0, False), ("finetune", 0, False),
    ],
)  # fmt: skip
def test_a_ticket_tells_whether_it_began_with_an_initialisation(keys, lab, rewind, epoch, pristine):
    _, ticket = keys(composed(*TINY, f"rewind={rewind}", f"rewind.epoch={epoch}"))
    start = read_json(lab.store.root / "ticket" / ticket / "start.json")
    assert start["pristine"] == pristine


# -- optimizers and schedules --------------------------------------------------------------------


@pytest.mark.parametrize("name", files("optimizer"))
def test_every_optimizer_file_builds_what_it_says(name):
    import keras

    config = composed(f"optimizer={name}", "optimizer.weight_decay=0.5").optimizer
    built = config.build(unchanging(0.1))
    kind = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}
    assert type(built) is kind.get(name, keras.optimizers.AdamW)
    for attribute in ("momentum", "nesterov", "beta_1", "beta_2", "epsilon"):
        if hasattr(built, attribute):
            assert getattr(built, attribute) == getattr(config, attribute)
    # Without a gradient only weight decay moves a variable, and it spares biases and BatchNorm.
    variables = [keras.Variable([2.0], name=n) for n in ("kernel", "bias", "gamma", "beta")]
    built.apply([keras.ops.zeros(1) for _ in variables], variables)
    moved = [float(v.value[0]) for v in variables]
    assert moved == pytest.approx([2 - 2 * 0.1 * 0.5, 2, 2, 2])


@pytest.mark.parametrize("name", files("optimizer"))
def test_every_optimizer_follows_its_schedule_and_clips(name):
    import keras

    config = composed(f"optimizer={name}", "optimizer.weight_decay=0", "optimizer.clip_norm=1")
    rates = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.25])
    built = config.optimizer.build(rates)
    variable = keras.Variable([0.0, 0.0], name="kernel")
    seen = []
    for _ in range(2):
        seen.append(float(built.learning_rate))
        built.apply([keras.ops.array([30.0, 40.0])], [variable])
        if name == "sgd" and len(seen) == 1:  # Nesterov: gradient plus momentum times gradient
            moved = np.array(variable.value)
            np.testing.assert_allclose(moved, [-0.6 * 1.9, -0.8 * 1.9], rtol=1e-5)
    assert seen == [1.0, 0.25]


def rates(*overrides: str, steps_per_epoch: int = 10) -> list[float]:
    config = composed("trainer.epochs=10", "rewind.epoch=1", *overrides)
    schedule = config.schedule.in_steps(steps_per_epoch)
    schedule = schedule.build(PEAK, steps=config.trainer.epochs * steps_per_epoch)
    return [float(schedule(s)) for s in range(10 * steps_per_epoch + 1)]


@pytest.mark.parametrize("name", files("schedule"))
@pytest.mark.parametrize("steps", [20, 5])
def test_every_schedule_rises_linearly_from_zero_in_warm_up(name, steps):
    rate = rates(f"schedule={name}", f"schedule.warmup={steps / 100}")
    assert rate[0] == 0
    assert rate[: steps + 1] == pytest.approx([PEAK * s / steps for s in range(steps + 1)])
    assert max(rate) == pytest.approx(PEAK)


@pytest.mark.parametrize("warmup", [0, 20])  # of 100 steps
def test_cosine_ends_at_its_final_share(warmup):
    rate = rates(
        "schedule=cosine", "schedule.final=0.2", f"schedule.warmup={warmup / 100}"
    )[warmup:]  # fmt: skip
    total = len(rate) - 1
    waves = [0.5 * (1 + math.cos(math.pi * s / total)) for s in range(total + 1)]
    assert rate == pytest.approx([PEAK * (0.2 + 0.8 * w) for w in waves])
    assert rate[0] == pytest.approx(PEAK)
    assert rate[-1] == pytest.approx(0.2 * PEAK)


@pytest.mark.parametrize("warmup", [0, 20])  # of 100 steps
def test_steps_drop_exactly_at_the_milestones(warmup):
    rate = rates(
        "schedule=step", "schedule.milestones=[0.5,0.75]", "schedule.factor=0.1",
        f"schedule.warmup={warmup / 100}",
    )  # fmt: skip
    after = rate[warmup:]
    drops = [s + warmup for s, (a, b) in enumerate(pairwise(after), 1) if b != a]
    assert drops == [50, 75]
    assert [rate[49], rate[50], rate[75], rate[100]] == pytest.approx(
        [PEAK, PEAK / 10, PEAK / 100, PEAK / 100]
    )


@pytest.mark.parametrize(
    ("shape", "half"), [("linear", 0.55), ("cosine", 0.55), ("sqrt", 0.1 + 0.9 * (1 - 0.5**0.5)),
                        ("exponential", 0.1**0.5)],
)  # fmt: skip
@pytest.mark.parametrize("decay", ["0.2", "2ep"])  # of ten epochs of ten steps
def test_a_stable_rate_falls_at_the_end_alone(shape, half, decay):
    rate = rates(
        "schedule=wsd", f"schedule.decay={decay}", f"schedule.shape={shape}", "schedule.final=0.1",
        "schedule.warmup=1ep",
    )  # fmt: skip
    assert rate[:11] == pytest.approx([PEAK * step / 10 for step in range(11)])
    assert rate[10:81] == pytest.approx([PEAK] * 71)
    assert [rate[90], rate[100]] == pytest.approx([half * PEAK, 0.1 * PEAK])
    assert rate[80:] == sorted(rate[80:], reverse=True)


def test_constant_is_constant():
    assert rates("schedule=constant") == pytest.approx([PEAK] * 101)


# -- the ellipsis --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed_in", "meant"),
    [
        ("65,70,...,99", "65,70,75,80,85,90,95,99"),
        ("65,70,...,95", "65,70,75,80,85,90,95"),
        (
            "65,70,75,80,85,86,...,99",
            "65,70,75,80,85,86,87,88,89,90,91,92,93,94,95,96,97,98,99",
        ),
        ("0.1,0.2,...,0.7", "0.1,0.2,0.3,0.4,0.5,0.6,0.7"),
        ("98.5,98.75,...,99.3", "98.5,98.75,99.00,99.25,99.3"),
        ("1e-3,2e-3,...,5e-3", "1e-3,2e-3,0.003,0.004,5e-3"),
        ("5,4,...,1", "5,4,3,2,1"),
        ("1,0,...,-3", "1,0,-1,-2,-3"),
        ("10,7,...,0", "10,7,4,1,0"),
        ("1,2,...,4,6,...,9", "1,2,3,4,6,8,9"),
        ("1,2,...,2.5", "1,2,2.5"),
        ("1,2,3", "1,2,3"),
    ],
)
def test_ellipsis(typed_in, meant):
    assert expand("mask.percentile", typed_in.split(",")) == meant.split(",")


def test_the_users_sweep_has_19_values():
    values = ["65", "70", "75", "80", "85", "86", "...", "99"]
    assert len(expand("mask.percentile", values)) == 19


@pytest.mark.parametrize(
    "malformed",
    [
        "...", "5,...", "5,6,...", "...,9", "5,...,9", "1,1,...,4", "1,2,...,...,9",
        "1,...,2,...,9", "a,b,...,9", "1,2,...,z", "1,nan,...,9", "1,2,...,inf", "1,2,...,0",
        "2,1,...,3", "65,70,...,70", "1,2,...,1e9",
    ],
)  # fmt: skip
def test_malformed_ellipses_are_clear_errors(malformed):
    with pytest.raises(ConfigError) as caught:
        expand("mask.percentile", malformed.split(","))
    message = str(caught.value)
    assert message.startswith(f"mask.percentile={malformed}")  # says what was typed
    assert "\n" not in message


decimals = st.decimals(-1000, 1000, places=3).map(lambda d: d.normalize())
steps = st.decimals("0.001", 50, places=3).flatmap(lambda d: st.sampled_from([d, -d]))


@given(first=decimals, step=steps, count=st.integers(1, 200), share=st.decimals(0, 1, places=2))
def test_an_ellipsis_is_an_exact_progression(first, step, count, share):
    end = first + step * count + (1 - share) * step
    assume(end != first + step)  # a progression that ends where it began to be typed is an error
    words = [f"{first:f}", f"{first + step:f}", "...", f"{end:f}"]
    values = [Decimal(v) for v in expand("x", words)]
    assert values[0] == first
    assert values[-1] == end
    body = values[:-1]
    assert all(b - a == step for a, b in pairwise(body))  # exact: these are decimals
    assert 0 < abs(end - body[-1]) <= abs(step)
    assert (end - body[-1]) * step > 0
    assert len(values) == count + 1 + (share < 1)


# -- known before a job starts -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("mask=iterative", "mask.percentile=99.999999999"),
            "mask.percentile=99.999999999 has more than 8 decimals",
        ),
        (
            ("mask.rate=0.001", "mask.percentile=99"),
            "mask.rate=0.001 takes 460,515 rounds of training to mask.percentile=99, and 1000 at",
        ),
    ],
)
def test_what_only_the_job_would_find_is_found_before_it(overrides, message):
    (found,) = errors(composed(*overrides))
    assert found.startswith(message)


def test_iterative_masks_of_the_finest_target_end():
    assert errors(composed("mask.rate=20", "mask.percentile=99.99999999")) == []


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["model=MobileNet", "model.alpha=0.5"],
            "option model.alpha is unknown; did you mean model.width or model or model.weights?",
        ),
        (
            ["trainer={epochs:2,epoch:3}"],
            "option trainer.epoch is unknown; did you mean trainer.epochs or rewind.epoch or "
            "trainer?",
        ),
        (
            ["optimzer.name=adam"],
            "option optimzer.name is unknown; did you mean optimizer or optimizer.nesterov "
            "or optimizer.momentum?",
        ),
        (
            ["mask=null"],
            "mask=null: Config group override must be a string or a list. Got NoneType",
        ),
        (
            ["hydra/launcher=3"],
            "hydra/launcher=3: Config group override must be a string or a list. Got int",
        ),
        (
            ["data.mean.red=0.5"],
            "data.mean.red=0.5: invalid literal for int() with base 10: 'red'",
        ),
    ],
)  # fmt: skip
def test_an_override_that_hydra_refuses_is_answered_in_one_line(overrides, said, monkeypatch):
    monkeypatch.setattr("sys.argv", ["prune.py", *overrides])
    assert refusal("config", Config, overrides) == said


def test_a_group_without_choices_is_not_answered_with_itself():
    assert (
        refusal("transfer", TransferConfig, ["model=conv_2"]) == "there is no choice of model here"
    )


def refusal(name, schema, overrides):
    with (
        initialize_config_dir(str(CONF), version_base="1.3"),
        pytest.raises((CompactHydraException, ValueError)) as refused,
    ):
        compose(name, overrides)
    return cli.explain(refused.value, schema)
