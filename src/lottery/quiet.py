"""Importing TensorFlow without its greetings, and without what Keras takes along for nothing."""

import contextlib
import os
import sys
from collections.abc import Iterator


def import_tensorflow() -> None:
    """Import TensorFlow and Keras for the first time; later imports find them loaded."""
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
