"""The figures as PNG and SVG, drawn with matplotlib."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import TwoSlopeNorm

from lottery import files
from lottery.analysis import latencies
from lottery.analysis.figures import Figures, Heat, Line, colour_range, round_densities

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("-", "--", ":", "-.")
STYLE = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 11, "axes.titlelocation": "left", "svg.hashsalt": "lottery",
    "text.parse_math": False,  # names may hold dollar signs
}  # fmt: skip


def write(drawn: Figures, speeds: Sequence[latencies.Line], folder: Path) -> list[Path]:
    """Write ``accuracy``, ``heatmap``, ``layers``, ``curves``, ``cost`` and ``latency``.

    Each is written as PNG and as SVG. Those without data are not written.
    """
    makers: dict[str, tuple[bool, Callable[[Figures], Any]]] = {
        "accuracy": (bool(drawn.accuracy), _accuracy),
        "heatmap": (bool(drawn.accuracy), _heatmaps),
        "layers": (drawn.layers is not None, _layers),
        "curves": (bool(drawn.curves), _curves),
        "cost": (bool(drawn.minutes), _cost),
        "latency": (bool(speeds), lambda drawn: _latency(speeds, drawn.share)),
    }
    written = []
    with plt.rc_context(STYLE):
        for name, (possible, make) in makers.items():
            if possible:
                figure = make(drawn)
                for suffix in ("png", "svg"):
                    path = folder / f"{name}.{suffix}"
                    with files.replacing(path) as temporary:
                        figure.savefig(temporary, dpi=150, format=suffix)
                    written.append(path)
                plt.close(figure)
    return written


def _accuracy(drawn: Figures) -> Any:
    """Everything on the left; on the right, if collapsed tickets dwarf them, those near dense."""
    columns = 2 if drawn.close else 1
    figure, axes = plt.subplots(
        1, columns, figsize=(6.5 * columns, 4.6), layout="constrained", squeeze=False
    )
    for ax in axes[0]:
        for band in drawn.bands:
            ax.axhline(band.mean, color="0.25", lw=1.2, label=_band_label(band.label, band.sd))
            if band.sd is not None:
                ax.axhspan(band.mean - band.sd, band.mean + band.sd, color="0.85", lw=0)
            ax.axhline(band.mean - drawn.tolerance, color="0.25", lw=0.8, ls=":",
                       label=f"tolerance ({drawn.tolerance:g} below dense)")  # fmt: skip
        for line in drawn.accuracy:
            _draw(ax, line, DASHES[line.dash % len(DASHES)])
        _density_axis(ax, [dot.x for line in drawn.accuracy for dot in line.dots], drawn.share)
        ax.set_ylabel("validation top-1, percent")
    axes[0][0].set_title("Accuracy against density")
    if drawn.close:
        axes[0][1].set_title("The same, near dense")
        axes[0][1].set_ylim(*drawn.close)
    handles, labels = axes[0][0].get_legend_handles_labels()
    columns = legend_columns(labels, figure.get_figwidth(), most=4)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def legend_columns(labels: Sequence[str], inches: float, most: int) -> int:
    """How many columns of labels fit into a width, at a dozen letters an inch."""
    longest = 8 + max(map(len, labels), default=0)  # with the line before, and the space between
    return max(1, min(most, int(12 * inches / longest)))


def _draw(ax: Any, line: Line, style: str) -> None:
    x, y = [d.x for d in line.dots], [d.y for d in line.dots]
    sd = [d.sd or 0.0 for d in line.dots]
    ax.errorbar(
        x, y, yerr=sd if any(sd) else None, label=line.label, color=line.colour, ls=style,
        marker=MARKERS[line.marker % len(MARKERS)], ms=4, lw=1.3, capsize=2, elinewidth=0.8,
    )  # fmt: skip
    for dot in line.dots:
        if dot.winner:
            ax.plot(dot.x, dot.y, "*", ms=16, mfc="#F0E442", mec="black", zorder=5, ls="none",
                    label="winning ticket")  # fmt: skip


def _density_axis(ax: Any, densities: Sequence[float], share: str) -> None:
    ax.set_xscale("log")
    ax.invert_xaxis()
    ticks = round_densities(densities)
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.set_xlabel(f"{share}, percent (log scale, sparser to the right)")
    ax.grid(alpha=0.25)


def _heatmaps(drawn: Figures) -> Any:
    heats = drawn.heats
    rows, columns = max(len(h.grid.rows) for h in heats), max(len(h.grid.columns) for h in heats)
    across = min(len(heats), 4)
    down = -(-len(heats) // across)
    names = max(len(name) for h in heats for name in h.grid.rows)
    size = (
        across * (1.4 + 0.07 * names + 0.75 * columns) + 1.6,
        down * max(1.2 + 0.3 * rows, 2.2) + 0.6,
    )
    figure, axes = plt.subplots(
        down, across, figsize=(max(size[0], 5.5), size[1]), layout="constrained", squeeze=False
    )
    norm = TwoSlopeNorm(*colour_range(drawn))
    for ax, heat in zip(axes.flat, heats, strict=False):
        image = _heatmap(ax, heat, norm)
    for ax in axes.flat[len(heats) :]:
        ax.set_visible(False)
    title = "Validation top-1 in percent; framed: the winning ticket"
    if any(text.endswith("?") for heat in heats for row in heat.text for text in row):
        title += "; ?: fewer seeds than others"
    figure.suptitle(title, fontsize=11)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, extend="both")
    bar.set_label("points from dense (white: the tolerance)")
    return figure


def _heatmap(ax: Any, heat: Heat, norm: Any) -> Any:
    values = [[float("nan") if d is None else d for d in row] for row in heat.difference]
    image = ax.imshow(values, cmap="RdBu", norm=norm, aspect="auto")
    ax.set_facecolor("0.92")
    for y, row in enumerate(heat.text):
        for x, text in enumerate(row):
            value = heat.difference[y][x]
            strong = value is not None and abs(norm(value) - 0.5) > 0.32
            ax.text(x, y, text, ha="center", va="center", fontsize=8,
                    color="white" if strong else "black")  # fmt: skip
    if heat.winner:
        y, x = heat.winner
        ax.add_patch(plt.Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, lw=2.5, ec="black"))
    ax.set_xticks(range(len(heat.grid.columns)), heat.grid.columns)
    ax.set_yticks(range(len(heat.grid.rows)), heat.grid.rows)
    ax.set_xlabel(heat.grid.across)
    ax.set_ylabel(heat.grid.down)
    ax.set_title(heat.grid.series or None, fontsize=9)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return image


def _layers(drawn: Figures) -> Any:
    layers = drawn.layers
    assert layers is not None
    figure, ax = plt.subplots(
        figsize=(7.5, max(2.4, 1.2 + 0.2 * len(layers.names))), layout="constrained"
    )
    ax.barh(range(len(layers.names)), layers.densities, color="#0072B2", height=0.72)
    for n, density in enumerate(layers.densities):
        ax.annotate(
            f"{density:.3g}", (density, n), (3, 0), textcoords="offset points", va="center",
            fontsize=7, bbox={"fc": "white", "ec": "none", "pad": 0.5},
        )  # fmt: skip
    ax.axvline(layers.overall, color="#D55E00", lw=1.2, label=f"all: {layers.overall:.4g} %")
    ax.set_yticks(range(len(layers.names)), layers.names, fontsize=7)
    ax.invert_yaxis()
    ax.margins(y=0.01)
    ax.set_xlim(0, min(108, 1.15 * max(*layers.densities, layers.overall)))
    ax.set_xlabel("weights left in the layer, percent")
    ax.set_title(f"Density by layer, input first\n{layers.title}", fontsize=10)
    figure.legend(frameon=False, loc="outside lower right")
    return figure


def _curves(drawn: Figures) -> Any:
    group = drawn.shown if drawn.shown in drawn.curves else next(iter(drawn.curves))
    figure, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for curve in drawn.curves[group]:
        wide = {"dense": 2.0, "winner": 2.8, "ticket": 1.0}[curve.role]
        ax.plot(
            curve.epochs, curve.values, color=curve.colour, lw=wide, label=curve.label,
            ls="--" if curve.role == "dense" else "-",
            marker="o" if len(curve.epochs) == 1 else None,
        )  # fmt: skip
    ax.set_xlabel("epoch")
    ax.set_ylabel("validation top-1, percent")
    ax.set_title(f"Learning curves{', ' if group else ''}{group}")
    ax.grid(alpha=0.25)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return figure


def _cost(drawn: Figures) -> Any:
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for ax, lines, label in (
        (axes[0], drawn.minutes, "retraining time, minutes"),
        (axes[1], drawn.throughput, "images per second"),
    ):
        for line in lines:
            _draw(ax, line, "none")
        _density_axis(ax, [dot.x for line in lines for dot in line.dots], drawn.share)
        ax.set_ylim(bottom=0)
        ax.set_ylabel(label)
    axes[0].set_title("Time and throughput of every cell")
    handles, labels = axes[0].get_legend_handles_labels()
    columns = legend_columns(labels, figure.get_figwidth(), most=5)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _latency(lines: Sequence[latencies.Line], share: str) -> Any:
    figure, ax = plt.subplots(figsize=(7.5, 5.2), layout="constrained")
    for line in lines:
        x, y = [d.density for d in line.dots], [d.time.median for d in line.dots]
        below = [max(d.time.median - d.time.low, 0) for d in line.dots]
        above = [max(d.time.high - d.time.median, 0) for d in line.dots]
        ax.errorbar(
            x, y, yerr=(below, above), label=line.label, color=line.colour,
            marker=MARKERS[line.marker % len(MARKERS)], ms=4, lw=1.3, capsize=2, elinewidth=0.8,
        )  # fmt: skip
        ax.plot(x, [d.ideal for d in line.dots], color=line.colour, lw=1, ls=":")
    ax.plot([], [], color="0.3", lw=1, ls=":", label="dotted: by multiply-adds alone")
    ax.set_yscale("log")
    _density_axis(ax, [dot.density for line in lines for dot in line.dots], share)
    bottom, top = ax.get_ylim()
    times = [t for t in latencies.ticks(lines) if bottom <= t <= top]
    ax.set_yticks(times, [f"{t:g}" for t in times])
    ax.set_ylabel("latency of a batch, ms (log scale)")
    ax.set_title(f"Latency against density: {lines[0].group}\nmedian and quartiles; dense at 100 %")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _band_label(label: str, sd: float | None) -> str:
    return label if sd is None else f"{label} (mean ± sd over seeds)"
