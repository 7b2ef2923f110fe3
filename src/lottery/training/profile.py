"""Where the time of training goes: the step on one cached batch against the real input, and stages.

A share lost to input is 1 - real / cached, in images/s of the same compiled step. It is what
counts: each stage alone has all cores to itself, and in training they share them.
"""

import functools
import itertools
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from lottery.config import Training
from lottery.data import Chunk, EncodedSplit, Split, Splits, images
from lottery.data.splits import steps_per_epoch
from lottery.training import run
from lottery.training.length import Length
from lottery.training.loop import Loop
from lottery.training.recipe import from_scratch
from lottery.training.telemetry import cores, remedy
from lottery.training.timing import cached_batch, enough, timed

log = logging.getLogger(__name__)

REPEATS = 5  # of each measurement; the median is told
SECONDS, MOST_CALLS = 1.0, 200  # how long each is to last
TRACED_CALLS = 5
FILES = 256  # encoded images read and decoded at a time
LOST = 0.1  # share lost to input from which the input is what bounds a run
SHORT_STEP = 0.005  # seconds; below, starting a step costs as much as the step


def measure(config: Training, data: Splits, trace: Path) -> dict[str, Any]:
    """Time the dense network's training step and the stages of its input.

    Returns ``cached`` and ``real`` (the step on one batch and on the input as it comes),
    ``lost_to_input``, ``stages`` by name and a ``verdict`` in words. Times are seconds per
    optimizer step (``seconds``) and ``images_per_second``. A trace of a few steps is left in the
    folder ``trace`` for TensorBoard.

    Raises :class:`DataError` for images that cannot be decoded.
    """
    spe = steps_per_epoch(data.train.size, config.trainer.batch_size)
    loop, length = run.build(from_scratch(config, spe), data, {})
    bench = _Bench(loop, length, data.train)
    try:
        log.info("profiling: the step on one cached batch and on the real input, %d times", REPEATS)
        cached, real = bench.steps()
        log.info("profiling: each stage alone")
        stages = bench.stages()
        log.info("profiling: a trace of %d calls", TRACED_CALLS)
        bench.trace(trace)
    except tf.errors.OpError:
        data.train.check()  # if images cannot be decoded, says which
        raise
    stages["step"] = cached
    lost = 1 - cached / real
    decodes = isinstance(data.train, EncodedSplit)

    def rates(seconds: float) -> dict[str, float]:
        return {"seconds": seconds, "images_per_second": loop.batch_size / seconds}

    return {
        "verdict": verdict(
            lost, cached, stages["augment"], decodes=decodes, per_call=bench.per_call, cores=cores()
        ),
        "lost_to_input": lost,
        "cached": rates(cached),
        "real": rates(real),
        "stages": {name: rates(seconds) for name, seconds in stages.items()},
        "data": data.description.name,
        "model": config.model.name,
        "batch_size": loop.batch_size,
        "steps_per_call": bench.per_call,
        "devices": [d.name for d in tf.config.list_logical_devices()],
        "cores": cores(),
        "trace": str(trace),
    }


def verdict(
    lost: float, step: float, augment: float, *, decodes: bool, per_call: int, cores: int
) -> str:
    """What bounds a run and what is likely to help, in one sentence.

    ``lost`` is the share lost to input, ``step`` and ``augment`` are seconds, ``per_call`` is
    ``trainer.steps_per_call``; the rest is as for :func:`lottery.training.telemetry.remedy`.
    """
    if lost >= LOST:
        return f"input bounds this run, {100 * lost:.0f} % is lost to it: {remedy(decodes, cores)}"
    cost = f"{100 * lost:.0f} % is" if lost >= 0.005 else "nothing is"
    bound = f"the network bounds this run, {cost} lost to input"
    if step < SHORT_STEP and per_call == 1:
        return f"{bound}: its steps are short, so take several a call (trainer.steps_per_call=10)"
    if augment > step / 3:
        return f"{bound}; augmentation takes {100 * augment / step:.0f} % of its step"
    return (
        f"{bound}: trainer.jit_compile=true, a GPU with trainer.precision=mixed_bfloat16, or more "
        "GPUs may help"
    )


