"""Studies: each registered once, each result read by what wrote it, a new one in one module."""

import json
import sys

import pytest
from conftest import TINY, composed

from lottery import studies
from lottery.barriers import Line
from lottery.errors import ConfigError, LotteryError, ResultError
from lottery.files import write_json
from lottery.runs import load_run, runs_of
from lottery.store import Store
from lottery.studies.prune import Pruned
from lottery.studies.stability import Measured
from lottery.studies.train import Trained
from lottery.studies.transfer import METRICS, Moved

RUN = {"key": "0123", "val_top1": 0.5}
MEASURED = RUN | dict.fromkeys(METRICS, 0.5)
TICKET = {"key": "a", "digest": "b", "file": "c", "density": 0.1, "network": "d", "data": "e"}
LINE = Line(
    dense="0", point="1ep", steps_per_epoch=5, mask=None, children=["1", "2"], shares=[0, 1],
    batches=None, errors={"interpolated": {"val": [1, 2], "test": [1, 2]}}, at_chance=False,
)  # fmt: skip
RESULTS = [
    Trained(store="/store", dense=RUN),
    Pruned(
        store="/store", dense=RUN, ticket={**RUN, "key": "4567"}, mask={}, rewind={}, matched=True,
        doubt=None, tolerance=1, level=0.05, interval=[-1, 0.5], shown=True,
    ),
    Moved(
        store="/store", ticket=TICKET, data={"name": "digits", "classes": ["5", "6"]},
        transfer={"weights": "trained", "train": "all", "epochs": 5, "seed": 0},
        seen=[{"data": "digits", "told": ""}, {"data": "mnist", "unknown": "it is gone"}],
        runs=[{"name": "ticket", "title": "ticket", **MEASURED},
              {"name": "dense", "title": "dense", "missing": "it is gone"}],
    ),
    Measured(
        store="/store", dense=RUN, mask=None, children=[RUN, RUN], line=LINE.written(),
        barriers=LINE.barriers, barrier=LINE.barrier,
    ),
]  # fmt: skip


def test_every_study_is_the_one_of_its_name():
    assert set(studies.known()) == {"prune", "stability", "train", "transfer"}
    for name in studies.known():
        study = studies.find(name)
        assert study.name == study.result.study == name
        assert dict(studies.schemas())[f"{name}_schema"] is study.schema
    with pytest.raises(ConfigError, match="study prun is unknown; did you mean prune"):
        studies.find("prun")


@pytest.mark.parametrize("result", RESULTS, ids=lambda r: r.study)
def test_a_result_is_read_as_it_was_written(result):
    again = studies.read(json.loads(json.dumps(result.written())))
    assert again == result
    assert type(again) is type(result)
    assert again.main.path.parts[:2] == ("/", "store")
    assert set(again.trainings) == {"prune": {"dense", "ticket"}, "train": {"dense"},
                                    "transfer": {"ticket"},
                                    "stability": {"dense", "child_1", "child_2"},
                                    }[result.study]  # fmt: skip


@pytest.mark.parametrize(
    ("result", "name"), [(result, name) for result in RESULTS for name in result.written()]
)
def test_a_result_that_lacks_or_breaks_anything_is_one_readable_line(result, name):
    about = result.written()
    del about[name]
    broken = {**about, name: "5" if name in ("tolerance", "barrier", "level") else 5}
    for wrong in (about, broken):
        with pytest.raises(ResultError) as refused:
            studies.read(wrong)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("result", RESULTS, ids=lambda r: r.study)
def test_a_result_must_name_its_runs(result):
    about = json.loads(json.dumps(result.written()).replace('"key"', '"other"'))
    with pytest.raises(ResultError, match="key is missing"):
        studies.read(about)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"study": "prune", "version": 99}, "of version 99, and this program reads version 2"),
        ({"study": "prune", "version": 0}, "of version 0, and this program reads version 2"),
        ({"dense": RUN, "store": ""}, "it does not name one"),
        ({"study": "sparsity", "version": 1}, "the study sparsity is unknown"),
        ([], "it does not name one"),
    ],
)
def test_whose_result_it_is_not_is_said_with_the_file(tmp_path, about, said):
    write_json(tmp_path / "result.json", about)
    with pytest.raises(LotteryError, match=said) as refused:
        load_run(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'result.json'}: ")


NEW = """
from dataclasses import dataclass
from typing import ClassVar
from lottery.config import Config
from lottery.results import Result
from lottery.studies import Study, train

@dataclass(frozen=True)
class Counted(Result):
    study: ClassVar[str] = "count"
    version: ClassVar[int] = 3
    dense: dict
    cells: int

    @property
    def trainings(self):
        return {"counted": self._stored("dense", self.dense)}

    @property
    def main(self):
        return self.trainings["counted"]

def run(config, laboratory):
    found = train.run(config, laboratory)
    return Counted(found["store"], found["dense"], cells=3).written()

STUDY = Study("count", Config, run, train.lineage, train.check, Counted)
"""


def test_a_new_study_is_one_module(tmp_path, lab, monkeypatch):
    """It is run, its result is read, and its runs are found: nothing else knows of it."""
    (tmp_path / "count.py").write_text(NEW)
    monkeypatch.setattr(studies, "__path__", [*studies.__path__, str(tmp_path)])
    study = studies.find("count")
    try:
        config = composed(*TINY, "trainer.epochs=1")
        assert study.check(config) == []
        result = study.run(config, lab)
        assert (result["study"], result["version"], result["cells"]) == ("count", 3, 3)
        (run,) = runs_of(result).values()
        assert run.key == study.lineage(config, lab.store).dense.key
        assert run.result["val_top1"] >= 0
        assert "count_schema" in dict(studies.schemas())
    finally:
        del sys.modules["lottery.studies.count"]


def test_a_script_says_which_study_it_tells():
    def main(config):
        return 0.0

    with pytest.raises(ConfigError, match=r"decorate its main function .* hydra/sweeper=basic"):
        studies.of_script(main)
    assert studies.of_script(studies.find("train").told_by(main)) is studies.find("train")


def test_a_store_has_a_folder_for_what_a_study_adds(tmp_path):
    store = Store(tmp_path)
    node = store.compute("another", {"seed": 0}, lambda work: None)
    assert node.done
    assert node.path.parent == tmp_path / "another"
