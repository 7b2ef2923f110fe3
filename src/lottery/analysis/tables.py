"""A study as tables: the grid on the terminal, every cell and every point as CSV and Parquet."""

import csv
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lottery import files
from lottery.analysis import certificate, evidence, gate, layers, price, ticket
from lottery.analysis.collect import STATUSES, Cell, Study
from lottery.analysis.grids import Grid, grids
from lottery.analysis.selection import DENSITY, OF_KERNELS, Judged, Selection
from lottery.analysis.table import show_whole
from lottery.barriers import STABLE
from lottery.points import columns

RESULTS = ("val_top1", "val_top5", "val_loss", "test_top1", "test_top5", "test_loss")
WORK = ("network", "surviving", "computed")  # multiply-adds of an image
COSTS = ("epochs", "seconds", "images_per_second")
MARKS = {"running": "…", "queued": "-", "failed": "x", "missing": "·", "unneeded": "◦"}


def write(study: Study, chosen: Selection, folder: Path) -> list[Path]:
    """Write ``cells`` (a row each), ``grid`` (a row a point) and ``layers`` (a row a layer of one).

    Each is written as CSV and as Parquet.
    """
    return [
        *save(cells(study), folder, "cells"),
        *save(grid(chosen), folder, "grid"),
        *save(layers.rows(chosen), folder, "layers"),
    ]


def save(rows: Sequence[Mapping[str, Any]], folder: Path, name: str) -> list[Path]:
    """Write a table, whose rows have the same keys, as CSV and Parquet."""
    _write_csv(rows, folder / f"{name}.csv")
    _write_parquet(rows, folder / f"{name}.parquet")
    return [folder / f"{name}.csv", folder / f"{name}.parquet"]


def cells(study: Study) -> list[dict[str, Any]]:
    """One row a cell, also without a result. Accuracies are shares of 1, as in result.json."""
    return [_row(study, cell) for cell in study.asked]


def grid(chosen: Selection) -> list[dict[str, Any]]:
    """One row a point: seeds, mean and spread in percent, the comparison with dense in points."""
    return [
        {
            "series": j.point.series,
            "percentile": j.point.percentile,
            **columns(j.point.rewound),
            "density": j.point.density,
            "density_of_kernels": j.point.share(OF_KERNELS),
            "seeds": len(j.point.cells),
            "seeds_done": len(j.point.done),
            "val_top1": _mean(j.point.values("ticket", "val_top1")),
            "dense_val_top1": _mean(j.point.values("dense", "val_top1")),
            "difference": j.comparison.difference if j.comparison else None,
            "sd": j.comparison.sd if j.comparison else None,
            "sampling_error": j.comparison.sampling if j.comparison else None,
            "interval_low": j.comparison.interval[0] if j.comparison else None,
            "interval_high": j.comparison.interval[1] if j.comparison else None,
            "lower_bound": j.comparison.lower if j.comparison else None,
            "p_value": j.comparison.p_value if j.comparison else None,
            "power": j.comparison.power if j.comparison else None,
            "passes": j.comparison.passes if j.comparison else None,
            "counts": j.counts if j.comparison else None,
            "dense_at_chance": j.at_chance if j.comparison else None,
            "matches": j.matches if j.comparison else None,
            "control": j.point.control,
            "winner": j is chosen.winner,
            "test_top1": _mean(j.point.values("ticket", "test_top1")),
            **_shares(j),
            "barrier": j.point.barrier,
        }
        for j in chosen.judged
    ]


def _row(study: Study, cell: Cell) -> dict[str, Any]:
    dense, own, mask = cell.dense or {}, cell.ticket or {}, cell.mask or {}
    rows, work = cell.curve("ticket") if cell.done else [], own.get("multiply_adds", {})
    return {
        "cell": cell.name,
        "status": cell.status,
        "percentile": cell.percentile,
        **columns(cell.rewound),
        "seed": cell.seed,
        **{name: _plain(cell.config.get(name)) for name in study.varied},
        "density": mask.get("density"),
        "density_of_kernels": mask.get("density_of_kernels"),
        "kept": mask.get("kept"),
        "prunable": mask.get("prunable"),
        "kernels": mask.get("kernels"),
        "density_of_all": mask.get("density_of_all"),
        **{f"dense_{m}": dense.get(m) for m in RESULTS},
        **{m: own.get(m) for m in (*RESULTS, *COSTS)},
        "dense_seconds": dense.get("seconds"),
        **{f"{name}_multiply_adds": work.get(name) for name in WORK},
        "training_multiply_adds": own.get("training_multiply_adds"),
        "dense_training_multiply_adds": dense.get("training_multiply_adds"),
        "step_ratio": own.get("step_time", {}).get("ratio"),
        "gpu_energy_joules": own.get("gpu_energy_joules"),
        "dense_gpu_energy_joules": dense.get("gpu_energy_joules"),
        "input_wait": _column_mean(rows, "input_wait"),
        "gpu_utilisation": _column_mean(rows, "gpu_utilisation"),
        "dense": dense.get("key"),
        "ticket": own.get("key"),
        "folder": str(cell.folder.resolve()) if cell.folder else None,
        "overrides": " ".join(cell.overrides),
        "error": cell.error,
    }


