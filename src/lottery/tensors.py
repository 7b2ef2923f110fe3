"""Arrays in safetensors files that can tell whether they are what was written; no pickle.

Metadata: ``about``, a text (JSON, for whoever writes), and ``sha256``, a checksum of ``about`` and
of all arrays with their names, types and shapes.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lottery.errors import DamagedError
from lottery.files import replacing

Array = np.ndarray[Any, Any]


def write(path: Path, arrays: Mapping[str, Array], about: str = "", **labels: str) -> None:
    """Write a file, complete or not at all; ``labels`` are metadata besides."""
    # safetensors would write a transposed array in memory order: force C order.
    straight = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in arrays.items()}
    header = {**labels, "about": about, "sha256": _checksum(about, straight)}
    with replacing(path) as temporary:
        temporary.write_bytes(save(straight, metadata=header))


def read(
    path: Path, check: Callable[[Mapping[str, str]], None] = lambda header: None
) -> tuple[dict[str, Array], str]:
    """The arrays of a file and what it says about them; ``check`` may refuse its metadata.

    Raises :class:`DamagedError` if it is not what :func:`write` left, saying why but not naming
    the file, and :class:`FileNotFoundError`.
    """
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            check(header)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError, TypeError, ValueError) as error:  # or of an unknown type
        raise DamagedError(str(error).splitlines()[0]) from error
    about = header.get("about", "")
    if _checksum(about, arrays) != header.get("sha256"):
        raise DamagedError("its checksum does not match")
    return arrays, about


def write_booleans(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write boolean arrays, a bit for each value; their shapes are in ``about``."""
    shapes = json.dumps({name: list(array.shape) for name, array in arrays.items()})
    write(path, {name: np.packbits(array) for name, array in arrays.items()}, shapes)


def read_booleans(path: Path) -> dict[str, Array]:
    """What :func:`write_booleans` wrote, in the same order. Raises what :func:`read` raises."""
    packed, about = read(path)
    return {
        name: np.unpackbits(packed[name], count=int(np.prod(shape))).astype(bool).reshape(shape)
        for name, shape in json.loads(about).items()
    }


def _checksum(about: str, arrays: Mapping[str, Array]) -> str:
    checksum = hashlib.sha256(about.encode())
    for name in sorted(arrays):
        array = arrays[name]
        checksum.update(f"{name} {array.dtype} {array.shape}".encode())
        checksum.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return checksum.hexdigest()
