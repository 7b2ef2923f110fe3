"""How long a dense network and its ticket take, in turn, so that the machine cancels out."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lottery.errors import ExportError
from lottery.export.interpreter import Interpreter
from lottery.export.names import Precision

Runtime = Literal["litert", "keras", "browser"]

WARMUP = 3  # rounds that do not count: XNNPACK packs weights, TensorFlow traces
FEWEST = 10  # rounds, however long they take


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call: median and quartiles."""

    median_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True)
class Comparison:
    """A dense network against its ticket in one alternating run."""

    runtime: Runtime
    precision: Precision
    batch: int
    threads: int
    dense: Latency
    ticket: Latency
    speedup: float
    """Median of dense over median of ticket."""


def compare(
    runtime: Runtime,
    milliseconds: Mapping[str, Sequence[float]],
    *,
    precision: Precision = "float32",
    batch: int = 1,
    threads: int = 1,
) -> Comparison:
    """What the times of ``dense`` and ``ticket`` in ``milliseconds`` amount to."""
    dense, ticket = (summary(milliseconds[name]) for name in ("dense", "ticket"))
    speedup = dense.median_ms / ticket.median_ms
    return Comparison(runtime, precision, batch, threads, dense, ticket, speedup)


def summary(milliseconds: Sequence[float]) -> Latency:
    """Median and quartiles of at least two times."""
    low, _, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return Latency(statistics.median(milliseconds), low, high)


def alternating(
    variants: Mapping[str, Callable[[], object]], seconds: float
) -> dict[str, list[float]]:
    """Milliseconds of each call; a round calls every variant once.

    After some rounds of warm-up it takes about ``seconds``, but at least :data:`FEWEST` rounds.
    """
    for _ in range(WARMUP):
        for call in variants.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in variants}
    ends, rounds = time.perf_counter() + seconds, 0
    while rounds < FEWEST or time.perf_counter() < ends:
        for name, call in variants.items():
            started = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - started))
        rounds += 1
    return times


def litert(
    dense: Path,
    ticket: Path,
    *,
    precision: Precision = "float32",
    batch: int = 1,
    threads: int = 1,
    seconds: float = 2.0,
) -> Comparison:
    """Two LiteRT files on this machine's CPU, with XNNPACK on ``threads`` threads.

    The input is noise, set once. Raises :class:`ExportError` for a file that does not run.
    """
    calls: dict[str, Callable[[], object]] = {}
    for name, file in (("dense", dense), ("ticket", ticket)):
        interpreter = Interpreter(file, batch=batch, threads=threads)
        interpreter.feed(np.random.default_rng(0).standard_normal(interpreter.input.shape))
        calls[name] = interpreter.invoke
    times = alternating(calls, seconds)
    return compare("litert", times, precision=precision, batch=batch, threads=threads)


def keras(
    dense: Path,
    ticket: Path,
    *,
    batches: Sequence[int] = (1, 32),
    threads: int = 1,
    seconds: float = 2.0,
) -> list[Comparison]:
    """Two ``.keras`` files as compiled functions of TensorFlow, one comparison for each batch size.

    TensorFlow's number of threads is fixed when it starts, so this is a process of its own. Raises
    :class:`ExportError` if that fails.
    """
    task = {
        "dense": str(dense), "ticket": str(ticket),
        "batches": list(batches), "threads": threads, "seconds": seconds,
    }  # fmt: skip
    process = subprocess.run(
        [sys.executable, "-m", "lottery.export.keras_latency", json.dumps(task)],
        capture_output=True,
        text=True,
    )
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ExportError(f"TensorFlow did not run {dense} and {ticket}: {reason}")
    times = json.loads(process.stdout.splitlines()[-1])
    return [compare("keras", times[str(b)], batch=b, threads=threads) for b in batches]
