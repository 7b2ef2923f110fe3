"""Which code computed something: reported when a run goes on under another version."""

import functools
import logging
import platform
import socket
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from lottery import files

log = logging.getLogger(__name__)


@functools.cache
def revision() -> str:
    """The git commit of this code, ``-dirty`` if files differ from it; else the version."""
    return describe(Path(__file__).parent) or f"version {version()}"


def version() -> str:
    """The installed version of this package; ``not installed`` if ``src`` is merely on the path."""
    try:
        return metadata.version("lottery")
    except metadata.PackageNotFoundError:
        return "not installed"


def describe(folder: Path) -> str | None:
    """The git commit of a folder's repository, ``-dirty`` if files differ from it.

    Files that git does not know count where they can be a choice: code in ``src``, options in
    ``conf``. None outside of a repository.
    """
    try:
        commit = _git(folder, "describe", "--always", "--dirty", "--abbrev=12", "--match=")
        unknown = _git(folder, "ls-files", "--others", "--exclude-standard", ":/src", ":/conf")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if unknown and not commit.endswith("-dirty") else commit


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()


def record(work: Path) -> None:
    """Note in ``provenance.json`` who computes in a work folder; warn if other code began it."""
    path = work / "provenance.json"
    attempts: list[dict[str, Any]] = files.read_json(path) if path.exists() else []
    report_change(attempts[-1]["revision"] if attempts else None, "begun")
    attempts.append(
        {
            "revision": revision(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("tensorflow", "keras", "numpy")},
        }
    )
    files.write_json(path, attempts)


def report_change(earlier: str | None, what: str) -> None:
    """Warn if this is not the code with which something was begun or submitted."""
    if earlier is not None and earlier != revision():
        log.warning("%s with code %s, going on with %s", what, earlier, revision())
