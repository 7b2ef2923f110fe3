"""search=sparsest as a sweep: waves, what the store has, failures, interruptions, the report."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from test_sweep import sweeper_of

from lottery import experiment, studies
from lottery.analysis import collect, report, report_options, ticket
from lottery.errors import LotteryError
from lottery.files import read_json
from lottery.runs import Run
from lottery.store import Store
from lottery.sweep import plan, staged, waves
from lottery.sweep.detached import Detached

# Digits are few, so that the mean decides; the sparsest cells lose far more than the tolerance.
GRID = ("mask.percentile=50,80,99,99.8", "rewind.epoch=0,1", "seed=0,1")
OPTIONS = (
    *TINY, "verdict.level=null", "verdict.tolerance=20", "trainer.batch_size=16",
    "trainer.steps_per_call=19", "optimizer=adam", "optimizer.learning_rate=1e-2",
)  # fmt: skip
QUIET = ("hydra.mode=MULTIRUN", "hydra/job_logging=none", "hydra/hydra_logging=none")


def swept(root: Path, *arguments: str, search: bool = True, grid: tuple[str, ...] = GRID) -> Path:
    """The folder of a sweep in this process; its store is in ``root``."""
    folder = root / f"sweep{len(list(root.glob('sweep*')))}"
    chosen = [a for a in arguments if a.startswith("search")]
    overrides = [*OPTIONS, f"paths.outputs={root}", f"hydra.sweep.dir={folder}", *arguments]
    if search and not any(a.startswith("search=") for a in chosen):
        overrides = ["search=sparsest", *overrides]
    with sweeper_of("prune", *QUIET, *overrides) as (sweeper, _):
        sweeper.sweep([*overrides, *grid])
    return folder


def verdict(folder: Path, **options: Any) -> dict[str, Any]:
    return ticket.verdict(*report.judge(report_options.Options(sweep=str(folder), **options)))


def place(found: dict[str, Any]) -> tuple[float, int]:
    winner = found["winner"]
    return winner["percentile"], winner["rewind_epoch"]


def copied(sweep: Path, root: Path, lost: Callable[[dict[str, Any]], bool]) -> None:
    """The store of a sweep in ``root``, without the tickets of some configs."""
    shutil.copytree(sweep.parent / "store", root / "store")
    for path in (root / "store" / "ticket").iterdir():
        if lost(read_json(path / "config.json")):
            shutil.rmtree(path)


def place_of(config: dict[str, Any]) -> tuple[float, int]:
    return config["mask"]["percentile"], config["rewind"]["epoch"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The grid, all of it."""
    return swept(tmp_path_factory.mktemp("grid"), search=False)


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Path:
    """The same grid, searched, from nothing."""
    return swept(tmp_path_factory.mktemp("searched"))


@pytest.mark.slow
def test_a_search_finds_what_the_grid_finds_for_less(whole, searched):
    assert place(verdict(searched))[0] == place(verdict(whole))[0]
    assert place(verdict(searched))[0] == 80
    record = read_json(searched / "sweep.json")
    assert record["search"]["ended"]
    assert record["search"]["asked"]["cells"] < record["search"]["grid"]["cells"] == 16
    assert record["search"]["asked"]["epochs"] < record["search"]["grid"]["epochs"]
    assert len(record["cells"]) == record["search"]["asked"]["cells"]


@pytest.mark.slow
def test_fresh_seeds_say_how_accurate_the_winner_is(searched):
    record = read_json(searched / "sweep.json")
    fresh = [cell for cell in record["cells"] if cell["fresh"]]
    assert [cell["overrides"][-1] for cell in fresh] == ["seed=2", "seed=3"]
    found = verdict(searched)
    assert found["winner"]["seeds"] == [0, 1]
    assert found["winner"]["confirmation"]["seeds"] == [2, 3]
    stored = [read_json(searched / str(cell["num"]) / "result.json") for cell in fresh]
    assert found["winner"]["confirmation"]["validation_top1"]["values"] == pytest.approx(
        [100 * result["ticket"]["val_top1"] for result in stored]
    )


@pytest.mark.slow
def test_the_report_has_the_certificate_and_what_was_not_needed(searched, capsys):
    report.publish(
        report_options.Options(sweep=str(searched), logger=report_options.Wandb(mode="disabled"))
    )
    said = capsys.readouterr().out
    assert "◦ not needed by the search" in said
    assert "the cells that show it" in said
    assert "where the grid has 16" in said
    assert "of the grid's 16 cells were never needed" in said
    assert "search=" not in verdict(searched)["winner"]["command"]
    study = collect.from_sweep(searched)
    unneeded = [c for c in study.cells if c.status == "unneeded"]
    assert len(unneeded) == 16 - sum(not c.fresh for c in study.asked)
    assert verdict(searched)["cells"]["not_needed"] == len(unneeded)
    page = (searched / "report" / "report.html").read_text()
    assert "The cells that show it" in page
    certificate = json.loads((searched / "report" / "winning_ticket.json").read_text())["search"]
    assert certificate["networks"][0]["certified"]


