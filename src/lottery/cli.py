"""From a command line to a story: validation, status, results, and errors a person can read."""

import contextlib
import csv
import dataclasses
import errno
import hashlib
import io
import logging
import os
import re
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import CompactHydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lottery import choices, files, objectives, studies
from lottery.config import Config, Training, typed
from lottery.errors import ConfigError, LotteryError, StoppedError
from lottery.interrupts import stoppable
from lottery.options import did_you_mean, is_text, options
from lottery.quiet import discard_output
from lottery.results import Result
from lottery.studies import Study

if TYPE_CHECKING:
    from lottery.upkeep.requests import Request

log = logging.getLogger(__name__)

Made = TypeVar("Made")

PLUGINS = "plugins"

# The disk is full, read-only or not ours: the user's to solve, so no traceback.
DISK_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT,
    errno.EFBIG, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip


def register_schema() -> None:
    """Make known to Hydra what the primary configs build on."""
    for name, schema in studies.schemas():
        ConfigStore.instance().store(name, schema)
    # Where a ticket usually starts: a mask that is made before training needs no trained weights.
    before = ("start", "0", "0ep")
    OmegaConf.register_new_resolver(
        "usual_epoch", lambda at: 0 if str(at) in before else 5, replace=True
    )
    # Hydra copies this singleton, which only it reads, for each group that --help lists: half a
    # second. Its load() copies what it hands out.
    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]


def job(config: DictConfig, study: Study) -> float | tuple[float, ...]:
    """Run one job: check its config, run its study, leave its results in the output folder.

    Returns the validation top-1, a share of 1, of the run that the study is about, for a Hydra
    sweeper to optimise; to a sweeper of others what ``sweep.objective`` says
    (:func:`lottery.objectives.value`).
    """

    def act(options: Any, output: Path) -> tuple[Result, Any]:
        if getattr(options, "profile", False):
            raise ConfigError("profile=true is for train.py: it measures one dense training")
        with _asking(options, study, output) as asked:
            told = tell(options, config, output, study, _group(output), asked)
        return told, options.sweep.objective

    (result, objective), output = _attempt(config, study, act)
    result.show(output / "result.json")
    return objectives.value(objective if _by_others(HydraConfig.get()) else objectives.TOP1, result)


def early(config: DictConfig, study: Study) -> float:
    """Compute a job's ticket before its dense network: its result is told when that is trained.

    Returns what :func:`job` does.
    """

    def act(options: Any, output: Path) -> Any:
        with _asking(options, study, output):
            return study.early(options, _laboratory(options, config, output, _group(output)))

    ticket, output = _attempt(config, study, act)
    write_status(output, "queued", time.time())
    return float(ticket.result["val_top1"])


