"""The ticket file: one safetensors file, safe to load from anybody (there is no pickle in it).

Tensors: ``mask/<variable path>``, one bit a weight, packed; ``trained/<path>`` and
``rewound/<path>``, the survivors' values in the order of the kernel where there is a mask for the
variable, all of it where there is none. Metadata: ``format``, ``version``, ``about`` (JSON:
network, classes, normalisation, shapes of the masked kernels, provenance) and ``sha256``, a
checksum of ``about`` and of all tensors.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lottery.errors import TicketError
from lottery.files import replacing
from lottery.tickets.ticket import WEIGHTS, Array, Network, Ticket

FORMAT, VERSION = "lottery ticket", 1


def write(ticket: Ticket, path: Path) -> None:
    """Write a ticket file, complete or not at all; what is there is replaced."""
    tensors: dict[str, Array] = {f"mask/{name}": np.packbits(m) for name, m in ticket.mask.items()}
    for which in WEIGHTS:
        for name, array in ticket.weights(which).items():
            kept = array[ticket.mask[name]] if name in ticket.mask else array
            # safetensors would write a transposed array in memory order.
            tensors[f"{which}/{name}"] = np.ascontiguousarray(kept).reshape(kept.shape)
    about = json.dumps(
        {
            **ticket.description,
            "masked": {name: list(m.shape) for name, m in ticket.mask.items()},
            "provenance": ticket.provenance,
        }
    )
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "about": about,
        "sha256": _checksum(about, tensors),
    }
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=header))


def read(path: Path) -> Ticket:
    """Read and verify a ticket file.

    Raises :class:`TicketError` if it is missing, damaged, no ticket file, or of a newer version.
    """
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            _check_header(path, header)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise TicketError(f"there is no ticket file {path}") from None
    except (OSError, SafetensorError) as error:
        raise TicketError(
            f"{path} is damaged, or no ticket file: {str(error).splitlines()[0]}"
        ) from error
    if _checksum(header["about"], tensors) != header["sha256"]:
        raise TicketError(f"the ticket file {path} is damaged: its checksum does not match")
    try:
        return _ticket(json.loads(header["about"]), tensors)
    except (ValueError, KeyError, TypeError) as error:  # whole, as its checksum says
        raise TicketError(
            f"the ticket file {path} is of another version of lottery: {error!r}"
        ) from error


def _check_header(path: Path, header: Mapping[str, str]) -> None:
    if header.get("format") != FORMAT or not {"version", "about", "sha256"} <= set(header):
        raise TicketError(f"{path} is a safetensors file, but no ticket file")
    if not header["version"].isdecimal() or int(header["version"]) > VERSION:
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
    provenance = about["provenance"]
    provenance["runs"]["ticket"], provenance["runs"]["dense"], provenance["data"]
    provenance["seen"]
    return Ticket(
        network=Network(**network),
        classes=tuple(about["classes"]),
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        mask=mask,
        provenance=about["provenance"],
        **weights,
    )


def _checksum(about: str, tensors: Mapping[str, Array]) -> str:
    checksum = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        checksum.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        checksum.update(tensors[name].tobytes())
    return checksum.hexdigest()
