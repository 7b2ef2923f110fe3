"""A table for a paper in LaTeX, Markdown and CSV."""

import csv
import io
import re
import statistics
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from lottery import files
from lottery.analysis.collect import Study
from lottery.analysis.paper import Column, Table, Value, table
from lottery.analysis.report_options import Table as Wanted
from lottery.analysis.selection import Selection

SUFFIXES = {"latex": "tex", "markdown": "md", "csv": "csv"}
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "%": r"\%", "&": r"\&", "#": r"\#",
    "$": r"\$", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "±": r"$\pm$",
}  # fmt: skip


def write(study: Study, chosen: Selection, wanted: Wanted, folder: Path) -> dict[Path, str]:
    """Write the table in the formats that are wanted: ``table_cells.tex`` and the like.

    Returns their text by path.
    """
    if not wanted.formats:
        return {}
    made = table(study, chosen, wanted)
    name = "table_cells" if wanted.rows == "cell" else "table_series"
    written = {}
    for form in wanted.formats:
        path = folder / f"{name}.{SUFFIXES[form]}"
        written[path] = WRITERS[form](made)
        files.write_text(path, written[path])
    return written


def mean_and_spread(values: Sequence[float]) -> tuple[str, str]:
    """Mean and sample standard deviation: the spread to two digits, the mean to the same place.

    Without a spread, of one value or of equal ones, the mean has two decimals.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.2f}", ""
    sd = statistics.stdev(values)
    # Values of the same share may differ in their last bit.
    if sd < 1e-9:
        return f"{mean:.2f}", "0.00"
    exponent = int(f"{sd:.1e}".partition("e")[2])  # as it is when rounded: 0.0996 is 0.10
    places = max(1 - exponent, 0)
    return f"{mean:.{places}f}", f"{sd:.{places}f}"


def plain(kind: str, value: Value) -> str:
    """A value for people, as Markdown has it."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        mean, sd = mean_and_spread(value)
        return f"{mean} ± {sd}" if sd else mean
    if isinstance(value, str):
        return " ".join(value.split())  # a line break would end the row
    return _NUMBERS[kind](value)


def latex(made: Table) -> str:
    """A ``tabular`` with the rules of booktabs, to be read by ``\\input``."""
    numbers = [column.kind != "text" for column in made.columns]
    lines = [
        r"% \usepackage{booktabs}",
        *(f"% {note}" for note in made.notes),
        rf"\begin{{tabular}}{{{''.join('r' if number else 'l' for number in numbers)}}}",
        r"\toprule",
    ]
    if any(column.group for column in made.columns):
        lines += _latex_groups(made.columns)
    lines.append(_latex_row([escaped(column.title) for column in made.columns]))
    lines.append(r"\midrule")
    for number, row in enumerate(made.rows):
        if number == made.dense and number:
            lines.append(r"\midrule")
        lines.append(
            _latex_row([_latex(c.kind, v) for c, v in zip(made.columns, row, strict=True)])
        )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def markdown(made: Table) -> str:
    """A table of GitHub's Markdown, and its notes below."""
    heads = [f"{c.group}, {c.title}" if c.group else c.title for c in made.columns]
    marks = ["---" if c.kind == "text" else "---:" for c in made.columns]
    rows = [[plain(c.kind, v) for c, v in zip(made.columns, row, strict=True)] for row in made.rows]
    lines = [_markdown_row(map(_in_markdown, heads)), _markdown_row(marks)]
    lines += [_markdown_row(map(_in_markdown, row)) for row in rows]
    return "\n".join([*lines, "", *map(_in_markdown, made.notes), ""])


def as_csv(made: Table) -> str:
    """Plain numbers, not rounded: of an accuracy mean and standard deviation."""
    heads: list[str] = []
    for column in made.columns:
        both = (f"{column.name}_mean", f"{column.name}_sd")
        heads += both if column.kind == "accuracy" else (column.name,)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    for row in made.rows:
        values: list[str | float | None] = []
        for column, value in zip(made.columns, row, strict=True):
            if column.kind != "accuracy":
                values.append(value)  # type: ignore[arg-type]
            elif isinstance(value, tuple):
                spread = statistics.stdev(value) if len(value) > 1 else None
                values += [statistics.fmean(value), spread]
            else:
                values += [None, None]
        writer.writerow(values)
    return text.getvalue()


WRITERS: dict[str, Callable[[Table], str]] = {
    "latex": latex,
    "markdown": markdown,
    "csv": as_csv,
}


def escaped(text: str) -> str:
    """Text as LaTeX sets it, letter by letter."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _latex(kind: str, value: Value) -> str:
    text = plain(kind, value)
    if kind == "count":
        return text.replace(" ", r"\,")
    if text and kind in ("accuracy", "points", "p"):
        return "${}$".format(text.replace("±", r"\pm"))
    return escaped(text)


def _latex_groups(columns: Sequence[Column]) -> list[str]:
    """The line over the titles, and rules that join what belongs together."""
    heads, rules, first = [], [], 1
    for group, members in groupby(columns, lambda column: column.group):
        width = len(list(members))
        if group:
            heads.append(rf"\multicolumn{{{width}}}{{c}}{{{escaped(group)}}}")
            rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}")
        else:
            heads += [""] * width
        first += width
    return [_latex_row(heads), " ".join(rules)]


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _markdown_row(cells: "Sequence[str] | map[str]") -> str:
    return f"| {' | '.join(cells)} |"


def _in_markdown(text: str) -> str:
    """Text that is not to be taken for marks; an underscore within a word is none."""
    text = re.sub(r"[\\|*<>`\[\]~&]", r"\\\g<0>", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _count(value: float) -> str:
    """``17.6 M``: three digits."""
    for unit, name in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if round(value) >= unit:
            return f"{float(f'{value / unit:.3g}'):g}{name}"
    return f"{value:.0f}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.2g}"


_NUMBERS: dict[str, Callable[[float], str]] = {
    "percent": lambda value: f"{value:.4g} %",
    "points": lambda value: f"{value:+.2f}",
    "count": _count,
    "p": _p,
}
