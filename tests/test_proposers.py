"""Sweeps in waves: a proposer asks, is told what cells have shown, and asks again."""

import re
import sys

import pytest
from conftest import TINY
from hydra.errors import ConfigCompositionException
from hypothesis import given
from hypothesis import strategies as st
from test_sweep import sweeper_of

from lottery import choices, experiment
from lottery.errors import ConfigError, LotteryError
from lottery.files import read_json
from lottery.sweep.proposers import Candidate

HALVING = '''
from dataclasses import dataclass
from lottery import choices

@choices.search("halving")
@dataclass(frozen=True)
class Halving:
    """Half of what is left of the first."""

    def proposer(self, candidates, parallel):
        return Proposer([candidate.overrides for candidate in candidates])

class Proposer:
    """The first candidate; then, if that has a ticket, the last and one of half the density."""

    adaptive = True

    def __init__(self, candidates):
        self.candidates, self.told, self.waves = candidates, [], 0

    def ask(self):
        self.waves += 1
        if self.waves == 1:
            return [list(cell) for cell in self.candidates[:1] if "seed=7" not in cell]
        if self.waves > 2 or not all(result for _, result in self.told):
            return []
        ((_, result),) = self.told
        half = 100 * (1 - result["mask"]["density"] / 2)
        return [list(self.candidates[-1]), [*self.candidates[-1], f"mask.percentile={half:g}"]]

    def tell(self, cell, result):
        self.told.append((list(cell), result))
'''


@pytest.fixture
def halving(tmp_path, monkeypatch):
    """A choice of one's own, by its name."""
    (tmp_path / "halving.py").write_text(HALVING)
    monkeypatch.syspath_prepend(tmp_path)
    choices.load_plugins(["halving"])
    yield "halving"
    sys.modules.pop("halving", None)
    choices.search.registered.pop("halving")


def swept(folder, *arguments, search="halving"):
    """Sweep in this process, over percentiles 50, 60 and 70."""
    overrides = [*TINY, "trainer.epochs=1", "rewind.epoch=0", f"paths.outputs={folder}", *arguments]
    quiet = ("hydra.mode=MULTIRUN", "hydra/job_logging=none", "hydra/hydra_logging=none")
    own = (f"hydra.sweep.dir={folder / 'sweep'}",)
    overrides.append(f"search={search}")
    with sweeper_of("prune", *quiet, *own, *overrides) as (sweeper, _):
        sweeper.sweep([*overrides, "mask.percentile=50,60,70"])


def cells(folder):
    """Of a sweep's record: number and last percentile of each cell."""
    record = read_json(folder / "sweep" / "sweep.json")
    typed = [[o for o in c["overrides"] if "percentile" in o][-1] for c in record["cells"]]
    return [(c["num"], t.partition("=")[2]) for c, t in zip(record["cells"], typed, strict=True)]


@given(st.lists(st.lists(st.text(max_size=3), max_size=2), max_size=5))
def test_the_grid_asks_for_everything_at_once(candidates):
    grid = [Candidate(tuple(cell), "", 50, 0, {}) for cell in candidates]
    proposer = choices.search.of({"name": "grid"}).proposer(grid, 1)
    assert proposer.ask() == candidates
    for cell in candidates:
        proposer.tell(cell, None)
    assert proposer.ask() == []


def test_an_unknown_search_is_said():
    with pytest.raises(ConfigError, match=r"search=gird is unknown; did you mean grid"):
        choices.search.find("gird")


def test_a_search_is_not_swept(tmp_path, halving):
    """Nor does a cell have another one, as an experiment may choose."""
    one = pytest.raises(ConfigCompositionException, match="one search asks for all cells")
    with sweeper_of("prune") as (sweeper, _), one:
        sweeper._composed([[*TINY, f"search={halving}", f"paths.outputs={tmp_path}"]])


def test_a_second_wave_depends_on_what_the_first_has_shown(tmp_path, halving, capsys):
    swept(tmp_path, search=halving)
    assert cells(tmp_path) == [(0, "50"), (1, "70"), (2, "75")]
    for number, percentile in enumerate((50, 70, 75)):
        folder = tmp_path / "sweep" / str(number)
        assert read_json(folder / "status.json")["status"] == "done"
        assert read_json(folder / "result.json")["mask"]["percentile"] == percentile
    said = capsys.readouterr().out
    plans = re.findall(r"cells +(\d): (\d) done, 0 underway elsewhere, (\d) to run", said)
    assert plans == [("1", "0", "1"), ("2", "0", "2")]
    assert "3 cells: 3 done" in said
    assert len(list((tmp_path / "store" / "dense").iterdir())) == 1
    counts = read_json(tmp_path / "sweep" / "sweep.json")["plan"]
    assert (counts["cells"], counts["jobs"], counts["dense_missing"]) == (3, 3, 1)


def test_a_proposer_hears_that_a_cell_failed(tmp_path, halving, monkeypatch):
    def fail(*_, **__):
        raise LotteryError("on purpose")

    monkeypatch.setattr(experiment, "retrain", fail)
    with pytest.raises(LotteryError, match="1 of 1 cells failed"):
        swept(tmp_path, search=halving)
    assert cells(tmp_path) == [(0, "50")]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("sweep.detach=true", "sweep.detach=true needs hydra/launcher=submitit_slurm"),
        ("seed=7", "search=halving asks for no cell at all"),
    ],
)
def test_what_a_sweep_in_waves_cannot_do_is_refused(tmp_path, halving, option, said):
    with pytest.raises(ConfigError, match=said):
        swept(tmp_path, option, search=halving)
    assert not list((tmp_path / "store").glob("dense/*"))


def test_all_waves_agree_in_what_is_read_once(tmp_path, halving):
    """The place of the results, above all: the first wave has decided it."""
    with sweeper_of("prune") as (sweeper, _):
        sweeper._composed([[*TINY, f"paths.outputs={tmp_path}"]])
        with pytest.raises(ConfigCompositionException, match=r"the same paths\.outputs"):
            sweeper._composed([[*TINY, "paths.outputs=elsewhere"]])
