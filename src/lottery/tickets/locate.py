"""Finding the ticket that a user means: a file, a run's folder, a report."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lottery import files
from lottery.errors import LotteryError, TicketError
from lottery.runs import Run, load_run
from lottery.tickets.file import read
from lottery.tickets.ticket import Ticket, of_run

FILE = "ticket.safetensors"
"""The name of the ticket file in an output folder."""
_VERDICT = "winning_ticket.json"


def load_ticket(path: str | Path) -> Ticket:
    """The verified ticket that ``path`` leads to.

    That is a ticket file; the output folder of prune.py or transfer.py; a report
    (``winning_ticket.json``, its folder, or the folder of a sweep that has one); or a run in the
    store. Raises :class:`TicketError` if there is none, or its file is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise TicketError(f"there is no ticket {path}{_newest(path)}")
    if path.is_file():
        return _winner(path) if path.name == _VERDICT else read(path)
    if (path / FILE).exists():
        return read(path / FILE)
    for verdict in (path / _VERDICT, path / "report" / _VERDICT):
        if verdict.exists():
            return _winner(verdict)
    if (path / "done.json").exists() or (path / "result.json").exists():
        return _of_folder(path)
    if (path / "sweep.json").exists():
        raise TicketError(f"{path} is a sweep without a report: python report.py sweep={path}")
    raise TicketError(f"{path} holds no ticket (no {FILE}, no {_VERDICT}, no finished run)")


def asked_for(ticket: str | None, outputs: str) -> Ticket:
    """The ticket that an option ``ticket=`` names. Raises :class:`TicketError`, as above.

    ``outputs`` is where prune.py may have left one, for a hint if the option was not given.
    """
    if ticket is None:
        hint = _newest(Path(outputs, "prune", "any"))
        raise TicketError(f"say which: ticket=<ticket file, run folder or report>{hint}")
    return load_ticket(ticket)


def _of_folder(path: Path) -> Ticket:
    with _readable(path):
        run: Run = load_run(path)
        return of_run(run)


def _winner(verdict: Path) -> Ticket:
    with _readable(verdict):
        about = files.read_json(verdict)
        winner = about["winner"]
        if not winner:
            raise TicketError(f"{verdict} names no winning ticket: {about['reason']}")
        if not winner.get("ticket_file"):
            raise TicketError(f"{verdict} names a winner, but has no file of it")
        file = Path(winner["ticket_file"])
    # Beside the report first: it may have been copied, and another one be where it was.
    for candidate in (verdict.parent / file.name, file):
        if candidate.is_file():
            return read(candidate)
    raise TicketError(f"{verdict} refers to the ticket file {file}, which is not there any more")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say in one line that files are damaged, or not those of this program."""
    try:
        yield
    except TicketError:
        raise
    except LotteryError as error:
        raise TicketError(str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise TicketError(f"{path} is damaged, or of another version: {error!r}") from error


def _newest(path: Path) -> str:
    """A hint for a path that does not exist."""
    folder = path.parent
    found = [f.parent for f in folder.glob(f"*/{FILE}")] if folder.is_dir() else []
    newest = max(found, key=lambda f: f.stat().st_mtime, default=None)
    return f"; the newest in {folder} is {newest}" if newest else ""
