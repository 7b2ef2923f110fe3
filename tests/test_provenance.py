"""Which code computed something: every file that can change a result counts as a change."""

import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from lottery import provenance


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for file in ("src/lottery/models/net.py", "conf/model/net.yaml", "README.md"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("a\n")
    (tmp_path / ".gitignore").write_text("*.pyc\noutputs/\n")
    me = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    for arguments in (("init", "-q"), ("add", "."), (*me, "commit", "-q", "-m", "Begin")):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    return tmp_path


def described(repository: Path) -> str | None:
    return provenance.describe(repository / "src" / "lottery")


def test_a_commit_is_named_as_it_is(repository):
    commit = described(repository)
    assert commit is not None
    assert len(commit) == 12
    for harmless in ("notes.txt", "outputs/result.json", "src/lottery/cached.pyc"):
        (repository / harmless).parent.mkdir(exist_ok=True)
        (repository / harmless).write_text("b\n")
    assert described(repository) == commit


@pytest.mark.parametrize(
    "file",
    [
        "src/lottery/models/net.py", "README.md",  # known to git
        "src/lottery/models/mine.py", "conf/model/mine.yaml",  # new
    ],
)  # fmt: skip
def test_a_changed_or_new_file_is_said(repository, file):
    commit = described(repository)
    (repository / file).write_text("b\n")
    assert described(repository) == f"{commit}-dirty"


def test_there_need_not_be_a_repository(tmp_path):
    assert provenance.describe(tmp_path) is None


def test_code_that_is_on_the_path_but_not_installed_can_still_write_a_ticket(monkeypatch):
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    assert provenance.version() == metadata.version("lottery")
    monkeypatch.setattr(provenance.metadata, "version", missing)
    assert provenance.version() == "not installed"
