"""Ratios of alternating runs: the only figures that a noisy machine gives reliably."""

import json
import statistics
import time
from collections.abc import Callable


def alternating(variants: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round; one round runs every variant once, after a warm-up."""
    for run in variants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ratios(seconds: dict[str, list[float]], baseline: str) -> dict[str, float]:
    """Median over the rounds of each variant's time over the baseline's in the same round."""
    base = seconds[baseline]
    return {
        name: round(statistics.median(a / b for a, b in zip(own, base, strict=True)), 4)
        for name, own in seconds.items()
    }


def report(benchmark: str, baseline: str, seconds: dict[str, list[float]], **facts: object) -> None:
    """Print one JSON line: median seconds and ratios."""
    medians = {name: round(statistics.median(own), 5) for name, own in seconds.items()}
    line = {
        "benchmark": benchmark,
        "ratio_to": baseline,
        "ratios": ratios(seconds, baseline),
        "median_seconds": medians,
        "rounds": len(next(iter(seconds.values()))),
        **facts,
    }
    print(json.dumps(line))
