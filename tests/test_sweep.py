"""Plans and stages of sweeps: what is computed, by which job, and what is not."""

import contextlib
import functools
import io
import itertools
import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, TINY, composed, run
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException
from hydra.types import HydraContext, RunMode
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lottery import choices, cli, studies
from lottery.analysis import overview, table
from lottery.config import Config
from lottery.files import read_json
from lottery.points import Point
from lottery.store import Store
from lottery.sweep import claims, plan
from lottery.sweep.candidates import candidates

LAUNCHERS = {
    "basic": (),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "local": ("hydra/launcher=submitit_local", "hydra.launcher.parallel=2"),
}
GRID = ("mask.percentile=50,60,...,70", "rewind.epoch=0,1")


@functools.cache
def base(*overrides: str) -> Config:
    return composed(*TINY, "trainer.epochs=30", *overrides)


def grid(*overrides: str, **values: list[Any]) -> list[tuple[tuple[str, ...], Config]]:
    """Cells as a sweep of those values gives them."""
    cells = []
    for chosen in itertools.product(*values.values()):
        cell = dict(zip(values, chosen, strict=True))
        own = tuple(f"{name.replace('_', '.', 1)}={value}" for name, value in cell.items())
        config = base(*overrides, *(o for o in own if o.startswith("rewind=")))
        config = replace(
            config,
            seed=cell.get("seed", config.seed),
            mask=replace(config.mask, percentile=float(cell.get("mask_percentile", 50))),
            rewind=replace(config.rewind, epoch=cell.get("rewind_epoch", 1)),
        )
        cells.append((own, config))
    return cells


def finish(store: Store, *nodes) -> None:
    for node in nodes:
        node.path.mkdir(parents=True)
        (node.path / "done.json").write_text("{}")
        (node.path / "network.json").write_text(json.dumps({"steps_per_epoch": 10}))


def keep(dense, *epochs: int) -> None:
    for epoch in epochs:
        (dense.path / "checkpoints" / f"step_{epoch * 10:08d}").mkdir(parents=True)


# -- plans -----------------------------------------------------------------------------------------


def test_the_reference_grid_shares_its_dense_network(tmp_path):
    """E + M x sum(E - k) epochs instead of M x N x E + M x sum(E - k)."""
    percentiles = [65, 70, 75, 80, *range(85, 100), 99.5]
    rewinds = [5, 10, 15, 20, 25]
    made = plan.make(
        grid(mask_percentile=percentiles, rewind_epoch=rewinds), Store(tmp_path / "store")
    )
    e, m, n = 30, 20, 5
    tickets = m * sum(e - k for k in rewinds)
    assert len(made.cells) == len(made.jobs) == m * n
    assert len(made.parents) == 1
    assert made.epochs == e + tickets
    assert made.epochs_unshared == m * n * e + tickets
    (parent,) = made.parents
    assert {*parent.config.rewind.kept} >= {Point(epoch) for epoch in rewinds}


def test_what_is_done_is_not_planned(tmp_path):
    store = Store(tmp_path / "store")
    cells = grid(mask_percentile=[50, 60], rewind_epoch=[0, 5])
    first = plan.make(cells, store)
    lineages = [c.lineage for c in first.cells]
    finish(store, lineages[0].dense, lineages[0].last, lineages[3].last)
    keep(lineages[0].dense, 0, 5)
    second = plan.make(cells, store)
    assert [c.number for c in second.done] == [0, 3]
    assert [[c.number for c in job] for job in second.jobs] == [[1], [2]]
    assert second.parents == ()
    assert second.epochs == 25 + 30


def test_a_dense_network_that_lacks_a_rewind_epoch_is_completed_first(tmp_path):
    """Or every cell would replay it, or wait for the one that does."""
    store = Store(tmp_path / "store")
    cells = grid(mask_percentile=[50, 60], rewind_epoch=[0, 7])
    dense = plan.make(cells, store).cells[0].lineage.dense
    finish(store, dense)
    keep(dense, 0, 30)
    (parent,) = plan.make(cells, store).parents
    assert parent.node == dense
    finish(store, store.node("state", {"dense": dense.key, "step": 70}))
    assert plan.make(cells, store).parents == ()


