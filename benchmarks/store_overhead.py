"""What a sweep cell that is already done costs beyond Hydra's own start-up.

python benchmarks/store_overhead.py [--rounds 10]

Whole processes, alternating: ``prune.py --cfg job`` (compose and print) against ``prune.py`` on a
finished study.
"""

import argparse
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
            "trainer.epochs=1", "rewind.epoch=0", "logger=csv", f"paths.outputs={folder}",
        ]  # fmt: skip

        def run(*extra):
            return lambda: subprocess.run([*command, *extra], check=True, capture_output=True)

        seconds = alternating({"hydra": run("--cfg", "job"), "done cell": run()}, rounds)
    extra = sorted(b - a for a, b in zip(seconds["hydra"], seconds["done cell"], strict=True))
    report("store_overhead", "hydra", seconds, median_extra_seconds=round(extra[rounds // 2], 3))


if __name__ == "__main__":
    main()
