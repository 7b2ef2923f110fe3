"""Dense against ticket: what is counted, what is measured, and what the two say in plain words."""

import dataclasses
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lottery.errors import BrowserError
from lottery.export import browser as chromium
from lottery.export import latency, memory
from lottery.models import cost

if TYPE_CHECKING:
    import keras

BATCHES = (1, 32)
THREADS = (1, 2)


@dataclass(frozen=True)
class Exported:
    """A network, its files by name, and what there is to say of each."""

    model: "keras.Model"
    paths: Mapping[str, Path]
    files: Mapping[str, Mapping[str, Any]]

    @property
    def counts(self) -> dict[str, Any]:
        """Parameters and multiply-adds of the network; sizes and accuracies of its files."""
        return {
            "parameters": cost.parameters(self.model),
            "nonzero_parameters": sum(
                int(np.count_nonzero(np.asarray(v))) for v in self.model.weights
            ),
            "multiply_adds": cost.multiply_adds(self.model),
            "surviving_multiply_adds": cost.surviving_multiply_adds(self.model),
            "files": {n: {"bytes": f["bytes"], "gzip": f["gzip"]} for n, f in self.files.items()},
            "accuracy": {n: f["accuracy"] for n, f in self.files.items() if f["accuracy"]},
        }


def measure(
    dense: Exported,
    ticket: Exported,
    *,
    seconds: float,
) -> dict[str, Any]:
    """Counts, sizes, latencies (dense and ticket in turn) and memory: what ``benchmark.json`` has.

    ``seconds`` are those of each comparison. The browser is for :func:`with_browser` to add.
    """
    comparisons = list(_litert(dense, ticket, seconds))
    comparisons += _keras(dense, ticket, seconds)
    return {
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "browser": None},
        "models": {"dense": dense.counts, "ticket": ticket.counts},
        "latency": [dataclasses.asdict(c) for c in comparisons],
        "browser": {"missing": "not asked for"},
        "memory": {
            name: {
                which: memory.peak(exported.paths[name])
                for which, exported in (("dense", dense), ("ticket", ticket))
            }
            for name in ticket.paths
            if name.startswith(("litert", "keras"))
        },
    }


def with_browser(
    measured: Mapping[str, Any],
    dense: Exported,
    ticket: Exported,
    *,
    image: NDArray[np.float32],
    expected: NDArray[np.float32],
    seconds: float,
) -> dict[str, Any]:
    """What :func:`measure` found, with the latencies of the LiteRT files in a browser.

    ``image`` [H, W, C] is an input of the files, and ``expected`` [classes] what Keras's ticket
    makes of it. Raises :class:`BrowserError` if the browser is missing or fails.
    """
    try:
        found = _browser(dense, ticket, image, expected, seconds)
    except OSError as error:  # no port or no temporary folder for the page
        raise BrowserError(str(error)) from error
    if not found:
        return {**measured, "browser": {"missing": "there is no LiteRT file to run in it"}}
    return {
        **measured,
        "machine": {**measured["machine"], "browser": _chromium()},
        "latency": measured["latency"] + [dataclasses.asdict(c) for c, _ in found],
        "browser": {"largest_difference": {c.precision: value for c, value in found}},
    }


def _litert(dense: Exported, ticket: Exported, seconds: float) -> Iterator[latency.Comparison]:
    for name, path in ticket.paths.items():
        if not name.startswith("litert"):
            continue
        for batch in BATCHES:
            for threads in THREADS:
                yield latency.litert(
                    dense.paths[name],
                    path,
                    precision=name.removeprefix("litert-"),  # type: ignore[arg-type]
                    batch=batch,
                    threads=threads,
                    seconds=seconds,
                )


def _keras(dense: Exported, ticket: Exported, seconds: float) -> list[latency.Comparison]:
    if "keras" not in ticket.paths:
        return []
    return [
        comparison
        for threads in THREADS
        for comparison in latency.keras(
            dense.paths["keras"],
            ticket.paths["keras"],
            batches=BATCHES,
            threads=threads,
            seconds=seconds,
        )
    ]


def _browser(
    dense: Exported,
    ticket: Exported,
    image: NDArray[np.float32],
    expected: NDArray[np.float32],
    seconds: float,
) -> list[tuple[latency.Comparison, float]]:
    """Comparisons, each with the largest difference of the ticket's outputs from Keras's."""
    found = []
    for name, path in ticket.paths.items():
        if not name.startswith("litert"):
            continue
        trials = chromium.run({"dense": dense.paths[name], "ticket": path}, image, seconds=seconds)
        comparison = latency.compare(
            "browser",
            {which: trial.milliseconds for which, trial in trials.items()},
            precision=name.removeprefix("litert-"),  # type: ignore[arg-type]
        )
        found.append((comparison, float(np.abs(trials["ticket"].logits - expected).max())))
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _chromium() -> str | None:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        return "Chromium of Playwright"
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    return " ".join(said.split()[:2]) or None