def test_tickets_that_need_no_trained_network_do_not_wait_for_one(tmp_path, monkeypatch):
    store = Store(tmp_path / "store")

    def early(*overrides: str) -> list[bool]:
        cells = grid(*overrides, rewind_epoch=[0, 5])
        made = plan.make(cells, store)
        return [any(cell in job for job in made.early) for cell in made.cells]

    assert early("mask=snip") == [True, False]
    assert early("mask=snip", "rewind=signs") == early("mask=snip", "rewind=reinit") == [True, True]
    assert early("mask=snip", "rewind=lr") == early("mask=snip", "rewind=finetune") == [False] * 2
    assert early("mask=magnitude") == early("mask=magnitude", "rewind=reinit") == [False, False]
    assert early("mask=rigl") == [True, True]
    # A fresh start of somebody's own may still look at what was trained.
    with monkeypatch.context() as patch:
        patch.setattr(choices.rewinding.find("reinit"), "takes_final", True)
        assert early("mask=snip", "rewind=reinit") == [False, False]
    # Its verdict does: the cell is not done before its dense network is.
    cells = grid("mask=snip", rewind_epoch=[0])
    (cell,) = plan.make(cells, store).cells
    finish(store, cell.lineage.last)
    ahead = plan.make(cells, store)
    assert (ahead.done, ahead.early, len(ahead.parents), len(ahead.jobs)) == ((), (), 1, 1)
    finish(store, cell.lineage.dense)
    assert len(plan.make(cells, store).done) == 1


def test_what_others_compute_is_left_to_them(tmp_path):
    store = Store(tmp_path / "store")
    cells = grid(mask_percentile=[50, 60])
    chain = plan.make(cells, store).cells[1].lineage

    def made(*busy) -> tuple[list[int], list[list[int]]]:
        found = plan.make(cells, store, lambda node: "job 7" if node in busy else None)
        return [c.number for c in found.underway], [[c.number for c in job] for job in found.jobs]

    # A result tells of the dense network too, so somebody has to train that as well.
    assert made(chain.last) == ([], [[0], [1]])
    assert made(chain.last, chain.dense) == ([1], [[0]])
    finish(store, chain.dense)
    assert made(chain.last) == ([1], [[0]])


@settings(max_examples=25, deadline=None)
@given(
    percentiles=st.lists(st.integers(10, 95), min_size=1, max_size=5, unique=True),
    rewinds=st.lists(st.integers(0, 30), min_size=1, max_size=3, unique=True),
    ways=st.lists(st.sampled_from(["weights", "reinit", "lr"]), min_size=1, unique=True),
    masks=st.sampled_from(["magnitude", "iterative", "random"]),
    seeds=st.integers(1, 2),
)
def test_no_two_jobs_train_the_same_run(tmp_path_factory, percentiles, rewinds, ways, masks, seeds):
    store = Store(tmp_path_factory.mktemp("store"))
    made = plan.make(
        grid(f"mask={masks}", mask_percentile=percentiles, rewind_epoch=rewinds, rewind=ways,
             seed=list(range(seeds))), store,
    )  # fmt: skip
    assert sorted(c.number for job in made.jobs for c in job) == list(range(len(made.cells)))
    runs = [{k for c in job for k in c.missing if k != c.lineage.dense.key} for job in made.jobs]
    assert all(not a & b for a, b in itertools.combinations(runs, 2))
    assert {p.node.key for p in made.parents} == {c.lineage.dense.key for c in made.cells}
    for job in made.jobs:  # what a cell builds on comes before it
        assert [len(c.lineage.rounds) for c in job] == sorted(len(c.lineage.rounds) for c in job)


def test_an_estimate_comes_from_runs_of_the_same_work(tmp_path):
    store = Store(tmp_path / "store")
    cells = grid(mask_percentile=[50, 60, 70], rewind_epoch=[0], seed=[0, 1])
    made = plan.make(cells, store)
    assert plan.estimate(made, store, 2) is None
    timed = store.root / "dense" / "another"
    timed.mkdir(parents=True)
    (timed / "config.json").write_text(json.dumps(asdict(cells[0][1])))
    (timed / "result.json").write_text(json.dumps({"epochs": 10, "seconds": 20.0}))
    guess = plan.estimate(made, store, 2)
    assert guess.measured == 1
    assert guess.seconds == 2 * (2 + 6) * 30
    assert guess.wall == 2 * (1 + 3) * 30  # two parents at a time, then six cells, two at a time
    early = plan.make(
        grid("mask=snip", mask_percentile=[50, 60, 70], rewind_epoch=[0], seed=[0, 1]), store
    )
    beside = plan.estimate(early, store, 8)
    assert (beside.seconds, beside.wall) == (2 * (2 + 6) * 30, 2 * 30)
    wide = [(o, composed(*TINY, *o, "model.width=0.2")) for o in (("mask.percentile=50",),)]
    assert plan.estimate(plan.make(wide, store), store, 2) is None


