"""Hydra's submitit launchers, made to report failures, to survive, and to be left alone.

Where they differ from the ones they extend: a job that fails exits non-zero; one that was killed
outright is noticed and does not stop its siblings; ``submit`` returns without waiting; a job
carries its own config only; Ctrl-C here does not reach the jobs.
"""

import contextlib
import copy
import dataclasses
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra_plugins.hydra_submitit_launcher.config import (
    BaseQueueConf,
    LocalQueueConf,
    SlurmQueueConf,
)
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher

log = logging.getLogger(__name__)

POLL = 1.0  # seconds between looks for finished jobs
QUEUE_POLL = 15.0  # seconds between looks at SLURM's queue


@dataclass
class SlurmConf(SlurmQueueConf):
    """SLURM, through submitit."""

    _target_: str = "hydra_plugins.lottery_launcher.SlurmLauncher"
    srun_args: list[str] = field(default_factory=list)


@dataclass
class LocalConf(LocalQueueConf):
    """Processes on this machine, through submitit."""

    _target_: str = "hydra_plugins.lottery_launcher.LocalLauncher"
    parallel: int = 1  # jobs at a time, each with gpus_per_node GPUs of its own
    signal_delay_s: int = 60
    max_num_timeout: int = 0


for _name, _node in (("slurm", SlurmConf), ("local", LocalConf)):
    ConfigStore.instance().store(group="hydra/schema", name=_name, node=_node, provider="lottery")


