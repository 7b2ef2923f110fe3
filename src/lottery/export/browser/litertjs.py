"""LiteRT.js from the npm registry: fetched once, with the checksums of the lock file."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lottery.errors import BrowserError

VERSION = "2.5.3"
_PATIENCE = 120.0  # seconds; npm itself tries for ever where there is no network
_LOCK = Path(__file__).parent


def folder() -> Path:
    """The folder whose ``node_modules`` holds LiteRT.js; fetched if it is not there yet.

    It lies in the user's cache (``$XDG_CACHE_HOME``, or ``~/.cache``). Raises
    :class:`BrowserError` if npm is missing or does not get it, or the cache cannot be written.
    """
    try:
        return _cached()
    except OSError as error:
        raise BrowserError(f"LiteRT.js cannot be kept in the cache: {error}") from error


def _cached() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lottery"
    target = cache / f"litertjs-{VERSION}"
    if not target.is_dir():
        _fetch(target)
    return target


def _fetch(target: Path) -> None:
    if shutil.which("npm") is None:
        raise BrowserError("LiteRT.js comes through npm, which is missing: apt-get install npm")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        fetched = Path(temporary) / "package"
        fetched.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_LOCK / name, fetched)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            process = subprocess.run(
                command, cwd=fetched, capture_output=True, text=True, timeout=_PATIENCE
            )
        except subprocess.TimeoutExpired as error:
            raise BrowserError(
                f"npm did not fetch LiteRT.js {VERSION} within {_PATIENCE:g} s: "
                "is its registry within reach?"
            ) from error
        if process.returncode:
            reason = (process.stderr.strip().splitlines() or ["no reason given"])[0]
            raise BrowserError(f"npm did not fetch LiteRT.js {VERSION}: {reason}")
        try:
            fetched.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was as fast
                raise
