"""report.py table=…: means and spreads over seeds and nothing else, in three formats."""

import csv
import dataclasses
import io
import re
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, run
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from omegaconf import OmegaConf
from test_figures import cell, judged
from test_report import Sweep, rows
from test_report import sweep as sweep

from lottery.analysis import paper, paper_formats, report, report_options, tables
from lottery.analysis.collect import Cell
from lottery.analysis.report_options import Table as Wanted
from lottery.errors import LotteryError

HOSTILE = r"a_b & 50 % of #1 {x} $y^2$ ~z\n <t> | \| *bold* `code` [l](u) ± é"


def table(cells: list[Cell], level: float | None = 0.05, **told: Any) -> paper.Table:
    return paper.table(*judged(cells, level=level), Wanted(**told))


def as_rows(made: paper.Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(paper_formats.as_csv(made))))


@st.composite
def studies(draw: st.DrawFn) -> list[Cell]:
    """Networks of several widths, tickets of several seeds; some have fewer."""
    hits = st.integers(500, 990)
    return [
        cell(percentile, draw(hits), epoch=epoch, seed=seed, rival=str(width),
             **{"model.width": width})
        for width in draw(st.sets(st.sampled_from([0.5, 1.0, 2.0]), min_size=1))
        for percentile in (80, 90)
        for epoch in (0, 1)
        for seed in draw(st.sets(st.integers(0, 3), min_size=1))
    ]  # fmt: skip


@given(studies())
def test_every_mean_and_spread_is_that_of_cells_csv_over_seeds_alone(cells: list[Cell]) -> None:
    study, chosen = judged(cells)
    by_place: dict[Any, list[dict[str, Any]]] = {}
    for row in tables.cells(study):
        place = row.get("model.width"), row["percentile"], row["rewind_epoch"]
        by_place.setdefault(place, []).append(row)
    made = paper.table(study, chosen, Wanted())
    found = [r for r in as_rows(made) if r["network"] != "dense"]
    assert len(found) == len(by_place)
    for row in found:
        width = float(row["model.width"]) if "model.width" in row else None
        own = by_place[width, float(row["pruned"]), int(row["rewound_to"])]
        assert len({r["seed"] for r in own}) == len(own) == int(row["n"])
        for split, metric in (("validation", "val_top1"), ("test", "test_top1")):
            values = [100 * r[metric] for r in own]
            assert float(row[f"{split}_mean"]) == pytest.approx(statistics.fmean(values))
            if len(own) > 1:
                sd = pytest.approx(statistics.stdev(values), abs=1e-9)
                assert float(row[f"{split}_sd"]) == sd
            else:
                assert row[f"{split}_sd"] == ""
        assert float(row["density"]) == pytest.approx(100 * own[0]["density"])
        assert float(row["surviving"]) == own[0]["surviving_multiply_adds"]


@given(studies())
def test_dense_networks_are_averaged_over_seeds_of_one_study(cells: list[Cell]) -> None:
    made = table(cells)
    dense = [r for r in as_rows(made) if r["network"] == "dense"]
    assert made.dense == len(dense) == len({c.config["model.width"] for c in cells})
    for row in dense:
        own = {c.seed: c for c in cells if row.get("model.width", "") in (
            "", str(c.config["model.width"]))}  # fmt: skip
        values = [100 * c.dense["val_top1"] for c in own.values() if c.dense]
        assert int(row["n"]) == len(own)
        assert float(row["validation_mean"]) == pytest.approx(statistics.fmean(values))


def test_series_that_share_their_dense_networks_have_one_row_for_them() -> None:
    cells = [cell(80, 900, seed=s, **{"mask.shuffle": shuffled})
             for s in (0, 1) for shuffled in (False, True)]  # fmt: skip
    first, *others = as_rows(table(cells))
    assert (first["network"], first["n"], first["mask.shuffle"]) == ("dense", "2", "")
    assert [r["network"] for r in others] == ["ticket", "control"]
    assert [r["mask.shuffle"] for r in others] == ["False", "True"]


