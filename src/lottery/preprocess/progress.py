"""How far a long job is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS = 15  # between lines


@contextmanager
def shown(doing: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with what was done, of ``total``; shown on stderr."""
    if sys.stderr.isatty():
        yield from _bar(doing, total, unit)
    else:
        yield from _lines(doing, total, unit)


def _bar(doing: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(TextColumn):
        def render(self, task: Task) -> Text:
            return Text(_speed(task.finished_speed or task.speed or 0, unit))

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(),
        TextColumn("{task.percentage:3.0f} %"), Speed(""), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(doing, total=total)
        yield lambda count: progress.advance(bar, count)


def _lines(doing: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    done, started = 0, time.monotonic()
    told = started

    def advance(count: int) -> None:
        nonlocal done, told
        done += count
        now = time.monotonic()
        if now - told > _SECONDS or done == total:
            told = now
            speed = _speed(done / max(now - started, 1e-9), unit)
            print(f"{doing}: {100 * done // max(total, 1)} %, {speed}", file=sys.stderr)

    yield advance


def _speed(per_second: float, unit: str) -> str:
    if unit == "B":
        return f"{per_second / 2**20:.0f} MiB/s"
    return f"{per_second:.0f}{unit}/s"
