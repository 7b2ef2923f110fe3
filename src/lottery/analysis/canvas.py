"""How large figures are, and text that fits: for a screen, or for columns of a paper."""

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from lottery.analysis.figures import round_densities

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("-", "--", ":", "-.")
_LINE = 1.3  # height of a line of text, in its size
_HINTED = 1.05  # letters on a screen are a little wider than on paper
_HANDLE = 5.0  # width of a legend's line and the space around an entry, in its size


@dataclass(frozen=True)
class Canvas:
    """The width in inches that a figure may have, and the sizes of its text in points."""

    width: float
    text: float
    small: float
    suffixes: tuple[str, ...]
    dpi: int
    paper: bool

    @property
    def style(self) -> dict[str, Any]:
        """Settings of matplotlib for it."""
        return {
            "font.size": self.text,
            "axes.labelsize": self.text,
            "axes.titlesize": self.text if self.paper else self.text + 1,
            "xtick.labelsize": self.small,
            "ytick.labelsize": self.small,
            "legend.fontsize": self.small,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "svg.hashsalt": "lottery",
            "text.parse_math": False,  # names may hold dollar signs
            "pdf.fonttype": 42,  # letters that stay text, as publishers ask
            "lines.markersize": 3 if self.paper else 4,
            "lines.linewidth": 1.0 if self.paper else 1.3,
        }

    def lines(self, count: int, size: float | None = None) -> float:
        """Inches that so many lines of text take."""
        return count * _LINE * (size or self.small) / 72


SCREEN = Canvas(11, 10, 9, ("png", "svg"), 150, False)
COLUMNS = {
    1: Canvas(3.3, 8, 7, ("png", "svg", "pdf"), 300, True),
    2: Canvas(6.9, 8, 7, ("png", "svg", "pdf"), 300, True),
}
"""By the number of columns of a paper."""


def canvas(columns: int | None) -> Canvas:
    """That of so many columns of a paper; None: of a screen."""
    return SCREEN if columns is None else COLUMNS[columns]


@functools.lru_cache(maxsize=10_000)
def width_of(text: str, size: float) -> float:
    """Inches of the longest line of a text at so many points."""
    lines = [line for line in text.split("\n") if line.strip()]
    prop = FontProperties(size=size)
    paths = (TextPath((0, 0), line, prop=prop) for line in lines)
    return max((_HINTED * float(path.get_extents().x1) / 72 for path in paths), default=0.0)


def wrapped(text: str, inches: float, size: float) -> str:
    """A text in lines of at most this width, broken at spaces or, if it has to be, in words."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if width_of(longer, size) <= inches:
                line = longer
                continue
            lines += [line] if line else []
            *whole, line = _pieces(word, inches, size)
            lines += whole
        lines.append(line)
    return "\n".join(lines)


def _pieces(word: str, inches: float, size: float) -> list[str]:
    """A word in pieces of at most this width: after a ``=`` and the like, or between letters."""
    pieces = [""]
    for part in re.split(r"(?<=[=/_.-])", word):
        for piece in [part] if width_of(part, size) <= inches else part:
            if pieces[-1] and width_of(pieces[-1] + piece, size) > inches:
                pieces.append("")
            pieces[-1] += piece
    return pieces


def legend_below(figure: Any, on: Canvas, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """A legend below the plots, in as many columns as fit; the figure grows by its height."""
    beside = _HANDLE * on.small / 72
    width = figure.get_figwidth() - 0.2
    texts = [wrapped(label, width - beside, on.small) for label in labels]
    entry = beside + max(width_of(text, on.small) for text in texts)
    columns = max(1, min(len(texts), int(width / entry)))
    down = math.ceil(len(texts) / columns)
    rows = [texts[n::down] for n in range(down)]  # a legend fills column by column
    tall = sum(max(text.count("\n") + 1 for text in row) for row in rows)
    figure.legend(handles, texts, loc="outside lower center", ncols=columns, frameon=False)
    figure.set_figheight(figure.get_figheight() + on.lines(tall) + 0.06 * down + 0.15)


def unique(entries: tuple[Sequence[Any], Sequence[str]]) -> tuple[list[Any], list[str]]:
    """Handles and labels of a legend, each label once."""
    by_label: dict[str, Any] = {}
    for handle, label in zip(*entries, strict=True):
        by_label.setdefault(label, handle)
    return list(by_label.values()), list(by_label)


def density_axis(
    ax: Any, densities: Sequence[float], share: str, inches: float, on: Canvas
) -> None:
    """A logarithmic axis of densities in percent, sparser to the right, ``inches`` wide."""
    ax.set_xscale("log")
    ax.xaxis.set_inverted(True)
    ax.margins(0.08)  # the winner's star is whole, at the ends too
    ticks = _apart(round_densities(densities), densities, inches, on)
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    *longer, short = (
        f"{share}, percent{more}"
        for more in (" (log scale, sparser to the right)", " (log scale)", "")
    )
    fitting = (label for label in longer if width_of(label, on.text) <= inches)
    ax.set_xlabel(next(fitting, wrapped(short, inches, on.text)))
    ax.grid(alpha=0.25)


def _apart(
    ticks: Sequence[float], densities: Sequence[float], inches: float, on: Canvas
) -> list[float]:
    """Those ticks whose labels do not run into each other."""
    seen = [density for density in densities if density > 0]
    span = math.log(max(seen) / min(seen)) if seen else 0.0
    kept: list[float] = []
    for tick in ticks:
        if kept and span:
            away = inches / 1.1 * math.log(kept[-1] / tick) / span
            needed = (width_of(f"{tick:g}", on.small) + width_of(f"{kept[-1]:g}", on.small)) / 2
            if away < needed + 0.05:
                continue
        kept.append(tick)
    return kept


def panels(count: int, most: int) -> tuple[int, int]:
    """Rows and columns of so many panels, at most so many of them side by side."""
    rows = math.ceil(count / max(1, most))
    return rows, math.ceil(count / rows)
