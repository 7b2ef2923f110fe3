"""Which code a choice is, for keys.

A key must change when the code behind a name changes what it computes, and should not when it does
not. The choices that come with this package carry a number that is raised by hand, those of a
library their name, and anybody's own a hash of their source.
"""

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from lottery.errors import ConfigError

VERSIONS: Mapping[str, Mapping[str, int]] = {
    "augmentation": {"cutout": 1},
    "callback": {"early_stopping": 1},
    "data": {"arrays": 1, "digits": 1, "folder": 1, "records": 1, "tfds": 1},
    "mask/during": {"gradual": 1, "rigl": 1, "set": 1},
    "mask/pattern": {"block": 1, "channel": 3, "n_of_m": 1, "weight": 1},
    "mask/scope": {"erk": 1, "global": 1, "lamp": 1, "layer": 1, "rates": 1},
    "mask/score": {
        "grasp": 1,
        "magnitude": 1,
        "movement": 1,
        "random": 2,
        "snip": 1,
        "synflow": 1,
        "taylor": 1,
    },
    "model": {
        "conv_2": 1,
        "conv_4": 1,
        "conv_6": 1,
        "given": 1,
        "lenet_300_100": 1,
        "mobilenet_v2": 1,
        "resnet20": 1,
    },
    "optimizer": {"adam": 1, "adamw": 1, "sgd": 1},
    "rewind": {"finetune": 1, "lr": 1, "reinit": 1, "signs": 2, "weights": 1},
    "schedule": {"constant": 1, "cosine": 1, "step": 1, "wsd": 1},
    "search": {"grid": 1, "sparsest": 1},
}
"""The choices that come with this package, by group. Raise a number in the commit that changes what
the choice computes: its old results are then no longer found. They stand here and not in the
modules, because a module is copied to start one's own."""

LIBRARY = "_library"
"""Name of the modules in which choices stand that a library brings."""


def shipped(group: str, name: str) -> bool:
    """Whether a choice comes with this package."""
    return name in VERSIONS.get(group, {})


def code(group: str, name: str, module: str) -> int | str | None:
    """What identifies the code of a choice in keys; None if its name is enough.

    Of a choice that comes with this package its version, from 2 on. Of any other, which stands in
    ``module``, a SHA-256 of that module's source and of all it imports that is neither installed
    nor part of this package, comments and docstrings left out. What is installed counts if it is
    in the same package as the module.

    Raises :class:`ConfigError` if a source is not valid Python, or there is none.
    """
    if module.endswith(f".{LIBRARY}"):
        return None
    if shipped(group, name):
        version = VERSIONS[group][name]
        return version if version > 1 else None
    return digest(module)


@functools.cache  # a module is imported once
def digest(module: str) -> str:
    """SHA-256 of a module's source and of what it imports: see :func:`code`."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ConfigError(f"{module} has no source, so no key could tell its choices from others")
    file = Path(spec.origin)
    if file.suffix != ".py":  # compiled
        return hashlib.sha256(file.read_bytes()).hexdigest()
    sources: dict[str, str] = {}
    waiting = [module]
    while waiting:
        full = waiting.pop()
        path = file if full == module else _own(full, module)
        if full in sources or path is None:
            continue
        tree = _parsed(path)
        package = full if path.stem == "__init__" else full.rpartition(".")[0]
        for found in _imports(tree, package):  # and the packages around them, which are imported
            parts = found.split(".")
            waiting += [".".join(parts[: i + 1]) for i in range(len(parts))]
        sources[full] = ast.unparse(_WithoutDocstrings().visit(tree))
    return hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()


def _own(full: str, module: str) -> Path | None:
    """The file of a module that is part of what ``module`` computes; None if it is not."""
    ours, package = __name__.partition(".")[0], module.rpartition(".")[0]
    top = full.partition(".")[0]
    if top == ours:  # beside a module that somebody has put into this package
        if package.partition(".")[0] != ours or not full.startswith(f"{package}."):
            return None
        spec = importlib.util.find_spec(full.rpartition(".")[0])
        inside = list(spec.submodule_search_locations or ()) if spec else []
        return _file(Path(inside[0]), full.rpartition(".")[2]) if inside else None
    folder = _folder(top, even_installed=top == module.partition(".")[0])
    return folder and _file(folder, full)


@functools.cache
def _folder(top: str, even_installed: bool) -> Path | None:
    """Where a module or package of somebody's own lies; None for Python's and what is installed."""
    if top in sys.stdlib_module_names:
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    places = [*(spec.submodule_search_locations or ()), spec.origin or ""] if spec else [""]
    if not places[0]:
        return None
    if {"site-packages", "dist-packages"} & set(Path(places[0]).parts) and not even_installed:
        return None
    return Path(places[0]).parent


def _file(folder: Path, dotted: str) -> Path | None:
    base = folder.joinpath(*dotted.split("."))
    candidates = (base.with_name(f"{base.name}.py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise ConfigError(
            f"{path} is not valid Python: {error.msg}, line {error.lineno}"
        ) from error
    except ValueError as error:  # a null byte
        raise ConfigError(f"{path} is not valid Python: {error}") from error


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Absolute names of all that may be a module which a module of ``package`` imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


class _WithoutDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else node
