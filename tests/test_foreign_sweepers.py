"""Hydra's own sweeper and that of a plug-in, with every script and launcher."""

import pytest
import yaml
from conftest import REPOSITORY, TINY, run
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf
from test_sweep import LAUNCHERS

from hydra_plugins.lottery_launcher import LocalLauncher
from lottery.files import read_json

ONE_EPOCH = (*TINY, "trainer.epochs=1", "rewind.epoch=0")


def swept(script, outputs, *arguments, sweeper="basic"):
    process = run(script, "-m", f"hydra/sweeper={sweeper}", *arguments, f"paths.outputs={outputs}")
    assert process.returncode == 0, process.stdout + process.stderr
    folder = max((outputs / script.removesuffix(".py")).iterdir(), key=lambda f: f.name)
    assert [read_json(f)["status"] for f in folder.glob("*/status.json")] == ["done", "done"]
    return [read_json(folder / str(number) / "result.json") for number in (0, 1)]


@pytest.mark.launchers
def test_hydras_own_sweeper_runs_every_script(tmp_path):
    """Each job runs its whole study; the store shares the dense network."""
    pruned = swept("prune.py", tmp_path, *ONE_EPOCH, "mask.percentile=50,60")
    assert [result["mask"]["percentile"] for result in pruned] == [50, 60]
    trained = swept("train.py", tmp_path, *ONE_EPOCH, "seed=0,1")
    assert trained[0]["dense"]["key"] == pruned[0]["dense"]["key"] == pruned[1]["dense"]["key"]
    file = next((tmp_path / "prune").glob("*/0/ticket.safetensors"))
    moved = swept(
        "transfer.py", tmp_path, "logger=csv", "trainer.epochs=1", f"ticket={file}", "seed=0,1",
        "transfer.seen_images=report",
    )  # fmt: skip
    assert [result["transfer"]["seed"] for result in moved] == [0, 1]
    kinds = {kind: len(list((tmp_path / "store" / kind).iterdir())) for kind in ("dense", "ticket")}
    assert kinds == {"dense": 2, "ticket": 2}


@pytest.mark.launchers
@pytest.mark.parametrize("launcher", ["joblib", "local"])
def test_its_jobs_may_run_side_by_side(tmp_path, launcher):
    """Leases share the dense network: one job trains it, the other waits."""
    pruned = swept("prune.py", tmp_path, *ONE_EPOCH, "mask.percentile=50,60", *LAUNCHERS[launcher])
    assert [result["mask"]["percentile"] for result in pruned] == [50, 60]
    assert len(list((tmp_path / "store" / "dense").iterdir())) == 1


@pytest.mark.launchers
def test_optuna_searches_by_what_a_script_returns(tmp_path):
    space = ("mask.percentile=interval(50,90)", "hydra.sweeper.n_trials=2",
             "hydra.sweeper.direction=maximize")  # fmt: skip
    found = swept("prune.py", tmp_path, *ONE_EPOCH, *space, sweeper="optuna")
    (file,) = (tmp_path / "prune").glob("*/optimization_results.yaml")
    best = yaml.safe_load(file.read_text())
    assert best["best_value"] == max(result["ticket"]["val_top1"] for result in found)
    assert best["best_params"]["mask.percentile"] in [r["mask"]["percentile"] for r in found]
    assert len(list((tmp_path / "store" / "dense").iterdir())) == 1


@pytest.mark.launchers
def test_optuna_searches_for_densities_too_and_goes_on(tmp_path):
    """One dense network, a study that is kept, and a report on its folder."""
    kept = (f"hydra.sweeper.storage=sqlite:///{tmp_path}/study.db", "hydra.sweeper.study_name=mine")
    space = ("mask.percentile=interval(50.0,90.0)", "hydra.sweeper.n_trials=2", *kept)
    alone = ("sweep.objective=density", "hydra.sweeper.direction=minimize", "verdict.tolerance=100")
    study = (*TINY, "trainer.epochs=6", "rewind.epoch=0")  # less, and dense is at chance
    for _ in range(2):
        swept("prune.py", tmp_path, *study, *space, *alone, sweeper="optuna")
    last = max((tmp_path / "prune").iterdir())
    tried = [read_json(f)["mask"]["density"] for f in (tmp_path / "prune").glob("*/*/result.json")]
    assert len(tried) == 4
    best = yaml.safe_load((last / "optimization_results.yaml").read_text())
    assert best["best_value"] == min(tried), "of both commands"
    both = ("sweep.objective=val_top1,density", "hydra.sweeper.direction=[maximize,minimize]")
    results = swept("prune.py", tmp_path, *study, *space[:2], *both, sweeper="optuna")
    last = max((tmp_path / "prune").iterdir())
    front = yaml.safe_load((last / "optimization_results.yaml").read_text())["solutions"]
    values = [[r["ticket"]["val_top1"], r["mask"]["density"]] for r in results]
    assert front
    assert all(solution["values"] in values for solution in front)
    assert len(list((tmp_path / "store" / "dense").iterdir())) == 1
    process = run("report.py", f"sweep={last}", "logger.mode=disabled")
    assert process.returncode == 0, process.stderr
    assert (last / "report" / "report.html").exists()


@pytest.mark.parametrize("option", ["dry_run", "detach"])
def test_what_such_a_sweeper_does_not_know_runs_nothing(tmp_path, option):
    process = run("prune.py", "-m", "hydra/sweeper=basic", *TINY, f"sweep.{option}=true",
                  f"paths.outputs={tmp_path}")  # fmt: skip
    assert process.returncode == 1
    assert f"error: hydra/sweeper=basic does not know sweep.{option}: leave it" in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "store").exists()


def test_a_queued_job_of_such_a_sweep_keeps_its_config(tmp_path):
    """It was composed when it was submitted, whatever happens to the files."""
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    file.write_text("# @package _global_\nseed: 3\n")
    typed = ["hydra/launcher=submitit_local", f"hydra.searchpath=[file://{tmp_path}]"]
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", typed, RunMode.MULTIRUN)
        launcher = LocalLauncher(**OmegaConf.to_container(config.hydra.launcher))
        launcher.setup(
            hydra_context=HydraContext(loader, Callbacks()), task_function=len, config=config
        )
        overrides = ["experiment=mine", "mask.percentile=70"]
        queued = launcher._only(overrides)
        file.write_text("# @package _global_\nseed: 4\n")
    kept = queued.hydra_context.config_loader.load_sweep_config(config, overrides)
    assert (kept.seed, kept.mask.percentile) == (3, 70)
    assert launcher.hydra_context.config_loader is loader
