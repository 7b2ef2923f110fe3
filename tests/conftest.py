"""Fixtures that every test may use: composed configs, real data, a laboratory of one's own."""

import contextlib
import copy
import functools
import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forks import SHALLOW, Forks
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import settings
from omegaconf import DictConfig
from slurm_cluster import cluster as cluster
from slurm_cluster import free_ports
from xdist.scheduler import LoadFileScheduling

from lottery import choices, cli, tickets  # cli registers the schema
from lottery.config import typed
from lottery.experiment import Laboratory, find_ticket
from lottery.pruning import masks
from lottery.runs import Run, runs_of
from lottery.store import Store
from lottery.tracking import Tracker

assert cli
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a script starts with an &
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Most laws hold bit for bit, which a GPU keeps only with trainer.deterministic=true.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

REPOSITORY = Path(__file__).parents[1]
THOROUGH = bool(os.environ.get("CI"))  # more examples of what is drawn at random
settings.register_profile("quick", max_examples=25)
if not THOROUGH:
    settings.load_profile("quick")

# A network with everything that has state: BatchNorm, momentum, dropout; augmented digits.
SMALL = (
    "model=resnet20", "model.dropout=0.2", "model.batch_norm_momentum=0.9",
    "data.classes=[0,1,2,3,4,5]", "trainer.batch_size=128", "trainer.epochs=3", "logger=csv",
    "schedule.warmup=0.3", "mask.percentile=80", "rewind.epoch=1", "rewind.keep=[2]",
)  # fmt: skip
# A network that trains in a moment, for tests that need many runs.
TINY = (
    "model=lenet_300_100", "model.width=0.1", "trainer.batch_size=256", "trainer.epochs=2",
    "rewind.epoch=1", "logger=csv", "sweep.report=false",
)  # fmt: skip


