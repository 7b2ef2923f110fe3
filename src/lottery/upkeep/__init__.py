"""Looking after a run store: what is in it, who asked for it, what may go, what is damaged.

All of it is safe beside running jobs, on any number of machines. ``store.py`` at the root of the
repository is a thin script over :mod:`lottery.upkeep.job`.

>>> from lottery import upkeep
>>> store = upkeep.opened("outputs/store")
>>> for run in upkeep.listed(store, {"model.name": "resnet20"}):
...     print(run.entry.key, run.what, run.accuracy, run.bytes, run.command)
>>> upkeep.collect(store, dry_run=False).bytes
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lottery.upkeep.collection import collect
    from lottery.upkeep.inventory import opened
    from lottery.upkeep.listing import details, listed
    from lottery.upkeep.removal import remove
    from lottery.upkeep.transport import export_part, import_part
    from lottery.upkeep.verification import verify

__all__ = [
    "collect", "details", "export_part", "import_part", "listed", "opened", "remove", "verify",
]  # fmt: skip
_MODULES = {
    "collect": "collection", "details": "listing", "listed": "listing", "opened": "inventory",
    "export_part": "transport", "import_part": "transport", "verify": "verification",
    "remove": "removal",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a function when it is asked for: a job that only says what it needs must not wait."""
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
