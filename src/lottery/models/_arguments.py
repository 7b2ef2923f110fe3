"""What the function that builds a network takes, read from its source: nothing is imported."""

import ast
from pathlib import Path


def arguments(source: Path, function: str) -> set[str] | None:
    """Names of the arguments of a module's function.

    None if that cannot be told: it takes ``**kwargs``, or the module does not define it by ``def``.
    """
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            taken = node.args
            if taken.kwarg is not None:
                return None
            return {a.arg for a in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)}
    return None
