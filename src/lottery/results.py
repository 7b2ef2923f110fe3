"""What a study leaves as ``result.json``: a versioned value that writes and reads itself."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args, get_origin

from lottery.errors import ResultError

if TYPE_CHECKING:
    from lottery.runs import Run


@dataclass(frozen=True)
class Result:
    """What every result has: the study and the version that wrote it, and the run store.

    Whoever adds a field, or changes what one means, raises ``version``.
    """

    study: ClassVar[str]
    version: ClassVar[int]

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
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"study": self.study, "version": self.version, **own}

    @classmethod
    def read(cls, about: Mapping[str, Any]) -> Self:
        """What :meth:`written` wrote.

        Raises :class:`ResultError` if it is of another version, or lacks what that must have.
        """
        if about.get("version") != cls.version:
            raise ResultError(
                f"a result of the study {cls.study} in version {about.get('version')}, and this "
                f"program reads version {cls.version}: run the command again"
            )
        hints = typing.get_type_hints(cls)
        for f in dataclasses.fields(cls):
            if f.name not in about:
                raise ResultError(f"a result of the study {cls.study} without {f.name}")
            if not _is(about[f.name], hints[f.name]):
                raise ResultError(f"a result of the study {cls.study} with a damaged {f.name}")
        found = cls(**{f.name: about[f.name] for f in dataclasses.fields(cls)})
        if not _names_a_run(found):
            raise ResultError(f"a result of the study {cls.study} that names no run")
        return found

    def _stored(self, kind: str, about: Mapping[str, Any]) -> "Run":
        """The run of a dictionary with its ``key``."""
        from lottery.runs import Run

        return Run(Path(self.store) / kind / str(about["key"]))


def _names_a_run(result: Result) -> bool:
    try:
        return bool(result.main.path.name)
    except (KeyError, TypeError):
        return False


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
