"""Complete training states on disk: atomic, checksummed, readable without pickle.

A checkpoint is a folder ``step_00000110/`` with ``state.safetensors``: every variable of network
and optimizer, and in its metadata the progress and a checksum. A state's names are
``model/<variable path>`` and ``optimizer/<variable path>``, and of a mask that changes during
training ``mask/<variable path>``, as booleans.
"""

import dataclasses
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lottery import tensors
from lottery.errors import CheckpointError, DamagedError
from lottery.files import naming, sync

log = logging.getLogger(__name__)

STATE, MEMORY = "state.safetensors", "memory.safetensors"

State = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Progress:
    """A point in training: what is known besides the variables.

    ``sums`` are the totals of the epoch under way, ``seconds`` the wall time so far and
    ``training_seconds`` the part of it without validation. ``joules`` is what the GPUs of this
    process have used in epochs, without the validation at their ends; None if that is not known
    of all of them.
    """

    step: int
    seconds: float = 0.0
    training_seconds: float = 0.0
    sums: tuple[float, ...] = ()
    joules: float | None = 0.0


@dataclass(frozen=True)
class Memory:
    """What callbacks remember of a training at a checkpoint: JSON values, and arrays."""

    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: State = field(default_factory=dict)


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of one run.

    ``keep_steps`` stay for good; of the others the newest ``keep_last`` do.
    """

    root: Path
    keep_steps: frozenset[int] = field(default=frozenset())
    keep_last: int = 2

    def save(self, state: State, progress: Progress, memory: Memory | None = None) -> None:
        """Write a checkpoint, complete or not at all, and remove the superseded ones."""
        final = self.path(progress.step)
        self.root.mkdir(exist_ok=True)  # its parent must be there: it goes when we lose the lease
        temporary = self._hidden(final)
        try:
            temporary.mkdir()
            about = json.dumps(dataclasses.asdict(progress), allow_nan=False)
            with naming(final):
                tensors.write(temporary / STATE, state, about)
                if memory is not None and memory.values:
                    remembered = json.dumps(dict(memory.values))
                    tensors.write(temporary / MEMORY, memory.arrays, remembered)
            if final.exists():  # damaged, or written again after a resume from an earlier one
                self._remove(final)
            temporary.rename(final)
            sync(self.root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._remove_superseded()

    def load(self, step: int) -> tuple[State, Progress]:
        """Read one checkpoint. Raises :class:`CheckpointError` if it is missing or damaged."""
        path = self.path(step)
        try:
            state, about = tensors.read(path / STATE)
        except DamagedError as error:
            raise CheckpointError(f"checkpoint {path} is damaged: {error}") from error
        except FileNotFoundError as error:
            raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
        progress = json.loads(about)
        return state, Progress(**progress | {"sums": tuple(progress["sums"])})

    def memory(self, step: int) -> Memory:
        """What callbacks remembered there. Raises :class:`CheckpointError` if it is damaged."""
        path = self.path(step)
        try:
            arrays, values = tensors.read(path / MEMORY)
        except FileNotFoundError:
            return Memory()
        except DamagedError as error:
            raise CheckpointError(f"checkpoint {path} is damaged: {error}") from error
        return Memory(json.loads(values), arrays)

    def latest(self) -> tuple[State, Progress] | None:
        """The newest readable checkpoint; damaged ones are reported."""
        for step in reversed(self.steps()):
            try:
                self.memory(step)
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
            self._remove(self.path(step))

    def _remove(self, path: Path) -> None:
        """Take a checkpoint away at once, then delete it: there is never half of one."""
        hidden = self._hidden(path)
        path.rename(hidden)
        shutil.rmtree(hidden)

    def _hidden(self, path: Path) -> Path:
        return self.root / f".{path.name}.{uuid.uuid4().hex[:8]}"

    def finish(self) -> None:
        """Keep only what is to stay for good; called when the run is complete.

        That is the last state too, wherever the run has ended, and no memory.
        """
        for step in (steps := self.steps()):
            if step not in self.keep_steps and step != steps[-1]:
                self._remove(self.path(step))
            else:
                (self.path(step) / MEMORY).unlink(missing_ok=True)
        for left in self.root.glob(".step_*"):  # by an attempt that was killed, or is just leaving
            shutil.rmtree(left, ignore_errors=True)


class NoCheckpoints(CheckpointFolder):
    """Of a process that takes part in a training which another one saves."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull))

    def save(self, state: State, progress: Progress, memory: Memory | None = None) -> None:
        """Do nothing."""


def named_masks(mask: Mapping[str, np.ndarray[Any, Any]]) -> State:
    """What a state has of a mask that changes."""
    return {f"mask/{path}": kept for path, kept in mask.items()}


def same_network(a: State, b: State) -> bool:
    """Whether two states have the same network, bit for bit, whatever their optimizers."""
    return equal(a, b, ignore={name for name in {*a, *b} if not name.startswith("model/")})


def equal(a: State, b: State, ignore: Iterable[str] = ()) -> bool:
    """Whether two states are the same, bit for bit (NaN equal to NaN, 0.0 unequal to -0.0)."""
    names = set(a) - set(ignore)
    return names == set(b) - set(ignore) and all(a[n].tobytes() == b[n].tobytes() for n in names)