# -- prices ----------------------------------------------------------------------------------------


def of_channels(store: Store, *overrides: str) -> plan.Plan:
    """A plan of two cells, of 50 and of 80 %, rewound to the start: 90 epochs."""
    cells = grid("mask=channel", *overrides, mask_percentile=[50, 80], rewind_epoch=[0])
    made = plan.make(cells, store)
    assert made.epochs == 90
    return made


def test_without_its_channels_a_network_costs_less_an_epoch(tmp_path):
    store = Store(tmp_path / "store")
    made = of_channels(store)
    assert made.price == pytest.approx(30 + 30 * 0.5 + 30 * 0.2)
    assert made.guessed
    layers = of_channels(store, "mask.scope=layer")
    assert layers.price == pytest.approx(30 + 30 * 0.5**2 + 30 * 0.2**2)
    for overrides in (("mask.pattern=weight",), ("trainer.compact=false",), ("mask=rigl",)):
        dense = of_channels(store, *overrides)
        assert (dense.price, dense.guessed) == (90, False)


def test_each_round_is_priced_by_what_it_has_removed(tmp_path):
    cells = grid("mask=channel", "mask.rate=50", mask_percentile=[75], rewind_epoch=[0])
    made = plan.make(cells, Store(tmp_path / "store"))
    assert made.epochs == 90
    assert made.price == pytest.approx(30 * (1 + 0.5 + 0.25))


def test_what_a_mask_cuts_off_is_known_once_it_is_made(tmp_path):
    store = Store(tmp_path / "store")
    first, second = (cell.lineage for cell in of_channels(store).cells)
    finish(store, first.rounds[0].mask, second.rounds[0].mask)
    (first.rounds[0].mask.path / "result.json").write_text('{"computed_share": 0.3}')
    (second.rounds[0].mask.path / "result.json").write_text("{}")
    made = of_channels(store)
    assert made.price == pytest.approx(30 * (1 + 0.3 + 0.2))
    assert made.guessed
    # Or by another ticket of the same mask, which was asked to be as small.
    for name, compact, computed in (("small", None, 100), ("whole", False, 1000)):
        ticket = store.root / "ticket" / name
        ticket.mkdir(parents=True)
        about = {"identity": {"dense": "d", "mask": second.rounds[0].mask.key}}
        (ticket / "done.json").write_text(json.dumps(about))
        work = {"multiply_adds": {"network": 1000, "computed": computed}}
        (ticket / "result.json").write_text(json.dumps(work))
        (ticket / "config.json").write_text(json.dumps({"trainer": {"compact": compact}}))
    made = of_channels(store)
    assert made.price == pytest.approx(30 * (1 + 0.3 + 0.1))
    assert not made.guessed
    assert of_channels(store, "trainer.compact=false").price == 90