def test_fresh_seeds_of_a_winner_have_a_row_of_their_own() -> None:
    cells = [cell(80, 900 + s, seed=s) for s in range(4)]
    cells += [dataclasses.replace(cell(80, 905, seed=s), fresh=True) for s in (7, 8)]
    found = [(r["network"], r["n"]) for r in as_rows(table(cells, None))]
    assert found == [("dense", "4"), ("winning ticket", "4"), ("winning ticket, fresh seeds", "2")]


@pytest.mark.parametrize(
    ("values", "mean", "sd"),
    [
        ([88.1, 88.5, 88.9], "88.50", "0.40"),
        ([58.0, 59.6], "58.8", "1.1"),
        ([50.0, 80.0], "65", "21"),
        ([90.0, 90.0], "90.00", "0.00"),
        ([90.123], "90.12", ""),
        ([90.0, 90.0 + 0.0996 * 2**0.5], "90.07", "0.10"),
        ([90.0, 90.0 + 0.00123 * 2**0.5], "90.0009", "0.0012"),
        ([90.0, 90.0 + 9.96 * 2**0.5], "97", "10"),
    ],
)
def test_the_spread_has_two_digits_and_the_mean_ends_where_it_does(
    values: list[float], mean: str, sd: str
) -> None:
    assert paper_formats.mean_and_spread(values) == (mean, sd)


def test_p_values_are_those_of_the_verdict() -> None:
    """Corrected for all cells of the grid, as the CSV of the report has them."""
    cells = [cell(p, 899, epoch=e, seed=s) for p in (50, 80, 90) for e in (0, 1) for s in range(3)]
    study, chosen = judged(cells)
    expected = [row["p_value"] for row in tables.grid(chosen)]
    made = paper.table(study, chosen, Wanted(p_values=True))
    assert [float(r["p"]) for r in as_rows(made)[1:]] == expected
    assert made.columns[-1].title == "p"
    assert any("all cells of the grid taken into account" in note for note in made.notes)
    assert chosen.judged[0].comparison
    assert chosen.judged[0].comparison.looks > 1
    assert "p" not in as_rows(paper.table(study, chosen, Wanted()))[0]
    alone = table(cells, None, p_values=True)
    assert any("of one cell alone" in note for note in alone.notes)


def test_a_grid_with_nothing_pruned_has_its_columns_once() -> None:
    made = table([cell(percentile, 900) for percentile in (0, 50, 80)], rows="series")
    header = paper_formats.as_csv(made).splitlines()[0].split(",")
    assert len({*header}) == len(header)


def test_a_row_a_series_has_a_column_a_percentile() -> None:
    cells = [cell(p, 900 - p + s, seed=s, **{"mask.scope.name": scope})
             for p in (80, 90) for s in (0, 1) for scope in ("erk", "global")
             if (p, scope) != (90, "erk")]  # fmt: skip
    made = table(cells, rows="series")
    groups = [c.group for c in made.columns if c.group]
    assert list(dict.fromkeys(groups)) == ["100 % left", "20 % left", "10 % left"]
    dense, erk, whole = as_rows(made)
    assert float(dense["validation_0_pruned_mean"]) == pytest.approx(90.05)
    assert dense["validation_80_pruned_mean"] == ""
    assert float(erk["test_80_pruned_mean"]) == pytest.approx(82.05)
    assert (erk["test_90_pruned_mean"], whole["test_0_pruned_mean"]) == ("", "")
    assert float(whole["test_90_pruned_mean"]) == pytest.approx(81.05)
    text = paper_formats.latex(made)
    assert r"\multicolumn{2}{c}{20 \% left}" in text
    assert r"\cmidrule(lr){4-5} \cmidrule(lr){6-7}" in text


def test_densities_that_differ_stand_beside_the_accuracies() -> None:
    """Channels, say, do not come to the percentile that was asked for."""
    other = cell(80, 900, method="channel")
    other = dataclasses.replace(other, mask={**(other.mask or {}), "density": 0.25})
    made = table([cell(80, 900, method="magnitude"), other], rows="series")
    assert {c.group for c in made.columns if c.group} == {"100 % left", "80 % pruned"}
    assert [r["density_80_pruned"] for r in as_rows(made)[1:]] == ["25.0", "20.0"]


# What the formats make of names and numbers


