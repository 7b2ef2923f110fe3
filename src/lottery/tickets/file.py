"""The ticket file: one safetensors file, safe to load from anybody (there is no pickle in it).

Tensors: ``mask/<variable path>``, one bit a weight, packed; ``trained/<path>`` and
``rewound/<path>``, the survivors' values in the order of the kernel where there is a mask for the
variable, all of it where there is none. Metadata: ``format``, ``version``, ``about`` (JSON:
network, classes, normalisation, shapes of the masked kernels, provenance) and ``sha256``, a
checksum of ``about`` and of all tensors.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lottery import tensors as checked
from lottery.errors import DamagedError, TicketError
from lottery.tickets import checks
from lottery.tickets.ticket import WEIGHTS, Array, Network, Ticket

FORMAT, VERSION = "lottery ticket", 1

_UNFIT = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    ArithmeticError,
    RecursionError,
)


def write(ticket: Ticket, path: Path) -> None:
    """Write a ticket file, complete or not at all; what is there is replaced."""
    tensors: dict[str, Array] = {f"mask/{name}": np.packbits(m) for name, m in ticket.mask.items()}
    for which in WEIGHTS:
        for name, array in ticket.weights(which).items():
            kept = array[ticket.mask[name]] if name in ticket.mask else array
            tensors[f"{which}/{name}"] = kept
    about = json.dumps(
        {
            **ticket.description,
            "masked": {name: list(m.shape) for name, m in ticket.mask.items()},
            "provenance": ticket.provenance,
        }
    )
    checked.write(path, tensors, about, format=FORMAT, version=str(VERSION))


def read(path: Path) -> Ticket:
    """Read and verify a ticket file.

    Raises :class:`TicketError` if it is missing, damaged, no ticket file, of a newer version, or
    holds what no ticket can be made of.
    """
    try:
        tensors, about = checked.read(path, functools.partial(_check_header, path))
    except FileNotFoundError:
        raise TicketError(f"there is no ticket file {path}") from None
    except DamagedError as error:
        raise TicketError(f"{path} is damaged, or no ticket file: {error}") from error
    try:
        described = json.loads(about)
        checks.check(described, tensors, WEIGHTS)
        return _ticket(described, tensors)
    except _UNFIT as error:  # whole, as its checksum says
        raise TicketError(
            f"the ticket file {path} is of another version of lottery, or made by hand: "
            f"{_line(error)}"
        ) from error


def _line(error: Exception) -> str:
    missing = "there is no " if isinstance(error, KeyError) else ""
    return missing + (str(error).splitlines() or [type(error).__name__])[0]


def _check_header(path: Path, header: Mapping[str, str]) -> None:
    if header.get("format") != FORMAT or not {"version", "about", "sha256"} <= set(header):
        raise TicketError(f"{path} is a safetensors file, but no ticket file")
    if header["version"] not in map(str, range(1, VERSION + 1)):
        raise TicketError(
            f"the ticket file {path} was written by a newer version of lottery (format "
            f"{header['version']}, this program knows {VERSION}): update"
        )


def _ticket(about: Mapping[str, Any], tensors: Mapping[str, Array]) -> Ticket:
    mask = {
        name: np.unpackbits(tensors[f"mask/{name}"], count=int(np.prod(shape)))
        .astype(bool)
        .reshape(shape)
        for name, shape in about["masked"].items()
    }
    weights: dict[str, dict[str, Array]] = {which: {} for which in WEIGHTS}
    for name, array in tensors.items():
        which, _, path = name.partition("/")
        if which not in weights:
            continue
        if path in mask:
            whole = np.zeros(mask[path].shape, array.dtype)
            whole[mask[path]] = array
            array = whole
        weights[which][path] = array
    network = {**about["network"], "input_shape": tuple(about["network"]["input_shape"])}
    return Ticket(
        network=Network(**network),
        classes=tuple(about["classes"]),
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        mask=mask,
        provenance=about["provenance"],
        **weights,
    )
