"""The picture of a sweep of stability.py: barriers by rewind point, and errors along the lines."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lottery import files
from lottery.analysis.canvas import MARKERS, SCREEN, wrapped
from lottery.analysis.stability import TITLES, Place
from lottery.barriers import INTERPOLATED, RECOMPUTED, STABLE, STATISTICS

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
PANELS = 3  # of errors along lines: one for each of the first series


def write(found: Sequence[Place], folder: Path) -> list[Path]:
    """Write ``barrier.png`` and ``barrier.svg``."""
    written = []
    with plt.rc_context(SCREEN.style):
        figure = _figure(found)
        for suffix in ("png", "svg"):
            path = folder / f"barrier.{suffix}"
            with files.replacing(path) as temporary:
                figure.savefig(temporary, dpi=150, format=suffix)
            written.append(path)
        plt.close(figure)
    return written


def _figure(found: Sequence[Place]) -> Any:
    series = list(dict.fromkeys(place.series for place in found))
    shown = series[:PANELS]
    figure, axes = plt.subplots(
        1, 1 + len(shown), figsize=(5.2 * (1 + len(shown)), 4.4), layout="constrained"
    )
    _barriers(axes[0], found, series)
    for ax in axes[2:]:
        ax.sharey(axes[1])
    for ax, name in zip(axes[1:], shown, strict=True):
        _lines(ax, [place for place in found if place.series == name])
        title = f"Error along the line{': ' if name else ''}{name}"
        ax.set_title(wrapped(title, 4.4, SCREEN.text + 1))
    return figure


def _barriers(ax: Any, found: Sequence[Place], series: Sequence[str]) -> None:
    """Points stand side by side: they are rarely spread evenly over the training."""
    points = sorted({place.point for place in found})
    kinds = [kind for kind in STATISTICS if any(place.values(kind, "val") for place in found)]
    for number, name in enumerate(series):
        for kind in kinds:
            own = [p for p in found if p.series == name and p.values(kind, "val")]
            values = [p.values(kind, "val") for p in own]
            sd = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
            label = ", ".join(filter(None, [name, TITLES[kind] if len(kinds) > 1 else ""]))
            ax.errorbar(
                [points.index(p.point) for p in own], list(map(statistics.fmean, values)),
                yerr=sd if any(sd) else None, label=wrapped(label or "barrier", 3.5, SCREEN.small),
                color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)],
                ls="--" if kind == INTERPOLATED and len(kinds) > 1 else "-",
                mfc="white" if kind == INTERPOLATED and len(kinds) > 1 else None,
                ms=5, lw=1.4, capsize=2, elinewidth=0.8,
            )  # fmt: skip
    ax.axhline(STABLE, color="0.35", lw=1, ls=":", label=f"stable below {STABLE:g}")
    ax.set_xticks(range(len(points)), [point.label for point in points])
    ax.set_xlim(-0.3, len(points) - 0.7)
    ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
    ax.set_xlabel("rewound to epoch (not to scale)")
    ax.set_ylabel("barrier, points of validation error")
    ax.set_title("Barrier between two children")
    ax.grid(axis="y", alpha=0.25)
    ax.legend(frameon=False)


def _lines(ax: Any, places: Sequence[Place]) -> None:
    """The statistics that decide; early points dark, late ones light."""
    colours = plt.get_cmap("viridis")
    for number, place in enumerate(places):
        kind = RECOMPUTED if place.values(RECOMPUTED, "val") else INTERPOLATED
        if errors := place.errors(kind, "val"):
            share = number / max(len(places) - 1, 1)
            shares = place.lines[0].shares
            ax.plot(shares, errors, color=colours(0.9 * share), lw=1.6, label=place.point.label)
    ax.set_xticks([0, 0.5, 1], ["child 1", "halfway", "child 2"])
    ax.margins(y=0.1)
    ax.set_ylabel("validation error, percent")
    ax.grid(axis="y", alpha=0.25)
    ax.legend(frameon=False, title="rewound to epoch", ncols=2)
