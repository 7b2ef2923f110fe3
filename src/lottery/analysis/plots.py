"""The figures as PNG and SVG, and as PDF for a paper, drawn with matplotlib."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from lottery import files
from lottery.analysis import heatmaps, latencies
from lottery.analysis.canvas import (
    DASHES,
    MARKERS,
    Canvas,
    canvas,
    density_axis,
    legend_below,
    panels,
    unique,
    width_of,
    wrapped,
)
from lottery.analysis.figures import Accuracies, Band, Figures, Line

_TOP1 = "validation top-1, percent"
_FEW = 4  # lines that one plot shows well, where series and rewind points both differ


def write(
    drawn: Figures, speeds: Sequence[latencies.Line], folder: Path, columns: int | None = None
) -> list[Path]:
    """Write the figures that there are data for, for a screen or so many ``columns`` of a paper.

    ``accuracy``, ``accuracy_near_dense``, the same of test data, ``heatmap``, ``layers``,
    ``curves``, ``cost`` and ``latency``.
    """
    on = canvas(columns)
    written = []
    with plt.rc_context(on.style):
        for name, figure in figures(drawn, speeds, on):
            figure.draw_without_rendering()  # lays it out, once for all formats
            figure.set_layout_engine("none")
            for suffix in on.suffixes:
                path = folder / f"{name}.{suffix}"
                with files.replacing(path) as temporary:
                    figure.savefig(temporary, dpi=on.dpi, format=suffix)
                written.append(path)
            plt.close(figure)
    return written


def figures(
    drawn: Figures, speeds: Sequence[latencies.Line], on: Canvas
) -> Iterator[tuple[str, Any]]:
    """The same by name, not drawn yet. Needs the style of the canvas."""
    for accuracies, name in ((drawn.accuracy, "accuracy"), (drawn.test, "accuracy_test")):
        if accuracies.lines:
            yield name, _accuracy(accuracies, drawn, on, None)
            if accuracies.close:
                yield f"{name}_near_dense", _accuracy(accuracies, drawn, on, accuracies.close)
    if drawn.accuracy.lines:
        yield "heatmap", heatmaps.figure(drawn, on)
    if drawn.layers:
        yield "layers", _layers(drawn, on)
    if drawn.curves:
        yield "curves", _curves(drawn, on)
    if drawn.minutes:
        yield "cost", _cost(drawn, on)
    if speeds:
        yield "latency", _latency(speeds, drawn.share, on)


def _accuracy(
    accuracies: Accuracies, drawn: Figures, on: Canvas, close: tuple[float, float] | None
) -> Any:
    """All lines in one plot or, where they are too many, a plot for each series.

    ``close`` is the range of accuracies to show; None: all.
    """
    lines = accuracies.lines
    series = list(dict.fromkeys(line.series for line in lines))
    apart = len(series) > 1 and (
        len(accuracies.bands) > 1
        or (len(lines) > _FEW and any(line.start != lines[0].start for line in lines))
    )
    rows, across = panels(len(series), _most(on)) if apart else (1, 1)
    wide = on.width if apart or on.paper else 7.0
    each = wide / across - (0.55 if on.paper else 0.75)
    size = max(0.8 * each, 1.1) if apart else min(0.75 * each, 3.6)
    titles = [wrapped(name, each, on.small) for name in series] if apart else []
    heads = max((title.count("\n") + 1 for title in titles), default=0 if on.paper else 1)
    label = wrapped(f"{accuracies.split} top-1, percent", size + on.lines(heads), on.text)
    figure, axes = plt.subplots(
        rows, across, figsize=(wide, rows * (size + on.lines(heads) + 0.15) + on.lines(5)),
        layout="constrained", squeeze=False, sharex=apart, sharey=apart,
    )  # fmt: skip
    densities = [dot.x for line in lines for dot in line.dots]
    for number, ax in enumerate(axes.flat):
        if apart and number >= len(series):
            ax.set_visible(False)
            continue
        own = [x for x in lines if not apart or x.series == series[number]]
        bands = [b for b in accuracies.bands if not apart or series[number] in b.series]
        _bands(ax, bands, drawn.tolerance, alone=apart)
        for line in own:
            _draw(ax, line, DASHES[line.dash % len(DASHES)], alone=apart)
        density_axis(ax, densities, drawn.share, each, on)
        if close:
            ax.set_ylim(*close)
        if apart:
            ax.set_title(titles[number], fontsize=on.small)
            ax.tick_params(labelbottom=number + across >= len(series))
        last = not apart or number + across >= len(series)
        ax.set_xlabel(ax.get_xlabel() if last else "")
        ax.set_ylabel(label if number % across == 0 else "")
    if not apart and not on.paper:
        near = ", near dense" if close else ""
        axes[0][0].set_title(f"{accuracies.split.capitalize()} accuracy against density{near}")
    _legend(figure, on, axes.flat)
    return figure


def _most(on: Canvas) -> int:
    """Small plots side by side."""
    return 2 if on.width < 5 else 4


def _legend(figure: Any, on: Canvas, axes: Iterable[Any]) -> None:
    entries = [ax.get_legend_handles_labels() for ax in axes]
    handles = [h for found, _ in entries for h in found]
    labels = [text for _, found in entries for text in found]
    handles, labels = unique((handles, labels))
    if labels:
        legend_below(figure, on, handles, labels)


def _bands(ax: Any, bands: Sequence[Band], tolerance: float, *, alone: bool) -> None:
    for band in bands:
        label = "dense" if alone else band.label
        if band.sd is not None:
            label = f"{label} (mean ± sd over seeds)"
            ax.axhspan(band.mean - band.sd, band.mean + band.sd, color="0.85", lw=0)
        ax.axhline(band.mean, color="0.25", lw=1.2, label=label)
        ax.axhline(
            band.mean - tolerance, color="0.25", lw=0.8, ls=":",
            label=f"tolerance ({tolerance:g} below dense)",
        )  # fmt: skip


def _draw(ax: Any, line: Line, style: str, *, alone: bool = False) -> None:
    """``alone``: beside lines of its series only."""
    x, y = [d.x for d in line.dots], [d.y for d in line.dots]
    sd = [d.sd or 0.0 for d in line.dots]
    ax.errorbar(
        x, y, yerr=sd if any(sd) else None, label=(line.start if alone else line.label) or "ticket",
        color=line.start_colour if alone else line.colour, ls=style,
        marker=MARKERS[line.marker % len(MARKERS)], capsize=2, elinewidth=0.8,
    )  # fmt: skip
    for dot in line.dots:
        if dot.winner:
            ax.plot(dot.x, dot.y, "*", ms=12, mfc="#F0E442", mec="black", zorder=5, ls="none",
                    label="winning ticket")  # fmt: skip


def _single(wide: float, title: str, ylabel: str, on: Canvas) -> tuple[Any, Any]:
    """A figure of one plot, high enough for its label."""
    title = wrapped(title, wide - 0.2, on.small)
    head = on.lines(title.count("\n") + 1) if title else 0.0
    tall = max(min(0.5 * wide, 3.4), width_of(ylabel, on.text) + 0.1)
    figure, ax = plt.subplots(figsize=(wide, tall + head + on.lines(4)), layout="constrained")
    ax.set_ylabel(ylabel)
    if title:
        figure.suptitle(title, fontsize=on.small, x=0.02, ha="left")
    return figure, ax


def _layers(drawn: Figures, on: Canvas) -> Any:
    layers = drawn.layers
    assert layers is not None
    wide = min(on.width, 7.5)
    title = layers.title if on.paper else f"Density by layer, input first\n{layers.title}"
    title = wrapped(title, wide - 0.2, on.small)
    names = [wrapped(name, 0.35 * wide, on.small) for name in layers.names]
    tall = sum(1.35 * on.lines(name.count("\n") + 1) for name in names)
    head = on.lines(title.count("\n") + 1)
    figure, ax = plt.subplots(
        figsize=(wide, max(tall, 0.8) + head + on.lines(4)), layout="constrained"
    )
    ax.barh(range(len(names)), layers.densities, color="#0072B2", height=0.72)
    for n, density in enumerate(layers.densities):
        ax.annotate(
            f"{density:.3g}", (density, n), (3, 0), textcoords="offset points", va="center",
            fontsize=7, bbox={"fc": "white", "ec": "none", "pad": 0.5},
        )  # fmt: skip
    ax.axvline(layers.overall, color="#D55E00", lw=1.2, label=f"all: {layers.overall:.4g} %")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.margins(y=0.01)
    # Room for the numbers, where a bar is as long as the axis.
    ax.set_xlim(0, (1.3 if on.width < 5 else 1.15) * max(*layers.densities, layers.overall))
    ax.set_xticks([t for t in ax.get_xticks() if t <= min(100, ax.get_xlim()[1])])
    ax.set_xlabel("weights left in the layer, percent")
    figure.suptitle(title, fontsize=on.small, x=0.02, ha="left")
    legend_below(figure, on, *ax.get_legend_handles_labels())
    return figure


def _curves(drawn: Figures, on: Canvas) -> Any:
    group = drawn.shown if drawn.shown in drawn.curves else next(iter(drawn.curves))
    title = f"Learning curves{', ' if group else ''}{group}"
    figure, ax = _single(min(on.width, 8), group if on.paper else title, _TOP1, on)
    for curve in drawn.curves[group]:
        ax.plot(
            curve.epochs, curve.values, color=curve.colour, label=curve.label,
            lw={"dense": 1.5, "winner": 2.1, "ticket": 0.8}[curve.role] * (1 if on.paper else 1.3),
            ls="--" if curve.role == "dense" else "-",
            marker="o" if len(curve.epochs) == 1 else None,
        )  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.grid(alpha=0.25)
    legend_below(figure, on, *ax.get_legend_handles_labels())
    return figure


def _cost(drawn: Figures, on: Canvas) -> Any:
    across = 1 if on.width < 5 else 2
    each = on.width / across - 0.8
    figure, axes = plt.subplots(
        2 // across, across, figsize=(on.width, 2 // across * min(0.75 * each, 3.6) + 0.6),
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for ax, lines, label in (
        (axes.flat[0], drawn.minutes, "retraining time, minutes"),
        (axes.flat[1], drawn.throughput, "images per second"),
    ):
        for line in lines:
            _draw(ax, line, "none")
        densities = [dot.x for line in lines for dot in line.dots]
        density_axis(ax, densities, drawn.share, each, on)
        ax.set_ylim(bottom=0)
        ax.set_ylabel(label)
    if not on.paper:
        axes.flat[0].set_title("Time and throughput of every cell")
    _legend(figure, on, axes.flat)
    return figure


def _latency(lines: Sequence[latencies.Line], share: str, on: Canvas) -> Any:
    wide = min(on.width, 7.5)
    title = f"{lines[0].group}\nmedian and quartiles; dense at 100 %"
    title = title if on.paper else f"Latency against density: {title}"
    figure, ax = _single(wide, title, "latency of a batch, ms (log scale)", on)
    for line in lines:
        x, y = [d.density for d in line.dots], [d.time.median for d in line.dots]
        below = [max(d.time.median - d.time.low, 0) for d in line.dots]
        above = [max(d.time.high - d.time.median, 0) for d in line.dots]
        ax.errorbar(
            x, y, yerr=(below, above), label=line.label, color=line.colour,
            marker=MARKERS[line.marker % len(MARKERS)], capsize=2, elinewidth=0.8,
        )  # fmt: skip
        ax.plot(x, [d.ideal for d in line.dots], color=line.colour, lw=1, ls=":")
    ax.plot([], [], color="0.3", lw=1, ls=":", label="dotted: by multiply-adds alone")
    ax.set_yscale("log")
    densities = [dot.density for line in lines for dot in line.dots]
    density_axis(ax, densities, share, wide - 0.8, on)
    bottom, top = ax.get_ylim()
    times = [t for t in latencies.ticks(lines) if bottom <= t <= top]
    ax.set_yticks(times, [f"{t:g}" for t in times])
    _legend(figure, on, [ax])
    return figure
