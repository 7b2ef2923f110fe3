"""How a network is pruned, in a word."""

from collections.abc import Mapping
from typing import Any

_BEFORE_TRAINING = {"snip", "grasp", "synflow", "random"}  # scores that are usually of the start


def with_method(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with one more name, ``method``, for how the network is pruned, if it says so.

    One word where a dozen options differ: ``snip``, ``magnitude, channel``, ``rigl, erk``.
    """
    score, during = config.get("mask.score.name"), config.get("mask.during.name")
    if not (score or during):
        return dict(config)
    usual = {"mask.scope.name": "erk" if during in ("set", "rigl") else "global"}
    usual["mask.pattern.name"] = "weight"
    words = [str(during or score)]
    words += [str(config.get(name)) for name, value in usual.items() if config.get(name) != value]
    words += ["in rounds"] if config.get("mask.rate") is not None else []
    words += ["shuffled"] if config.get("mask.shuffle") else []
    at = str(config.get("mask.at"))
    if not during and at != ("start" if score in _BEFORE_TRAINING else "end"):
        words.append(f"at the {at}" if at in ("start", "end") else f"at {at}")
    return {**config, "method": ", ".join(words)}
