"""Signals that ask a run to stop: while it trains, obeyed at a step boundary; else at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any, NoReturn

from lottery.errors import StoppedError

SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """A context that signals end by :class:`StoppedError`, instead of the process without a word.

    The first one counts. Those that something else handles are left to it: SIGINT raises
    :class:`KeyboardInterrupt`, and submitit requeues its jobs on SIGUSR2. Outside the main thread
    nothing is changed.
    """
    changed = []
    if threading.current_thread() is threading.main_thread():
        changed = [s for s in SIGNALS if signal.getsignal(s) is signal.SIG_DFL]
    for signum in changed:
        signal.signal(signum, _stop_at_once)
    try:
        yield
    finally:
        for signum in changed:
            signal.signal(signum, signal.SIG_DFL)


def keep_hearing() -> None:
    """Install the handlers of :data:`SIGNALS` once more, where they are Python's.

    TensorFlow's coordination service takes SIGTERM to ignore it, at some moment after several
    processes have begun to meet, and Python does not notice. To be called while waiting.
    """
    if threading.current_thread() is threading.main_thread():
        for signum in SIGNALS:
            if callable(handler := signal.getsignal(signum)):
                signal.signal(signum, handler)


class StopSignals:
    """A context in which :data:`SIGNALS` are only noted, in :attr:`received`.

    On leaving it without an error, a noted signal stops the program all the same, so that none is
    lost between the last step and the end of the block. SIGUSR2 outranks the others: it is the
    one on which submitit requeues. A second SIGINT interrupts at once. A signal that was ignored
    before, or that submitit ignores, stays ignored. Outside the main thread nothing is installed.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.agreed: int | None = None  # received, and known to all processes that train together
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                handler = signal.getsignal(signum)
                if handler not in (None, signal.SIG_IGN) and not _bypassed(handler):
                    self._previous[signum] = handler
                    signal.signal(signum, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        if self.received is not None and (error is None or isinstance(error, StoppedError)):
            handler = self._previous.get(self.received)  # none, if it came to another process
            if callable(handler) and handler not in (signal.default_int_handler, _stop_at_once):
                handler(self.received, None)  # submitit requeues its job here and exits
            if error is None:
                self.stop("after the training")

    def noted(self) -> list[float]:
        """Whether each of :data:`SIGNALS` is the one received: 1 or 0."""
        return [float(self.received == signum) for signum in SIGNALS]

    def agree(self, noted: Sequence[float]) -> None:
        """Take what any of several processes has received as received here.

        ``noted`` is the sum of their :meth:`noted`; the first signal of :data:`SIGNALS` wins.
        """
        self.agreed = next((s for s, count in zip(SIGNALS, noted, strict=True) if count), None)
        if self.agreed is not None:
            self.received = self.agreed

    def stop(self, where: str) -> NoReturn:
        """Raise :class:`StoppedError` for the signal received."""
        assert self.received is not None
        raise _stopped(self.received, f" {where}")

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.received == signum == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is None or signum == signal.SIGUSR2:
            self.received = signum


def _stop_at_once(signum: int, frame: FrameType | None) -> NoReturn:
    for other in SIGNALS:  # what ends the run now is not to be interrupted
        if signal.getsignal(other) is _stop_at_once:
            signal.signal(other, signal.SIG_IGN)
    raise _stopped(signum)


def _stopped(signum: int, where: str = "") -> StoppedError:
    name = signal.Signals(signum).name
    return StoppedError(signum, f"stopped by {name}{where}; the same command goes on from there")


def _bypassed(handler: Any) -> bool:
    """Whether a handler is submitit's for signals that it wants to have no effect."""
    return getattr(handler, "__name__", "") == "bypass"
