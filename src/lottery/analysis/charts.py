"""The figures as plotly.js takes them: plain dictionaries of data and layout."""

from collections.abc import Sequence
from html import escape
from textwrap import wrap
from typing import Any

from lottery.analysis import latencies
from lottery.analysis.figures import (
    Curve,
    Figures,
    Heat,
    Line,
    colour_range,
    round_densities,
)

SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")
DASHES = ("solid", "dash", "dot", "dashdot")
WIDE, NARROW = 980, 440  # pixels for a legend over one plot, and over one of two side by side
LONGEST = 56  # letters of a line in a legend, which Plotly does not wrap
INK, GRID = "#1c2024", "#e6e9ed"
# Red to blue, safe for colour-blind readers (ColorBrewer's RdBu); white in the middle.
SCALE = [[0, "#b2182b"], [0.25, "#ef8a62"], [0.5, "#f7f7f7"], [0.75, "#67a9cf"], [1, "#2166ac"]]
SAYS_TEXT = "%{text}<extra></extra>"


def all_of(drawn: Figures) -> dict[str, dict[str, Any]]:
    """{id of the plot: {"data", "layout"}}; plots without data are left out."""
    if not drawn.accuracy.lines:
        return {}
    charts = {"accuracy": _accuracy(drawn)}
    for number, heat in enumerate(drawn.heats):
        charts[f"heat-{number}"] = _heat(heat, drawn)
    if drawn.layers:
        charts["layers"] = _layers(drawn)
    if drawn.curves:
        charts["curves"] = {
            "data": curves(drawn.curves[shown(drawn)]),
            "layout": _curves_layout(drawn),
        }
    charts["minutes"] = _cost(drawn.minutes, drawn.share, "retraining time, minutes")
    charts["throughput"] = _cost(drawn.throughput, drawn.share, "images per second")
    return charts


def _curves_layout(drawn: Figures) -> dict[str, Any]:
    layout = _layout("epoch", "validation top-1, percent", 460)
    last = max(e for lines in drawn.curves.values() for c in lines for e in c.epochs)
    layout["xaxis"]["dtick"] = max(1, round(last / 12))  # whole epochs
    return layout


def shown(drawn: Figures) -> str:
    """The group of learning curves to begin with."""
    return drawn.shown if drawn.shown in drawn.curves else next(iter(drawn.curves), "")


def curves(group: Sequence[Curve]) -> list[dict[str, Any]]:
    """Traces of one group of learning curves."""
    width = {"dense": 2.5, "winner": 3.5, "ticket": 1.3}
    return [
        {
            "type": "scatter",
            "mode": "lines" if len(c.epochs) > 1 else "markers",
            "name": escape(c.label),
            "x": c.epochs,
            "y": c.values,
            "line": {
                "color": c.colour,
                "width": width[c.role],
                "dash": "dash" if c.role == "dense" else "solid",
            },
            # Colour says the density, dark to light; twenty entries would fill a small screen.
            "showlegend": c.role != "ticket",
            "hovertemplate": f"{escape(c.label)}<br>epoch %{{x}}: %{{y:.2f}} %<extra></extra>",
        }
        for c in group
    ]


def latency(panels: latencies.Panels, share: str) -> dict[str, Any]:
    """Latency against density, both logarithmic: equal heights are equal factors.

    The axes suit every group, the data are those of the first.
    """
    lines = [line for group in panels.values() for line in group]
    layout = _layout("", "latency of a batch, ms (log scale)", 480)
    layout["xaxis"] = _log_density([dot.density for line in lines for dot in line.dots], share)
    times = latencies.ticks(lines)
    layout["yaxis"] |= {"type": "log", "tickvals": times, "ticktext": [f"{t:g}" for t in times]}
    return {"data": times_of(latencies.shown(panels)), "layout": layout}


