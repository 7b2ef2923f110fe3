"""The table of docs/performance.md: every figure of the path from JPEGs to training, one command.

python benchmarks/performance.py --data <class folders of JPEGs> [--rounds 3] [--scratch DIR]

Runs the other benchmarks one after the other, forty minutes on two cores, and prints Markdown.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run(*arguments):
    """The JSON lines that a benchmark prints."""
    command = [sys.executable, HERE / arguments[0], *arguments[1:]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, end="", file=sys.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def speed(line, name):
    """How many times as fast as the line's baseline."""
    return 1 / line["ratios"][name]


def row(what, target, measured, detail=""):
    print(f"| {what} | {target} | {measured} | {detail} |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", default="3")
    parser.add_argument("--scratch", default=None, help="where `growth` may write 20 GB")
    options = parser.parse_args()
    common = ["--data", options.data, "--rounds", options.rounds]

    stages, fed = run("input_pipeline.py", "stages", *common)
    print("| what | target | measured | |\n|---|---|---|---|")
    rates = stages["images_per_second"]
    for name, detail in (
        ("offline: records", "what the host does, uint8 to the device"),
        ("records, augmented here", "and random-resized crop, flip, normalise on the same cores"),
    ):
        row(f"input, {name}, against naive tf.data from JPEGs", "≥ 8x",
            f"{speed(stages, name):.1f}x", f"{rates[name]:,} images/s; {detail}")  # fmt: skip
    for line in run("input_pipeline.py", "augmentation", "--rounds", options.rounds):
        compiled, plain = "per batch, compiled (ours)", "per batch, TensorFlow's kernels"
        row(f"augmentation per batch against per example, {line['size']} px", "≥ 3x",
            f"{speed(line, compiled):.1f}x", f"{speed(line, plain):.1f}x without XLA")  # fmt: skip
    source = ["preprocessing.py", "--source", options.data, "--rounds", options.rounds]
    once, tfds = run(*source)
    (more,) = run(*source, "--copies", "4", "--slow-rounds", "0")
    for spark in (once, more):
        row(f"Spark local[2], {spark['images']:,} images, against a bare pool of two", "≥ 0.85x",
            f"{speed(spark, 'Spark'):.2f}x",
            f"without Spark {speed(spark, 'processes'):.2f}x")  # fmt: skip
    row(f"Spark local[2], {tfds['images']:,} images, against TFDS's builder", "≥ 5x",
        f"{tfds['ratios']['TFDS']:.1f}x")  # fmt: skip
    (line,) = run("mirrored_step.py", "--rounds", options.rounds)
    row("masked / dense step, MirroredStrategy, 2 virtual devices", "≤ 1.03",
        f"{line['ratios']['masked']:.2f}")  # fmt: skip
    (line,) = run("input_pipeline.py", "training", *common)
    row("training throughput, records against one cached batch", "≥ 0.95x",
        f"{speed(line, 'records'):.2f}x")  # fmt: skip

    print("\n| stage | images/s of the input alone | images/s of a device that could take 2,000 |")
    print("|---|---|---|")
    for name, rate in fed["images_per_second"].items():
        print(f"| {name} | {rates[name]:,} | {rate:,} ({rate / 2000:.0%} busy) |")
    if options.scratch:
        print("\n| records | images/s | memory of its own, MiB |\n|---|---|---|")
        for line in run("input_pipeline.py", "growth", "--scratch", options.scratch):
            print(f"| {line['records']:,} | {line['images_per_second']:,} | "
                  f"{line['own_memory_mib']:,} |")  # fmt: skip


if __name__ == "__main__":
    main()