@dataclass(frozen=True)
class _Bench:
    """Measurements on one loop and its training split, each in seconds per optimizer step."""

    loop: Loop
    length: Length
    split: Split

    @property
    def per_call(self) -> int:
        """Steps of one call; an epoch's last call, with fewer, is left out."""
        return min(self.length.steps_per_call, self.length.steps_per_epoch)

    def steps(self) -> tuple[float, float]:
        """The step on one cached batch, and on the real input; medians of alternating repeats."""
        pixels, labels = cached_batch(
            self.loop, self.split, self.per_call, self.length.steps_per_epoch
        )

        def on_cached() -> None:
            self.loop.train(pixels, labels, 0)

        calls = _calls(on_cached)
        found: tuple[list[float], list[float]] = ([], [])
        for repeat in range(REPEATS):
            found[0].append(timed(on_cached, calls))
            # An epoch and iterator of its own: what an idle one had prefetched would flatter.
            warm = math.ceil(calls / 2)
            batches = self._batches(repeat + 1, warm + calls)

            on_real = functools.partial(self._train_next, batches)
            timed(on_real, warm)
            found[1].append(timed(on_real, calls))
        cached_seconds, real_seconds = map(statistics.median, found)
        return cached_seconds / self.per_call, real_seconds / self.per_call

    def stages(self) -> dict[str, float]:
        """The stages that this split has, each alone."""
        found = {}
        if isinstance(self.split, EncodedSplit):
            read, decode = _read_and_decode(self.split)
            found = {"read": read * self.loop.batch_size, "decode": decode * self.loop.batch_size}
        batches = self._host(0, (REPEATS + 1) * MOST_CALLS)
        found["pipeline"] = _median(lambda: next(batches)) / self.per_call

        (pixels, labels), step = next(self._host(0, 1)), tf.constant(0, tf.int64)
        copy = _median(lambda: (tf.identity(pixels), tf.identity(labels)))
        found["copy"] = copy / self.per_call
        images, place = self.loop.preprocessing, {"seed": self.loop.seed, "step": step}
        augment = tf.function(
            lambda batch: images.augmented(images.training(batch, **place), **place),
            jit_compile=True,  # as in the step
        )
        batch = tf.identity(pixels[0])
        found["augment"] = _median(lambda: augment(batch))
        return found

    def trace(self, folder: Path) -> None:
        """Leave the profile of a few calls on the real input for TensorBoard."""
        batches = self._batches(0, TRACED_CALLS + 1)
        self._train_next(batches)
        tf.profiler.experimental.start(str(folder))
        for call in range(TRACED_CALLS):
            with tf.profiler.experimental.Trace("train", step_num=call, _r=1):
                self._train_next(batches)
        tf.test.experimental.sync_devices()
        tf.profiler.experimental.stop()

    def _train_next(self, batches: Iterator[Any]) -> None:
        pixels, labels = next(batches)
        self.loop.train(pixels, labels, 0)

    def _batches(self, epoch: int, calls: int) -> Iterator[Any]:
        return self.loop.batches(
            self.split, self._chunks(epoch, calls), self.length.steps_per_epoch
        )

    def _host(self, epoch: int, calls: int) -> Iterator[Any]:
        """The same batches in main memory, undistributed."""
        return iter(
            self.split.training(
                self._chunks(epoch, calls),
                batch_size=self.loop.batch_size,
                steps_per_epoch=self.length.steps_per_epoch,
                seed=self.loop.seed,
            )
        )

    def _chunks(self, epoch: int, calls: int) -> list[Chunk]:
        """That many calls of the same length from the start of an epoch on."""
        spe = self.length.steps_per_epoch
        places = (divmod(call, spe // self.per_call) for call in range(calls))
        return [
            Chunk((epoch + later) * spe + i * self.per_call, self.per_call) for later, i in places
        ]


def _read_and_decode(split: EncodedSplit) -> tuple[float, float]:
    """Seconds an image to read its bytes and to decode them, in one thread; medians."""
    files = split.files()
    count = max(1, min(FILES, split.size // REPEATS))
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        started = time.perf_counter()
        encoded = [read() for _, read in itertools.islice(files, count)]
        between = time.perf_counter()
        for data in encoded:
            images.decode(data, split.image_shape)
        found[0].append((between - started) / count)
        found[1].append((time.perf_counter() - between) / count)
    read, decode = map(statistics.median, found)
    return read, decode


def _median(act: Callable[[], Any]) -> float:
    """Median seconds of a call."""
    calls = _calls(act)
    return statistics.median(timed(act, calls) for _ in range(REPEATS))


def _calls(act: Callable[[], Any]) -> int:
    """How many calls last long enough to be timed."""
    return max(2, enough(act, SECONDS, MOST_CALLS))
