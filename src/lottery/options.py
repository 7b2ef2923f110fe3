"""Options: fields of dataclasses that say what they mean, and what they do to a key.

The metadata of a field decides how it is treated elsewhere:

* ``identity=False`` marks an option that cannot change a result (paths, logging, devices). Every
  other option is part of a run's key, unless it still has the default of its class. So a new option
  leaves old runs findable, and the default of a class must never be changed: change the YAML in
  ``conf/`` instead.
* ``only`` says of its group when an option has an effect (Nesterov momentum only with momentum).
  Where it has none it is not part of the key.
* a dictionary is in the key as a list of pairs, since its order may matter, and JSON with sorted
  keys would lose it.
* a field with ``kind`` holds a choice, or a dictionary of several, whose order matters. The classes
  of choices that change no result say so by ``watches_only``.
* ``always`` marks what is in the key even at its default, since the default is not ours.
* bounds and choices, checked for all jobs of a sweep before one starts.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any

from omegaconf import MISSING


def option(
    default: Any,
    doc: str,
    *,
    identity: bool = True,
    always: bool = False,
    only: Callable[[Any], bool] | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[str, ...] | None = None,
    kind: Any = None,
) -> Any:
    """A dataclass field with its documentation, role and bounds (``ge <= value < lt``, …).

    The bounds of a list hold for each of its elements; no number may be infinite or NaN. ``kind``
    is that of the choices which the field holds (:class:`lottery.choices.Kind`), if any.
    """
    metadata = {
        "doc": doc,
        "identity": identity,
        "always": always,
        "only": only,
        "bounds": {"ge": ge, "gt": gt, "le": le, "lt": lt},
        "choices": choices,
        "kind": kind,
    }
    if isinstance(default, list | dict):
        factory = type(default)
        return field(default_factory=lambda: factory(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def identity(config: Any) -> dict[str, Any]:
    """The part of a config dataclass that determines results.

    Neither defaults nor plumbing nor what means nothing beside the other options of its group.

    Raises :class:`TypeError` if ``config`` is no dataclass instance.
    """
    determining: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if not f.metadata.get("identity", True):
            continue
        if dataclasses.is_dataclass(value):
            if _matters(f, config):
                determining[f.name] = identity(value)
        elif is_several(f):
            if chosen := [identity(choice) for choice in acting(value)]:
                determining[f.name] = chosen
        else:
            value, default = _in_order(value), _in_order(_default(f))
            if (f.metadata.get("always") or value != default) and _matters(f, config):
                determining[f.name] = value
    return determining


def _in_order(value: Any) -> Any:
    """A value with every dictionary in it as a list of pairs."""
    if isinstance(value, Mapping):
        return [[key, _in_order(v)] for key, v in value.items()]
    return [*map(_in_order, value)] if isinstance(value, list) else value


def is_several(f: "dataclasses.Field[Any]") -> bool:
    """Whether a field holds a dictionary of choices."""
    kind = f.metadata.get("kind")
    return kind is not None and bool(kind.several)


def acting(several: Mapping[str, Any]) -> list[Any]:
    """Those choices, in their order, that may change a result."""
    return [c for c in several.values() if not getattr(c, "watches_only", False)]


def stepping(several: Mapping[str, Any]) -> list[Any]:
    """Those of the :func:`acting` callbacks that may change weights after any step.

    The others name in ``remembers`` what they keep in mind, and act at the ends of epochs alone.
    """
    return [c for c in acting(several) if not hasattr(c, "remembers")]


def deciding(several: Mapping[str, Any]) -> dict[str, Any]:
    """Those callbacks, by label, that act at the ends of epochs alone and remember."""
    return {label: c for label, c in several.items() if hasattr(c, "remembers")}


def stopping(several: Mapping[str, Any]) -> list[str]:
    """Labels of the callbacks that may end a training before its schedule does."""
    return [label for label, c in several.items() if getattr(c, "may_stop", False)]


def _matters(f: "dataclasses.Field[Any]", group: Any) -> bool:
    only = f.metadata.get("only")
    return only is None or bool(only(group))


def _default(f: "dataclasses.Field[Any]") -> Any:
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    return f.default


def options(config: Any, prefix: str = "") -> Iterator[tuple[str, "dataclasses.Field[Any]", Any]]:
    """Every option below ``config`` as (dotted name, field, value)."""
    for f in dataclasses.fields(config):
        value, name = getattr(config, f.name), f"{prefix}{f.name}"
        if dataclasses.is_dataclass(value):
            yield from options(value, f"{name}.")
        elif is_several(f):
            for label, choice in value.items():
                yield from options(choice, f"{name}.{label}.")
        else:
            yield name, f, value


_SYMBOLS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def bound_errors(config: Any) -> list[str]:
    """One line for each value of a config dataclass that is out of its range."""
    if errors := text_errors(config):  # which no other message can show
        return errors
    for name, f, value in options(config):
        # Of a plain field of somebody's choice nothing more is known.
        choices, bounds = f.metadata.get("choices"), f.metadata.get("bounds", {})
        if value == MISSING or (value is None and f.default == MISSING):
            errors.append(f"{name} has no value")
        elif choices and value not in choices:
            errors.append(f"{name}={value} is unknown{did_you_mean(str(value), choices)}")
        elif not all(_within(number, bounds) for number in _numbers(value)):
            wanted = [f"{_SYMBOLS[k]} {b:g}" for k, b in bounds.items() if b is not None]
            numbers = "hold numbers " if isinstance(value, list | dict) else "be "
            must = numbers + " and ".join(wanted) if wanted else "be finite"
            errors.append(f"{name}={value} must {must}")
    return errors


def text_errors(config: Any) -> list[str]:
    """One line for each value of a config dataclass that no file could hold.

    Bytes of a command line that are not UTF-8 reach Python as halves of a pair of surrogates.
    """
    return [
        f"{name}={value!a} is not text in UTF-8"
        for name, _, value in options(config)
        if not is_text(json.dumps(value, ensure_ascii=False, default=str))
    ]


def is_text(value: str) -> bool:
    """Whether a string can be written to a file."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _numbers(value: Any) -> Iterator[float]:
    """The number that an option is, or all that its list or dictionary holds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, list | dict):
        for element in value.values() if isinstance(value, dict) else value:
            yield from _numbers(element)


def _within(value: float, bounds: dict[str, float | None]) -> bool:
    ge, gt, le, lt = (bounds.get(k) for k in ("ge", "gt", "le", "lt"))
    return (
        math.isfinite(value)
        and (ge is None or value >= ge)
        and (gt is None or value > gt)
        and (le is None or value <= le)
        and (lt is None or value < lt)
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known names, and all of them if they are few."""
    known = [name for name in known if name != word]
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    listed = f" (known: {', '.join(known)})" if len(known) <= 12 else ""
    return hint + listed
