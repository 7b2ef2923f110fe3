"""What scripts leave as JSON: versioned values that write and read themselves."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, get_args, get_origin

from lottery import files
from lottery.errors import ResultError

if TYPE_CHECKING:
    from lottery.runs import Run

Read = TypeVar("Read")


@dataclass(frozen=True)
class Record:
    """The content of a JSON file: its fields, and the version that wrote them.

    Whoever adds a field, or changes what one means, raises ``version``.
    """

    what: ClassVar[str]
    """What the file is, in messages."""
    version: ClassVar[int]

    def written(self) -> dict[str, Any]:
        """What the file holds."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"version": self.version, **own}

    @classmethod
    def read(cls, about: Any) -> Self:
        """What :meth:`written` wrote.

        Raises :class:`ResultError` if it is of another version, or lacks what that must have.
        """
        version = about.get("version") if isinstance(about, Mapping) else None
        if version is None:
            raise ResultError(f"not {cls.what}: it has no version")
        if version != cls.version:
            raise ResultError(
                f"{cls.what} of version {version}, and this program reads version {cls.version}: "
                "run the command again"
            )
        hints = typing.get_type_hints(cls)
        for f in dataclasses.fields(cls):
            if f.name not in about:
                raise ResultError(f"{cls.what} without {f.name}")
            if not _is(about[f.name], hints[f.name]):
                raise ResultError(f"{cls.what} with a damaged {f.name}")
        found = cls(**{f.name: about[f.name] for f in dataclasses.fields(cls)})
        try:
            found.check()
        except ValueError as error:
            raise ResultError(f"{cls.what} that is damaged: {error}") from None
        return found

    @classmethod
    def read_file(cls, path: Path) -> Self:
        """The same of a file.

        Raises :class:`ResultError`, which names the file, and :class:`FileNotFoundError`.
        """
        return named(path, cls.read)

    def check(self) -> None:
        """Raise :class:`ValueError` if something is not as readers may expect, inside a field."""


@dataclass(frozen=True)
class Result(Record):
    """A ``result.json``: what a study leaves."""

    study: ClassVar[str]

    store: str
    """The run store that holds the runs, an absolute path."""

    @property
    def trainings(self) -> "dict[str, Run]":
        """The finished runs that it tells of, by name."""
        raise NotImplementedError

    @property
    def main(self) -> "Run":
        """The run that it is about."""
        raise NotImplementedError

    def show(self, path: Path) -> None:
        """Print it, and ``path``, where it is written."""
        raise NotImplementedError

    def written(self) -> dict[str, Any]:
        """What ``result.json`` holds."""
        return {"study": self.study, **super().written()}

    def _stored(self, kind: str, about: Mapping[str, Any]) -> "Run":
        """The run of a dictionary with its ``key``."""
        from lottery.runs import Run

        return Run(Path(self.store) / kind / str(about["key"]))


def named(path: Path, read: Callable[[Any], Read]) -> Read:
    """What ``read`` makes of a JSON file.

    Raises :class:`ResultError`, which names the file, if that does or if it is no JSON, and
    :class:`FileNotFoundError`.
    """
    try:
        return read(files.read_json(path))
    except ValueError as error:
        raise ResultError(f"{path} is damaged: {error}") from None
    except ResultError as error:
        raise ResultError(f"{path}: {error}") from None


def _is(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of an annotated type, as far as its outermost layer goes."""
    kind = get_origin(hint) or hint
    if kind in (types.UnionType, typing.Union):
        return any(_is(value, each) for each in get_args(hint))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is Sequence:
        return isinstance(value, list)
    return isinstance(value, kind)