def profile(config: DictConfig, study: Study) -> float:
    """Measure where the time of training goes instead of training; the run store is not touched.

    Leaves config.yaml, profile.json and a trace in the output folder. Returns the images/s of
    training as it is.
    """
    from lottery import experiment
    from lottery.analysis import table

    def act(options: Config, output: Path) -> dict[str, Any]:
        files.write_text(output / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
        measured = experiment.profile(options, output)
        files.write_json(output / "profile.json", measured)
        return measured

    measured, output = _attempt(config, study, act)
    table.show_profile(measured, output / "profile.json")
    return float(measured["real"]["images_per_second"])


def _attempt(
    config: DictConfig, study: Study, act: Callable[[Any, Path], Made]
) -> tuple[Made, Path]:
    """What ``act`` makes of a checked config, and the output folder, whose status is kept."""
    from lottery import trainings

    output = Path(HydraConfig.get().runtime.output_dir)
    try:
        with status(output):
            trainings.lead()
            check_folder(HydraConfig.get(), output)
            options = typed(config)
            check_sweeper(HydraConfig.get(), options, study)
            if found := study.check(options):
                raise ConfigError("; ".join(found))
            return act(options, output), output
    except BaseException as error:
        if isinstance(error, StoppedError):
            log.warning("%s", error)
            raise SystemExit(128 + error.signum) from None
        if HydraConfig.get().mode is RunMode.MULTIRUN:  # the sweep goes on; say it now
            log.error("failed: %s", explain(error) or repr(error))
        elif isinstance(error, Exception):
            raise PastHydra(error) from None
        raise


def tell(
    options: Training,
    config: DictConfig,
    output: Path,
    study: Study,
    group: str,
    asked: "Request",
) -> Result:
    """Run a study and leave config.yaml, metrics.csv and result.json in ``output``.

    The store then knows who ``asked`` for its runs, those among them whose names were not known
    before others had been measured.
    """
    from lottery import tickets
    from lottery.upkeep import requests

    files.write_text(output / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    laboratory = _laboratory(options, config, output, group)
    made = study.run(options, laboratory)
    result = study.result.read(made)
    found = result.trainings
    nodes = (f"{run.path.parent.name}/{run.path.name}" for run in found.values())
    requests.note(laboratory.store, asked.also(nodes))
    _write_metrics(output, {name: run.path / "metrics.csv" for name, run in found.items()})
    if "ticket" in found:
        tickets.write(tickets.of_run(found["ticket"]), output / tickets.FILE)
    files.write_json(output / "result.json", made)
    return result


@contextlib.contextmanager
def _asking(options: Training, study: Study, output: Path) -> Iterator["Request"]:
    """Let the store know what a job asks for, while it is at work and afterwards."""
    from lottery.store import Store
    from lottery.upkeep import requests

    store = Store(options.paths.store)
    chain = study.lineage(options, store)
    asked = requests.request(typed_command(), output, [(chain, options)])
    with requests.asking(store, asked):
        yield asked


def typed_command() -> str:
    """What to type for the job that runs, without its launcher."""
    hydra = HydraConfig.get()
    own = [s.path for s in hydra.runtime.config_sources if s.provider == "command-line"]
    name = hydra.job.name
    script = name if name.startswith(studies.IN_PYTHON) else f"{name}.py"
    return studies.command_line(script, hydra.overrides.task, own)


def _laboratory(options: Training, config: DictConfig, output: Path, group: str) -> Any:
    """The store of a job, and where it says how it goes."""
    from lottery.store import Store
    from lottery.tracking import Tracker
    from lottery.trainings import Laboratory

    resolved: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    tracker = Tracker(options.logger, output, group=group, config=resolved)
    return Laboratory(Store(options.paths.store), tracker)


@contextlib.contextmanager
def status(output: Path) -> Iterator[None]:
    """Keep ``status.json`` true: running, then done, or failed with the error and traceback."""
    started = time.time()
    with stoppable():
        try:
            write_status(output, "running", started)
            yield
            write_status(output, "done", started)
        except SystemExit:  # submitit's, when it has put the job back into the queue
            write_status(output, "queued", started)
            raise
        except BaseException as error:
            write_status(output, "failed", started, error)
            raise


def launch(
    main: Callable[[], Any],
    schema: type = Config,
    lists: Sequence[str] = (),
    words: tuple[str, str] | None = None,
) -> None:
    """Run a Hydra main function; exit with one readable line if the user can fix what failed.

    ``schema`` is the dataclass of its options; those in ``lists``, ``plugins`` and
    ``sweep.objective`` take ``a,b`` for a list, which Hydra would take for a sweep. ``words`` are
    two options that may be typed without their names: the first word, and a list of those after
    it. In a process that others lead (:mod:`lottery.training.workers`), follow them instead.
    """
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra must hand exceptions to us as they are
    if words is not None:
        sys.argv[1:] = _worded(sys.argv[1:], words)
    lists = ("sweep.objective", *lists)
    sys.argv[1:] = [as_hydra_takes_it(argument, lists) for argument in sys.argv[1:]]
    if wrong := [argument for argument in sys.argv[1:] if not is_text(argument)]:
        sys.exit(f"error: {wrong[0]!a} is not text in UTF-8")
    error = _failure(main)
    if error is None:
        return
    if isinstance(error, BrokenPipeError) and _unread():  # as with ... | head
        discard_output()  # or Python complains
        sys.exit(128 + signal.SIGPIPE)
    message = None if full else explain(error, schema)
    if message is None:
        raise error
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def tool(act: Callable[[DictConfig], None], config: DictConfig) -> None:
    """Run the act of a script that has no output folder and no status of its own."""
    try:
        hydra = HydraConfig.get()
        check_folder(hydra, hydra.runtime.output_dir)
        act(config)
    except Exception as error:
        raise PastHydra(error) from None


def check_folder(hydra: Any, output: str | Path) -> None:
    """Raise :class:`ConfigError` if Hydra would start each job in a folder of its own.

    And if nothing could be written that names the folder it is started in, or that of its output.
    """
    for folder in (str(Path.cwd()), str(output)):
        if not is_text(folder):
            raise ConfigError(f"the name of the folder {folder!a} is not text in UTF-8")
    if hydra.job.chdir:
        raise ConfigError(
            "hydra.job.chdir=true would give every run a store of its own, because relative paths "
            "would begin in the run's folder; leave it out: what a run writes lies there anyway"
        )


def _by_others(hydra: Any) -> bool:
    """Whether a job was launched by Hydra's own sweeper, or that of a plug-in."""
    return hydra.mode is RunMode.MULTIRUN and "LotterySweeper" not in hydra.sweeper._target_


def check_sweeper(hydra: Any, options: Training, study: Study) -> None:
    """Raise :class:`ConfigError` if a job was launched though its sweep was to launch none.

    Hydra's own sweeper, or that of a plug-in, knows nothing of stages, nor of ``sweep.dry_run``.
    Nor may what the job is to return be optimised in the wrong direction.
    """
    if not _by_others(hydra):
        return
    for option in ("dry_run", "detach"):
        if getattr(options.sweep, option):
            raise ConfigError(
                f"hydra/sweeper={hydra.runtime.choices.get('hydra/sweeper')} does not know "
                f"sweep.{option}: leave it out, or sweep with hydra/sweeper=lottery"
            )
    objectives.check(options.sweep.objective, study.name, hydra.sweeper)


def as_hydra_takes_it(argument: str, lists: Sequence[str] = ()) -> str:
    """An argument of a command line, with a list for ``a,b`` of ``plugins`` and of ``lists``."""
    name, _, value = argument.partition("=")
    listed = name == PLUGINS or (name in lists and "," in value)
    if listed and not value.startswith("["):
        return f"{name}=[{value}]"
    return choices.as_group(argument)


_VALUED = re.compile("-(c|cp|cn|cd|i|p)|--(cfg|config-path|config-name|config-dir|info|package)")


def _worded(arguments: Sequence[str], words: tuple[str, str]) -> list[str]:
    """Arguments, with names for those that are neither options nor flags nor the values of one."""
    plain: list[str] = []
    others: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option = "=" in argument or argument.startswith(("-", "+", "~"))
        (others if option or _VALUED.fullmatch(before) else plain).append(argument)
    first, rest = words
    named = [f"{first}={quoted(plain[0])}"] if plain else []
    named += [f"{rest}=[{','.join(map(quoted, plain[1:]))}]"] if plain[1:] else []
    return [*others, *named]


def quoted(text: str) -> str:
    """A text in quotes, as Hydra reads it."""
    return '"' + re.sub(r'(\\*)"', r"\1\1\"", text) + '"'


class PastHydra(BaseException):
    """Carries the error of a single job by Hydra, which would print all overrides before it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _failure(main: Callable[[], Any]) -> Exception | None:
    try:
        load_plugins(sys.argv[1:])  # before Hydra looks for what they bring
        if not _followed(main):
            main()
        sys.stdout.flush()
    except PastHydra as carrier:
        return carrier.error
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        return error
    return None


def load_plugins(arguments: Sequence[str]) -> None:
    """Import the modules that are typed as ``plugins=[a,b]``, before Hydra composes."""
    values = [a.removeprefix(f"{PLUGINS}=") for a in arguments if a.startswith(f"{PLUGINS}=")]
    choices.load_plugins(name for value in values for name in re.findall(r"[\w.]+", value))


def _unread() -> bool:
    """Whether nobody reads any more what we print."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _followed(main: Callable[[], Any]) -> bool:
    from lottery.training import cluster

    if cluster.task() is None:
        return False
    from lottery import trainings

    meaning = hashlib.sha256(_composed(main).encode()).hexdigest()  # it may hold secrets
    cluster.command = cluster.started(sys.argv, meaning)
    return trainings.follow()


def _composed(main: Callable[[], Any]) -> str:
    """The config that the command line means here, without what Hydra does beside composing it.

    Empty where it means several, or none, as with ``-m`` and ``--help``.
    """
    typed = sys.argv
    if any(re.match("-(?!-config|c[dnp])", argument) for argument in typed[1:]):
        return ""
    # The time is another in each process.
    timeless = [re.sub(r"\$\{now:[^{}]*\}", "now", argument) for argument in typed]
    sys.argv = [*timeless, "--cfg", "job", "--resolve"]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as told:
            main()
    finally:
        sys.argv = typed
    return told.getvalue()


def explain(error: BaseException, schema: type = Config) -> str | None:
    """What to tell the user, or None if it is a bug of ours that deserves its traceback."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        kinds = [kind for kind in choices.KINDS if kind.group == group]
        if reason := next(filter(None, (kind.excluded(choice) for kind in kinds)), None):
            return reason
        # Hydra does not say what there is where several may be chosen.
        if known := error.options or [name for kind in kinds for name in kind.names()]:
            return f"{group}={choice} is unknown{did_you_mean(choice, known)}"
        if kinds:
            return f"{group}={choice} is unknown: there is none but those that {PLUGINS}=[…] brings"
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        where = str(error.filename or "a file in paths.outputs or the temporary folder")
        if error.errno == errno.ENAMETOOLONG:  # nor fit for a line
            where = f"{where[:100]}…"
        return f"cannot write or read {where}: {error.strerror}"
    if isinstance(error, LotteryError | StoppedError):
        return str(error)
    # TensorFlow's error by its name, because what explains need not import it.
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        shape = re.search(r"shape ?([\[(][\d, ]+[\])])", str(error))
        array = f" for an array of shape {shape[1]}" if shape else ""
        return (
            f"there is not enough memory{array}: lower trainer.batch_size, "
            "trainer.eval_batch_size, model.width, or the size of images (data.resize, "
            "data.image_size)"
        )
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command goes on from there"
    if isinstance(error, CompactHydraException | OmegaConfBaseException):
        unknown = re.search(r"Could not override '([\w.]+)'", str(error))
        if unknown:
            inner = str(getattr(error.__cause__, "full_key", ""))  # of group={option: value}
            option = inner if inner.startswith(f"{unknown[1]}.") else unknown[1]
            return unknown_option(option, error, schema)
        if isinstance(error.__cause__, OmegaConfBaseException):
            return f"{error}: {str(error.__cause__).splitlines()[0]}"
        return str(error)
    if isinstance(error, ValueError | TypeError) and (override := _override(error)):
        return f"{override}: {error}"
    return None


def _override(error: BaseException) -> str | None:
    """What was typed, if that is what made Hydra fail: it does not always say so."""
    said = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        override = frame.f_locals.get("override")
        if isinstance(override, Override):
            said = override.input_line
    return said


def unknown_option(option: str, error: BaseException, schema: type) -> str:
    """What to tell the user about an option that there is not."""
    known = _option_names(schema, error)
    if option in known:  # a group, which has files to choose from in other scripts
        return f"there is no choice of {option} here"
    for kind in choices.KINDS:
        name = option.removeprefix(f"{kind.option}.").partition(".")[0]
        if kind.several and name in kind.names() and f"{kind.option}.{name}" not in known:
            return f"option {option} is unknown: {kind.group}=[{name}] brings it"
    return f"option {option} is unknown{did_you_mean(option, known)}"


def _option_names(schema: Any, error: BaseException) -> list[str]:
    """Names of all options: of what was composed, choices and all, or those of the schema."""
    found: Any = getattr(error.__cause__, "parent_node", None)
    naming = {kind.key for kind in choices.KINDS}
    inside = _names(found._get_root(), "", naming) if found is not None else ()
    groups = (f.name for f in dataclasses.fields(schema))
    return list(dict.fromkeys([*groups, *inside, *(n for n, _, _ in options(schema()))]))


def _names(node: DictConfig, prefix: str, naming: Collection[str]) -> Iterator[str]:
    for key in map(str, node):
        child = node._get_node(key)
        if f"{prefix}{key}" == "hydra" or (prefix and key in naming):
            continue  # Hydra's own; and a choice is made by its group
        yield f"{prefix}{key}"
        if isinstance(child, DictConfig) and not child._is_missing() and not child._is_none():
            yield from _names(child, f"{prefix}{key}.", naming)


def _group(output: Path) -> str:
    """W&B group: the sweep's folder, or the job's own outside a sweep."""
    return output.parent.name if HydraConfig.get().mode is RunMode.MULTIRUN else output.name


def write_status(
    output: Path, status: str, started: float, error: BaseException | None = None
) -> None:
    """Write ``status.json``: queued, running, done or failed, since when, and why."""
    about: dict[str, Any] = {"status": status, "started": started, "updated": time.time()}
    if error is not None:
        about["error"] = explain(error) or repr(error)
        about["traceback"] = "".join(traceback.format_exception(error))
    try:
        files.write_json(output / "status.json", about)
    except OSError as unwritable:
        if error is None:
            raise
        log.warning("cannot write %s: %s", output / "status.json", unwritable.strerror)


def _write_metrics(output: Path, tables: Mapping[str, Path]) -> None:
    """One row an epoch, one run after the other, told apart by the column ``run``."""
    rows = [{"run": name, **row} for name, path in tables.items() for row in files.read_csv(path)]
    with files.replacing(output / "metrics.csv") as temporary, temporary.open("w", newline="") as f:
        writer = csv.DictWriter(f, rows[0] if rows else ["run", "epoch"])
        writer.writeheader()
        writer.writerows(rows)


register_schema()