def times_of(lines: Sequence[latencies.Line]) -> list[dict[str, Any]]:
    """Traces of one group of latencies: medians with quartiles, and dotted what theory promises."""
    traces: list[dict[str, Any]] = []
    for line in lines:
        x = [dot.density for dot in line.dots]
        own = {"name": escape(line.label), "x": x, "legendgroup": escape(line.label)}
        median = [dot.time.median for dot in line.dots]
        symbol = SYMBOLS[line.marker % len(SYMBOLS)]
        traces.append(own | {
            "type": "scatter", "mode": "lines+markers", "y": median,
            "text": [_lines(dot.about) for dot in line.dots],
            "customdata": [dot.cell or "" for dot in line.dots], "hovertemplate": SAYS_TEXT,
            "marker": {"color": line.colour, "size": 8, "symbol": symbol},
            "line": {"color": line.colour, "width": 1.8},
            "error_y": {
                "type": "data", "symmetric": False, "thickness": 1.2, "width": 4,
                "array": [max(d.time.high - d.time.median, 0) for d in line.dots],
                "arrayminus": [max(d.time.median - d.time.low, 0) for d in line.dots],
            },
        })  # fmt: skip
        traces.append(own | {
            "type": "scatter", "mode": "lines", "y": [dot.ideal for dot in line.dots],
            "showlegend": False, "hoverinfo": "skip",
            "line": {"color": line.colour, "width": 1.3, "dash": "dot"},
        })  # fmt: skip
    legend = {"color": "#444", "width": 1.3, "dash": "dot"}
    traces.append({
        "type": "scatter", "mode": "lines", "name": "dotted: by multiply-adds alone",
        "x": [None], "y": [None], "line": legend, "hoverinfo": "skip",
    })  # fmt: skip
    return traces


def _accuracy(drawn: Figures) -> dict[str, Any]:
    lines = drawn.accuracy.lines
    x = [d.x for line in lines for d in line.dots]
    ends = [1.06 * max(x), min(x) / 1.06]
    traces: list[dict[str, Any]] = []
    shapes, labels = [], []
    alone = len(drawn.accuracy.bands) == 1  # then its lines are labelled where they end
    for band in drawn.accuracy.bands:
        spread = "" if band.sd is None else f" ± {band.sd:.2f}"
        least = band.mean - drawn.tolerance
        for name, y, dash, anchor in (
            (f"{band.label} {band.mean:.2f}{spread}", band.mean, "solid", "bottom"),
            (f"{drawn.tolerance:g} below {band.label}", least, "dot", "top"),
        ):
            traces.append(_level(name, ends, y, dash, legend=not alone))
            labels += [_label(name, y, anchor)] if alone else []
        if band.sd is not None:
            shapes.append({
                "type": "rect", "xref": "paper", "x0": 0, "x1": 1, "layer": "below",
                "y0": band.mean - band.sd, "y1": band.mean + band.sd,
                "fillcolor": "#000", "opacity": 0.13, "line": {"width": 0},
            })  # fmt: skip
    traces += [_line(line, "lines+markers") for line in lines]
    traces += [_star(line) for line in lines if any(d.winner for d in line.dots)]
    layout = _layout("", "validation top-1, percent", 460 + _legend(traces, WIDE))
    layout |= {
        "xaxis": _density_axis(lines, drawn.share),
        "shapes": shapes,
        "annotations": labels,
    }
    if drawn.accuracy.close:
        layout["yaxis"]["range"] = list(drawn.accuracy.close)
    return {"data": traces, "layout": layout}


def _label(text: str, y: float, anchor: str) -> dict[str, Any]:
    return {
        "text": escape(text), "xref": "paper", "x": 1, "xanchor": "right", "y": y,
        "yanchor": anchor, "showarrow": False, "font": {"size": 12, "color": "#444"},
    }  # fmt: skip


