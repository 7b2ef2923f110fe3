"""What a ticket file must hold for its ticket to be of use: anybody may have written it."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lottery import choices
from lottery.errors import ConfigError
from lottery.options import bound_errors
from lottery.points import Point

Array = np.ndarray[Any, Any]


def check(about: Any, tensors: Mapping[str, Array], kinds: tuple[str, ...]) -> None:
    """Raise :class:`ValueError` naming the first thing that cannot be.

    ``about`` is the file's description; ``kinds`` are the kinds of weights that it has. Whether
    they fit the network is seen when that is built. Options of data sets get the types that they
    have in this version, and those that are missing their defaults.
    """
    json.dumps(about, ensure_ascii=False).encode()  # no half of a pair, which nothing can print
    network = _fields(about, "network")
    shape = network["input_shape"]
    _demand(
        isinstance(shape, list)
        and 1 <= len(shape) <= 8
        and all(_whole(n, 1, 2**16) for n in shape),
        "network.input_shape",
        shape,
    )
    _demand(_named(network["name"]), "network.name", network["name"])
    _demand(isinstance(network["options"], dict), "network.options", network["options"])
    classes = about["classes"]
    _demand(isinstance(classes, list) and classes and all(map(_named, classes)), "classes", classes)
    for name, low in (("mean", -1e6), ("std", 1e-6)):
        values = about[name]
        _demand(
            isinstance(values, list)
            and len(values) in (1, shape[-1])
            and all(_number(v, low, 1e6) for v in values),
            name,
            values,
        )
    _check_arrays(_fields(about, "masked"), tensors, kinds)
    _check_provenance(_fields(about, "provenance"))


def _check_arrays(
    masked: Mapping[str, Any], tensors: Mapping[str, Array], kinds: tuple[str, ...]
) -> None:
    _demand(bool(masked), "masked", masked)
    for name, array in tensors.items():
        kind, _, path = name.partition("/")
        _demand(kind in kinds or (kind == "mask" and path in masked), "the tensor", name)
        _demand(bool(path), "the tensor", name)
        finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
        _demand(finite, name, "values that are not finite")
    for path, shape in masked.items():
        _demand(
            isinstance(shape, list) and shape and all(_whole(n, 1, 2**31) for n in shape),
            f"masked.{path}",
            shape,
        )
        bits, size = tensors[f"mask/{path}"], math.prod(shape)
        _demand(
            bits.dtype == np.uint8 and bits.shape == (-(-size // 8),), f"mask/{path}", bits.shape
        )
        kept = int(np.unpackbits(bits, count=size).sum())
        for kind in kinds:
            values = tensors.get(f"{kind}/{path}")
            if values is not None:
                fits = values.dtype.kind == "f" and values.shape == (kept,)
                _demand(fits, f"{kind}/{path}", f"{values.dtype} {values.shape}")


def _check_provenance(provenance: Mapping[str, Any]) -> None:
    runs = _fields(provenance, "runs")
    for name in ("ticket", "dense", *(("transfer",) if "transfer" in runs else ())):
        key = runs[name]
        _demand(_named(key) and "/" not in key, f"provenance.runs.{name}", key)
    _demand(_named(provenance["data"]), "provenance.data", provenance["data"])
    _demand(_number(provenance["seconds"], 0, 1e12), "provenance.seconds", provenance["seconds"])
    point = provenance["rewound_to"]
    _demand(_named(point) and _is_point(point), "provenance.rewound_to", point)
    pristine = provenance["pristine"]
    _demand(isinstance(pristine, bool), "provenance.pristine", pristine)
    _demand(isinstance(provenance.get("versions", {}), dict), "provenance.versions", "no names")
    plugins = provenance.get("plugins", [])
    named = isinstance(plugins, list) and all(map(_named, plugins))
    _demand(named, "provenance.plugins", plugins)
    _check_mask(_fields(provenance, "mask"))
    if "results" in provenance:
        _check_work(_fields(_fields(provenance, "results"), "ticket"))
    config = _fields(provenance, "config")
    config["data"] = _data(_fields(config, "data"), "provenance.config.data")
    _demand(_whole(config["seed"], 0, 2**31), "provenance.config.seed", config["seed"])
    seen = provenance["seen"]
    _demand(isinstance(seen, list), "provenance.seen", seen)
    for number, before in enumerate(seen):
        before["data"] = _data(_fields(before, "data"), f"provenance.seen[{number}].data")
        _fields(before, "fingerprint")


def _check_work(result: Mapping[str, Any]) -> None:
    """Its multiply-adds, which older versions do not have."""
    if "multiply_adds" not in result:
        return
    work, where = _fields(result, "multiply_adds"), "provenance.results.ticket.multiply_adds"
    for name in ("network", "computed"):
        _demand(_whole(work[name], 1, 2**63), f"{where}.{name}", work[name])


def _check_mask(mask: Mapping[str, Any]) -> None:
    """Its counts: a report reads those of other versions too, which have fewer."""
    percentile = mask["percentile"]
    _demand(_number(percentile, 0, 100), "provenance.mask.percentile", percentile)
    for name in {"density", "density_of_kernels"} & set(mask):
        _demand(_number(mask[name], 0, 1), f"provenance.mask.{name}", mask[name])
    for name in ("kernels", "prunable") if "kernels" in mask else ():
        _demand(_whole(mask[name], 1, 2**63), f"provenance.mask.{name}", mask[name])


def _data(data: Mapping[str, Any], what: str) -> dict[str, Any]:
    """In this version's values; those of a source that is not known here as they are."""
    _demand("${" not in json.dumps(data), what, data)  # OmegaConf would look that up here
    _demand(_named(data["source"]), f"{what}.source", data["source"])
    if data["source"] not in choices.source.names():
        return dict(data)
    try:
        converted = choices.source.of(choices.source.known_part(data))
    except ConfigError as error:
        raise ValueError(f"{what}: {error}") from error
    for wrong in bound_errors(converted):
        raise ValueError(f"{what}.{wrong}")
    return {**data, **dataclasses.asdict(converted)}


def _demand(condition: Any, what: str, value: Any) -> None:
    if not condition:
        raise ValueError(f"{what} is {str(value)[:60]!a}")


def _fields(about: Any, name: str) -> dict[str, Any]:
    value = about[name]
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {str(value)[:60]!a}")
    return value


def _is_point(value: str) -> bool:
    try:
        return Point.of(value).step(1) < 2**31
    except ConfigError:
        return False


def _named(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
