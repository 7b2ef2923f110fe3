"""Importing TensorFlow without its greetings and what Keras takes along; output nobody reads."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator


def import_tensorflow() -> None:
    """Import TensorFlow and Keras for the first time; later imports find them loaded."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Keras would use them for wrappers and pictures that nobody needs here: 1.4 s of CPU.
    with quiet_stderr(), _hidden("sklearn", "matplotlib"):
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop what native code writes to standard error: greetings, a converter's chatter.

    TensorFlow greets before its logging can be told to be silent. Python's errors are unaffected.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def discard_output() -> None:
    """Drop what is still to be printed: who read it has gone, as in ``prune.py … | head -1``."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class OutputHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Logs to standard output while somebody reads it; the run goes on without."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Called where writing a line has failed; anything else is told as usual."""
        if isinstance(sys.exception(), BrokenPipeError):
            discard_output()
        else:
            super().handleError(record)


@contextlib.contextmanager
def _hidden(*packages: str) -> Iterator[None]:
    """Let imports find no such packages, unless they are imported already."""
    absent = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