def test_time_and_opening_lines_follow_the_price(tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    made = of_channels(store)
    timed = store.root / "dense" / "another"
    timed.mkdir(parents=True)
    (timed / "config.json").write_text(json.dumps(asdict(made.cells[0].config)))
    (timed / "result.json").write_text(json.dumps({"epochs": 10, "seconds": 20.0}))
    guess = plan.estimate(made, store, 1)
    assert guess.seconds == guess.wall == pytest.approx(2 * made.price)
    console = table.terminal(record=True, file=io.StringIO())
    monkeypatch.setattr(overview, "terminal", lambda: console)
    overview.show_plan(made, guess, 0, 1)
    overview.show_plan(of_channels(store, "mask.pattern=weight"), guess, 0, 1)
    (said,) = (line for line in console.export_text().splitlines() if "at the price of" in line)
    assert "51 epochs of the dense network" in said
    assert said.endswith("an estimate, made of mask.percentile")


def test_a_search_expects_to_pay_what_compact_cells_cost(tmp_path, monkeypatch):
    cells = grid("mask=channel", mask_percentile=[50, 80, 90], rewind_epoch=[0], seed=[0, 1])
    made = plan.make(cells, Store(tmp_path / "store"))
    search = choices.search.of({"name": "sparsest", "confirm": 1})
    expected = search.proposer(candidates(made.cells), 1).outlook()
    assert expected.grid_epochs == made.epochs == 2 * 4 * 30
    assert expected.grid_price == pytest.approx(made.price)
    # Of one dense network and its ticket at least, and never more than all with a fresh seed's.
    assert 30 < expected.price_from < expected.price_to
    assert expected.price_to < expected.epochs_to
    assert expected.price_to <= made.price + 30 * 1.5
    console = table.terminal(record=True, file=io.StringIO())
    monkeypatch.setattr(overview, "terminal", lambda: console)
    overview._show_outlook(expected)
    said = console.export_text().splitlines()[-1]
    assert said.startswith("  at the price of")
    assert said.endswith(
        f"of the grid's {made.price:.4g} epochs of the dense network; what it asks for first:"
    )


@contextlib.contextmanager
def sweeper_of(study: str = "prune", *overrides: str):
    """A sweeper, and the config without swept values that Hydra gives it."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)
        context = HydraContext(loader, Callbacks())
        told = studies.find(study)

        @told.told_by
        def main(config):
            return cli.job(config, told)

        yield (
            Plugins.instance().instantiate_sweeper(
                hydra_context=context, task_function=main, config=master
            ),
            master,
        )


@pytest.mark.parametrize(
    ("swept", "said"),
    [
        ("paths.store=A,B", "the same paths.store, and these have A and B: start a sweep for each"),
        ("paths.outputs=A,B", "the same paths.outputs, and these have A and B"),
        ("sweep.dry_run=false,true", "the same sweep.dry_run, and these have False and True"),
        ("sweep.report=true,false", "the same sweep.report"),
        ("logger.mode=online,disabled", "the same logger.mode"),
    ],
)
def test_what_is_read_once_for_a_sweep_is_the_same_in_all_cells(swept, said):
    with sweeper_of() as (sweeper, _):
        cells = sweeper._cells([*TINY, "mask.percentile=50,60", swept])
        with pytest.raises(ConfigCompositionException) as refused:
            sweeper._checked(cells)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_each_cell_reads_by_itself_may_differ():
    swept = ["logger.tags=[a],[b]", "trainer.eval_batch_size=64,128", "logger.project=a,b"]
    with sweeper_of("train") as (sweeper, _):
        assert len(sweeper._checked(sweeper._cells([*TINY, "mask.percentile=50", *swept]))) == 8


def test_cells_are_composed_as_hydra_composes_them():
    """Most are copies of a sibling; nobody may tell."""
    with sweeper_of() as (sweeper, master):
        loader = sweeper.hydra_context.config_loader
        cells = sweeper._cells(
            ["mask.percentile=50,60,...,80", "rewind.epoch=0,7", "model=lenet_300_100,conv_2",
             "optimizer.clip_norm=null,1.5", "+model.options.depth=3", "data.classes=[0,1],[2,3]",
             "logger.tags=[a,b]", "++model.dropout=0.1", "mask=magnitude,iterative"]
        )  # fmt: skip
        assert len(cells) == 128
        for cell in cells[::11]:
            ours = OmegaConf.to_container(sweeper._composition(cell))
            assert ours == OmegaConf.to_container(loader.load_sweep_config(master, cell)), cell
        assert len(sweeper._composed_kin) == 4


# -- stages ----------------------------------------------------------------------------------------


@pytest.mark.launchers
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_stages_with_every_launcher(tmp_path, launcher):
    """Of the four cells, that of the start whose ticket starts there, too, waits for nobody."""
    grid = ("mask.at=end,start", "rewind.epoch=0,1")
    arguments = ("prune.py", "-m", *TINY, *grid, f"paths.outputs={tmp_path}", *LAUNCHERS[launcher])
    process = run(*arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "4 cells: 4 done" in process.stdout
    assert "1 dense network, and beside them 1 early ticket" in process.stdout
    assert "stage 2: 3 cells" in process.stdout
    said = process.stdout + "".join(p.read_text() for p in tmp_path.rglob("*_log.out"))
    assert "waiting for" not in said
    store = tmp_path / "store"
    assert [len(list((store / k).iterdir())) for k in ("dense", "mask", "ticket")] == [1, 2, 4]
    (folder,) = (tmp_path / "prune").iterdir()
    for number in range(4):
        assert read_json(folder / str(number) / "status.json")["status"] == "done"
        assert read_json(folder / str(number) / "result.json")["ticket"]["val_top1"] >= 0

    # Half of it lost: the same command runs that half, and no dense network.
    for number in (1, 2):
        key = read_json(folder / str(number) / "result.json")["ticket"]["key"]
        shutil.rmtree(store / "ticket" / key)
    again = run(*arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 done, 0 underway elsewhere, 2 to run in 2 jobs" in again.stdout
    assert "stage 1" not in again.stdout
    assert "stage 2: 2 cells" in again.stdout
    assert "4 cells: 4 done" in again.stdout
    # What was typed is beside the result, of cells that no job had to compute, too.
    typed = ".hydra/overrides.yaml"
    for number in map(str, range(4)):
        one, other = ((f / number / typed).read_text() for f in sorted(folder.parent.iterdir()))
        assert one == other
        assert "- mask.at=" in one


def test_a_dry_run_prints_the_plan_and_leaves_nothing(tmp_path):
    process = run(
        "prune.py", "-m", *TINY, *GRID, "sweep.dry_run=true", f"paths.outputs={tmp_path / 'new'}"
    )
    assert process.returncode == 0, process.stderr
    assert "6: 0 done, 0 underway elsewhere, 6 to run in 6 jobs" in process.stdout
    assert "1 to train" in process.stdout
    assert "unknown" in process.stdout
    assert not (tmp_path / "new").exists()


def test_a_grid_may_be_a_file(tmp_path):
    """With ellipses, in hydra.sweeper.params; what is typed adds to it."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n"
        "hydra:\n  sweeper:\n    params:\n      mask.percentile: 65,70,...,80\n"
        "      mask.scope: layer,global\n"
    )
    process = run(
        "prune.py", "-m", "--config-dir", str(tmp_path), *TINY, "experiment=mine",
        "mask.during=null,rigl", "trainer.epochs=60", "sweep.dry_run=true",
        f"paths.outputs={tmp_path / 'new'}",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "mask.percentile=65,70,75,80\n" in process.stdout
    assert "16: 0 done, 0 underway elsewhere, 16 to run in 16 jobs" in process.stdout


def test_detaching_needs_slurm(tmp_path):
    process = run("prune.py", "-m", *TINY, "sweep.detach=true", f"paths.outputs={tmp_path}")
    assert process.returncode == 1
    assert "sweep.detach=true needs hydra/launcher=submitit_slurm" in process.stderr
    assert "Traceback" not in process.stderr


def test_without_slurm_it_says_so_and_queues_nothing(tmp_path):
    path = os.pathsep.join(
        p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p) / "sbatch").exists()
    )
    process = run("prune.py", "-m", *TINY, *GRID, "hydra/launcher=submitit_slurm",
                  f"paths.outputs={tmp_path}", PATH=path)  # fmt: skip
    assert process.returncode == 1
    assert process.stderr.startswith("error: there is no SLURM here (no sbatch on the PATH)")
    assert "Traceback" not in process.stderr
    assert not list(tmp_path.glob("prune/*/*/status.json"))  # a report would call it queued


