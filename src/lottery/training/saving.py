"""Checkpoints written in a thread while training goes on, each shown to have zeros where it should.

What a save costs is then its copy of the variables. There is one write at a time: the next save
waits for it, and raises what went wrong. So a process that was killed has lost an epoch more than
one that waits for its disk, at most, and resumes in the same way: metrics.csv has the row of an
epoch before its checkpoint is begun, and rows beyond the checkpoint that is used are dropped.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from lottery.training.checkpoints import CheckpointFolder, Memory, Progress, State

log = logging.getLogger(__name__)


class Saver:
    """A context that writes to ``checkpoints``, and leaves none half-written.

    ``check`` raises an error for a state, and its step, that must not be kept. Neither it nor the
    writing may look at the variables, which have other values by then.
    """

    def __init__(self, checkpoints: CheckpointFolder, check: Callable[[State, int], None]) -> None:
        self._checkpoints, self._check = checkpoints, check
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    @property
    def keep_steps(self) -> frozenset[int]:
        """After which steps a state is to stay for good."""
        return self._checkpoints.keep_steps

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.settle()
        except Exception as second:
            if error is None:
                raise
            # What ended the training counts; after a lost lease both fail for that reason.
            log.warning("and a checkpoint could not be written: %s", second)
        finally:
            self._pool.shutdown()

    def save(self, state: State, progress: Progress, memory: Memory | None = None) -> None:
        """Begin to write a checkpoint. Raises what the write before it raised."""
        self.settle()
        self._writing = self._pool.submit(self._write, state, progress, memory)

    def settle(self) -> None:
        """Wait until the last checkpoint is written. Raises what went wrong."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, state: State, progress: Progress, memory: Memory | None) -> None:
        self._check(state, progress.step)
        self._checkpoints.save(state, progress, memory)
