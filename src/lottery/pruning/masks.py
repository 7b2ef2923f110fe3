"""Masks: one boolean per weight of each prunable kernel, True where the weight survives."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lottery import tensors
from lottery.errors import DamagedError, StoreError
from lottery.pruning.layers import Allocation
from lottery.pruning.units import Pattern, Target, Ties

Array = np.ndarray[Any, Any]
Mask = Mapping[str, Array]


class Kernel(Protocol):
    """What selecting layers needs to know of a kernel."""

    @property
    def path(self) -> str:
        """Path of the variable."""
        ...

    @property
    def kind(self) -> str:
        """``conv``, ``depthwise`` or ``dense``."""
        ...


@dataclass(frozen=True)
class Whole:
    """The weights of a network, those that no mask touches among them."""

    parameters: int
    """All of them, BatchNorm statistics included."""
    kernels: int
    """Those in matrices (rank 2 and above) that train: whatever a mask could be about."""
    left_out: tuple[str, ...]
    """Paths of such matrices that are of no known kind, so that no pruning looks at them."""


def prunable(
    kernels: Iterable[Kernel], *, depthwise: bool, skip_first: bool, skip_last: bool
) -> list[str]:
    """Paths of the kernels to prune, in the network's order."""
    paths = [k.path for k in kernels if depthwise or k.kind != "depthwise"]
    return paths[int(skip_first) : len(paths) - int(skip_last)]


def make(
    scores: Mapping[str, Array],
    percentile: float,
    *,
    allocation: Allocation,
    pattern: Pattern,
    within: Mask | None = None,
    before: float = 0.0,
    ties: Ties | None = None,
) -> dict[str, Array]:
    """The mask that removes the lowest scores: as many as ``allocation`` says, as ``pattern`` says.

    Ties break by position, the first goes first. ``within`` is the mask of an earlier round: what
    it removed stays removed and counts towards the percentile; ``before`` is that round's
    percentile. ``ties`` says which channels of the network are tied. A kernel in which the pattern
    can remove nothing (a head, by channels) is left out, as not prunable.

    Raises :class:`ConfigError` for a percentile that cannot be reached, and for layers that the
    pattern does not fit; :class:`ValueError` if a score is not a number.
    """
    if any(np.isnan(s).any() for s in scores.values()):
        raise ValueError("a score is not a number; was the network trained?")
    target = Target(percentile, allocation, before)
    pattern.check(target)
    return pattern.mask(scores, target, within, ties)


def shuffle(
    mask: Mask, seed: int, *, pattern: Pattern, ties: Ties | None = None
) -> dict[str, Array]:
    """The control for *which*: as many survivors in each layer, in the same pattern, by lot."""
    return pattern.shuffled(mask, np.random.Generator(np.random.PCG64(seed)), ties)


def apply(
    mask: Mask, arrays: Mapping[str, Array], path_of: Callable[[str], str | None]
) -> dict[str, Array]:
    """Zero the pruned positions of every array whose ``path_of(name)`` is a masked variable."""
    masked = dict(arrays)
    for name, array in arrays.items():
        path = path_of(name)
        if path is not None and path in mask:
            masked[name] = np.where(mask[path], array, np.zeros((), array.dtype))
    return masked


def summary(mask: Mask, whole: Whole) -> dict[str, Any]:
    """Counts and densities: over prunable weights, over all kernels, and over all parameters."""
    size = sum(m.size for m in mask.values())
    kept = sum(int(np.count_nonzero(m)) for m in mask.values())
    return {
        "prunable": size,
        "kept": kept,
        "density": kept / size,
        "kernels": whole.kernels,
        "density_of_kernels": (whole.kernels - size + kept) / whole.kernels,
        "left_out": list(whole.left_out),
        "total_parameters": whole.parameters,
        "density_of_all": (whole.parameters - size + kept) / whole.parameters,
        "layers": {
            path: {"size": m.size, "kept": int(np.count_nonzero(m))} for path, m in mask.items()
        },
    }


def digest(mask: Mask) -> str:
    """SHA-256 of a mask: which weights it leaves, and of which kernels."""
    content = hashlib.sha256()
    for path in sorted(mask):
        content.update(f"{path} {mask[path].shape}".encode())
        content.update(np.packbits(mask[path]).tobytes())
    return content.hexdigest()


def write(mask: Mask, path: Path) -> None:
    """Save a mask as safetensors: one packed bit per weight, shapes in the header."""
    tensors.write_booleans(path, mask)


def read(path: Path) -> dict[str, Array]:
    """Load what :func:`write` saved, layers in the network's order.

    Raises :class:`StoreError` if the file is damaged.
    """
    try:
        return tensors.read_booleans(path)
    except DamagedError as error:
        raise StoreError(
            f"the mask {path} is damaged: {error}; remove {path.parent} to compute it again"
        ) from error
