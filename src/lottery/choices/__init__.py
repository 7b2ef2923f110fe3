"""What a config chooses by name: every kind, and how a stranger's choices become known.

Nothing here imports a choice, or numpy, before it is asked for.
"""

import importlib
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from lottery.choices.kinds import Kind
from lottery.errors import ConfigError
from lottery.options import option

__all__ = [
    "KINDS", "Kind", "allocation", "as_group", "augmentation", "callback", "dynamics",
    "load_plugins", "model", "optimizer", "pattern", "rewinding", "schedule", "score", "search",
    "source",
]  # fmt: skip

ENTRY_POINTS = "lottery.plugins"
"""Group of entry points by which an installed package names modules of choices."""

score = Kind("mask/score", "lottery.pruning.scores")
allocation = Kind("mask/scope", "lottery.pruning.allocations")
pattern = Kind("mask/pattern", "lottery.pruning.patterns")
dynamics = Kind("mask/during", "lottery.pruning.dynamics")
source = Kind("data", "lottery.data.sources", key="source")
model = Kind(
    "model",
    "lottery.models.networks",
    brings={
        "weights": (
            str | None,
            lambda: option(
                None,
                "weights to begin with instead of fresh ones: a .keras or .weights.h5 file, a "
                "ticket, or the folder of a run; keys hold what is in them",
                identity=False,
            ),
        )
    },
)
rewinding = Kind("rewind", "lottery.rewinding")
optimizer = Kind("optimizer", "lottery.training.optimizers")
schedule = Kind("schedule", "lottery.training.schedules")
augmentation = Kind("augmentation", "lottery.data.augmentations", several=True)
callback = Kind("callback", "lottery.training.keras_callbacks", several=True)
search = Kind("search", "lottery.sweep.proposers")

KINDS: tuple[Kind, ...] = (
    source,
    score,
    allocation,
    pattern,
    dynamics,
    rewinding,
    model,
    optimizer,
    schedule,
    augmentation,
    callback,
    search,
)


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules that register choices, and those that installed packages name.

    A module may lie in the folder in which the command was started. Raises :class:`ConfigError`,
    with the error, for one that cannot be imported.
    """
    here = str(Path.cwd())
    for name in modules:
        if here not in sys.path:
            sys.path.append(here)
        _load(name, f"plugins=[{name}]")
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        _load(entry.value, f"the plugin {entry.name} of {entry.dist and entry.dist.name}")


def _load(name: str, label: str) -> None:
    try:
        importlib.import_module(name)
    except ConfigError as error:
        raise ConfigError(f"{label}: {error}") from error
    except Exception as error:  # whatever a stranger's module raises
        raise ConfigError(f"{label} cannot be imported: {type(error).__name__}: {error}") from error


def as_group(argument: str) -> str:
    """An override as Hydra takes it: ``mask.scope=layer`` chooses from the group ``mask/scope``.

    But ``mask.during=null`` and ``mask/during=null`` set the option: a group has no such choice.
    """
    name, equals, value = argument.partition("=")
    kind = next((k for k in KINDS if "/" in k.group and name in (k.option, k.group)), None)
    if not equals or kind is None:
        return argument
    return f"{kind.option if value.strip().lower() == 'null' else kind.group}={value}"