def _shares(judged: Judged) -> dict[str, float | None]:
    """What its tickets take as shares of dense, means over seeds."""
    told = price.of_points([judged])
    return {f"{name}_share": _mean(told.get(name, ())) for name in price.SHARES}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else json.dumps(value)


def _column_mean(rows: Sequence[Mapping[str, float]], name: str) -> float | None:
    return _mean([row[name] for row in rows if name in row])


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    with files.replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0] if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values)
        except pa.ArrowException:  # a swept option whose values differ in type
            arrays[name] = pa.array([None if v is None else str(v) for v in values])
    with files.replacing(path) as temporary:
        parquet.write_table(pa.table(arrays), temporary)


def show(study: Study, chosen: Selection, console: Console) -> None:
    """Print the grid of validation top-1 and the verdict."""
    for table in (_grid_table(grid, chosen) for grid in grids(chosen)):
        show_whole(table, console)
    if chosen.judged:
        console.print(_legend(chosen), style="dim")
    focus = chosen.focus
    if focus and (by_layer := layers.table(chosen, focus)):
        show_whole(by_layer, console)
    if priced := price.table(chosen):
        show_whole(priced, console)
    certain = chosen.winner and not list(ticket.doubts(chosen))
    colour = "bold green" if certain else "bold yellow"
    console.print(ticket.summary(chosen), style=colour)
    for text in evidence.lines(chosen):
        console.print(text)
    for text in certificate.sentences(study):
        console.print(text)
    if cells := certificate.table(study):
        show_whole(cells, console)
    if chosen.winner:
        console.print(
            _test_line(chosen.winner), ticket.command(study, chosen.winner.point), sep="\n"
        )
    for text in price.study_lines(study):
        console.print(text)


def show_end(study: Study, chosen: Selection, written: Sequence[Path], console: Console) -> None:
    """Print what is missing, and the files written.

    ``written`` are files in one folder; the last one, the page, comes last.
    """
    for line in problems(study, chosen):
        console.print(Text.assemble(("note:", "yellow"), f" {line}"))
    names = " ".join(path.name for path in written[:-1])
    console.print(f"written to {written[-1].parent}: {names}")
    console.print(f"report: {written[-1]}")


def problems(study: Study, chosen: Selection) -> list[str]:
    """What a reader should know is missing or was left out."""
    counts = {s: sum(c.status == s for c in study.cells) for s in STATUSES}
    lines = list(study.notes)
    unneeded = counts.pop("unneeded")
    if counts["done"] < len(study.asked):
        shown = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
        lines.append(f"{len(study.asked)} cells: {shown}")
    if unneeded:
        typed = sum(not cell.fresh for cell in study.cells)
        lines.append(f"{unneeded} of the grid's {typed} cells were never needed")
    errors: dict[str, list[str]] = {}
    for cell in study.cells:
        if cell.status == "failed":
            errors.setdefault(cell.error or "no reason recorded", []).append(cell.name)
    for error, names in errors.items():
        listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        lines.append(f"failed ({listed}): {error}")
    lines += _doubts(chosen)
    if chosen.left_out:
        lines.append(
            f"{len(chosen.left_out)} points have fewer than {chosen.seeds} seeds and could not win"
        )
    unplaced = [c.name for c in study.cells if c.percentile is None]
    if unplaced:
        lines.append(f"not in the grid, since no config is known: {', '.join(unplaced[:10])}")
    return lines


def _doubts(chosen: Selection) -> Iterator[str]:
    """What takes its worth from a comparison, whoever wins."""
    chance = [j for j in chosen.judged if j.at_chance]
    if chance:
        series = ", ".join(filter(None, dict.fromkeys(j.point.series for j in chance)))
        yield (
            f"dense networks at chance{f' ({series})' if series else ''}: no better than always "
            f"naming the most frequent class, so the tickets of {len(chance)} points match nothing"
        )
    for coarse in dict.fromkeys(filter(None, map(chosen.too_coarse, chosen.judged))):
        yield (
            f"{coarse}, more than the tolerance of {chosen.tolerance:g}: hold out more images "
            "(data.validation)"
        )


