"""What an epoch has come to so far, and where its time went."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from lottery.data import Chunk
from lottery.errors import DivergedError
from lottery.training.checkpoints import Progress
from lottery.training.metrics import Metrics

REPORT_SECONDS = 1.0  # least time between looks at the device's numbers inside an epoch


def refuse_divergence(loss: float, step: int) -> None:
    """Raise :class:`DivergedError` for a loss that is infinite or not a number."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"the loss is not a finite number by step {step}; a lower optimizer.learning_rate, "
            "schedule.warmup or optimizer.clip_norm may help"
        )


class Tally:
    """What one epoch has come to so far, and where its time went.

    The device's numbers are fetched at most once in ``REPORT_SECONDS``, so that it never waits
    for the host after each step.
    """

    def __init__(self, start: Progress) -> None:
        self.step = start.step
        self.latest = Metrics(0.0, 0.0, 0.0, 0)
        self._start = start
        self._started = self._settled = time.perf_counter()
        self._sums = np.array(start.sums or (0.0,) * 4)
        self._pending: list[Any] = []
        self._steps = 0
        self._wait = self._training = self._pauses = 0.0

    def add(self, chunk: Chunk, sums: Any, wait: float) -> None:
        """Count one call of the compiled loop, whose result may still be on its way."""
        self.step = chunk.first_step + chunk.steps
        self._steps += chunk.steps
        self._wait += wait
        self._pending.append(sums)
        if time.perf_counter() - self._settled > REPORT_SECONDS or self.latest.examples == 0:
            self.settle()

    def settle(self) -> Any:
        """Fetch what is pending; the sums so far. Raises :class:`DivergedError`."""
        for sums in self._pending:
            self._sums = self._sums + sums.numpy()
        self._pending.clear()
        self._settled = time.perf_counter()
        self._training = self._settled - self._started - self._pauses
        self.latest = Metrics.of(self._sums)
        refuse_divergence(self.latest.loss, self.step)
        return self._sums

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose time is none of training."""
        self.settle()
        paused = time.perf_counter()
        yield
        self._pauses += time.perf_counter() - paused

    def rates(self, batch_size: int) -> dict[str, float]:
        """images/s, seconds a step, and the share of the time spent waiting for input."""
        return {
            "images_per_second": self._steps * batch_size / self._training,
            "step_seconds": self._training / self._steps,
            "input_wait": self._wait / self._training,
        }

    def progress(self, joules: float | None = None) -> Progress:
        """The point reached, this epoch's time included, and ``joules`` that it has taken."""
        sums = self.settle() if self._pending else self._sums
        before = self._start.joules
        return Progress(
            step=self.step,
            seconds=self._start.seconds + time.perf_counter() - self._started,
            training_seconds=self._start.training_seconds + self._training,
            sums=tuple(float(s) for s in sums),
            joules=None if before is None or joules is None else before + joules,
        )
