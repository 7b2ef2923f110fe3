"""Choices that a library brings: dataclasses made of its classes' arguments.

Those are read from its source, because importing Keras takes seconds, and a command line is checked
before that.
"""

import ast
import dataclasses
import functools
import importlib.util
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from lottery.options import option

REQUIRED = object()
"""Default of an argument that has none."""


@functools.cache
def classes(folder: str) -> Mapping[str, Mapping[str, Any]]:
    """The arguments of ``__init__`` of every public class in a folder of the installed Keras.

    By class, a default by argument, or :data:`REQUIRED` where there is none, or no literal.
    """
    return {node.name: _of_class(node) for node in _exported(folder, ast.ClassDef)}


@functools.cache
def functions(folder: str) -> Mapping[str, Mapping[str, Any]]:
    """The arguments of every public function there, in the same way."""
    return {node.name: _arguments(node) for node in _exported(folder, ast.FunctionDef)}


def _exported(folder: str, kind: type) -> Iterator[Any]:
    spec = importlib.util.find_spec("keras")  # imports nothing
    root = Path(str(spec and spec.origin)).parent / "src" / folder
    for source in sorted(root.glob("*.py")):
        if not source.name.endswith("_test.py"):
            body = ast.parse(source.read_text(encoding="utf-8")).body
            yield from (n for n in body if isinstance(n, kind) and n.decorator_list)  # type: ignore[attr-defined]


def _of_class(node: ast.ClassDef) -> Mapping[str, Any]:
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            return {a: default for a, default in _arguments(member).items() if a != "self"}
    return {}


def _arguments(node: ast.FunctionDef) -> Mapping[str, Any]:
    taken = [*node.args.posonlyargs, *node.args.args]
    without = len(taken) - len(node.args.defaults)
    defaults = [REQUIRED] * without + [_literal(d) for d in node.args.defaults]
    named = {a.arg: d for a, d in zip(taken, defaults, strict=True)}
    return named | {
        a.arg: REQUIRED if d is None else _literal(d)
        for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    }


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return REQUIRED


def dataclass_of(
    name: str,
    arguments: Mapping[str, Any],
    base: type,
    *,
    module: str,
    doc: str,
    leave_out: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> type:
    """A frozen dataclass whose options are a class's arguments, on top of those of ``base``.

    ``defaults`` replace those of ``base``. It stands in ``module``, which must have it as an
    attribute when it is asked for, so that it can be pickled. A library may change its defaults, so
    keys hold every value that is decided there.
    """
    own: list[tuple[str, Any, Any]] = []
    for f in dataclasses.fields(base):
        if f.name in (defaults or {}):
            about = {**f.metadata, "always": True}
            default = (defaults or {})[f.name]
            own.append((f.name, f.type, dataclasses.field(default=default, metadata=about)))
    for argument, default in arguments.items():
        if argument in leave_out:
            continue
        value = None if default is REQUIRED else default
        kind: Any = type(value) if isinstance(value, bool | float | str) else Any
        note = "must be set" if default is REQUIRED else "see the documentation of Keras"
        own.append((argument, kind, option(value, note, always=True)))
    made = dataclasses.make_dataclass(name, own, bases=(base,), frozen=True)
    made.__module__, made.__doc__ = module, doc
    return made
