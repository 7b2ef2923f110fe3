"""What a sweep says in the terminal: its plan before it starts, its cells at the end."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lottery.analysis.table import show_whole, terminal
from lottery.data import summarise
from lottery.data.summary import tell
from lottery.sweep.jobs import Launchers
from lottery.sweep.plan import Cell, Estimate, Plan, estimate
from lottery.sweep.proposers import Outlook
from lottery.sweep.waves import Wave, Waves

COLOURS = {
    "done": "green", "failed": "red", "running": "cyan", "queued": "cyan", "missing": "yellow",
}  # fmt: skip
STATES = tuple(COLOURS)


def show_plan(plan: Plan, estimate: Estimate | None, gpus: int, parallel: int) -> None:
    """Print what there is, what will be computed and how long that may take.

    ``gpus`` is what a job gets (0: none), ``parallel`` how many jobs run at a time.
    """
    console = terminal()
    to_run = sum(map(len, plan.jobs))
    rows = [
        ("cells", f"{len(plan.cells)}: {len(plan.done)} done, {len(plan.underway)} underway "
                  f"elsewhere, {to_run} to run in {_count(len(plan.jobs), 'job')}"),
        ("dense networks", f"{len(plan.parents) or 'none'} to train or complete first"),
    ]  # fmt: skip
    if plan.early:
        rows.append(("early tickets", f"{len(plan.early)} that need no trained network"))
    if plan.epochs:
        shared = f"{plan.epochs:,.6g}"
        if plan.epochs_unshared > plan.epochs:
            shared += (
                f", each dense network and mask shared; {plan.epochs_unshared:,.6g} without sharing"
            )
        rows.append(("epochs to train", shared))
        if plan.begun:
            text = f"{plan.begun:,.6g} more, in finished trainings that begin alike"
            rows.append(("trained already", text))
        if plan.price < plan.epochs:
            rows.append(("at the price of", _price(plan)))
        rows.append(("expected", _expected(estimate, gpus, parallel)))
    for name, text in rows:
        console.print(Text.assemble((f"  {name:<16}", "bold"), text))
    if not plan.jobs and not plan.underway:
        console.print("  nothing to compute: every cell is in the store")
    for cell in plan.underway:
        console.print(f"  underway        {cell.number}: {cell.underway}", style="dim")


def show_wave(wave: Wave, waves: Waves, launcher: Launchers) -> None:
    """Print the plan of a wave, or how many cells of the grid it found in the store.

    Before the first one that a search asks for, what it expects to need, against the grid.
    """
    if not wave.asked:
        found = f"{_count(len(wave.plan.cells), 'cell')} of the grid"
        terminal().print(Text.assemble((f"  {'in the store':<16}", "bold"), found))
        return
    if wave.number == 1 and (outlook := getattr(waves.proposer, "outlook", None)) is not None:
        _show_outlook(outlook())
    elif waves.proposer.adaptive:
        terminal().print(f"wave {wave.number}", style="bold")
    expected = estimate(wave.plan, waves.store, launcher.parallel)
    show_plan(wave.plan, expected, launcher.gpus, launcher.parallel)
    _tell_of_data([cell for job in wave.plan.jobs for cell in job])


def _tell_of_data(cells: Sequence[Cell]) -> None:
    """Log what there is to know of each data set that cells are to be trained on, once."""
    data = {
        json.dumps(asdict(cell.config.data), sort_keys=True): cell.config.data for cell in cells
    }
    for config in data.values():
        tell(summarise(config))


def _show_outlook(expected: Outlook) -> None:
    rows = {
        "search": f"{_range(expected.cells_from, expected.cells_to)} cells of the grid's "
        f"{expected.grid_cells:,}, in {_range(expected.waves_from, expected.waves_to)} waves",
        "its epochs": f"{_range(expected.epochs_from, expected.epochs_to)} of the grid's "
        f"{expected.grid_epochs:,.6g}",
    }
    if expected.grid_price < expected.grid_epochs:
        low, high = (float(f"{p:.4g}") for p in (expected.price_from, expected.price_to))
        rows["at the price of"] = (
            f"{_range(low, high)} of the grid's {expected.grid_price:,.4g} epochs of the dense "
            "network"
        )
    *_, last = rows
    rows[last] += "; what it asks for first:"
    for name, text in rows.items():
        terminal().print(Text.assemble((f"  {name:<16}", "bold"), text))


def _price(plan: Plan) -> str:
    how = "; an estimate, made of mask.percentile" if plan.guessed else ""
    return (
        f"{plan.price:,.4g} epochs of the dense network: what a mask has cut off is not "
        f"computed{how}"
    )


def _range(low: float, high: float) -> str:
    return f"{low:,.6g}" if low == high else f"{low:,.6g} to {high:,.6g}"


def show_outcome(
    cells: Sequence[tuple[Cell, str, str]], folder: str, console: Console | None = None
) -> None:
    """Print how many cells are in which state; of those not done, which they are and why.

    ``cells`` are cell, state and what there is to say about it; ``folder`` is the sweep's.
    """
    console = console or terminal()
    counts = Counter(state for _, state, _ in cells)
    if counts["done"] < len(cells):
        table = _outcome_table(cells, counts)
        if console.is_terminal:  # folds reasons into their column
            console.print(table)
        else:
            show_whole(table, console)
    listed = ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s])
    console.print(Text.assemble((_count(len(cells), "cell"), "bold"), f": {listed}"))
    console.print(f"sweep: {folder}")


def _outcome_table(cells: Sequence[tuple[Cell, str, str]], counts: Counter[str]) -> Table:
    """One row a state, and below it one for each of its cells unless they are done."""
    common = set.intersection(*(set(cell.overrides) for cell, _, _ in cells))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("state", no_wrap=True)
    for name in ("cells", "number"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("swept values")
    table.add_column("reason")
    for state in (s for s in STATES if counts[s]):
        head: tuple[Text | str, str] = (Text(state, COLOURS[state]), str(counts[state]))
        if state == "done":
            table.add_row(*head)
            continue
        before = None
        for cell, _, why in (c for c in cells if c[1] == state):
            own = " ".join(o for o in cell.overrides if o not in common)
            reason = why.splitlines()[0] if why else ""
            shown = "as above" if reason and reason == before else reason
            table.add_row(*head, str(cell.number), own, shown)
            head, before = ("", ""), reason
    return table


def _expected(estimate: Estimate | None, gpus: int, parallel: int) -> str:
    if estimate is None:
        return "unknown: no run of this network on this data has been timed in the store"
    hours = estimate.seconds * max(gpus, 1) / 3600
    unit = "GPU-hours" if gpus else "job-hours"
    return (
        f"{hours:.1f} {unit} of training, {_clock(estimate.wall)} with "
        f"{_count(parallel, 'job')} at a time (from {_count(estimate.measured, 'timed run')})"
    )


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 120 else f"{minutes} min"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
