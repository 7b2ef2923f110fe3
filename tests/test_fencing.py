"""An owner that was stopped, lost its lease and goes on must not touch its successor's work."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lottery import store as store_module
from lottery.errors import StoreError
from lottery.files import read_csv, write_json
from lottery.store import Store
from lottery.training.checkpoints import CheckpointFolder, Progress

EPOCHS = 3
LOST = 3  # exit code
ACTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}


@pytest.fixture
def impatient(monkeypatch):
    """Leases that lapse in a moment; what processes need is imported before they are forked."""
    import lottery.training.callbacks  # noqa: F401

    monkeypatch.setattr(store_module, "LEASE_TIMEOUT", 0.1)
    monkeypatch.setattr(store_module, "HEARTBEAT", 0.02)
    monkeypatch.setattr(store_module, "POLL", 0.02)


def train(work: Path, halfway: Callable[[], None] = lambda: None) -> None:
    """Leaves what a training leaves, by the same code, and resumes as it does."""
    from lottery.training.callbacks import MetricsFile

    checkpoints = CheckpointFolder(work / "checkpoints", frozenset({0, EPOCHS}), keep_last=1)
    found = checkpoints.latest()
    first = found[1].step if found else 0
    if not found:
        checkpoints.save({"model/w": np.zeros(3)}, Progress(0))
    metrics = MetricsFile(work / "metrics.csv", first)
    for epoch in range(first, EPOCHS):
        metrics.on_epoch_end(epoch, {"loss": float(epoch)})
        if epoch == first:
            halfway()
        checkpoints.save({"model/w": np.full(3, float(epoch + 1))}, Progress(epoch + 1))
    if first == EPOCHS:
        halfway()
    write_json(work / "result.json", {"epochs": EPOCHS})
    checkpoints.finish()


def stopped(root: Path, act: int) -> int:
    """A process that stops itself right before its n-th act in its work folder; its number.

    The acts: whatever opens, makes, renames or removes something there, and asking for the lease.
    None of them is within the moments in which others cannot take the lease, which would wait too.
    """
    child = os.fork()
    if child == 0:
        left = act
        asked = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left, asked
            if event not in ACTS:
                return
            path = str(arguments[0])
            inside = len(Path(path).parts) - len(root.parts) > 2 and path.startswith(f"{root}/work")
            if path.endswith(".guard"):
                asked += 1
                inside = asked in (2, 3)  # to begin, and to publish
            in_removal = event in ("os.remove", "os.rmdir") and arguments[1] != -1
            if inside or in_removal:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGSTOP)

        sys.addaudithook(hook)
        code = 1
        try:
            Store(root).compute("dense", {}, train)
            code = 0
        except StoreError as error:
            (root.parent / "said").write_text(str(error))
            code = LOST
        finally:
            os._exit(code)
    return child


def contents(folder: Path) -> dict[str, bytes]:
    """What counts of a work folder: not what is hidden, which is half-written or half-removed."""
    found = [p for p in folder.rglob("*") if p.is_file()]
    names = {str(p.relative_to(folder)): p for p in found}
    return {n: p.read_bytes() for n, p in names.items() if "/." not in f"/{n}"}


def takes_over(root: Path, act: int) -> bool:
    """Stop an owner before that act and let it go on in the middle of its successor's work.

    False if it has ended before it came so far.
    """
    owner = stopped(root, act)
    _, status = os.waitpid(owner, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        assert os.waitstatus_to_exitcode(status) == 0
        return False
    store = Store(root)

    def produce(work: Path) -> None:
        def halfway() -> None:
            before = contents(work)
            os.kill(owner, signal.SIGCONT)
            assert os.waitstatus_to_exitcode(os.waitpid(owner, 0)[1]) == LOST
            assert contents(work) == before
            assert [p.name for p in work.parent.iterdir()] == [work.name]
            assert store.owner(store.node("dense", {})) is not None  # the lease is ours still

        train(work, halfway)

    node = store.compute("dense", {}, produce)
    assert [row["epoch"] for row in read_csv(node.path / "metrics.csv")] == ["1", "2", "3"]
    checkpoints = CheckpointFolder(node.path / "checkpoints")
    assert checkpoints.steps() == [0, EPOCHS]
    assert all(checkpoints.load(step) for step in checkpoints.steps())
    assert not list((root / "work").iterdir())
    assert not list((root / "leases").iterdir())
    said = (root.parent / "said").read_text()
    assert "\n" not in said
    assert f"process {os.getpid()} on" in said
    return True


@pytest.mark.parametrize("act", [1, 2, 8, 20, 27, 34, 41, 48])
def test_an_owner_that_was_stopped_touches_nothing_of_its_successor(impatient, tmp_path, act):
    assert takes_over(tmp_path / "store", act)


@pytest.mark.slow
def test_wherever_it_was_stopped(impatient, tmp_path):
    act = 1
    while takes_over(tmp_path / str(act) / "store", act):
        act += 1
    assert act > 48
