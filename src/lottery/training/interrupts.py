"""Signals that ask a run to stop: noted when they come, obeyed at a step boundary."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class StopSignals:
    """A context in which SIGTERM, SIGINT and SIGUSR2 only set :attr:`received`.

    A second SIGINT interrupts at once. Outside the main thread nothing is installed.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._note) for s in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def pass_on(self) -> None:
        """Call the handler that was there before for the signal received, if it is a function.

        submitit requeues its job in such a handler and then exits.
        """
        if self.received is None:
            return
        handler = self._previous.get(self.received)
        if callable(handler) and handler is not signal.default_int_handler:
            handler(self.received, None)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signum
