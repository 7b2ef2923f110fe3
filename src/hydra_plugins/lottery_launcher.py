"""Hydra's submitit launchers, made to report failures, to survive, and to be left alone.

Where they differ from the ones they extend: a job that fails exits non-zero; one that was killed
outright is noticed and does not stop its siblings; ``submit`` returns without waiting; a job
carries its own config only; Ctrl-C here does not reach the jobs.
"""

import contextlib
import copy
import dataclasses
import io
import logging
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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

POLL = 1.0  # seconds between looks at local processes
FULL = re.compile(
    r"\w*Submit\w*Limit|temporarily unable to accept|Resource temporarily unavailable"
)
TRACE = re.compile(r"with trace:\n-+\n(.*?)\n-+\n", re.DOTALL)  # in what submitit says


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
        from lottery import provenance, trainings
        from lottery.sweep.feed import completed

        if trainings.follow():  # another task of the job writes what there is to write
            return completed()
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

        self.revision = self.revision or provenance.revision()
        executor = self._configured(parameters)
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

    def _configured(self, parameters: Mapping[str, Any]) -> Any:
        """An executor with the preset's settings, those ``parameters`` excepted that differ."""
        settings = self.params | dict(parameters)
        for name, value in parameters.items():
            if isinstance(value, dict):  # add to what the preset says, do not replace it
                settings[name] = {**(self.params.get(name) or {}), **value}
        settings = {k: v for k, v in settings.items() if v is not None}
        folder = Path(settings.pop("submitit_folder"))
        return self._executor(folder, settings.pop("max_num_timeout"), settings)

    def _only(self, overrides: Sequence[str]) -> "BaseSubmititLauncher":
        """A copy that carries the config of one job, not those of the whole sweep.

        A sweeper of Hydra's, or of a plug-in, leaves composing it to the job: it is done here, so
        that files edited meanwhile change nothing.
        """
        from lottery.sweep.jobs import FrozenConfigs

        assert self.hydra_context is not None
        launcher = copy.copy(self)
        loader: Any = self.hydra_context.config_loader
        if not isinstance(loader, FrozenConfigs):
            composed = loader.load_sweep_config(self.config, list(overrides))
            loader = FrozenConfigs({tuple(overrides): composed})
        launcher.hydra_context = dataclasses.replace(
            self.hydra_context, config_loader=loader.only(overrides)
        )
        return launcher


class SlurmLauncher(_Launcher):
    """Jobs of a sweep as SLURM job arrays."""

    _EXECUTOR = "slurm"

    @property
    def parallel(self) -> int:
        """How many jobs may run at a time."""
        return int(self.params.get("array_parallelism") or 1)

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
        """Submit one array.

        Raises :class:`FullError` if SLURM takes no more of so many jobs now, and
        :class:`LotteryError`, with SLURM's words and the options behind them, if it refuses.
        """
        with self._refusals():
            return self._submit(job_overrides, initial_job_idx, **parameters)

    def submit_call(self, call: Callable[[], None], **parameters: Any) -> Any:
        """Submit a job that calls a function. Raises as :meth:`submit`."""
        with self._refusals():
            executor = self._configured(parameters)
            with _apart():
                return executor.submit(call)

    def outcome(self, job: Any) -> JobReturn:
        """How a job ended that left a result."""
        return _outcome(job)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit, wait for the end of all, and return how each ended; none stops the others."""
        from lottery.sweep.feed import Feed

        return Feed(self, job_overrides).run()

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from lottery.errors import LotteryError
        from lottery.sweep import reasons
        from lottery.sweep.slurm import FullError

        if shutil.which("sbatch") is None:
            raise LotteryError(
                "there is no SLURM here (no sbatch on the PATH): start the sweep on a login node, "
                "or choose hydra/launcher=submitit_local or hydra/launcher=basic"
            )
        before = set(self._unsent())
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
                yield
        except (FailedJobError, FailedSubmissionError) as error:
            for path in set(self._unsent()) - before:
                path.unlink(missing_ok=True)
            if full := FULL.search(str(error)):
                raise FullError(full[0]) from error
            raise LotteryError(reasons.refusal(str(error), self.params)) from error
        except (ValueError, NameError) as error:  # submitit's: an option it does not know
            known = {f.name for f in dataclasses.fields(SlurmConf)} | {"dependency"}
            odd = sorted(set(self.params) - known)
            raise LotteryError(
                f"hydra.launcher.{odd[0]} is unknown; options of sbatch go into "
                "hydra.launcher.additional_parameters"
                if odd
                else f"hydra.launcher: {error}"
            ) from error

    def _unsent(self) -> Iterator[Path]:
        """Files that submitit wrote for jobs that SLURM has not taken."""
        folder = Path(str(self.params["submitit_folder"]).partition("/%j")[0])
        yield from (*folder.glob(f"{'?' * 32}.pkl"), *folder.glob(".submission_file_*.sh"))


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
                    ends[number] = _outcome(job)
                    log.info("job %s ended (%d of %d)", job.job_id, len(ends), len(job_overrides))
                    free.append(slot)
                    del running[number]
            time.sleep(POLL)
        return [ends[number] for number in range(len(job_overrides))]


def _outcome(job: Any) -> JobReturn:
    """How a job ended that is over."""
    from submitit.core.utils import UncompletedJobError

    from lottery.sweep.feed import failed

    if not job.paths.result_pickle.exists():
        return failed(f"job {job.job_id} ended without a result: its process is gone")
    try:
        result: JobReturn = job.task(0).result()  # other tasks have nothing to tell
    except UncompletedJobError as error:
        trace = TRACE.search(str(error))  # of what came before or after the study itself
        if trace is None:
            return failed(str(error))
        last = trace[1].strip().splitlines()[-1]
        return failed(f"{last} (raised outside of the study: see {job.paths.stderr})")
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
