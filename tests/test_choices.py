"""Choices of one's own: how they become known, what they may not be, and whose code a key holds."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TINY, composed

from lottery import choices
from lottery.choices import code
from lottery.config import Config
from lottery.errors import ConfigError
from lottery.lineage import lineage
from lottery.options import identity
from lottery.store import Store
from lottery.validation import range_errors

HEAD = """
from dataclasses import dataclass
from lottery import choices
from lottery.options import option
"""
REWINDING = f"""{HEAD}
from lottery.rewinding import Rewinding, Start

@choices.rewinding("mine")
@dataclass(frozen=True)
class Mine(Rewinding):
    extra: float = option(0.5, "of no use", ge=0, lt=1)

    def rewind(self, origin):
        return Start(origin.point, origin.dense(origin.point))
"""
NETWORK = f"""{HEAD}
@choices.model("mine")
@dataclass(frozen=True)
class Mine:
    extra: float = option(0.5, "of no use", ge=0, lt=1)

    def build(self, input_shape, classes):
        import keras
        image = keras.Input(input_shape, name="image")
        x = keras.layers.Flatten(name="flatten")(image)
        return keras.Model(image, keras.layers.Dense(classes, name="classifier")(x), name="mine")
"""
SOURCE = f"""{HEAD}
from lottery.config import Data
from lottery.data.sources import digits

@choices.source("mine")
@dataclass(frozen=True)
class Mine(Data):
    extra: float = option(0.5, "of no use", ge=0, lt=1)

    def open(self):
        return digits.Digits(name="mine")
"""
OPTIMIZER = f"""{HEAD}
from lottery.training.optimizers import Optimizer

@choices.optimizer("mine")
@dataclass(frozen=True)
class Mine(Optimizer):
    extra: float = option(0.5, "of no use", ge=0, lt=1)

    def keras_class(self):
        import keras
        return keras.optimizers.SGD
"""
ALLOCATION = f"""{HEAD}
@choices.allocation("mine")
@dataclass(frozen=True)
class Mine:
    extra: dict[str, float] = option({{}}, "of no use", ge=0, lt=1)
"""
SCHEDULE = f"""{HEAD}
from lottery.training import schedules

@choices.schedule("mine")
@dataclass(frozen=True)
class Mine(schedules.Schedule):
    extra: float = option(0.5, "of no use", ge=0, lt=1)

    def after(self, peak, *, warmup, steps):
        return schedules.unchanging(peak)
"""
# Kind, a module of one, the first node that it determines, what to edit.
KINDS = [
    (choices.rewinding, REWINDING, "ticket", ("dense(origin.point)", "final()")),
    (choices.model, NETWORK, "dense", ("classes, name", 'classes, "relu", name')),
    (choices.source, SOURCE, "dense", ('name="mine"', 'name="mine, too"')),
    (choices.optimizer, OPTIMIZER, "dense", ("SGD", "Lion")),
    (choices.schedule, SCHEDULE, "dense", ("(peak)", "(peak / 2)")),
]
NODES = ("dense", "mask", "ticket")


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch) -> Iterator[Callable[[str, str], None]]:
    """Write a module and load it, as a program does that starts afterwards."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which goes by the second
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    written: set[str] = set()

    def put(name: str, source: str, load: bool = True) -> None:
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        written.add(name.partition(".")[0])
        restart()
        if load:
            choices.load_plugins([name])

    def restart() -> None:
        code.digest.cache_clear()
        code._folder.cache_clear()
        for full in list(sys.modules):
            if full.partition(".")[0] in written:
                del sys.modules[full]
        for kind in choices.KINDS:
            for name in [n for n, c in kind.registered.items() if c.__module__ not in sys.modules]:
                del kind.registered[name]

    yield put
    restart()


@functools.cache
def base() -> Config:
    config: Config = composed(*TINY)
    return config


def keys(kind: choices.Kind | None = None, **options: object) -> dict[str, str]:
    """Of a config, or of one with the choice ``mine`` of a kind and the same common options."""
    config = base()
    if kind is not None:
        before = dataclasses.asdict(getattr(config, kind.group))
        mine = kind.known_part(before | {kind.key: "mine"}, **options)
        config = dataclasses.replace(config, **{kind.group: kind.of(mine)})
    return keys_of(config)


