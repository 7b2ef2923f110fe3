"""Reading JSON that may be damaged or somebody else's: the wanted kind of value, or one error.

Every function takes an object and a name in it, and raises :class:`ValueError` that says which name
is missing or of the wrong kind.
"""

import math
from collections.abc import Mapping
from typing import Any

Object = Mapping[str, Any]


def mapping(about: Any, name: str) -> Object:
    """An object."""
    value = _get(about, name)
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    return value


def entries(about: Any, name: str) -> list[Any]:
    """A list."""
    value = _get(about, name)
    if not isinstance(value, list):
        raise ValueError(f"{name} is no list")
    return value


def text(about: Any, name: str, *, empty: bool = False) -> str:
    """A string, that is not empty unless it may be."""
    value = _get(about, name)
    if not isinstance(value, str) or not (value or empty):
        raise ValueError(f"{name} is no text")
    return value


def number(about: Any, name: str) -> float:
    """A finite number."""
    value = _get(about, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is no finite number")
    return value


def positive(about: Any, name: str) -> float:
    """A finite number above zero."""
    value = number(about, name)
    if value <= 0:
        raise ValueError(f"{name} is not above zero")
    return value


def _get(about: Any, name: str) -> Any:
    if not isinstance(about, dict) or name not in about:
        raise ValueError(f"{name} is missing")
    return about[name]
