"""Which code a choice is: a network, a source, a score or a rewinding that a config names.

Each kind of choice is a package and each choice a module in it. A key must change when the code
behind a name changes what it computes, and should not when it does not. The choices that come with
this package carry a number that is raised by hand; anybody's own carries a hash of its source.
"""

import ast
import functools
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from lottery.errors import ConfigError

VERSIONS: Mapping[str, Mapping[str, int]] = {
    "lottery.data.sources": {"digits": 1, "folder": 1, "records": 1, "tfds": 1},
    "lottery.models": {
        "conv_2": 1,
        "conv_4": 1,
        "conv_6": 1,
        "lenet_300_100": 1,
        "mobilenet_v2": 1,
        "resnet20": 1,
    },
    "lottery.pruning.criteria": {"magnitude": 1},
    "lottery.rewinding": {"finetune": 1, "lr": 1, "reinit": 1, "weights": 1},
}
"""The choices that come with this package. Raise a number in the commit that changes what the
choice computes: its old results are then no longer found. They stand here and not in the modules,
because a module is copied to start one's own."""


def shipped(kind: str, name: str) -> bool:
    """Whether a choice comes with this package; ``kind`` is the name of the package it is in."""
    return name in VERSIONS[kind]


@functools.cache
def code(kind: str, name: str) -> int | str | None:
    """What identifies the code of a choice in keys; None if its name is enough.

    Of a choice that comes with this package its version, from 2 on. Of any other module a SHA-256
    of its source and of what it imports that is neither installed nor part of this package,
    comments and docstrings left out. Read once in a process, because a module is imported once.

    Raises :class:`ConfigError` if a source is not valid Python.
    """
    if shipped(kind, name):
        version = VERSIONS[kind][name]
        return version if version > 1 else None
    return _digest(kind, name)


def module(kind: str, name: str) -> ModuleType:
    """The module of a choice.

    Raises :class:`ConfigError` if its source changed between :func:`code` and the import: its
    results would be stored under the key of other code.
    """
    identified, full = code(kind, name), f"{kind}.{name}"
    new = full not in sys.modules
    imported = importlib.import_module(full)
    if new and code.__wrapped__(kind, name) != identified:
        del sys.modules[full]
        raise ConfigError(
            f"{imported.__file__} was changed while this program ran: start the command again"
        )
    return imported


def _digest(kind: str, name: str) -> str | None:
    spec = importlib.util.find_spec(f"{kind}.{name}")
    if spec is None or spec.origin is None:  # no module: a network of keras.applications
        return None
    file = Path(spec.origin)
    if file.suffix != ".py":  # compiled
        return hashlib.sha256(file.read_bytes()).hexdigest()
    own = file.parent.parent if spec.submodule_search_locations else file.parent
    sources: dict[str, str] = {}
    waiting = [f"{kind}.{name}"]
    while waiting:
        full = waiting.pop()
        inside = full.startswith(f"{kind}.")
        folder = own if inside else _folder(full.partition(".")[0])
        path = folder and _file(folder, full.removeprefix(f"{kind}.") if inside else full)
        if full in sources or path is None:
            continue
        tree = _parsed(path)
        package = full if path.stem == "__init__" else full.rpartition(".")[0]
        for found in _imports(tree, package):  # and the packages around them, which are imported
            parts = found.split(".")
            waiting += [".".join(parts[: i + 1]) for i in range(len(parts))]
        sources[full] = ast.unparse(_WithoutDocstrings().visit(tree))
    return hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()


@functools.cache
def _folder(top: str) -> Path | None:
    """Where a module or package of the user's own lies; None for Python's, what is installed, and
    this package."""
    if top in sys.stdlib_module_names or top == __name__.partition(".")[0]:
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    places = [*(spec.submodule_search_locations or ()), spec.origin or ""] if spec else [""]
    if not places[0] or {"site-packages", "dist-packages"} & set(Path(places[0]).parts):
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
