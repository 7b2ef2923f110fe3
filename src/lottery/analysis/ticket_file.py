"""The winner as a portable ticket file, beside the verdict that names it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lottery import tickets
from lottery.analysis.collect import Cell
from lottery.analysis.selection import Selection
from lottery.errors import LotteryError
from lottery.runs import Run
from lottery.tickets import Ticket

FILE = "winning_ticket.safetensors"


@dataclass(frozen=True)
class Written:
    """The ticket file and the seed it is of, or None; ``notes`` say why."""

    path: Path | None = None
    seed: int | None = None
    notes: tuple[str, ...] = ()


def write(chosen: Selection, folder: Path) -> Written:
    """Write the winner's ticket, that of its first seed which can still be read.

    It is made from the run in the store or, if that is gone, taken from the job's own folder. What
    an earlier report left is removed if there is no winner any more.
    """
    path = folder / FILE
    reasons: list[str] = []
    for cell in chosen.winner.point.done if chosen.winner else ():
        for found in _candidates(cell, reasons):
            tickets.write(found, path)
            return Written(path, cell.seed)
    path.unlink(missing_ok=True)  # or it would pass for this winner's
    if chosen.winner is None:
        return Written()
    return Written(notes=(f"the winner's ticket file could not be written: {'; '.join(reasons)}",))


def _candidates(cell: Cell, reasons: list[str]) -> Iterator[Ticket]:
    key = (cell.ticket or {}).get("key")
    if cell.store and key:
        try:
            yield tickets.of_run(Run(cell.store / "ticket" / key))
        except FileNotFoundError as error:
            reasons.append(f"the store has no {error.filename}")
        except LotteryError as error:
            reasons.append(str(error))
        except (OSError, ValueError, KeyError) as error:
            reasons.append(f"the folder of run {key} is damaged: {error!r}")
    if cell.folder and (cell.folder / tickets.FILE).exists():
        try:
            own = tickets.read(cell.folder / tickets.FILE)
        except LotteryError as error:
            reasons.append(str(error))
            return
        if own.key == key:
            yield own
        else:
            reasons.append(f"{cell.folder / tickets.FILE} is of another run")