def hostile(**told: Any) -> paper.Table:
    cells = [cell(p, 900 + s, seed=s, rival=str(n), **{"model.name": f"{HOSTILE}{n}"})
             for p in (80, 90) for s in (0, 1) for n in (0, 1)]  # fmt: skip
    return table(cells, p_values=True, **told)


def unescaped(text: str) -> str:
    """What LaTeX sets, for the commands that a table uses; fails on an unescaped letter."""
    for letter, command in paper_formats._LATEX.items():
        if len(command) > 2 and letter != "±":
            text = text.replace(command, f"\0{ord(letter):x};")
    text = text.replace(r"$\pm$", "±")
    assert not re.search(r"(?<!\\)[#%&_${}~^]", text), text
    text = re.sub(r"\\([#%&_${}])", r"\1", text)
    return re.sub("\0([0-9a-f]+);", lambda m: chr(int(m[1], 16)), text)


def test_a_name_of_several_lines_stays_in_its_row() -> None:
    made = table([cell(p, 900, **{"model.name": f"two\n\nlines{p}"}) for p in (80, 90)])
    for text in (paper_formats.latex(made), paper_formats.markdown(made)):
        assert len([line for line in text.splitlines() if "two lines" in line]) == 2


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20))
def test_latex_sets_names_letter_by_letter(name: str) -> None:
    assert unescaped(paper_formats.escaped(name)) == name


def test_every_latex_row_has_all_columns() -> None:
    lines = paper_formats.latex(hostile()).splitlines()
    (begin,) = [line for line in lines if line.startswith(r"\begin{tabular}")]
    columns = len(re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", begin)[1])  # type: ignore[index]
    body = [line for line in lines if line.endswith(r" \\")]
    assert len(body) == 7  # titles, two dense networks, four points
    for line in body:
        cells = re.split(r"(?<!\\)&", line.removesuffix(r"\\"))
        assert len(cells) == columns
    names = [unescaped(re.split(r" (?<!\\)& ", line)[1]) for line in body[1:]]
    assert names == [f"{HOSTILE}{n}" for n in (0, 1, 0, 0, 1, 1)]
    assert lines[-1] == r"\end{tabular}"
    assert r"$90.050 \pm 0.071$" in body[-1]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX")
@pytest.mark.parametrize("rows", report_options.ROWS)
def test_latex_compiles(tmp_path: Path, rows: str) -> None:
    made = hostile(rows=rows, columns=list(report_options.METRICS))
    (tmp_path / "table.tex").write_text(paper_formats.latex(made))
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\usepackage[T1]{fontenc}"
        r"\begin{document}\input{table.tex}\end{document}"
    )
    process = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-2000:]


def test_markdown_shows_what_it_is_told() -> None:
    made = hostile()
    tokens = MarkdownIt("commonmark").enable("table").parse(paper_formats.markdown(made))
    shown = ["".join(c.content for c in t.children or ()) for t in tokens if t.type == "inline"]
    width = len(made.columns)
    assert shown[:width] == [column.title for column in made.columns]
    body = [shown[n : n + width] for n in range(width, width * (len(made.rows) + 1), width)]
    assert [row[1] for row in body] == [f"{HOSTILE}{n}" for n in (0, 1, 0, 0, 1, 1)]
    assert "90.050 ± 0.071" in body[-1]


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("count", 17_612_345.0, "17.6 M"), ("count", 743.0, "743"), ("count", 8760.0, "8.76 k"),
        ("count", 4.1e9, "4.1 G"), ("count", 999_999.6, "1 M"),
        ("p", 0.0471, "0.047"), ("p", 1e-30, "<0.001"), ("p", 1.0, "1"),
        ("percent", 12.0, "12 %"), ("points", -0.321, "-0.32"),
    ],
)  # fmt: skip
def test_numbers_have_as_many_digits_as_say_something(kind: str, value: float, text: str) -> None:
    assert paper_formats.plain(kind, value) == text


# The command


