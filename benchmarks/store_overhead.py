"""What a sweep cell that is already done costs beyond Hydra's own start-up.

python benchmarks/store_overhead.py [--rounds 10]

Whole processes, alternating: a sweep of one finished cell against one of eleven. A tenth of the
difference is what a cell costs, Hydra's composition of it included. ``prune.py --cfg job`` (compose
and print) shows what a process costs before it starts.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import alternating, report

ROOT = Path(__file__).parents[1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, str(ROOT / "prune.py"), "model=lenet_300_100", "model.width=0.1",
            "trainer.epochs=1", "rewind.epoch=0", "logger=csv", "sweep.report=false",
            f"paths.outputs={folder}",
        ]  # fmt: skip

        def run(*extra):
            line = [*command[:2], *extra, *command[2:]]
            return lambda: subprocess.run(line, check=True, capture_output=True)

        seconds = alternating(
            {
                "hydra": run("--cfg", "job"),
                "one done cell": run("-m", "mask.percentile=50"),
                "eleven done cells": run("-m", "mask.percentile=50,51,...,60"),
            },
            rounds,
        )
    pairs = zip(seconds["one done cell"], seconds["eleven done cells"], strict=True)
    cell = statistics.median((eleven - one) / 10 for one, eleven in pairs)
    report("store_overhead", "hydra", seconds, seconds_per_done_cell=round(cell, 3))


if __name__ == "__main__":
    main()
