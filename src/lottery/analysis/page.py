"""The report as one HTML file that needs no network: plotly.js is inside."""

import json
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from lottery import files
from lottery.analysis import (
    certificate,
    charts,
    deployment_page,
    evidence,
    gate,
    latencies,
    price,
    tables,
    ticket,
)
from lottery.analysis.collect import Cell, Study
from lottery.analysis.deployment import Deployment
from lottery.analysis.figures import Figures, place
from lottery.analysis.selection import DENSITY, OF_KERNELS, Judged, Selection
from lottery.analysis.ticket_file import Written
from lottery.verdict.comparison import Comparison


def write(
    study: Study,
    chosen: Selection,
    drawn: Figures,
    carried: Written,
    deployed: Deployment,
    panels: latencies.Panels,
    folder: Path,
) -> Path:
    """Write ``report.html`` beside the other files of the report, to which it links."""
    from plotly.offline import get_plotlyjs

    template = Template((resources.files(__package__) / "page.html").read_text())
    figures = charts.all_of(drawn)
    if panels:
        figures["latency"] = charts.latency(panels, drawn.share)
    common = _common([c.config for c in study.cells])
    data = {
        "figures": figures,
        "groups": {
            "curves": {group: charts.curves(lines) for group, lines in drawn.curves.items()},
            "latency": {group: charts.times_of(lines) for group, lines in panels.items()},
        },
        "common": common,
        "cells": {c.name: _about(study, c, common, folder) for c in study.asked},
    }
    page = template.substitute(
        title=escape(f"Winning tickets: {study.name}"),
        plotly=get_plotlyjs(),
        body="".join(_body(study, chosen, drawn, carried, deployed, panels, folder)),
        data=_in_script(data),
    )
    path = folder / "report.html"
    files.write_text(path, page)
    return path


def _in_script(data: Any) -> str:
    """JSON for the inside of a script element, whose text knows no entities.

    A browser looks for ``</script`` and ``<!--`` in it, whatever quotes they stand in. Line
    separators are escaped already, as all that is not ASCII.
    """
    text = json.dumps(data, default=str)
    return text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"})


def _body(
    study: Study,
    chosen: Selection,
    drawn: Figures,
    carried: Written,
    deployed: Deployment,
    panels: latencies.Panels,
    folder: Path,
) -> Iterable[str]:
    done = sum(c.done for c in study.asked)
    yield f"<header><h1>{escape(study.name)}</h1>"
    yield f'<p class="soft">{escape(_subject(study))}{done} of {len(study.asked)} cells done'
    if study.revision:
        yield f" · code {escape(study.revision)}"
    yield "</p></header>"
    yield from _verdict(study, chosen, carried)
    if notes := tables.problems(study, chosen):
        items = "".join(f"<li>{escape(n)}</li>" for n in notes)
        yield f'<section class="notes"><h2>Missing or left out</h2><ul>{items}</ul></section>'
    if drawn.accuracy.lines:
        yield from _figures(drawn)
    yield from _price(chosen)
    yield from deployment_page.transfers_of(deployed, chosen.winner)
    yield from deployment_page.latencies_of(panels, chosen.winner)
    yield from _cells(study, chosen, folder)
    yield (
        '<footer>The same as tables: <a href="cells.csv">cells.csv</a>, '
        '<a href="grid.csv">grid.csv</a>, <a href="layers.csv">layers.csv</a>'
        f"{''.join(_more(deployed))}, and as Parquet; the verdict: "
        '<a href="winning_ticket.json">winning_ticket.json</a>. '
        f"Read from {escape(str(study.folder.resolve()))}.</footer>"
    )


def _more(deployed: Deployment) -> Iterable[str]:
    for name in ("transfers", "latencies"):
        if getattr(deployed, name):
            yield f', <a href="{name}.csv">{name}.csv</a>'


def _subject(study: Study) -> str:
    """The network and the data, where all cells have the same."""
    common = _common([c.config for c in study.cells])
    model, data = common.get("model.name"), common.get("data.name") or common.get("data.source")
    return f"{model} on {data} · " if model and data else ""


def _verdict(study: Study, chosen: Selection, carried: Written) -> Iterable[str]:
    judged = chosen.winner or chosen.nearest
    yield f'<section><p class="verdict">{escape(ticket.summary(chosen))}</p>'
    if judged:
        yield f'<ul class="facts">{"".join(_facts(judged))}</ul>'
        for text in evidence.lines(chosen):
            yield f'<p class="soft">{escape(text)}</p>'
        yield '<p class="soft">Chosen on validation data; test accuracy is only reported.</p>'
        what = "Again" if chosen.winner else "The nearest miss again"
        yield f'<p class="soft">{what}:</p>'
        yield f'<pre tabindex="0">{escape(ticket.command(study, judged.point))}</pre>'
        if carried.path:
            name = escape(carried.path.name)
            seed = f", seed {carried.seed}" if len(judged.point.done) > 1 else ""
            yield '<p class="soft">The ticket itself, for transfer.py and export.py: '
            yield f'<a href="{name}">{name}</a>{seed}.</p>'
        yield from _neighbours(chosen, judged)
    yield from _certificate(study)
    for text in price.study_lines(study):
        yield f'<p class="soft">{escape(text)}</p>'
    yield "</section>"