class OwnPresets(SearchPathPlugin):
    """Lets conf/hydra/launcher/submitit_*.yaml take the place of the plugin's own presets.

    Hydra would match files against nodes of the same name, and warn; this is the first moment at
    which it has loaded all plugins. Other programs keep the plugin's presets.
    """

    forgotten: ClassVar[dict[str, Any]] = {}

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Leave the path alone; hide the other presets, or put them back where they belong."""
        launchers = ConfigStore.instance().repo["hydra"]["launcher"]
        launchers |= self.forgotten
        main = [e.path for e in search_path.get_path() if e.provider == "main" and e.path]
        for name in ("submitit_slurm", "submitit_local"):
            if any(_is_ours(Path(at.removeprefix("file://")), name) for at in main):
                self.forgotten[f"{name}.yaml"] = launchers.pop(f"{name}.yaml")


def _is_ours(conf: Path, preset: str) -> bool:
    """Whether a folder of configs has a preset of that name built on our schema."""
    try:
        text = (conf / "hydra" / "launcher" / f"{preset}.yaml").read_text()
    except OSError:
        return False
    return "/hydra/schema/" in text


class _Launcher(BaseSubmititLauncher):
    """What both kinds have in common."""

    revision: str | None = None

    def __call__(self, *args: Any) -> JobReturn:
        """Run one job in its own process; raise what it raises, so that it exits non-zero."""
        from lottery import experiment, provenance

        if experiment.follow():  # another task of the job writes what there is to write
            return _followed()
        provenance.report_change(self.revision, "submitted")
        result: JobReturn = super().__call__(*args)
        if result.status is JobStatus.FAILED:
            raise result._return_value
        return result

    def _executor(self, folder: Path, max_num_timeout: int, settings: dict[str, Any]) -> Any:
        """A submitit executor with these settings."""
        raise NotImplementedError

    def _submit(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int, **parameters: Any
    ) -> list[Any]:
        """Hand jobs over and return their submitit handles at once; ``parameters`` are extra."""
        from lottery import provenance

        assert self.config is not None

        self.revision = provenance.revision()
        settings = {k: v for k, v in self.params.items() if v is not None} | parameters
        for name, value in parameters.items():
            if isinstance(value, dict):  # add to what the preset says, do not replace it
                settings[name] = {**self.params.get(name, {}), **value}
        executor = self._executor(
            Path(settings.pop("submitit_folder")), settings.pop("max_num_timeout"), settings
        )
        with _apart(), executor.batch():
            return [
                executor.submit(
                    self._only(overrides),
                    list(overrides),
                    "hydra.sweep.dir",
                    number,
                    f"job_id_for_{number}",
                    Singleton.get_state(),
                )
                for number, overrides in enumerate(job_overrides, start=initial_job_idx)
            ]

    def _only(self, overrides: Sequence[str]) -> "BaseSubmititLauncher":
        """A copy that carries the config of one job, not those of the whole sweep."""
        assert self.hydra_context is not None
        launcher = copy.copy(self)
        loader: Any = self.hydra_context.config_loader  # FrozenConfigs
        launcher.hydra_context = dataclasses.replace(
            self.hydra_context, config_loader=loader.only(overrides)
        )
        return launcher

    def _wait(self, jobs: Sequence[Any]) -> list[JobReturn]:
        """How each job ended, once all have."""
        ends: dict[str, JobReturn] = {}
        while len(ends) < len(jobs):
            left = [j for j in jobs if j.job_id not in ends]
            for job in left:
                if job.paths.result_pickle.exists():
                    ends[job.job_id] = _outcome(job)
            for job_id, state in self._vanished([j for j in left if j.job_id not in ends]):
                ends[job_id] = _failed(f"job {job_id} ended without a result: {state}")
            for job in left:
                if job.job_id in ends and len(jobs) > 1:
                    ok = ends[job.job_id].status is JobStatus.COMPLETED
                    log.info("job %s %s (%d of %d ended)", job.job_id, "done" if ok else "failed",
                             len(ends), len(jobs))  # fmt: skip
            time.sleep(POLL)
        return [ends[j.job_id] for j in jobs]

    def _vanished(self, jobs: Sequence[Any]) -> list[tuple[str, str]]:
        """Jobs that will never leave a result, and what became of them."""
        raise NotImplementedError


class SlurmLauncher(_Launcher):
    """Jobs of a sweep as one SLURM job array."""

    _EXECUTOR = "slurm"

    def _executor(self, folder: Path, max_num_timeout: int, settings: dict[str, Any]) -> Any:
        import submitit

        shared = {f.name for f in dataclasses.fields(BaseQueueConf)}
        executor = submitit.AutoExecutor(
            folder, cluster="slurm", slurm_max_num_timeout=max_num_timeout
        )
        executor.update_parameters(
            **{k if k in shared else f"slurm_{k}": v for k, v in settings.items()}
        )
        return executor

    def submit(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int, **parameters: Any
    ) -> list[Any]:
        """Submit one array. Raises :class:`LotteryError` with SLURM's words if it refuses."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from lottery.errors import LotteryError

        if shutil.which("sbatch") is None:
            raise LotteryError(
                "there is no SLURM here (no sbatch on the PATH): start the sweep on a login node, "
                "or choose hydra/launcher=submitit_local or hydra/launcher=basic"
            )
        try:
            return self._submit(job_overrides, initial_job_idx, **parameters)
        except (FailedJobError, FailedSubmissionError) as error:
            raise LotteryError(f"SLURM refused the jobs: {error}") from error
        except (ValueError, NameError) as error:  # submitit's: an option it does not know
            known = {f.name for f in dataclasses.fields(SlurmConf)} | {"dependency"}
            odd = sorted(set(self.params) - known)
            raise LotteryError(
                f"hydra.launcher.{odd[0]} is unknown; options of sbatch go into "
                "hydra.launcher.additional_parameters"
                if odd
                else f"hydra.launcher: {error}"
            ) from error

    def wait(self, jobs: Sequence[Any]) -> list[JobReturn]:
        """As for both; and look at the queue, because a killed job leaves nothing else."""
        self._looked, self._absent = time.monotonic(), set[str]()
        return self._wait(jobs)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit, wait for the end of all, and return how each ended; none stops the others."""
        return self.wait(self.submit(job_overrides, initial_job_idx))

    def _vanished(self, jobs: Sequence[Any]) -> list[tuple[str, str]]:
        from lottery.sweep import slurm

        if time.monotonic() - self._looked < QUEUE_POLL or not jobs:
            return []
        self._looked = time.monotonic()
        queued = slurm.queued()
        if queued is None:  # the controller does not answer: ask again later
            return []
        absent = {j.job_id for j in jobs} - set(queued)
        # Twice, because a finished job leaves the queue before its result is seen.
        gone, self._absent = absent & self._absent, absent
        states = slurm.final_states(gone)
        return [(job_id, states.get(job_id, "SLURM no longer knows it")) for job_id in gone]


class LocalLauncher(_Launcher):
    """Jobs of a sweep as processes of this machine, a few at a time."""

    _EXECUTOR = "local"

    def _executor(self, folder: Path, max_num_timeout: int, settings: dict[str, Any]) -> Any:
        import submitit

        executor = submitit.LocalExecutor(folder, max_num_timeout=max_num_timeout)
        executor.update_parameters(**settings)
        return executor

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Start jobs as others end; each has the GPUs of its slot."""
        gpus = self.params.get("gpus_per_node") or 0
        free, waiting = list(range(self.params["parallel"])), list(enumerate(job_overrides))
        running: dict[int, tuple[int, Any]] = {}
        ends: dict[int, JobReturn] = {}
        while waiting or running:
            while waiting and free:
                number, overrides = waiting.pop(0)
                slot = free.pop(0)
                visible = [slot * gpus + i for i in range(gpus)]
                own = {"visible_gpus": visible} if gpus else {}
                (job,) = self._submit([overrides], initial_job_idx + number, **own)
                running[number] = (slot, job)
            for number, (slot, job) in list(running.items()):
                if job.done():
                    (ends[number],) = self._wait([job])
                    free.append(slot)
                    del running[number]
            time.sleep(POLL)
        return [ends[number] for number in range(len(job_overrides))]

    def _vanished(self, jobs: Sequence[Any]) -> list[tuple[str, str]]:
        return [
            (j.job_id, "its process is gone")
            for j in jobs
            if j.done() and not j.paths.result_pickle.exists()
        ]


def _outcome(job: Any) -> JobReturn:
    from submitit.core.utils import UncompletedJobError

    try:
        result: JobReturn = job.task(0).result()  # other tasks have nothing to tell
    except UncompletedJobError as error:
        return _failed(str(error))
    return result


def _followed() -> JobReturn:
    result = JobReturn()
    result.status = JobStatus.COMPLETED
    return result


def _failed(message: str) -> JobReturn:
    from lottery.errors import LotteryError

    result = JobReturn()
    result.status = JobStatus.FAILED
    result.return_value = LotteryError(message)
    return result


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Start jobs that neither Ctrl-C here nor the allocation we may be in ourselves reaches."""
    ours = {k: os.environ.pop(k) for k in list(os.environ) if k.startswith(("SLURM_", "SBATCH_"))}
    kept = {k: v for k, v in ours.items() if k == "SLURM_CONF" or k.startswith("SBATCH_")}
    os.environ.update(kept)
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        os.environ.update(ours)