@pytest.mark.slow
def test_a_dense_network_keeps_what_later_waves_rewind_to(searched):
    """Else each of their cells would train a part of it again."""
    store = searched.parent / "store"
    assert not list(store.glob("state/*"))


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(searched):
    before = sorted(p.name for p in (searched.parent / "store" / "ticket").iterdir())
    again = swept(searched.parent)
    assert sorted(p.name for p in (searched.parent / "store" / "ticket").iterdir()) == before
    assert place(verdict(again)) == place(verdict(searched))
    assert read_json(again / "sweep.json")["plan"]["jobs"] == 0


@pytest.mark.slow
def test_a_store_that_holds_the_grid_is_searched_without_training(whole):
    folder = swept(whole.parent, "search.confirm=0")
    assert place(verdict(folder))[0] == place(verdict(whole))[0]
    assert read_json(folder / "sweep.json")["plan"]["jobs"] == 0
    assert verdict(folder)["winner"]["confirmation"] is None


@pytest.mark.slow
def test_a_store_that_holds_half_of_it_leads_to_the_same_end(whole, tmp_path):
    copied(whole, tmp_path, lambda config: place_of(config)[0] in (80, 99.8))
    folder = swept(tmp_path, "search.confirm=0")
    assert place(verdict(folder))[0] == place(verdict(whole))[0]
    assert read_json(folder / "sweep.json")["plan"]["jobs"] > 0


@pytest.mark.slow
def test_a_search_that_was_killed_between_waves_goes_on(whole, tmp_path, monkeypatch):
    """What the killed one has trained is used, and nothing twice."""
    begun, trained = [], []
    real, retrain = staged.next_wave, experiment.retrain

    def dies(sweep, of):
        wave = real(sweep, of)
        begun.append(wave)
        if len(begun) == 2:
            raise SystemExit(137)
        return wave

    def noted(config, lab, dense, ranked, step, mask):
        if not step.ticket.done:
            trained.append(step.ticket.key)
        return retrain(config, lab, dense, ranked, step, mask)

    copied(whole, tmp_path, lambda config: True)
    monkeypatch.setattr(experiment, "retrain", noted)
    monkeypatch.setattr(staged, "next_wave", dies)
    with pytest.raises(SystemExit):
        swept(tmp_path, "search.confirm=0")
    monkeypatch.setattr(staged, "next_wave", real)
    before = len(trained)
    folder = swept(tmp_path, "search.confirm=0")
    assert 0 < before < len(trained) == len(set(trained)) < 16
    assert place(verdict(folder))[0] == place(verdict(whole))[0]


def fails(config, lab, dense, ranked, step, mask):
    """In place of retraining."""
    if not step.ticket.done:
        raise LotteryError("on purpose")
    return Run(step.ticket.path)


@pytest.mark.slow
def test_a_cell_that_fails_in_mid_search_never_wins_and_is_said(whole, tmp_path, monkeypatch):
    best, _ = place(verdict(whole))
    copied(whole, tmp_path, lambda config: place_of(config)[0] == best)

    monkeypatch.setattr(experiment, "retrain", fails)
    with pytest.raises(LotteryError, match="cells failed"):
        swept(tmp_path, "search.confirm=0")
    (folder,) = tmp_path.glob("sweep*")
    found = verdict(folder)
    assert place(found)[0] < best
    assert "ended with errors" in found["search"]["networks"][0]["text"]


@pytest.mark.slow
def test_where_every_cell_fails_there_is_no_winner(whole, tmp_path, monkeypatch):
    copied(whole, tmp_path, lambda config: True)

    monkeypatch.setattr(experiment, "retrain", fails)
    with pytest.raises(LotteryError, match="cells failed"):
        swept(tmp_path)
    (folder,) = tmp_path.glob("sweep*")
    assert verdict(folder)["winner"] is None


