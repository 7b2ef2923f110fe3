"""Configs of cells as flat values, and what is likely of those of cells that have not begun."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lottery import choices
from lottery.analysis.methods import with_method

Flat = Mapping[str, Any]
"""A config as {dotted name of an option: value}."""

GRID = ("seed", "mask.percentile", "rewind.epoch", "rewind.step")


def flat(config: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config by dotted names; an empty dictionary stays a value."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def told(config: Flat) -> dict[str, Any]:
    """The config as a cell has it: with its method, and with no rewinding where nothing rewinds."""
    found = with_method(config)
    if found.get("mask.during.name") is None:
        return found
    return {name: value for name, value in found.items() if not name.startswith("rewind.")}


def assumed(
    overrides: Sequence[str], known: Sequence[tuple[Flat, Sequence[str]]]
) -> dict[str, Any]:
    """The config of a cell of which only its overrides are known: the likest other, with these.

    ``known`` are the configs and overrides of other cells.
    """
    like = max(known, key=lambda k: _likeness(k, overrides), default=({}, ()))
    config = dict(like[0])
    own = [o for o in overrides if o not in like[1]]
    for override in own:
        if _chooses(override, config):
            config = _with_choice(config, override, overrides)
    for override in own:
        if not _chooses(override, config):
            config |= flat(_nested(override))
    return told(config) if "mask.score.name" in config else config


def option_of(override: str) -> str:
    """The name of the option, or of the group, that an override sets."""
    return override.partition("=")[0].lstrip("+~")


def _likeness(known: tuple[Flat, Sequence[str]], overrides: Sequence[str]) -> tuple[int, int]:
    """How many choices of whole groups they share, each of which means many options; and others."""
    shared = set(known[1]) & set(overrides)
    choosing = sum(_chooses(override, known[0]) for override in shared)
    return choosing, len(shared)


def _chooses(override: str, config: Flat) -> bool:
    """Whether it chooses for a whole group of options, as ``mask=snip`` does."""
    return any(name.startswith(f"{_group(override)}.") for name in config)


def _group(override: str) -> str:
    return option_of(override).replace("/", ".")


def _with_choice(config: Flat, override: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The config with another choice for a group, of whose options the names alone are known."""
    group, value = _group(override), override.partition("=")[2]
    inside = f"{group}."
    changed = {n: v for n, v in config.items() if not n.startswith(inside) or n in GRID}
    for kind in choices.KINDS:
        if kind.option == group and not kind.several:
            changed[f"{inside}{kind.key}"] = value
    if group == "mask":
        changed["method"] = value
    for other in overrides:  # what is typed of the group, whoever shares it
        if option_of(other).startswith(inside):
            changed |= flat(_nested(other))
    return changed


def _nested(override: str) -> dict[Any, Any]:
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([override.lstrip("+~")]))
    except (OmegaConfBaseException, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}
