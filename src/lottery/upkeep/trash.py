"""Removing from a store: by one rename first, so that there is never half of something.

What has been renamed into ``trash/`` is deleted at leisure; whatever a killed process left there
the next one deletes.
"""

import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from lottery.store import Store

FOLDER = "trash"


def take_out(store: Store, paths: Iterable[Path]) -> list[Path]:
    """Those of these that were there, now in the trash, where :func:`empty` deletes them."""
    folder = store.root / FOLDER
    folder.mkdir(exist_ok=True)
    taken = []
    for path in paths:
        try:
            path.rename(folder / f"{path.name}.{uuid.uuid4().hex[:8]}")
        except FileNotFoundError:
            continue
        taken.append(path)
    return taken


def empty(store: Store) -> None:
    """Delete what is in the trash; others may do the same meanwhile."""
    folder = store.root / FOLDER
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
