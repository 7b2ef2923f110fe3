"""Complete training states on disk: atomic, checksummed, readable without pickle.

A checkpoint is a folder ``step_00000110/`` with ``state.safetensors`` (every variable of network
and optimizer) and ``manifest.json`` (step, checksum, progress). A state's names are
``model/<variable path>`` and ``optimizer/<variable path>``.
"""

import dataclasses
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as serialise

from lottery.errors import CheckpointError
from lottery.files import naming, read_json, sha256, sync, write_json

log = logging.getLogger(__name__)

State = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Progress:
    """A point in training: what is known besides the variables.

    ``sums`` are the totals of the epoch under way, ``seconds`` the wall time so far and
    ``training_seconds`` the part of it without validation.
    """

    step: int
    seconds: float = 0.0
    training_seconds: float = 0.0
    sums: tuple[float, ...] = ()


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of one run.

    ``keep_steps`` stay for good; of the others the newest ``keep_last`` do.
    """

    root: Path
    keep_steps: frozenset[int] = field(default=frozenset())
    keep_last: int = 2

    def save(self, state: State, progress: Progress) -> None:
        """Write a checkpoint, complete or not at all, and remove the superseded ones."""
        final = self.path(progress.step)
        self.root.mkdir(parents=True, exist_ok=True)
        temporary = self.root / f".{final.name}.{uuid.uuid4().hex[:8]}"
        try:
            temporary.mkdir()
            # safetensors would write a transposed array in memory order: force C order.
            arrays = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in state.items()}
            with naming(final):
                (temporary / "state.safetensors").write_bytes(serialise(arrays))
                sync(temporary / "state.safetensors")
            write_json(
                temporary / "manifest.json",
                {
                    **dataclasses.asdict(progress),
                    "sha256": sha256(temporary / "state.safetensors"),
                },
            )
            if final.exists():  # damaged, or written again after a resume from an earlier one
                shutil.rmtree(final)
            temporary.rename(final)
            sync(self.root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._remove_superseded()

    def load(self, step: int) -> tuple[State, Progress]:
        """Read one checkpoint. Raises :class:`CheckpointError` if it is missing or damaged."""
        path = self.path(step)
        try:
            manifest = read_json(path / "manifest.json")
            if sha256(path / "state.safetensors") != manifest.pop("sha256"):
                raise CheckpointError(f"checkpoint {path} is damaged: its checksum does not match")
            progress = Progress(**manifest | {"sums": tuple(manifest["sums"])})
            return load_file(path / "state.safetensors"), progress
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error

    def latest(self) -> tuple[State, Progress] | None:
        """The newest readable checkpoint; damaged ones are reported."""
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except CheckpointError as error:
                log.warning("%s; falling back to the one before", error)
        return None

    def steps(self) -> list[int]:
        """Steps of all checkpoints, ascending."""
        return sorted(int(p.name.removeprefix("step_")) for p in self.root.glob("step_*"))

    def path(self, step: int) -> Path:
        """Folder of the checkpoint at a step."""
        return self.root / f"step_{step:08d}"

    def _remove_superseded(self) -> None:
        others = [s for s in self.steps() if s not in self.keep_steps]
        for step in others[: -self.keep_last]:
            shutil.rmtree(self.path(step))

    def finish(self) -> None:
        """Keep only what is to stay for good; called when the run is complete."""
        for step in self.steps():
            if step not in self.keep_steps:
                shutil.rmtree(self.path(step))
        for half_written in self.root.glob(".step_*"):  # by an attempt that was killed
            shutil.rmtree(half_written)


class NoCheckpoints(CheckpointFolder):
    """Of a process that takes part in a training which another one saves."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull))

    def save(self, state: State, progress: Progress) -> None:
        """Do nothing."""


def same_network(a: State, b: State) -> bool:
    """Whether two states have the same network, bit for bit, whatever their optimizers."""
    return equal(a, b, ignore={name for name in {*a, *b} if not name.startswith("model/")})


def equal(a: State, b: State, ignore: Iterable[str] = ()) -> bool:
    """Whether two states are the same, bit for bit (NaN equal to NaN, 0.0 unequal to -0.0)."""
    names = set(a) - set(ignore)
    return names == set(b) - set(ignore) and all(a[n].tobytes() == b[n].tobytes() for n in names)
