"""What the function that builds a network takes, read from its source: nothing is imported."""

import ast
import functools
from pathlib import Path


def arguments(source: Path, function: str) -> frozenset[str] | None:
    """Names of the arguments of a module's function.

    None if that cannot be told: it takes ``**kwargs``, or the module does not define it by ``def``.
    """
    return _of(source.read_text(encoding="utf-8"), function)


@functools.cache  # every cell of a sweep asks
def _of(text: str, function: str) -> frozenset[str] | None:
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            taken = node.args
            if taken.kwarg is not None:
                return None
            return frozenset(a.arg for a in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs))
    return None
