"""Choices that a library brings: dataclasses made of its classes' arguments.

Those are read from its source, because importing Keras takes seconds, and a command line is checked
before that.
"""

import ast
import dataclasses
import functools
import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lottery.options import option

REQUIRED = object()
"""Default of an argument that has none."""


@functools.cache
def classes(folder: str, pattern: str = "*.py") -> Mapping[str, Mapping[str, Any]]:
    """The arguments of ``__init__`` of every public class in a folder of the installed Keras.

    By class, a default by argument, or :data:`REQUIRED`. Classes that take any arguments, and
    defaults that are no literals, are left out.
    """
    spec = importlib.util.find_spec("keras")  # imports nothing
    root = Path(str(spec and spec.origin)).parent / "src" / folder
    found: dict[str, Mapping[str, Any]] = {}
    for source in sorted(root.glob(pattern)):
        if not source.name.endswith("_test.py"):
            for node in ast.parse(source.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and node.decorator_list:
                    found[node.name] = _arguments(node)
    return found


def _arguments(node: ast.ClassDef) -> Mapping[str, Any]:
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            taken = [*member.args.posonlyargs, *member.args.args][1:]  # without self
            without = len(taken) - len(member.args.defaults)
            defaults = [REQUIRED] * without + [_literal(d) for d in member.args.defaults]
            named = {a.arg: d for a, d in zip(taken, defaults, strict=True)}
            return named | {
                a.arg: REQUIRED if d is None else _literal(d)
                for a, d in zip(member.args.kwonlyargs, member.args.kw_defaults, strict=True)
            }
    return {}


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
    leave_out: Collection[str],
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
        doc = "must be set" if default is REQUIRED else "see the documentation of Keras"
        own.append((argument, kind, option(value, doc, always=True)))
    made = dataclasses.make_dataclass(name, own, bases=(base,), frozen=True)
    made.__module__, made.__doc__ = module, doc
    return made
