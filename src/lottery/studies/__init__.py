"""What the scripts tell: one module a study, found by name; prune and train are two.

A module holds ``STUDY``, a :class:`Study` of the module's name. It only points to the code that
computes, which it imports when called: ``--help`` must not wait for it.
"""

import importlib
import pkgutil
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lottery import results
from lottery.config import Training
from lottery.errors import ConfigError, ResultError
from lottery.options import did_you_mean
from lottery.results import Result

if TYPE_CHECKING:
    from lottery.lineage import Lineage
    from lottery.store import Store
    from lottery.trainings import Laboratory

Main = TypeVar("Main", bound=Callable[..., Any])

IN_PYTHON = "lottery.Study."
"""Begins, before a method of it, what is noted in the place of a script."""


def _childless(cells: Sequence[Any]) -> "Study":
    """No cell waits for a dense network of its own."""
    raise LookupError("the lineage of this study has a parent, so the study must say its parents")


def _never(config: Any, laboratory: "Laboratory") -> None:
    """No ticket of this study can do without a dense network."""
    raise LookupError("the lineage of this study has early tickets, and the study no way to them")


def _leave(config: Any, folder: Path, planned: Mapping[str, float]) -> None:
    """Nothing is to be said of a whole sweep."""


@dataclass(frozen=True)
class Study:
    """One kind of story: what it is told with, what it computes, and what it leaves.

    ``schema`` is the dataclass of its options. ``run`` computes what is missing and returns what
    ``result.json`` has, which ``result`` reads. ``lineage`` names its nodes before anything is
    computed, and ``check`` says, one line each, what is wrong with a config.

    ``parents`` is of studies whose cells share a dense network: the study of the job that trains
    it and makes what else the given cells have in common; ``early`` computes the ticket of a cell
    that need not wait for it (:attr:`lottery.lineage.Lineage.early`). ``conclude`` gets the options
    of the first cell, the folder and the planned counts of a sweep that has ended. All cells of a
    sweep agree in the options whose names begin with one of ``read_once``. ``unreported`` says why
    report.py has nothing to say of a sweep; None if it has.
    """

    name: str
    schema: type[Training]
    run: "Callable[[Any, Laboratory], dict[str, Any]]"
    lineage: "Callable[[Any, Store], Lineage]"
    check: Callable[[Any], list[str]]
    result: type[Result]
    parents: "Callable[[Sequence[Any]], Study]" = _childless
    early: "Callable[[Any, Laboratory], Any]" = _never
    conclude: Callable[[Any, Path, Mapping[str, float]], None] = _leave
    read_once: tuple[str, ...] = ()
    unreported: str | None = None

    def told_by(self, main: Main) -> Main:
        """Mark the main function of a script, so that a sweep of it knows its study."""
        main.study = self  # type: ignore[attr-defined]
        return main


def command_line(script: str, overrides: Iterable[str], folders: Iterable[str] = ()) -> str:
    """What to type to ask for this again; ``folders`` hold configs of one's own.

    Of what was asked for from Python, the call of the study.
    """
    if script.startswith(IN_PYTHON):
        own = [o for o in overrides if o != "-m"]
        return f"study.{script.removeprefix(IN_PYTHON)}({', '.join(map(repr, own))})"
    config_dirs = [word for folder in folders for word in ("--config-dir", folder)]
    return shlex.join(["python", script, *config_dirs, *overrides])


def known() -> tuple[str, ...]:
    """Names of all studies."""
    return tuple(m.name for m in pkgutil.iter_modules(__path__))


def find(name: str) -> Study:
    """The study of that name. Raises :class:`ConfigError` if there is none."""
    if name not in known():
        raise ConfigError(f"the study {name} is unknown{did_you_mean(name, known())}")
    study: Study = importlib.import_module(f"{__name__}.{name}").STUDY
    return study


def of_script(main: Callable[..., Any]) -> Study:
    """The study that a script tells. Raises :class:`ConfigError` if it does not say which."""
    study: Study | None = getattr(main, "study", None)
    if study is None:
        raise ConfigError(
            "this script does not say which study it tells: decorate its main function with "
            "Study.told_by, or sweep with hydra/sweeper=basic"
        )
    return study


def read(about: Any) -> Result:
    """What a ``result.json`` holds.

    Raises :class:`ResultError` if it is damaged, of another version, or of an unknown study.
    """
    name = about.get("study") if isinstance(about, Mapping) else None
    if not isinstance(name, str):
        raise ResultError("no result of a study: it does not name one")
    try:
        study = find(name)
    except ConfigError as error:
        raise ResultError(f"a result of another program: {error}") from None
    return study.result.read(about)


def read_file(path: Path) -> Result:
    """What a ``result.json`` holds.

    Raises :class:`ResultError`, which names the file, as :func:`read` does, and
    :class:`FileNotFoundError`.
    """
    return results.named(path, read)


def schemas() -> Iterable[tuple[str, type]]:
    """The schema of each study, and the name by which its primary config has it."""
    return ((f"{name}_schema", find(name).schema) for name in known())