def _grid_table(grid: Grid, chosen: Selection) -> Table:
    several = ", mean over seeds" if chosen.seeds > 1 else ""
    by = "rewind epoch" if grid.of_series else "weights pruned"
    title = f"{grid.series}\n" if grid.series else ""
    title += f"validation top-1 in percent{several}, by {by}\n{_dense_line(grid.judged)}"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title)
    measures: tuple[str, ...] = ()
    if grid.of_series:
        measures = (OF_KERNELS, DENSITY) if chosen.of_kernels else (DENSITY,)
        shares = (chosen.share_left, "of the prunable")[: len(measures)]
        heads = ("pruned", *shares, *grid.columns)
    else:
        heads = ("", *(f"{percentile} %" for percentile in grid.columns))
    for head in heads:
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for name, row in zip(grid.rows, grid.points, strict=True):
        there = [j for j in row if j]
        table.add_row(
            f"{name} %" if grid.of_series else name,
            *(_left(there, measure) for measure in measures),
            *(_entry(j, chosen) for j in row),
        )
    barriers = gate.of_columns(grid) if grid.of_series else []
    if any(barrier is not None for barrier in barriers):
        table.add_section()
        shown = ("" if barrier is None else f"{barrier:.2f}" for barrier in barriers)
        table.add_row("barrier", *("" for _ in measures), *shown)
    return table


def _left(row: Sequence[Judged], measure: str) -> str:
    share = next(filter(None, (j.point.share(measure) for j in row)), None)
    return "" if share is None else f"{100 * share:.4g} %"


def _dense_line(judged: Sequence[Judged]) -> str:
    values = list(dense_values(judged).values())
    if not values:
        return "dense: no result yet"
    sd = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    chance = "; at chance" if any(j.at_chance for j in judged) else ""
    return f"dense: {statistics.fmean(values):.2f}{sd}{chance}"


def dense_values(judged: Sequence[Judged]) -> dict[str, float]:
    """Validation top-1 in percent of every dense network behind the points, by its key."""
    return {
        c.dense["key"]: 100 * c.dense["val_top1"] for j in judged for c in j.point.cells if c.dense
    }


def _entry(judged: Judged | None, chosen: Selection) -> Text:
    if judged is None:
        return Text("·", "dim")
    if judged.comparison is None:
        worst = max((c.status for c in judged.point.cells), key=_urgency)
        return Text(MARKS[worst], "red" if worst == "failed" else "dim")
    text = f"{statistics.fmean(judged.point.values('ticket', 'val_top1')):.2f}"
    if judged is chosen.winner:
        return Text(f"*{text}", "bold black on green")
    if not judged.complete:
        return Text(f"{text}?", "dim")
    return Text(text, "green" if judged.matches else "")


def _urgency(status: str) -> int:
    return ("unneeded", "done", "missing", "queued", "running", "failed").index(status)


def _legend(chosen: Selection) -> str:
    points = ticket.in_points(chosen.tolerance)
    shown = "" if chosen.level is None else "shown to be "
    rule = f"{shown}at most {points} below dense"
    words = ["* the winning ticket"] if chosen.winner else []
    words.append(f"green: {rule}")
    if any(j.comparison and not j.complete for j in chosen.judged):
        words.append("? fewer seeds than others")
    if any(j.point.barrier is not None for j in chosen.judged):
        words.append(f"barrier: in points, stable below {STABLE:g} (stability.py)")
    words.append("x failed  … running or killed  - queued  · no such cell, or not begun")
    if any(c.status == "unneeded" for j in chosen.judged for c in j.point.cells):
        words.append("◦ not needed by the search")
    return "  ".join(words)


def _test_line(winner: Judged) -> str:
    fresh = winner.confirmation is not None
    test = ticket.spread(winner.point.values("ticket", "test_top1", fresh=fresh))
    dense = ticket.spread(winner.point.values("dense", "test_top1", fresh=fresh))
    sd = "" if test["sd"] is None else f" ± {test['sd']:.2f}"
    return (
        f"Its test top-1 is {test['mean']:.2f}{sd} % (dense {dense['mean']:.2f} %); "
        "test data decided nothing. Again:"
    )