def _level(name: str, x: Sequence[float], y: float, dash: str, *, legend: bool) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "name": escape(name), "x": list(x), "y": [y, y],
        "showlegend": legend,
        "line": {"color": "#444", "width": 1.3, "dash": dash}, "hoverinfo": "skip",
    }  # fmt: skip


def _line(line: Line, mode: str) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": mode,
        "name": "<br>".join(map(escape, wrap(line.label, LONGEST))) or "tickets",
        "x": [d.x for d in line.dots],
        "y": [d.y for d in line.dots],
        "text": [_lines(d.about) for d in line.dots],
        "customdata": [d.cell for d in line.dots],
        "hovertemplate": SAYS_TEXT,
        "marker": {
            "color": line.colour, "size": 8, "symbol": SYMBOLS[line.marker % len(SYMBOLS)],
        },
        "line": {"color": line.colour, "width": 1.8, "dash": DASHES[line.dash % len(DASHES)]},
    }  # fmt: skip
    if any(d.sd for d in line.dots):
        trace["error_y"] = {
            "type": "data", "array": [d.sd or 0 for d in line.dots], "thickness": 1, "width": 3,
        }  # fmt: skip
    return trace


def _star(line: Line) -> dict[str, Any]:
    dots = [d for d in line.dots if d.winner]
    star = {"color": "#F0E442", "size": 18, "symbol": "star", "line": {"color": INK, "width": 1.5}}
    return {
        "type": "scatter", "mode": "markers", "name": "winning ticket", "marker": star,
        "x": [d.x for d in dots], "y": [d.y for d in dots],
        "text": [_lines(d.about) for d in dots], "customdata": [d.cell for d in dots],
        "hovertemplate": SAYS_TEXT,
    }  # fmt: skip


def _heat(heat: Heat, drawn: Figures) -> dict[str, Any]:
    _, low, high = colour_range(drawn)
    rows, columns = range(len(heat.grid.rows)), range(len(heat.grid.columns))
    about = [[_lines(lines) for lines in row] for row in heat.about]
    values: dict[str, Any] = {
        "type": "heatmap", "x": list(columns), "y": list(rows), "z": heat.difference,
        "zmin": low, "zmax": high, "colorscale": SCALE, "xgap": 2, "ygap": 2,
        "customdata": heat.cell, "text": heat.text, "hovertext": about,
        "texttemplate": "%{text}", "hovertemplate": "%{hovertext}<extra></extra>",
        "hoverongaps": False,
        "colorbar": {
            "title": {"text": "points from dense", "side": "top"}, "orientation": "h",
            "thickness": 10, "len": 0.7, "y": 1.0, "yanchor": "bottom", "outlinewidth": 0,
        },
    }  # fmt: skip
    empty = [(x, y) for y in rows for x in columns if heat.difference[y][x] is None]
    holes = {
        # The map writes their status, but only knows hovering and clicks where it has a value.
        "type": "scatter", "mode": "markers", "showlegend": False, "opacity": 0,
        "x": [x for x, _ in empty], "y": [y for _, y in empty], "marker": {"size": 20},
        "hovertext": [about[y][x] for x, y in empty], "hoverinfo": "text",
        "customdata": [heat.cell[y][x] for x, y in empty],
    }  # fmt: skip
    layout = _layout(heat.grid.across, heat.grid.down, 160 + 26 * max(len(rows), 6))
    layout["xaxis"] |= {
        "tickvals": list(columns), "ticktext": heat.grid.columns, "showgrid": False,
    }  # fmt: skip
    layout["yaxis"] |= {
        "tickvals": list(rows), "ticktext": [escape(name) for name in heat.grid.rows],
        "range": [len(rows) - 0.5, -0.5], "showgrid": False,
    }  # fmt: skip
    layout["xaxis"]["range"] = [-0.5, len(columns) - 0.5]
    # Beside a horizontal colour bar Plotly forgets the tick labels and writes the title over them.
    layout["xaxis"]["title"] = {"text": f"<br>{heat.grid.across}", "font": {"size": 13}}
    layout["plot_bgcolor"] = "#eceff2"
    if heat.winner:
        y, x = heat.winner
        layout["shapes"] = [{
            "type": "rect", "x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5,
            "line": {"color": INK, "width": 3},
        }]  # fmt: skip
    return {"data": [values, holes], "layout": layout}