@pytest.mark.slow
def test_rounds_on_the_way_are_read_and_not_trained_again(tmp_path):
    """An iterative chain: the rungs are its rounds, so a sparse cell tells the denser ones."""
    rounds = ("mask.percentile=50,75,87.5,93.75", "rewind.epoch=1", "seed=0")
    folder = swept(tmp_path, "mask.rate=50", "search.confirm=0", grid=rounds)
    record = read_json(folder / "sweep.json")
    asked = record["search"]["asked"]["cells"]
    assert asked <= len(record["cells"])
    told = {c["percentile"] for c in record["search"]["networks"][0]["looked"]}
    tickets = len(list((tmp_path / "store" / "ticket").iterdir()))
    assert tickets == len(told)


def test_the_plan_says_beforehand_what_the_search_will_take(tmp_path, capsys):
    with sweeper_of("prune", *QUIET, *OPTIONS, "search=sparsest", "sweep.dry_run=true") as (s, _):
        overrides = [*OPTIONS, "search=sparsest", "sweep.dry_run=true", f"paths.outputs={tmp_path}"]
        s.sweep([*overrides, *GRID])
    said = capsys.readouterr().out
    assert "of the grid's 16" in said
    assert not (tmp_path / "store" / "dense").exists()


def test_a_small_job_that_is_queued_again_goes_on_where_it_was(tmp_path, monkeypatch):
    """It is started as it was submitted, before the wave that it then began."""
    done: set[tuple[str, ...]] = set()
    monkeypatch.setattr(plan.Cell, "done", property(lambda cell: cell.overrides in done))

    def shown(cell):
        accuracies = {"dense": 0.9, "ticket": 0.9 if cell.config.mask.percentile <= 80 else 0.5}
        return {
            kind: {"key": f"{kind} {cell.config.seed}", "val_top1": top1, "val_examples": 1000}
            for kind, top1 in accuracies.items()
        }

    for module in (waves, staged):
        monkeypatch.setattr(module, "stored", shown)
    monkeypatch.setattr(staged.StagedSweep, "_tell", lambda sweep, cells: None)
    overrides = [*OPTIONS, "search=sparsest", "search.waves=2", f"paths.outputs={tmp_path}"]
    with sweeper_of("prune", *QUIET, *overrides) as (sweeper, _):
        study = studies.of_script(sweeper.task_function)
        asked = sweeper._cells([*overrides, "mask.percentile=50,60,70,80,90,95,97,99", *GRID[1:]])
        sweeper._composed(asked)
        of = sweeper._waves(asked, Store(tmp_path / "store"), study)
    first = of.next()
    sweep = staged.StagedSweep(
        tmp_path, of.store, first.plan, first.configs, main=str, study=study, launcher=None,
        callbacks=None, search=of.record(),
    )  # fmt: skip
    pickled = Detached(copy.copy(sweep), copy.copy(of))
    pickled.sweep.cells = list(sweep.cells)
    pickled.waves.proposer = copy.deepcopy(of.proposer)
    pickled.waves._seen, pickled.waves._asked = set(of._seen), list(of._asked)
    done |= {cell.overrides for cell in first.plan.cells}
    second = staged.next_wave(sweep, of)
    sweep.begin()
    done.add(second.plan.cells[-1].overrides)  # has ended when the job starts anew
    pickled._catch_up([cell["overrides"] for cell in read_json(tmp_path / "sweep.json")["cells"]])
    numbers = [(cell.number, cell.overrides) for cell in sweep.cells]
    assert [(cell.number, cell.overrides) for cell in pickled.sweep.cells] == numbers
    done |= {cell.overrides for cell in second.plan.cells}
    third, other = staged.next_wave(sweep, of), staged.next_wave(pickled.sweep, pickled.waves)
    assert third.asked
    assert [c.overrides for c in other.plan.cells] == [c.overrides for c in third.plan.cells]


@pytest.mark.parametrize(
    ("arguments", "grid", "said"),
    [
        (("search.waves=soon",), GRID, r"search\.waves=soon must be many"),
        ((), ("mask.shuffle=true", *GRID), "only controls"),
        ((), ("verdict.tolerance=1,2", *GRID), "do not sweep verdict.tolerance"),
    ],
)
def test_a_grid_that_cannot_be_searched_is_refused_before_anything_runs(
    tmp_path, arguments, grid, said
):
    with pytest.raises(LotteryError, match=said):
        swept(tmp_path, *arguments, grid=grid)
    assert not list(tmp_path.glob("store/dense/*"))


def test_a_study_without_tickets_is_not_searched(tmp_path):
    overrides = [*OPTIONS, "search=sparsest", f"paths.outputs={tmp_path}"]
    with (
        sweeper_of("train", *QUIET, *overrides) as (sweeper, _),
        pytest.raises(LotteryError, match=r"it is for prune\.py"),
    ):
        sweeper.sweep([*overrides, "seed=0,1"])