def _certificate(study: Study) -> Iterable[str]:
    for text in certificate.sentences(study):
        yield f'<p class="soft">{escape(text)}</p>'
    if cells := certificate.rows(study):
        heads = (f"<th>{escape(head)}</th>" for head in certificate.HEADS[1:])
        yield '<div class="scroll"><table><tr><th class="words">The cells that show it</th>'
        yield f"{''.join(heads)}</tr>"
        for row, *values in cells:
            yield f'<tr><td class="words">{escape(row)}</td>'
            yield "".join(f"<td>{escape(value)}</td>" for value in values) + "</tr>"
        yield "</table></div>"


def _facts(judged: Judged) -> Iterable[str]:
    point = judged.point

    def fact(value: str, label: str) -> str:
        return f"<li><b>{escape(value)}</b><span>{escape(label)}</span></li>"

    if judged.of_kernels:
        yield fact(f"{100 * (judged.share or 0):.4g} %", "of the weights of all kernels left")
    yield fact(f"{100 * (point.density or 0):.4g} %", "of the prunable weights left")
    if point.rewound is not None:
        yield fact(point.rewound.words, "rewound to")
    for name, shares in price.of_points([judged]).items():
        yield fact(f"{100 * statistics.fmean(shares):.3g} %", f"of dense: {price.SHARES[name]}")
    fresh = judged.confirmation is not None
    for split, word in (("val_top1", "validation"), ("test_top1", "test")):
        values = (point.values(kind, split, fresh=fresh) for kind in ("ticket", "dense"))
        own, dense = map(_mean_sd, values)
        yield fact(f"{own} %", f"{word} top-1; dense {dense} %")


def _neighbours(chosen: Selection, judged: Judged) -> Iterable[str]:
    around = chosen.neighbours(judged)
    if not around:
        return
    yield (
        '<div class="scroll"><table><tr><th>Neighbours in the grid</th><th class="words">cell</th>'
        "<th>validation top-1</th><th>points from dense</th><th>matches</th></tr>"
    )
    for direction, j in around.items():
        found = j.comparison
        cells = (
            [_mean_sd(j.point.values("ticket", "val_top1")), f"{found.difference:+.2f}",
             _answer(j, found)]
            if found else ["", "", j.point.cells[0].status.replace("unneeded", "not needed")]
        )  # fmt: skip
        yield f'<tr><td>{direction}</td><td class="words">{escape(place(j))}</td>'
        yield "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>"
    yield "</table></div>"


def _answer(judged: Judged, found: Comparison) -> str:
    if judged.at_chance:
        return "no: dense at chance"
    answer = "yes" if judged.matches else "no, lies beyond two failures" if found.passes else "no"
    return answer if found.level is None else f"{answer} (p = {found.p_value:.2g})"


def _figures(drawn: Figures) -> Iterable[str]:
    yield "<section><h2>Accuracy against density</h2>"
    yield '<p class="soft">Validation top-1'
    if any(d.sd is not None for line in drawn.accuracy.lines for d in line.dots):
        yield ", mean and standard deviation over seeds; the grey band is that of dense"
    yield ". Click a point for its run's config.</p>"
    if drawn.accuracy.close:
        near = escape(json.dumps({"yaxis.range": drawn.accuracy.close}))
        everything = escape(json.dumps({"yaxis.autorange": True}))
        yield (
            f'<div class="controls"><button data-range="{near}" aria-pressed="true">near dense'
            f'</button><button data-range="{everything}" aria-pressed="false">everything</button>'
            "</div>"
        )
    yield '<div id="accuracy"></div></section>'
    yield "<section><h2>The grid</h2>"
    yield (
        '<p class="soft">Validation top-1 in percent. Colour: points from dense, clipped; white '
        f"is the tolerance ({drawn.tolerance:g}), blue is above it, red below. "
        "The winner is framed"
    )
    if any(text.endswith("?") for heat in drawn.heats for row in heat.text for text in row):
        yield "; ? has fewer seeds than others"
    yield ".</p>"
    yield '<div class="plots">' if len(drawn.heats) > 1 else "<div>"
    for number, heat in enumerate(drawn.heats):
        yield "<div>"
        if heat.grid.series:
            yield f'<p class="soft"><b>{escape(heat.grid.series)}</b></p>'
        width = 60 + 7 * max(map(len, heat.grid.rows)) + 46 * len(heat.grid.columns)
        yield f'<div class="scroll"><div id="heat-{number}" style="min-width:{width}px"></div>'
        yield "</div>"
        if barriers := gate.sentence(heat.grid):
            yield f'<p class="soft">{escape(barriers)}</p>'
        yield "</div>"
    yield "</div></section>"
    if drawn.layers:
        what = escape(deployment_page.capital(drawn.layers.title))
        yield f'<section><h2>Density by layer</h2><p class="soft">{what}. Input on top.</p>'
        yield '<div id="layers"></div></section>'
    if drawn.curves:
        yield "<section><h2>Learning curves</h2>"
        if len(drawn.curves) > 1:
            yield '<div class="controls">'
            yield (
                deployment_page.select(
                    "group", "curves", "tickets", drawn.curves, charts.shown(drawn)
                )
                + "</div>"
            )
        yield '<p class="soft">Validation top-1, mean over seeds. The lighter, the sparser.</p>'
        yield '<div id="curves"></div></section>'
    yield '<section><h2>Time and throughput</h2><p class="soft">Of every retraining.</p>'
    yield '<div class="plots"><div id="minutes"></div><div id="throughput"></div></div></section>'