@functools.cache
def _chosen(name: str, groups: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return compose(name, list(groups))


def composed(*overrides: str, name: str = "config") -> Any:
    """The typed config of a command line; ``name`` is the file in ``conf`` that a script reads.

    Hydra takes a quarter of a second to read files, so those of the same choices are read once;
    values are set as it does.
    """
    overrides = tuple(choices.as_group(override) for override in overrides)
    named = [(o.partition("=")[0].lstrip("+~"), o) for o in overrides]
    known = {kind.group for kind in choices.KINDS}
    groups = [o for k, o in named if "/" in k or k in known or (REPOSITORY / "conf" / k).is_dir()]
    config = copy.deepcopy(_chosen(name, tuple(groups)))
    values = OverridesParser.create().parse_overrides([o for o in overrides if o not in groups])
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    return typed(config)


def pruned(scores: Any, percentile: float, scope: str = "global", within: Any = None) -> Any:
    """The mask that removes the lowest scores, weight by weight."""
    allocation = choices.allocation.of({"name": scope})
    weight = choices.pattern.of({"name": "weight"})
    return masks.make(scores, percentile, allocation=allocation, pattern=weight, within=within)


def dataset(**options: Any) -> Any:
    """A choice of ``data.source`` with these options."""
    return choices.source.of(options)


@pytest.fixture
def config() -> Callable[..., Any]:
    return composed


@pytest.fixture
def lab(tmp_path: Path) -> Laboratory:
    return laboratory(tmp_path)


def laboratory(folder: Path) -> Laboratory:
    logger = composed("logger=csv").logger
    return Laboratory(Store(folder / "store"), Tracker(logger, folder, "test", {}))


@contextlib.contextmanager
def resnet_4() -> Iterator[None]:
    """4 layers instead of 20, here and in forks: all that has state, in a fifth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lottery.models.networks._resnet20._CHANNELS", (16,))
        patch.setattr("lottery.models.networks._resnet20._BLOCKS", 1)
        patch.setenv(SHALLOW, "1")
        yield


@pytest.fixture(scope="module")
def shallow() -> Iterator[None]:
    """:func:`resnet_4` for the tests of a file; those of ``ticket_study`` need it."""
    with resnet_4():
        yield


@dataclass(frozen=True)
class TicketStudy:
    """An iterative ticket with 20 % of the weights of ``SMALL``, of 4 layers, on six digits."""

    config: Any
    lab: Laboratory
    result: dict[str, Any]
    run: Run
    file: Path


@pytest.fixture(scope="session")
def ticket_study(tmp_path_factory) -> TicketStudy:
    lab = laboratory(tmp_path_factory.mktemp("ticket_study"))
    config = composed(*SMALL, "mask=iterative", "mask.rate=50")
    with resnet_4():
        result = find_ticket(config, lab)
    ticket = runs_of(result)["ticket"]
    file = lab.store.root.parent / tickets.FILE
    tickets.write(tickets.of_run(ticket), file)
    return TicketStudy(config, lab, result, ticket, file)


@pytest.fixture(scope="session")
def real_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two cells that prune.py left."""
    outputs = tmp_path_factory.mktemp("real")
    process = run(
        "prune.py", "-m", *TINY, "mask.percentile=50,80",
        f"paths.outputs={outputs}",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return next((outputs / "prune").iterdir())


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The development data set folder, or a skip."""
    root = Path(os.environ.get("LOTTERY_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no development data at {root} (set LOTTERY_DATA)")
    return root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB, or a skip."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a disk to fill needs the right to mount one")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def command(script: str, *arguments: str, python: tuple[str, ...] = ()) -> list[str]:
    """What a user types to start an entry script; ``python`` are options of the interpreter."""
    return [sys.executable, *python, str(REPOSITORY / script), *arguments]


def environment(**extra: str) -> dict[str, str]:
    """This process's, without a developer's own settings, and with no GPU: runs must repeat."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "HYDRA_", "TFDS_"))}
    if own.pop("PYTHONDONTWRITEBYTECODE", None):  # or each process compiles TensorFlow anew: 8 s
        own["PYTHONPYCACHEPREFIX"] = str(REPOSITORY / ".pytest_cache" / "bytecode")
    path = os.pathsep.join(filter(None, [str(REPOSITORY / "src"), own.get("PYTHONPATH")]))
    return own | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"} | extra


@functools.cache
def forks() -> Forks:
    return Forks(environment())


def run(
    script: str,
    *arguments: str,
    python: tuple[str, ...] = (),
    before: tuple[str, ...] = (),
    **extra: str,
) -> subprocess.CompletedProcess[str]:
    """An entry script, run to its end in a process of its own; nobody answers prompts.

    ``before`` is a command that starts it, such as ``nice``; ``extra`` is added to the environment.
    Without ``before`` and options of the interpreter, the process is a fork (:mod:`forks`).
    """
    if not (python or before):
        return forks().run(command(script, *arguments)[1:], environment(**extra))
    return subprocess.run(
        [*before, *command(script, *arguments, python=python)],
        env=environment(**extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def together(
    *commands: list[str], folders: Sequence[Path] | None = None
) -> list[subprocess.Popen[str]]:
    """Processes that are to train together, as TF_CONFIG tells them; each may have its folder."""
    nodes = [f"127.0.0.1:{port}" for port in free_ports(len(commands))]
    processes = []
    for rank, started in enumerate(commands):
        config = {"cluster": {"worker": nodes}, "task": {"type": "worker", "index": rank}}
        variables = environment(
            TF_CONFIG=json.dumps(config), PYTHONUNBUFFERED="1", SLURM_PROCID=str(rank)
        )
        process = subprocess.Popen(
            started, env=variables, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=folders and folders[rank],
        )  # fmt: skip
        processes.append(process)
    return processes


def result_folder(stdout: str) -> Path:
    """The output folder of a run, from the last line it printed."""
    return Path(stdout.rstrip().rpartition("\nresult: ")[2]).parent


# Those that take the longest start first, so that no core is left with one of them at the end.
LONGEST = (
    "test_slurm", "test_slurm_cluster", "test_kill", "test_transfer", "test_training", "test_cli",
    "test_stability", "test_export", "test_peer_bugs", "test_report",
)  # fmt: skip


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Test files run side by side, one a core and four at most; one alone needs no help.

    One more where the tests of the cluster take part, which mostly wait.
    """
    files = {argument.partition("::")[0] for argument in config.args}
    if len(files) == 1 and files.pop().endswith(".py"):
        return 0
    return min(4, len(os.sched_getaffinity(0))) + (config.option.markexpr == "")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    return ByFile(config, log)


class ByFile(LoadFileScheduling):
    """A file at a time on each core; those that share the cluster or a costly fixture as one."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0]).stem
        if file in (
            "test_export", "test_objectives", "test_run_models", "test_tickets", "test_transfer",
        ):  # fmt: skip
            return "ticket_study"
        shared = ("test_slurm", "test_report")
        return next((start for start in shared if file.startswith(start)), file)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes
        items.sort(key=lambda item: LONGEST.index(s) if (s := item.path.stem) in LONGEST else 99)


def pytest_collection_finish() -> None:
    """Exempt what the imports made from garbage collection, which Keras asks for at each run."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    if forks.cache_info().currsize:
        forks().stop()
