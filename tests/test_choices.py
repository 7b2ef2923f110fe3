"""Whose code a key stands for: one's own modules by source, the package's by a number."""

import copy
import functools
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, composed

from lottery.choices import code as choices
from lottery.config import Config
from lottery.errors import ConfigError
from lottery.lineage import lineage
from lottery.pruning import criteria
from lottery.store import Store

SCORE = """
import numpy as np

class Criterion:
    def score(self, trained, initial):
        return np.abs(trained)
"""
REWINDING = """
from lottery.rewinding import Origin, Start

CONTROL = False

def rewind(origin):
    return Start(origin.epoch, origin.dense(origin.epoch))
"""
NETWORK = """
import keras

def build(input_shape, classes, *, width, dropout, batch_norm_momentum):
    image = keras.Input(input_shape, name="image")
    x = keras.layers.Flatten(name="flatten")(image)
    return keras.Model(image, keras.layers.Dense(classes, name="classifier")(x), name="mine")
"""
SOURCE = """
from lottery.data.sources import digits

def open_source(config):
    return digits.Digits(name="mine")
"""
# Kind, its module, the option that chooses it, the first node that it determines, what to edit.
KINDS = [
    ("lottery.pruning.criteria", SCORE, "mask.criterion", "mask", ("np.abs(", "-np.abs(")),
    ("lottery.rewinding", REWINDING, "rewind.name", "ticket", ("dense(origin.epoch)", "final()")),
    ("lottery.models", NETWORK, "model.name", "dense", ("classes, name", 'classes, "relu", name')),
    ("lottery.data.sources", SOURCE, "data.source", "dense", ('"mine"', '"mine, too"')),
]  # fmt: skip
NODES = ("dense", "mask", "ticket")