def test_a_store_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    process = run("prune.py", "-m", *TINY, *GRID, f"paths.store={tmp_path / 'file' / 'store'}",
                  f"paths.outputs={tmp_path / 'outputs'}")  # fmt: skip
    assert process.returncode == 1
    assert process.stderr.startswith("error: cannot write or read")
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "outputs").exists()  # noticed before anything was launched


def test_code_that_changed_is_reported(tmp_path, caplog, monkeypatch):
    from lottery import provenance

    provenance.record(tmp_path)
    monkeypatch.setattr(provenance, "revision", lambda: "another")
    assert not caplog.records
    provenance.record(tmp_path)
    assert "going on with another" in caplog.text
    assert [a["revision"] for a in read_json(tmp_path / "provenance.json")][1] == "another"


def test_one_sweep_claims_what_it_submitted_to_slurm(tmp_path, monkeypatch):
    """Another sweep sees it as long as SLURM has it in its queue."""
    store = Store(tmp_path)
    node = plan.make(grid(mask_percentile=[50]), store).cells[0].lineage.last
    claims.claim(store, node, "12_3", Path("sweep"))
    monkeypatch.setattr(claims.slurm, "queued", lambda: {"12_3": "PENDING"})
    assert claims.underway(store)(node) == "SLURM job 12_3 (pending)"
    assert claims.underway(store, apart="12_3")(node) is None
    monkeypatch.setattr(claims.slurm, "queued", dict)
    assert claims.underway(store)(node) is None
    monkeypatch.setattr(claims.slurm, "queued", lambda: None)
    assert claims.underway(store)(node) is None


