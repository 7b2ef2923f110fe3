"""What the pictures show, as plain values: prepared once, drawn by ``plots`` and by ``page``.

Accuracies and densities are in percent, differences from dense in points.
"""

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lottery.analysis.collect import Cell
from lottery.analysis.grids import Grid, grids, label
from lottery.analysis.selection import Judged, Selection
from lottery.points import Point, order

# Okabe & Ito's palette, without its yellow: told apart with any colour vision, on white.
CATEGORIES = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#000000",
    "#8C6D31",
)
TICKS = (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
TOP1 = {"validation": "val_top1", "test": "test_top1"}
CLOSE = 6.0  # tolerances below dense that the close view of the accuracies shows


@dataclass(frozen=True)
class Dot:
    """A point of a line: ``sd`` is the spread between seeds; ``cell`` names the run to look at."""

    x: float
    y: float
    sd: float | None
    about: tuple[str, ...]
    cell: str
    winner: bool = False


@dataclass(frozen=True)
class Line:
    """Dots of one series and rewind point, told apart by colour, ``marker`` and ``dash``.

    Beside others of its series, ``start`` says what it is, in a colour for the order of the points.
    """

    series: str
    start: str
    start_colour: str
    label: str
    colour: str
    marker: int
    dash: int
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Band:
    """A dense network's top-1: mean and spread over seeds, None for one seed.

    ``series`` are those that are compared with it.
    """

    label: str
    series: tuple[str, ...]
    mean: float
    sd: float | None


@dataclass(frozen=True)
class Accuracies:
    """Top-1 on the ``split`` (validation or test) against density.

    ``close`` is the range near the dense networks, None if there is no need to look closer.
    """

    split: str
    lines: tuple[Line, ...]
    bands: tuple[Band, ...]
    close: tuple[float, float] | None


@dataclass(frozen=True)
class Heat:
    """A grid as colours, [row][column]: None where there is no result."""

    grid: Grid
    difference: tuple[tuple[float | None, ...], ...]
    text: tuple[tuple[str, ...], ...]
    about: tuple[tuple[tuple[str, ...], ...], ...]
    cell: tuple[tuple[str, ...], ...]
    winner: tuple[int, int] | None


@dataclass(frozen=True)
class Layers:
    """Density of each layer in the network's order, and of all prunable weights together."""

    title: str
    names: tuple[str, ...]
    densities: tuple[float, ...]
    about: tuple[str, ...]
    overall: float


@dataclass(frozen=True)
class Curve:
    """Validation top-1 over epochs, mean over seeds; ``role`` is dense, winner or ticket."""

    label: str
    role: str
    colour: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Figures:
    """Everything to draw. ``curves`` are grouped by rewind point, ``shown`` names the first group.

    ``accuracy`` is on validation data, ``test`` the same on test data.
    """

    accuracy: Accuracies
    test: Accuracies
    heats: tuple[Heat, ...]
    layers: Layers | None
    curves: Mapping[str, tuple[Curve, ...]]
    shown: str
    minutes: tuple[Line, ...]
    throughput: tuple[Line, ...]
    tolerance: float
    share: str
    """What the axes of density are of: ``weights left``, or that of all kernels."""


def prepare(chosen: Selection) -> Figures:
    """The figures of a study that has been judged; empty parts where there are no results."""
    done = [j for j in chosen.judged if j.comparison]
    focus = chosen.focus
    curves = _curves(done, chosen)
    return Figures(
        accuracy=_accuracies(done, chosen, "validation"),
        test=_accuracies(done, chosen, "test"),
        heats=tuple(_heat(grid, chosen) for grid in grids(chosen)),
        layers=_layers(focus, chosen) if focus else None,
        curves=curves,
        shown=label(focus) if focus else "",
        minutes=_lines(done, lambda j: _cost_dots(j, "seconds", 1 / 60, "min")),
        throughput=_lines(done, lambda j: _cost_dots(j, "images_per_second", 1, "images/s")),
        tolerance=chosen.tolerance,
        share=chosen.share_left,
    )


def round_densities(x: Sequence[float]) -> list[float]:
    """Round densities that cover those given, as ticks of an axis."""
    if not x:
        return []
    inside = [t for t in TICKS if min(x) * 0.99 <= t <= max(x) * 1.01]
    return list(inside) if len(inside) > 1 else sorted({float(f"{v:.3g}") for v in x}, reverse=True)


def colour_range(drawn: Figures) -> tuple[float, float, float]:
    """Colours by difference from dense: (middle, lowest, highest), where the middle just matches.

    Clipped, since one collapsed ticket would make all others look alike.
    """
    found = [d for heat in drawn.heats for row in heat.difference for d in row if d is not None]
    middle = -drawn.tolerance
    reach = max((abs(d - middle) for d in found), default=1.0)
    reach = max(min(reach, 3 * max(drawn.tolerance, 0.25)), 0.1)
    return middle, middle - reach, middle + reach


def place(judged: Judged) -> str:
    """A point in words."""
    point = judged.point
    words = [f"{point.percentile:g} % pruned"]
    if point.rewound is not None:
        words.append(f"rewound to {point.rewound.words}")
    return ", ".join([*words, *([point.series] if point.series else [])])


def _accuracies(judged: Sequence[Judged], chosen: Selection, split: str) -> Accuracies:
    bands = _bands(judged, split)
    lines = _lines(judged, lambda j: [_mean_dot(j, chosen, split)])
    return Accuracies(split, lines, bands, _close(lines, bands, chosen.tolerance))


def _lines(judged: Sequence[Judged], dots: Callable[[Judged], list[Dot]]) -> tuple[Line, ...]:
    series = list(dict.fromkeys(j.point.series for j in judged))
    points = sorted({j.point.rewound for j in judged}, key=order)
    by_point = len(points) > 1 and len(points) >= len(series)  # else colours tell the series
    ordered = _ordered_colours(len(points))
    groups: dict[tuple[str, Point | None], list[Judged]] = defaultdict(list)
    for j in judged:
        groups[j.point.series, j.point.rewound].append(j)
    lines = []
    for (name, rewound), found in sorted(groups.items(), key=lambda g: (g[0][0], order(g[0][1]))):
        at, which = points.index(rewound), series.index(name)
        rounds = which // len(CATEGORIES)  # so that no two have all in common
        alone = len(points) == 1
        lines.append(
            Line(
                name,
                "" if rewound is None else f"rewound to {rewound.label}",
                ordered[at],
                label(found[0]),
                ordered[at] if by_point else CATEGORIES[which % len(CATEGORIES)],
                at + which if by_point or alone else at,
                which + rounds if by_point or alone else at + rounds,
                tuple(sorted((dot for j in found for dot in dots(j)), key=lambda d: -d.x)),
            )
        )
    return tuple(lines)


def _mean_dot(judged: Judged, chosen: Selection, split: str = "validation") -> Dot:
    point, found = judged.point, judged.comparison
    values = point.values("ticket", TOP1[split])
    about = [place(judged), f"{judged.kept} left"]
    mean, sd = statistics.fmean(values), _sd(values)
    spread = "" if sd is None else f" ± {sd:.2f} ({len(values)} seeds)"
    about.append(f"{split} top-1 {mean:.2f}{spread} %")
    if found and split == "validation":
        about.append(f"{found.difference:+.2f} points from dense")
        if found.level is not None:
            about.append(f"a loss of {found.tolerance:g} points or more: p = {found.p_value:.2g}")
    winner = judged is chosen.winner
    return Dot(
        100 * (judged.share or 0), mean, sd,
        tuple([*about, "the winning ticket"] if winner else about), point.done[0].name, winner,
    )  # fmt: skip


def _cost_dots(judged: Judged, metric: str, scale: float, unit: str) -> list[Dot]:
    dots = []
    for cell in judged.point.done:
        value = (cell.ticket or {}).get(metric)
        if value is not None:
            about = (f"{place(judged)}, seed {cell.seed}", f"{scale * value:,.4g} {unit}")
            density = 100 * (cell.mask or {})[judged.measure]
            dots.append(Dot(density, scale * value, None, about, cell.name))
    return dots


def _bands(judged: Sequence[Judged], split: str) -> tuple[Band, ...]:
    """One band for each set of dense networks that series share."""
    shared: dict[tuple[str, ...], list[str]] = defaultdict(list)
    values: dict[str, float] = {}
    for series in dict.fromkeys(j.point.series for j in judged):
        cells = [c for j in judged if j.point.series == series for c in j.point.done]
        own = {c.dense["key"]: 100 * c.dense[TOP1[split]] for c in cells if c.dense}
        values |= own
        shared[tuple(sorted(own))].append(series)
    bands = []
    for keys, names in shared.items():
        found = [values[k] for k in keys]
        label = "dense" if len(shared) == 1 else f"dense: {'; '.join(names)}"
        bands.append(Band(label, tuple(names), statistics.fmean(found), _sd(found)))
    return tuple(bands)


def _close(
    lines: Sequence[Line], bands: Sequence[Band], tolerance: float
) -> tuple[float, float] | None:
    values = [dot.y for line in lines for dot in line.dots]
    if not values or not bands:
        return None
    reach = CLOSE * max(tolerance, 0.1)
    low = min(b.mean for b in bands) - reach
    high = max(*values, *(b.mean + (b.sd or 0) for b in bands))
    return (low, high + 0.08 * (high - low)) if min(values) < low else None


def _heat(grid: Grid, chosen: Selection) -> Heat:
    points = grid.points
    winners = [
        (y, x)
        for y, row in enumerate(points)
        for x, j in enumerate(row)
        if j and j is chosen.winner
    ]
    return Heat(
        grid,
        tuple(
            tuple(j.comparison.difference if j and j.comparison else None for j in row)
            for row in points
        ),
        tuple(tuple(_mark(j) for j in row) for row in points),
        tuple(tuple(_summary(j, chosen) for j in row) for row in points),
        tuple(tuple(_cell(j) for j in row) for row in points),
        winners[0] if winners else None,
    )


def _mark(judged: Judged | None) -> str:
    if judged is None:
        return ""
    if judged.comparison is None:
        return _worst(judged.point.cells)
    text = f"{statistics.fmean(judged.point.values('ticket', 'val_top1')):.2f}"
    return text if judged.complete else f"{text}?"


def _worst(cells: Sequence[Cell]) -> str:
    worst = next(
        s
        for s in ("failed", "running", "queued", "missing", "unneeded")
        if any(c.status == s for c in cells)
    )
    return "not needed" if worst == "unneeded" else worst


def _summary(judged: Judged | None, chosen: Selection) -> tuple[str, ...]:
    if judged is None:
        return ("no such cell",)
    if judged.comparison is None:
        return place(judged), _worst(judged.point.cells)
    return _mean_dot(judged, chosen).about


def _cell(judged: Judged | None) -> str:
    return (judged.point.done or judged.point.cells)[0].name if judged else ""


def _layers(focus: Judged, chosen: Selection) -> Layers | None:
    mask = focus.point.done[0].mask or {}
    layers = mask.get("layers") or {}
    if not layers:
        return None
    what = "the winning ticket" if focus is chosen.winner else "no winner; the nearest miss"
    if focus not in (chosen.winner, chosen.nearest):
        what = "no winner; a ticket"
    seed = f", seed {focus.point.done[0].seed}" if len(focus.point.done) > 1 else ""
    return Layers(
        f"{what}: {place(focus)}{seed}",
        tuple(name.removesuffix("/kernel") for name in layers),
        tuple(100 * c["kept"] / c["size"] for c in layers.values()),
        tuple(f"{c['kept']:,} of {c['size']:,} weights" for c in layers.values()),
        100 * mask["density"],
    )


def _curves(judged: Sequence[Judged], chosen: Selection) -> dict[str, tuple[Curve, ...]]:
    groups: dict[str, list[Judged]] = defaultdict(list)
    for j in judged:
        groups[label(j)].append(j)
    found = {}
    for group, members in groups.items():
        colours = _ordered_colours(len(members))
        curves = [_mean_curve(members[0], "dense", "dense", "#000000")]
        for j, colour in zip(members, colours, strict=True):
            left = f"{100 * (j.share or 0):.4g} % left"
            if j is chosen.winner:
                curves.append(_mean_curve(j, "winner", f"{left}, winner", CATEGORIES[1]))
            else:
                curves.append(_mean_curve(j, "ticket", left, colour))
        curves.sort(key=lambda c: c.role == "winner")  # drawn last, so on top
        found[group] = tuple(c for c in curves if c.epochs)
    return {group: curves for group, curves in found.items() if curves}


def _mean_curve(judged: Judged, role: str, label: str, colour: str) -> Curve:
    kind = "dense" if role == "dense" else "ticket"
    runs = [
        {int(r["epoch"]): 100 * r["val_top1"] for r in cell.curve(kind) if "val_top1" in r}
        for cell in judged.point.done
    ]
    epochs = sorted(set.intersection(*map(set, runs))) if runs else []
    values = tuple(statistics.fmean(run[e] for run in runs) for e in epochs)
    return Curve(label, role, colour, tuple(epochs), values)


def _ordered_colours(number: int) -> list[str]:
    """Colours for ordered things: viridis without its lightest end, which white swallows."""
    import matplotlib
    from matplotlib.colors import to_hex

    viridis = matplotlib.colormaps["viridis"]
    return [to_hex(viridis(0.02 + 0.83 * n / max(number - 1, 1))) for n in range(number)]


def _sd(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