@pytest.fixture
def drop(tmp_path: Path, monkeypatch) -> Iterator[Callable[[str, str, str], None]]:
    """Put a module among those of a kind, as a program that starts afterwards finds it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which goes by the second
    dropped: set[str] = set()

    def put(kind: str, name: str, source: str) -> None:
        folder = tmp_path / kind
        folder.mkdir(exist_ok=True)
        package = import_module(kind)
        if str(folder) not in package.__path__:
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        (folder / f"{name}.py").write_text(source)
        dropped.add(f"{kind}.{name}")
        restart()

    def restart() -> None:
        choices.code.cache_clear()
        for full in dropped:
            sys.modules.pop(full, None)

    yield put
    restart()


@functools.cache
def base() -> Config:
    config: Config = composed(*TINY)
    return config


def keys(**values: dict[str, object]) -> dict[str, str]:
    """Of a config with other values in some groups."""
    config = copy.deepcopy(base())
    for group, options in values.items():
        for name, value in options.items():
            setattr(getattr(config, group), name, value)
    chain = lineage(config, Store("nowhere"))
    assert chain.dense is not None
    last = chain.rounds[-1]
    return {"dense": chain.dense.key, "mask": last.mask.key, "ticket": last.ticket.key}


@pytest.mark.parametrize(("kind", "source", "option", "first", "edit"), KINDS)
def test_an_edited_choice_is_another_one(drop, kind, source, option, first, edit):
    group, name = option.split(".")
    before, chosen = keys(), {group: {name: "mine"}}
    drop(kind, "mine", source)
    mine = keys(**chosen)
    assert source.replace(*edit) != source
    drop(kind, "mine", source.replace(*edit))
    edited = keys(**chosen)
    assert [n for n in NODES if edited[n] != mine[n]] == list(NODES[NODES.index(first) :])
    drop(kind, "mine", f'"""What it is for."""\n# A remark.\n{source}\n\n')
    assert keys(**chosen) == mine
    assert keys() == before  # of those that come with the package


def test_an_edited_score_prunes_other_weights(drop):
    weights = np.array([1.0, -3.0])
    drop("lottery.pruning.criteria", "mine", SCORE)
    assert list(criteria.find("mine").score(weights, weights)) == [1, 3]
    drop("lottery.pruning.criteria", "mine", SCORE.replace("np.abs(", "-np.abs("))
    assert list(criteria.find("mine").score(weights, weights)) == [-1, -3]


def test_what_a_choice_imports_from_its_own_folder_is_part_of_it(drop):
    kind = "lottery.models"
    drop(kind, "_blocks", "from lottery.models import _deeper\n")
    drop(kind, "_deeper", "units = 3\n")
    drop(kind, "_other", "units = 3\n")
    drop(kind, "mine", f"{NETWORK}\nfrom . import _blocks\nfrom lottery.config import Data\n")
    mine = choices.code(kind, "mine")
    drop(kind, "_other", "units = 4\n")
    assert choices.code(kind, "mine") == mine
    drop(kind, "_deeper", "units = 4\n")
    assert choices.code(kind, "mine") != mine


def test_what_a_choice_imports_from_elsewhere_is_part_of_it_unless_it_is_installed(
    drop, tmp_path, monkeypatch
):
    kind, lab = "lottery.pruning.criteria", tmp_path / "elsewhere" / "my_lab"
    lab.mkdir(parents=True)
    monkeypatch.syspath_prepend(lab.parent)
    (lab / "__init__.py").write_text("UNIT = 1\n")
    (lab / "scores.py").write_text("from my_lab import deeper\n")
    (lab / "deeper.py").write_text("def size(x):\n    return abs(x)\n")
    (lab / "unused.py").write_text("")
    codes = []
    for file, text in {
        "unused.py": "1", "scores.py": "import numpy, json\nfrom my_lab import deeper\n",
        "deeper.py": "def size(x):\n    return -abs(x)\n", "__init__.py": "UNIT = 2\n",
    }.items():  # fmt: skip
        drop(kind, "mine", f"import my_lab.scores\n{SCORE}")
        codes.append(choices.code(kind, "mine"))
        (lab / file).write_text(text)
    drop(kind, "mine", f"import my_lab.scores\n{SCORE}")
    codes.append(choices.code(kind, "mine"))
    assert codes[0] == codes[1]
    assert len(set(codes)) == 4


def test_a_raised_version_is_part_of_the_key(monkeypatch):
    before = keys()
    raised = {**choices.VERSIONS, "lottery.pruning.criteria": {"magnitude": 2}}
    monkeypatch.setattr(choices, "VERSIONS", raised)
    choices.code.cache_clear()
    try:
        assert [n for n in NODES if keys()[n] != before[n]] == ["mask", "ticket"]
    finally:
        choices.code.cache_clear()


def test_a_name_of_keras_needs_no_code():
    assert choices.code("lottery.models", "ResNet50") is None


def test_every_version_is_that_of_a_module():
    for kind, versions in choices.VERSIONS.items():
        for name in versions:
            assert choices._file(Path(import_module(kind).__path__[0]), name), (kind, name)


def test_a_module_that_changed_after_its_key_was_made_is_refused(drop, tmp_path):
    kind = "lottery.pruning.criteria"
    drop(kind, "mine", SCORE)
    choices.code(kind, "mine")
    (tmp_path / kind / "mine.py").write_text(SCORE.replace("np.abs(", "-np.abs("))
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"mine\.py was changed while this program ran"):
            criteria.find("mine")


def test_a_module_that_is_in_use_stays_what_it_is(drop, tmp_path):
    kind = "lottery.pruning.criteria"
    drop(kind, "mine", SCORE)
    criteria.find("mine")
    before = choices.code(kind, "mine")
    (tmp_path / kind / "mine.py").write_text(SCORE.replace("np.abs(", "-np.abs("))
    assert criteria.find("mine").score(np.array([-1.0]), np.array([1.0])) == 1
    assert choices.code(kind, "mine") == before


@pytest.mark.parametrize(("source", "said"), [("def score(:\n", "line 1"), ("\0", "null byte")])
def test_a_module_that_is_no_python_is_said_in_one_line(drop, source, said):
    drop("lottery.pruning.criteria", "mine", source)
    with pytest.raises(ConfigError, match=rf"mine\.py is not valid Python: .*{said}") as error:
        keys(mask={"criterion": "mine"})
    assert "\n" not in str(error.value)


def test_options_of_a_source_of_ones_own_stay_in_its_key(drop):
    drop("lottery.data.sources", "mine", SOURCE)
    mine = keys(data={"source": "mine"})
    for other in ({"name": "x"}, {"test": "x"}, {"stored_size": 8}):
        assert keys(data={"source": "mine", **other})["dense"] != mine["dense"]