def test_the_end_is_a_table_of_cells_that_are_not_done(tmp_path):
    cells = plan.make(grid(mask_percentile=[50, 60, 70, 80, 90]), Store(tmp_path)).cells
    states = ["done", "failed", "failed", "running", "missing"]
    why = ["", "the disk [full]\nsecond line", "the disk [full]\nanother", "process 7", ""]
    said = io.StringIO()
    console = table.terminal(file=said)
    overview.show_outcome(list(zip(cells, states, why, strict=True)), "here", console)
    rows = [line.split() for line in said.getvalue().splitlines()]
    assert ["done", "1"] in rows
    first = rows.index(["failed", "2", "1", "mask.percentile=60", "the", "disk", "[full]"])
    assert rows[first + 1] == ["2", "mask.percentile=70", "as", "above"]
    assert ["running", "1", "3", "mask.percentile=80", "process", "7"] in rows
    assert ["missing", "1", "4", "mask.percentile=90"] in rows
    assert rows[-2:] == [
        ["5", "cells:", "1", "done,", "2", "failed,", "1", "running,", "1", "missing"],
        ["sweep:", "here"],
    ]


def experiments(folder: Path, **launchers: str) -> tuple[str, ...]:
    """Experiments that override the launcher, and how to sweep them."""
    (folder / "experiment").mkdir()
    for number, (name, launcher) in enumerate(launchers.items()):
        (folder / "experiment" / f"{name}.yaml").write_text(
            "# @package _global_\n"
            f"defaults: [{{override /hydra/launcher: {launcher}}}]\n"
            f"seed: {number}\n"
        )
    return ("--config-dir", str(folder), f"experiment={','.join(launchers)}")


def test_experiments_that_choose_different_launchers_are_refused(tmp_path):
    swept = experiments(tmp_path, one="submitit_local", other="basic")
    process = run("train.py", "-m", *swept, *TINY, f"paths.outputs={tmp_path / 'new'}")
    assert process.returncode == 1
    assert "one launcher runs all cells of a sweep, and these differ" in process.stderr
    assert "\n  experiment=one: hydra/launcher=submitit_local\n" in process.stderr
    assert "\n  experiment=other: hydra/launcher=basic\n" in process.stderr
    assert "choose for all with hydra/launcher=" in process.stderr
    assert not (tmp_path / "new").exists()


def test_the_launcher_that_all_cells_choose_is_the_sweeps():
    """Whether or not the sweep's own config, without the swept values, has it."""
    from hydra_plugins.lottery_sweeper import _agreed_launcher

    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        local, slurm = (
            compose("config", [f"hydra/launcher={name}"], return_hydra_config=True)
            for name in ("submitit_local", "submitit_slurm")
        )
    cells = [["experiment=a"], ["experiment=b"]]
    assert _agreed_launcher(cells, [local, local])._target_.endswith(
        "lottery_launcher.LocalLauncher"
    )
    with pytest.raises(
        ConfigCompositionException, match="experiment=b: hydra/launcher=submitit_sl"
    ):
        _agreed_launcher(cells, [local, slurm])


@pytest.mark.slow
def test_the_launcher_that_all_experiments_choose_runs_them(tmp_path):
    swept = experiments(tmp_path, one="submitit_local", other="submitit_local")
    process = run("train.py", "-m", *swept, *TINY, "trainer.epochs=1",
                  f"paths.outputs={tmp_path / 'new'}")  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "2 cells: 2 done" in process.stdout
    assert len(list((tmp_path / "new" / "train").glob("*/.submitit/*/*_result.pkl"))) == 2


@pytest.mark.parametrize("many", [(), ("-m", "seed=0,1")])
def test_a_folder_of_its_own_for_each_job_is_refused(tmp_path, many):
    """Or relative paths would mean another store in each."""
    process = run("train.py", *many, *TINY, "hydra.job.chdir=true", f"paths.outputs={tmp_path}")
    assert process.returncode == 1
    assert process.stderr.startswith("error: hydra.job.chdir=true would give every run a store of")
    assert not (tmp_path / "store").exists()
