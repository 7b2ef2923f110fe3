"""Winning tickets in TensorFlow and Keras: train, prune, rewind, retrain, judge."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lottery.api.study import Study
    from lottery.runs import Run, load_run
    from lottery.tickets import Ticket, load_ticket

__all__ = ["Run", "Study", "Ticket", "load_run", "load_ticket"]


def __getattr__(name: str) -> Any:
    """Import the API when it is asked for: ``--help`` must not wait for numpy."""
    if name == "Study":
        from lottery.api import study

        return study.Study
    if name in __all__:
        from lottery import runs, tickets

        return getattr(tickets if "icket" in name else runs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What there is, for completion: the API, imported or not."""
    return sorted(__all__)
