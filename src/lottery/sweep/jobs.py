"""What the jobs of a sweep run: the configs they were submitted with, and nothing else."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus, run_job
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from lottery.store import Node
from lottery.studies import Study
from lottery.sweep.plan import Cell

Task = Callable[[Any], Any]


@dataclass(frozen=True)
class Launchers:
    """Makes Hydra launchers that run a task, here or in a job that submits others."""

    config: DictConfig

    @classmethod
    def of(cls, config: DictConfig, sweep_dir: str) -> "Launchers":
        """With the launcher that ``config`` chooses, everything in it resolved."""
        settled = config.copy()
        with read_write(settled.hydra), open_dict(settled.hydra):
            settled.hydra.sweep.dir = sweep_dir
            OmegaConf.resolve(settled.hydra.launcher)
        return cls(settled)

    @property
    def parallel(self) -> int:
        """How many jobs run at a time."""
        launcher = self.config.hydra.launcher
        if "joblib" in launcher.get("_target_", ""):
            jobs = int(launcher.get("n_jobs") or 1)
            return jobs if jobs > 0 else os.cpu_count() or 1
        return int(launcher.get("array_parallelism") or launcher.get("parallel") or 1)

    @property
    def gpus(self) -> int:
        """How many GPUs a job gets; 0 if it asks for none."""
        launcher = self.config.hydra.launcher
        if "joblib" in launcher.get("_target_", ""):
            return 0
        return int(launcher.get("gpus_per_node") or 0) * int(launcher.get("nodes") or 1)

    def __call__(self, context: HydraContext, task: Task) -> Any:
        """A launcher of jobs that run ``task``."""
        return Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=task, config=self.config
        )


@dataclass(frozen=True)
class Job:
    """A job to be submitted: the config that it runs, the node and the cells that it is about."""

    overrides: tuple[str, ...]
    config: DictConfig
    node: Node
    cells: tuple[Cell, ...]
    stage: str  # dense, early (tickets that do not wait for it) or cells

    @property
    def folder(self) -> str:
        """Name of its output folder in the sweep's."""
        return str(self.config.hydra.sweep.subdir)

    @property
    def goals(self) -> tuple[Node, ...]:
        """The nodes that it is submitted for."""
        if self.stage != "cells":
            return (self.node,)
        return (self.node, *(goal for cell in self.cells for goal in cell.lineage.goals))


def frozen(config: DictConfig, sweep_dir: str, folder: str) -> DictConfig:
    """A composed config with every interpolation of the study resolved, and its own folder."""
    settled = config.copy()
    with read_write(settled), open_dict(settled):
        hydra = settled.pop("hydra")
        OmegaConf.resolve(settled)
        settled.hydra = hydra
    with read_write(settled.hydra), open_dict(settled.hydra):
        settled.hydra.sweep.dir = sweep_dir
        settled.hydra.sweep.subdir = folder
    return settled


@dataclass(frozen=True)
class FrozenConfigs:
    """Stands in for Hydra's config loader: composes nothing, hands out what was submitted.

    Hydra composes a job's config where the job runs, so a YAML file edited while the job is
    queued, or between two of its time slices, would change it.
    """

    configs: Mapping[tuple[str, ...], DictConfig]

    def load_sweep_config(self, master_config: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """The config of the job that these overrides name."""
        return self.configs[tuple(overrides)].copy()

    def only(self, overrides: Sequence[str]) -> "FrozenConfigs":
        """The loader of one job."""
        return FrozenConfigs({tuple(overrides): self.configs[tuple(overrides)]})


@dataclass(frozen=True)
class CellsTask:
    """Runs a cell, and after it the cells that share tickets with it, each in its own folder."""

    main: Task
    followers: Mapping[str, Sequence[DictConfig]]
    callbacks: Any

    def __call__(self, config: DictConfig) -> Any:
        """The first cell's value. Raises the first error, after all cells had their turn."""
        followers = self.followers.get(str(HydraConfig.get().sweep.subdir), ())
        value, error = None, None
        try:
            value = self.main(config)
        except Exception as failure:
            error = failure
        for follower in followers:
            result = run_job(
                self.main,
                follower,
                "hydra.sweep.dir",
                "hydra.sweep.subdir",
                HydraContext(None, self.callbacks),  # type: ignore[arg-type]
            )
            if result.status is JobStatus.FAILED:
                error = error or result._return_value
        if error is not None:
            raise error
        return value


@dataclass(frozen=True)
class FirstTask:
    """Trains a dense network, and makes what its cells share, so that none waits for another.

    Or, in the folder of a cell, the ticket of that cell, which does not wait for it.

    ``study`` says how, see :class:`lottery.studies.Study`; ``cells`` are folder name and config of
    each, by the folder name of the dense network's job.
    """

    study: Study
    cells: Mapping[str, Mapping[str, Any]]

    def __call__(self, config: DictConfig) -> Any:
        """Its validation top-1. If a dense network fails, its cells' status says so."""
        from lottery import cli

        sweep = HydraConfig.get().sweep
        cells = self.cells.get(str(sweep.subdir))
        if cells is None:
            return cli.early(config, self.study)
        try:
            return cli.job(config, self.study.parents(list(cells.values())))
        except Exception as error:
            mark_orphans([Path(str(sweep.dir), name) for name in cells], error)
            raise


def mark_orphans(folders: Iterable[Path], error: BaseException) -> None:
    """Record that cells cannot be computed because their dense network could not."""
    from lottery import cli
    from lottery.errors import LotteryError

    reason = LotteryError(f"its dense network failed: {cli.explain(error) or repr(error)}")
    reason.__cause__ = error
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        cli.write_status(folder, "failed", time.time(), reason)