def _layers(drawn: Figures) -> dict[str, Any]:
    layers = drawn.layers
    assert layers is not None
    bars = {
        "type": "bar", "orientation": "h", "name": "layer", "marker": {"color": "#0072B2"},
        "x": layers.densities, "y": list(range(len(layers.names))),
        "text": [f"{d:.3g}" for d in layers.densities], "textposition": "outside",
        "hovertext": [
            f"{escape(name)}<br>{escape(about)}"
            for name, about in zip(layers.names, layers.about, strict=True)
        ],
        "hoverinfo": "text", "cliponaxis": False, "showlegend": False,
    }  # fmt: skip
    overall = {
        "type": "scatter", "mode": "lines", "name": f"all prunable weights: {layers.overall:.4g} %",
        "x": [layers.overall] * 2, "y": [-0.5, len(layers.names) - 0.5], "hoverinfo": "skip",
        "line": {"color": "#D55E00", "width": 2},
    }  # fmt: skip
    layout = _layout("weights left, percent", "", 110 + 20 * len(layers.names))
    layout["showlegend"] = True
    layout["margin"]["r"] = 36
    layout["xaxis"]["range"] = [0, 1.12 * max(*layers.densities, layers.overall)]
    layout["yaxis"] |= {
        "tickvals": list(range(len(layers.names))), "ticktext": [escape(n) for n in layers.names],
        "range": [len(layers.names) - 0.4, -0.6], "showgrid": False, "tickfont": {"size": 11},
    }  # fmt: skip
    return {"data": [bars, overall], "layout": layout}


def _cost(lines: Sequence[Line], share: str, title: str) -> dict[str, Any]:
    traces = [_line(line, "markers") for line in lines]
    layout = _layout("", title, 380 + _legend(traces, NARROW))
    layout["xaxis"] = _density_axis(lines, share)
    layout["yaxis"]["rangemode"] = "tozero"
    return {"data": traces, "layout": layout}


def _legend(traces: Sequence[dict[str, Any]], width: int) -> int:
    """How high a legend is about, in pixels: it takes its room from the plot."""
    names = [t["name"].split("<br>") for t in traces if t.get("showlegend", True)]
    across = width // (50 + 7 * max((len(line) for lines in names for line in lines), default=1))
    rows = -(-len(names) // max(1, across))
    return 20 * rows * max(map(len, names), default=1)


def _density_axis(lines: Sequence[Line], share: str) -> dict[str, Any]:
    return _log_density([dot.x for line in lines for dot in line.dots], share)


def _log_density(densities: Sequence[float], share: str) -> dict[str, Any]:
    ticks = round_densities(densities)
    return _axis(f"{share}, percent (log scale)") | {
        "type": "log", "autorange": "reversed", "tickvals": ticks,
        "ticktext": [f"{t:g}" for t in ticks],
    }  # fmt: skip


def _axis(title: str) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 10, "font": {"size": 13}},
        "gridcolor": GRID, "zeroline": False,
        "automargin": True, "ticks": "outside", "tickcolor": GRID,
    }  # fmt: skip


def _layout(x: str, y: str, height: int) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 54, "r": 12, "t": 20, "b": 50},
        "font": {"family": "system-ui, DejaVu Sans, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "xaxis": _axis(x),
        "yaxis": _axis(y),
        # Above the plot, where it never covers data, nor the axis on a narrow screen.
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"align": "left", "bgcolor": "#fff", "font": {"color": INK}},
        "hovermode": "closest",
    }


def _lines(about: Sequence[str]) -> str:
    return "<br>".join(map(escape, about))