def _price(chosen: Selection) -> Iterable[str]:
    shown = price.rows(chosen.judged)
    if not (names := price.columns(shown)):
        return
    several = len({row.series for row in shown}) > 1
    yield f"<section><h2>{escape(deployment_page.capital(price.TITLE))}</h2>"
    yield f'<p class="soft">{escape(deployment_page.capital("; ".join(price.legend(names))))}.</p>'
    heads = ["pruned %", "left %", *names]
    yield '<div class="scroll tall"><table><thead><tr>'
    yield "".join(f"<th>{h}</th>" for h in ([""] if several else []) + heads)
    yield "</tr></thead><tbody>"
    for row in shown:
        texts = [f"{row.percentile:g}", f"{100 * row.left:.4g}", *row.texts(names)]
        cells = [row.series, *texts] if several else texts
        yield "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in cells) + "</tr>"
    yield "</tbody></table></div></section>"


def _cells(study: Study, chosen: Selection, folder: Path) -> Iterable[str]:
    winners = {c.name for c in chosen.winner.point.done} if chosen.winner else set()
    heads = ["cell", *study.varied, "pruned %", "epoch", "seed", *_lefts(chosen), "val top-1",
             "± dense", "test top-1", "minutes", "images/s", "status", "config"]  # fmt: skip
    yield "<section><h2>All cells</h2>"
    yield '<p class="soft">Test top-1 is reported; nothing was chosen by it.</p>'
    yield '<div class="scroll tall"><table><thead><tr>'
    yield "".join(f"<th>{escape(h)}</th>" for h in heads) + "</tr></thead><tbody>"
    for cell in study.asked:
        kind = ' class="winner"' if cell.name in winners else ""
        name = escape(cell.name)
        yield f'<tr{kind}><td><a href="#cell-{name}" data-cell="{name}">{name}</a></td>'
        yield "".join(f"<td>{escape(text)}</td>" for text in _row(study, chosen, cell))
        href = _href(cell, folder)
        link = f'<a href="{escape(href)}" target="_blank">config</a>' if href else ""
        yield f"<td>{link}</td>"
        if cell.error:
            yield f'<td class="error">{escape(cell.error)}</td>'
        yield "</tr>"
    yield "</tbody></table></div></section>"


def _lefts(chosen: Selection) -> tuple[str, ...]:
    """Heads of the columns that say how much is left; what decides comes first."""
    return ("left of all kernels %", "left of prunable %") if chosen.of_kernels else ("left %",)


def _row(study: Study, chosen: Selection, cell: Cell) -> list[str]:
    own, dense, mask = cell.ticket or {}, cell.dense or {}, cell.mask or {}

    def shown(value: Any, scale: float, form: str) -> str:
        return "" if value is None else format(scale * value, form)

    difference = own["val_top1"] - dense["val_top1"] if own and dense else None
    return [
        *(cell.spelled(name) for name in study.varied),
        shown(cell.percentile, 1, "g"),
        "" if cell.rewound is None else cell.rewound.label,
        str(cell.seed),
        *([shown(mask.get(OF_KERNELS), 100, ".4g")] if chosen.of_kernels else []),
        shown(mask.get(DENSITY), 100, ".4g"),
        shown(own.get("val_top1"), 100, ".2f"),
        shown(difference, 100, "+.2f"),
        shown(own.get("test_top1"), 100, ".2f"),
        shown(own.get("seconds"), 1 / 60, ",.1f"),
        shown(own.get("images_per_second"), 1, ",.0f"),
        cell.status,
    ]


def _about(study: Study, cell: Cell, common: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the page shows of one run: its config without what all cells share."""
    return {
        "title": f"Cell {cell.name}: {cell.status}",
        "about": cell.error or " ".join(cell.overrides),
        "href": _href(cell, folder),
        "config": {k: v for k, v in cell.config.items() if k not in common},
    }


def _common(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        key: value
        for key, value in (configs[0] if configs else {}).items()
        if all(key in c and c[key] == value for c in configs)
    }


def _href(cell: Cell, folder: Path) -> str | None:
    """A link from the report's folder to the run's config, so that both can be moved together."""
    file = cell.config_file
    return quote(os.path.relpath(file.resolve(), folder.resolve())) if file else None


def _mean_sd(values: Sequence[float]) -> str:
    sd = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{sd}"
