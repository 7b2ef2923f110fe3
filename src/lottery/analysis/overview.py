"""What a sweep says in the terminal: its plan before it starts, its cells at the end."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from lottery.sweep.plan import Cell, Estimate, Plan

STATES = ("done", "failed", "running", "queued", "missing")


def show_plan(plan: Plan, estimate: Estimate | None, gpus: int, parallel: int) -> None:
    """Print what there is, what will be computed and how long that may take.

    ``gpus`` is what a job gets (0: none), ``parallel`` how many jobs run at a time.
    """
    console = Console(soft_wrap=True, highlight=False)
    to_run = sum(map(len, plan.jobs))
    rows = [
        ("cells", f"{len(plan.cells)}: {len(plan.done)} done, {len(plan.underway)} underway "
                  f"elsewhere, {to_run} to run in {_count(len(plan.jobs), 'job')}"),
        ("dense networks", f"{len(plan.parents) or 'none'} to train or complete first"),
    ]  # fmt: skip
    if plan.epochs:
        shared = f"{plan.epochs:,}"
        if plan.epochs_unshared > plan.epochs:
            shared += (
                f", each dense network and mask shared; {plan.epochs_unshared:,} without sharing"
            )
        rows.append(("epochs to train", shared))
        rows.append(("expected", _expected(estimate, gpus, parallel)))
    for name, text in rows:
        console.print(f"  [bold]{name:<16}[/bold]{text}")
    for cell in plan.underway:
        console.print(f"  underway        {cell.number}: {cell.underway}", style="dim")


def show_outcome(cells: Sequence[tuple[Cell, str, str]], folder: str) -> None:
    """Print how many cells are in which state, and each one that is not done with the reason."""
    console = Console(soft_wrap=True, highlight=False)
    counts = Counter(state for _, state, _ in cells)
    listed = [f"{counts[s]} {s}" for s in STATES if counts[s]]
    common = set.intersection(*(set(cell.overrides) for cell, _, _ in cells))
    for cell, state, why in cells:
        if state != "done":
            own = " ".join(o for o in cell.overrides if o not in common)
            reason = why.splitlines()[0] if why else ""
            line = f"{state:>8}  {cell.number}  {own}"
            console.print(f"{line}  {reason}".rstrip(), markup=False)
    console.print(f"[bold]{len(cells)} cells[/bold]: {', '.join(listed)}")
    console.print(f"sweep: {folder}")


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
