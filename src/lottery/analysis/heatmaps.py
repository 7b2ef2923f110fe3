"""The grids as heat maps of the difference from dense, one panel a series."""

from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import TwoSlopeNorm

from lottery.analysis.canvas import Canvas, panels, width_of, wrapped
from lottery.analysis.figures import Figures, Heat, colour_range

_NAMES = 0.33  # part of a panel's width that names of rows may take


def figure(drawn: Figures, on: Canvas) -> Any:
    """All of them with one scale of colours, as many side by side as fit."""
    heats = drawn.heats
    most = max(len(h.grid.columns) for h in heats)
    rows = max(len(h.grid.rows) for h in heats)
    text = max(width_of(t, on.small) for h in heats for row in h.text for t in row)
    names = [name for h in heats for name in h.grid.rows]
    label = min(max(width_of(name, on.small) for name in names), _NAMES * on.width) + 0.5
    needed = label + max(most * (text + 0.14), 1.0)
    down, across = panels(len(heats), max(1, int(on.width / needed)))
    wide = on.width if on.paper else min(on.width, max(across * 1.35 * needed, 5.5))
    cell = (wide / across - label) / most
    heads = [wrapped(h.grid.series, wide / across - label, on.small) for h in heats]
    told = [[wrapped(name, label - 0.45, on.small) for name in h.grid.rows] for h in heats]
    lines = max(name.count("\n") + 1 for names in told for name in names)
    tall = rows * max(on.lines(lines) + 0.06, 0.2 if on.paper else 0.3)
    head = on.lines(max(title.count("\n") + 1 for title in heads))
    tall = max(tall, width_of(heats[0].grid.down, on.text) - head)  # its label is upright
    made, axes = plt.subplots(
        down, across, figsize=(wide, down * (tall + head + on.lines(3)) + 0.3 + on.lines(6)),
        layout="constrained", squeeze=False,
    )  # fmt: skip
    norm = TwoSlopeNorm(*colour_range(drawn))
    for number, (ax, heat) in enumerate(zip(axes.flat, heats, strict=False)):
        image = _panel(ax, heat, norm, on, cell)
        ax.set_yticks(range(len(heat.grid.rows)), told[number])
        ax.set_title(heads[number] or None, fontsize=on.small)
        ax.set_ylabel(heat.grid.down if number % across == 0 else "")
    for ax in axes.flat[len(heats) :]:
        ax.set_visible(False)
    title = "Validation top-1 in percent; framed: the winning ticket"
    if any(text.endswith("?") for heat in heats for row in heat.text for text in row):
        title += "; ?: fewer seeds than others"
    made.suptitle(wrapped(title, wide - 0.2, on.small), fontsize=on.small)
    bar = made.colorbar(
        image, ax=axes, location="bottom", shrink=0.8, aspect=35, extend="both", pad=0.03
    )
    bar.set_label(
        wrapped("points from dense (white: the tolerance)", 0.9 * (wide - label), on.text)
    )
    return made


def _panel(ax: Any, heat: Heat, norm: Any, on: Canvas, cell: float) -> Any:
    """``cell`` is the width of a cell in inches: where it is narrow, colour says it alone."""
    values = [[float("nan") if d is None else d for d in row] for row in heat.difference]
    image = ax.imshow(values, cmap="RdBu", norm=norm, aspect="auto")
    ax.set_facecolor("0.92")
    for y, row in enumerate(heat.text):
        for x, text in enumerate(row):
            value = heat.difference[y][x]
            strong = value is not None and abs(norm(value) - 0.5) > 0.32
            if width_of(text, on.small) < cell:
                ax.text(x, y, text, ha="center", va="center", fontsize=on.small,
                        color="white" if strong else "black")  # fmt: skip
    if heat.winner:
        y, x = heat.winner
        frame = plt.Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, lw=2, ec="black")
        ax.add_patch(frame).set_clip_on(False)  # as wide at the edge of the map
    columns = heat.grid.columns
    upright = max(width_of(name, on.small) for name in columns) + 0.04 > cell
    ax.set_xticks(range(len(columns)), columns, rotation=90 if upright else 0)
    ax.set_xlabel(heat.grid.across)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return image
