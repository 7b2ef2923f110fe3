"""Ratios of alternating runs: the only figures that a noisy machine gives reliably."""

import json
import statistics

from lottery.training.timing import alternating as alternating
from lottery.training.timing import ratios


def report(benchmark: str, baseline: str, seconds: dict[str, list[float]], **facts: object) -> None:
    """Print one JSON line: median seconds and ratios."""
    medians = {name: round(statistics.median(own), 5) for name, own in seconds.items()}
    line = {
        "benchmark": benchmark,
        "ratio_to": baseline,
        "ratios": {n: round(r, 4) for n, r in ratios(seconds, baseline).items()},
        "median_seconds": medians,
        "rounds": len(next(iter(seconds.values()))),
        **facts,
    }
    print(json.dumps(line))
