"""Winning tickets in TensorFlow and Keras: train, prune, rewind, retrain, judge."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lottery.runs import Run, load_run

__all__ = ["Run", "load_run"]


def __getattr__(name: str) -> Any:
    """Import the API when it is asked for: ``--help`` shall not wait for numpy."""
    if name in __all__:
        from lottery import runs

        return getattr(runs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