def keys_of(config: Config) -> dict[str, str]:
    """Of the dense network, the mask and the ticket."""
    chain = lineage(config, Store("nowhere"))
    assert chain.dense is not None
    last = chain.rounds[-1]
    return {"dense": chain.dense.key, "mask": last.mask.key, "ticket": last.ticket.key}


@pytest.mark.parametrize(("kind", "source", "first", "edit"), KINDS, ids=lambda v: str(v)[:9])
def test_an_edited_choice_is_another_one(plug_in, kind, source, first, edit):
    before = keys()
    plug_in("my_lab.choice", source)
    mine = keys(kind)
    assert source.replace(*edit) != source
    plug_in("my_lab.choice", source.replace(*edit))
    edited = keys(kind)
    assert [n for n in NODES if edited[n] != mine[n]] == list(NODES[NODES.index(first) :])
    plug_in("my_lab.choice", f'"""What it is for."""\n# A remark.\n{source}\n\n')
    assert keys(kind) == mine
    assert keys(kind, extra=0.5) == mine
    other = keys(kind, extra=0.25)
    assert [n for n in NODES if other[n] != mine[n]] == list(NODES[NODES.index(first) :])
    assert keys() == before  # of those that come with the package


@pytest.mark.parametrize(("kind", "source"), [k[:2] for k in KINDS], ids=lambda v: str(v)[:9])
def test_a_choice_of_ones_own_is_composed_checked_and_offered(plug_in, kind, source):
    plug_in("mine", source)
    option = f"{kind.option}.extra"
    own = [o for o in TINY if not o.startswith("model")]
    config = getattr(composed(*own, f"{kind.group}=mine", f"{option}=0.25"), kind.group)
    assert type(config) is kind.find("mine")
    assert config.extra == 0.25
    assert "mine" in kind.names()
    with pytest.raises(ConfigError, match=rf"{option}: Value 'x' of type 'str'"):
        kind.of({kind.key: "mine", "extra": "x"})
    with pytest.raises(ConfigError, match=rf"{kind.group}=min is unknown; did you mean .*mine"):
        kind.find("min")


def test_a_rewinding_of_ones_own_starts_where_others_do(plug_in):
    plug_in("mine", REWINDING)
    for mask, epoch in (("magnitude", 5), ("snip", 0)):
        config = composed("rewind=mine", f"mask={mask}")
        assert range_errors(config) == []
        assert config.rewind.epoch == epoch


def test_an_option_of_ones_own_may_be_a_plain_field(plug_in):
    option = 'dict[str, float] = option({}, "of no use", ge=0, lt=1)'
    assert option in ALLOCATION
    plug_in("plain", ALLOCATION.replace(option, "float = 0.5").replace('"mine"', '"plain"'))
    config = composed("mask.scope=plain", "mask.scope.extra=0.25")
    assert range_errors(config) == []
    assert identity(config.mask.scope) == {"name": "plain", "extra": 0.25}
    (found,) = range_errors(composed("mask.scope=plain", "mask.scope.extra=inf"))
    assert found == "mask.scope.extra=inf must be finite"


def test_an_option_of_ones_own_may_be_a_dictionary(plug_in):
    plug_in("mine", ALLOCATION)
    typed = ("mask.scope.extra={b*/kernel: 0.5, a: 0.25}", "mask.scope.extra.c=0")
    config = composed("mask.scope=mine", *typed)
    assert config.mask.scope.extra == {"b*/kernel": 0.5, "a": 0.25, "c": 0}
    (found,) = range_errors(composed("mask.scope=mine", "mask.scope.extra={a: 2}"))
    assert found == "mask.scope.extra={'a': 2.0} must hold numbers >= 0 and < 1"


@pytest.mark.parametrize(("name", "module"), [("sgd", "sgd"), ("lion", "_library")])
def test_a_name_is_taken_before_what_has_it_is_loaded(plug_in, monkeypatch, name, module):
    monkeypatch.delitem(choices.optimizer.registered, name, raising=False)
    said = rf"optimizer={name} is lottery.training.optimizers.{module} already, and mine.Mine wants"
    with pytest.raises(ConfigError, match=said):
        plug_in("mine", OPTIMIZER.replace('"mine"', f'"{name}"'))


