"""Transfers and latencies as tables: on the terminal, and all of them as CSV and Parquet."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from lottery.analysis import latencies, tables, transfer_sweep, transfers
from lottery.analysis.deployment import Deployment
from lottery.analysis.figures import place
from lottery.analysis.latencies import Panels
from lottery.analysis.selection import DENSITY, OF_KERNELS, Judged
from lottery.analysis.table import accuracies, clock, shows_top5, terminal
from lottery.analysis.transfers import Row, Table


def write(found: Deployment, folder: Path) -> list[Path]:
    """Write ``transfers`` (one row a run) and ``latencies`` (one a measurement), if there are any.

    Each is written as CSV and as Parquet.
    """
    rows = {
        "transfers": transfers.rows(found.transfers),
        "latencies": latencies.rows(found.latencies),
    }
    return [path for name, own in rows.items() if own for path in tables.save(own, folder, name)]


def show(found: Deployment, drawn: Panels, winner: Judged | None, console: Console) -> None:
    """Print the transfer tables of one place in the grid, and the speed-ups in a sentence."""
    made = transfers.tables(found.transfers, winner)
    for target in dict.fromkeys(t.target for t in made):
        here = [t for t in made if t.target == target]
        front = [t for t in here if t.judged is here[0].judged]
        for table in front:
            _show(table, winner, console)
        if others := len(here) - len(front):
            what = "ticket or setting" if others == 1 else "tickets or settings"
            console.print(f"{others} other {what} in report.html", style="dim")
    if text := latencies.summary(drawn, winner):
        console.print(text)
        console.print("density against latency: latency.png, report.html", style="dim")


def show_sweep(folders: Sequence[Path], console: Console | None = None) -> None:
    """Print the transfer tables of a sweep of transfer.py, by its cells' folders.

    Nothing is printed if no folder has a ``result.json`` that can be read.
    """
    console = console or terminal()
    for table in transfers.tables(transfer_sweep.read(folders)):
        _show(table, None, console)


def _show(moved: Table, winner: Judged | None, console: Console) -> None:
    console.print(_table(moved, winner))
    for row in (r for r in moved.rows if not r.values):
        console.print(f"{row.title}: {row.missing or 'not made'}")


def caption(table: Table, winner: Judged | None) -> str:
    """Which tickets were moved."""
    return f"{'the winning ticket' if table.judged is winner else 'ticket'}: {place(table.judged)}"


def _table(moved: Table, winner: Judged | None) -> RichTable:
    several = ", mean ± sd over seeds" if len(moved.seeds) > 1 else ""
    lines = (
        f"Transfer to {moved.target}",
        caption(moved, winner),
        moved.setting,
        f"{accuracies(moved.classes)}{several}",
    )
    # One space less between columns than other tables have: it fits 80 columns.
    table = RichTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title="\n".join(lines))
    table.add_column("", min_width=13)  # the only column that folds
    for name in ("validation", "test", *shares(moved), "epochs", "rate", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in moved.rows:
        table.add_row(titled(row), *_entries(moved, row))
    return table


def titled(row: Row) -> str:
    """A row's title, with how many seeds it is of if not of all."""
    return f"{row.title} ({row.missing})" if row.missing and row.values else row.title


def shares(moved: Table) -> tuple[str, ...]:
    """Names of the columns that say how many weights are left, the one that decides first."""
    return ("all kernels", "prunable") if moved.judged.of_kernels else ("weights",)


def _entries(moved: Table, row: Row) -> Iterator[Text | str]:
    if not row.values:
        yield Text("-", "dim")
        return
    names = ("top1", "top5") if shows_top5(moved.classes) else ("top1",)
    for split in ("val", "test"):
        found = [row.values[f"{split}_{name}"] for name in names]
        text = Text(" / ".join(f"{value.mean:.2f}" for value in found))
        spreads = [f"±{value.sd:.2f}" for value in found if value.sd is not None]
        if spreads:
            text.append("\n" + " / ".join(spreads), "dim")
        yield text
    yield from costs(moved, row)


def costs(moved: Table, row: Row) -> tuple[str, ...]:
    """Weights left, epochs, learning rate and time, means over seeds."""
    mean = {name: value.mean for name, value in row.values.items()}
    measures = (OF_KERNELS, DENSITY) if moved.judged.of_kernels else (DENSITY,)
    return (
        *(f"{mean[name]:.4g} %" if name in mean else "" for name in measures),
        f"{mean['epochs']:.3g}",
        f"{mean['learning_rate']:.3g}",
        clock(mean["seconds"]),
    )
