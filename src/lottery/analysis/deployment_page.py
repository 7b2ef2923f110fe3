"""The parts of the report's page on transfers and latencies, as HTML."""

from collections.abc import Iterable, Iterator
from html import escape

from lottery.analysis import latencies, transfers
from lottery.analysis.deployment import Deployment
from lottery.analysis.deployment_tables import caption, costs, shares, titled
from lottery.analysis.latencies import Panels
from lottery.analysis.selection import Judged
from lottery.analysis.table import shows_top5
from lottery.analysis.transfers import Spread, Table
from lottery.studies.transfer import ACCURACIES


def transfers_of(found: Deployment, winner: Judged | None) -> Iterator[str]:
    """A section for each data set that tickets were moved to; a table for each way of it."""
    made = transfers.tables(found.transfers, winner)
    for target in dict.fromkeys(table.target for table in made):
        yield f"<section><h2>Transfer to {escape(target)}</h2>"
        top5 = any(shows_top5(t.classes) for t in made if t.target == target)
        yield f'<p class="soft">Top-1{" and top-5" if top5 else ""} in percent'
        if any(len(table.seeds) > 1 for table in made if table.target == target):
            yield ", mean and standard deviation over seeds"
        yield (
            "; ± ticket: points of validation top-1 from the ticket. Weights: the share that is "
            "left. Test accuracy is only reported.</p>"
        )
        for table in made:
            if table.target == target:
                words = f"{capital(caption(table, winner))}; {table.setting}"
                yield f'<p class="caption">{escape(words)}</p>'
                yield from _transfer(table, "winner" if table.judged is winner else "own")
        yield "</section>"


def latencies_of(drawn: Panels, winner: Judged | None) -> Iterator[str]:
    """The section with the plot of latency against density, its reading, and all its numbers."""
    if not drawn:
        return
    yield f"<section><h2>Latency</h2><p>{escape(latencies.summary(drawn, winner))}</p>"
    yield (
        '<p class="soft">Median and quartiles of a batch, ticket and dense twin (at 100 %) timed '
        "in turns. Dotted: what it would be if time were proportional to the multiply-adds left. "
        "Equal heights are equal factors.</p>"
    )
    if len(drawn) > 1:
        yield f'<div class="controls">{select("speed", "latency", "precision, batch", drawn)}</div>'
    yield '<div id="latency"></div>'
    yield "<details><summary>All latencies</summary>" + "".join(_numbers(drawn)) + "</details>"
    yield "</section>"


def select(name: str, plot: str, label: str, groups: Iterable[str], first: str = "") -> str:
    """A menu of the groups of lines that a plot can show."""
    choices = "".join(
        f'<option value="{escape(g)}"{" selected" if g == first else ""}>{escape(g)}</option>'
        for g in groups
    )
    return f'<select id="{name}" data-plot="{plot}" aria-label="{label}">{choices}</select>'


def _transfer(moved: Table, ticket: str) -> Iterator[str]:
    metrics = [m for m in ACCURACIES if shows_top5(moved.classes) or not m.endswith("top5")]
    first, *others = (m.replace("_top", " top-") for m in metrics)
    heads = ["", first, "± ticket", *others, *shares(moved), "epochs", "rate", "time"]
    yield (
        '<div class="scroll"><table class="moved"><tr>'
        + "".join(f"<th>{h}</th>" for h in heads)
        + "</tr>"
    )
    for row in moved.rows:
        kind = f' class="{ticket}"' if row.name == "ticket" else ""
        yield f"<tr{kind}><td>{escape(titled(row))}</td>"
        if not row.values:
            why = escape(row.missing or "not made")
            yield f'<td class="words" colspan="{len(heads) - 1}">{why}</td></tr>'
            continue
        first, *others = (_spread(row.values[name]) for name in metrics)
        beside = f"{row.difference.mean:+.2f}" if row.difference else ""
        yield from (f"<td>{text}</td>" for text in (first, beside, *others, *costs(moved, row)))
        yield "</tr>"
    yield "</table></div>"


def _numbers(drawn: Panels) -> Iterator[str]:
    heads = ["weights left", "dense, ms", "ticket, ms", "measured", "in theory"]
    yield '<div class="scroll tall"><table><thead><tr><th></th><th class="words">runtime</th>'
    yield "".join(f"<th>{h}</th>" for h in heads) + "</tr></thead><tbody>"
    for group, lines in drawn.items():
        for line in lines:
            for dot in line.dots[1:]:
                yield f'<tr><td>{escape(group)}</td><td class="words">{escape(line.label)}</td>'
                texts = (f"{dot.density:.4g} %", f"{line.dots[0].time.median:.3g}",
                         f"{dot.time.median:.3g}", f"{dot.speedup:.2f}x",
                         f"{dot.possible:.2f}x")  # fmt: skip
                yield "".join(f"<td>{t}</td>" for t in texts) + "</tr>"
    yield "</tbody></table></div>"


def _spread(value: Spread) -> str:
    return f"{value.mean:.2f}" + ("" if value.sd is None else f" <small>± {value.sd:.2f}</small>")


def capital(text: str) -> str:
    """The text as the beginning of a sentence; names in it stay as they are."""
    return text[:1].upper() + text[1:]