def reported(sweep: Sweep, **told: Any) -> Path:
    options = report_options.Options(
        sweep=str(sweep.folder), logger=report_options.Wandb(mode="disabled"), **told
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lottery.analysis.plots.write", lambda *_: [])
        report.publish(options)
    return sweep.folder


def test_tables_are_printed_and_written(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        sweep.add(80, 0, 0.9 + seed / 1000, seed=seed)
    every = Wanted(latex=True, markdown=True, csv=True, rows="series", columns=["n", "test"])
    folder = reported(sweep, table=every) / "report"
    shown = capsys.readouterr().out
    for suffix in ("tex", "md", "csv"):
        assert (folder / f"table_series.{suffix}").read_text().strip() in shown
        assert f"table_series.{suffix}" in shown.rpartition("written to")[2]
    (ticket,) = [r for r in rows(folder, "table_series") if r["network"] != "dense"]
    assert ticket["n_80_pruned"] == "2"


def test_a_report_by_another_rule_leaves_the_study_s_own_alone(sweep: Sweep) -> None:
    for seed in (0, 1):
        sweep.add(80, 0, 0.897, seed=seed)
    folder = reported(sweep)
    before = (folder / "report" / "winning_ticket.json").read_bytes()
    reported(sweep, tolerance=2.0)
    reported(sweep, tolerance=2.0, level="mean")
    reported(sweep, level=0.01)
    reported(sweep, where={"seed": [0, 1], "mask.percentile": 80})
    reported(sweep, where={"model.name": "lenet_300_100"})
    reported(sweep, tolerance=1.0, level=0.05)  # the same as the runs', typed
    names = {path.name for path in folder.glob("report*")}
    assert names == {
        "report", "report-tolerance-2", "report-tolerance-2-level-mean", "report-level-0.01",
        "report-seed-0+1-mask.percentile-80", "report-model.name-lenet_300_100",
    }  # fmt: skip
    assert (folder / "report" / "winning_ticket.json").read_bytes() == before


def test_folders_of_names_that_are_none_of_a_file_s_differ(sweep: Sweep) -> None:
    sweep.add(80, 0, 0.897)
    study, _ = report.judge(report_options.Options(sweep=str(sweep.folder)))
    names = {
        report.folder_name(report_options.Options(where={"data.dir": at}), study, 1.0, 0.05)
        for at in ("a/b", "a_b", "a b", "é", "x" * 300, "x" * 301, "../..")
    }
    assert len(names) == 7
    assert all(re.fullmatch(r"[A-Za-z0-9_.+-]{1,150}", name) for name in names)


def test_runs_that_disagree_have_a_report_of_each_rule(sweep: Sweep) -> None:
    for seed, tolerance in enumerate((1.0, 2.0)):
        sweep.add(80, 0, 0.9, seed=seed, **{"verdict.tolerance": tolerance})
    folder = reported(sweep, tolerance=2.0)
    assert [path.name for path in folder.glob("report*")] == ["report-tolerance-2"]


def test_a_format_that_does_not_exist_is_said(sweep: Sweep) -> None:
    sweep.add(80, 0, 0.9)
    process = run("report.py", f"sweep={sweep.folder}", "table=word")
    assert process.returncode == 1
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert "table" in process.stderr
    assert "word" in process.stderr


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"table": Wanted(latex=True, rows="cells")}, "table.rows=cells is unknown; did you mean"),
        (
            {"table": Wanted(csv=True, columns="tset")},
            "table.columns=tset is unknown; did you mean",
        ),
        ({"table": Wanted(csv=True, columns=[3])}, "table.columns=3 is unknown"),
        ({"table": Wanted(csv=True, columns=["n", "n"])}, "table.columns names n more than once"),
        ({"table": Wanted(rows="series")}, "say how to write the table: table=latex, markdown or"),
        ({"figures": report_options.Figures(columns=3)}, "figures.columns=3 must be 1 or 2"),
    ],
)
def test_what_cannot_be_drawn_or_written_is_said(told: dict[str, Any], message: str) -> None:
    options = OmegaConf.structured(report_options.Options(sweep="some", **told))
    with pytest.raises(LotteryError, match=message):
        report_options.typed(options)


def test_nothing_to_average_is_an_empty_table(sweep: Sweep) -> None:
    sweep.add(80, 0, status="failed", error="no")
    folder = reported(sweep, table=Wanted(latex=True, markdown=True, csv=True)) / "report"
    assert r"\end{tabular}" in (folder / "table_cells.tex").read_text()
    with pytest.raises(LotteryError):
        report.judge(report_options.Options(sweep=str(REPOSITORY)))