def test_what_two_choices_have_in_common_may_be_handed_over():
    adam = dataclasses.asdict(choices.optimizer.of({"name": "adam", "weight_decay": 0.5}))
    sgd = choices.optimizer.of(choices.optimizer.known_part(adam, name="sgd"))
    assert (sgd.name, sgd.weight_decay) == ("sgd", 0.5)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nowhere\n", "plugins=[mine] cannot be imported: ModuleNotFoundError: No module"),
        ("def score(:\n", "plugins=[mine] cannot be imported: SyntaxError: "),
        (
            NETWORK.replace('"mine")\n@', '"resnet20")\n@'),
            "model=resnet20 is lottery.models.networks.resnet20.ResNet20 already, and mine.Mine",
        ),
        (NETWORK.replace("(frozen=True)", ""), "mine.Mine must be a frozen dataclass to be model="),
        (
            NETWORK.replace(
                '    extra: float = option(0.5, "of no use", ge=0, lt=1)', "    a: int"
            ),
            "mine.Mine: its option a must have a default",
        ),
        (NETWORK.replace("extra", "name"), "mine.Mine must not have an option name: it is its own"),
    ],
)
def test_a_plug_in_that_cannot_be_is_named_with_its_error(plug_in, source, said):
    choices.model.find("resnet20")
    with pytest.raises(ConfigError) as error:
        plug_in("mine", source)
    assert said in str(error.value)
    assert str(error.value).startswith("plugins=[mine]")


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"^plugins=\[nowhere\] cannot be imported: Module"):
        choices.load_plugins(["nowhere"])


def test_what_a_choice_imports_is_part_of_it_unless_it_is_installed(plug_in):
    head = "import numpy, json\nfrom my_lab import deeper\n"
    codes = []
    for file, text in {
        "unused": "1", "blocks": head, "deeper": "def size(x):\n    return -abs(x)\n",
        "__init__": "UNIT = 2\n",
    }.items():  # fmt: skip
        if not codes:
            plug_in("my_lab.__init__", "UNIT = 1\n", load=False)
            plug_in("my_lab.blocks", "from my_lab import deeper\n", load=False)
            plug_in("my_lab.deeper", "def size(x):\n    return abs(x)\n", load=False)
            plug_in("my_lab.unused", "", load=False)
        plug_in("my_lab.choice", f"from . import blocks\n{NETWORK}")
        codes.append(choices.model.find("mine").code)
        plug_in(f"my_lab.{file}", text, load=False)
    plug_in("my_lab.choice", f"from . import blocks\n{NETWORK}")
    codes.append(choices.model.find("mine").code)
    assert codes[0] == codes[1]
    assert len(set(codes)) == 4


def test_a_raised_version_is_part_of_the_key(monkeypatch):
    before = keys()
    monkeypatch.setattr(choices.rewinding.find("weights"), "code", 2)
    assert [n for n in NODES if keys()[n] != before[n]] == ["ticket"]
    raised = {**code.VERSIONS, "rewind": {"weights": 2}}
    monkeypatch.setattr(code, "VERSIONS", raised)
    assert code.code("rewind", "weights", "lottery.rewinding.weights") == 2


def test_what_a_library_brings_needs_no_code():
    assert choices.model.find("ResNet50").code is None
    assert choices.optimizer.find("lion").code is None


def test_what_a_library_brings_is_documented_by_its_name_there():
    assert choices.optimizer.doc("lion") == "keras.optimizers.Lion"


def test_every_choice_that_comes_with_the_package_has_a_version():
    for kind in choices.KINDS:
        assert set(code.VERSIONS.get(kind.group, ())) == set(kind.shipped()), kind.group


def test_a_module_that_is_in_use_stays_what_it_is(plug_in, tmp_path):
    plug_in("mine", NETWORK)
    before = keys(choices.model)
    (tmp_path / "mine.py").write_text(NETWORK.replace("classes, name", 'classes, "relu", name'))
    assert keys(choices.model) == before
