"""Who holds a lease, by clocks that differ, machines that resemble each other, and file systems."""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lottery import files, leases, store
from lottery.errors import LotteryError, StoreError
from lottery.files import read_json, refresh, write_json
from lottery.leases import Lease
from lottery.preprocess import job
from lottery.store import Node, Store
from lottery.sweep import claims

ELSEWHERE = {"host": "elsewhere", "pid": 1, "started": "0", "attempt": "theirs"}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "leases").mkdir()
    return Store(tmp_path).node("dense", {})


def lease_of(node: Node) -> Path:
    return node.path.parents[1] / "leases" / f"dense-{node.key}"


def waiter(node: Node) -> Lease:
    return Lease(lease_of(node), heartbeat=store.HEARTBEAT, timeout=store.LEASE_TIMEOUT)


# -- clocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [-90, 90])
def test_a_clock_that_is_wrong_changes_nothing(node, tmp_path, monkeypatch, skew):
    write_json(lease_of(node), ELSEWHERE)
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + skew)
    assert Store(tmp_path).owner(node) == "process 1 on elsewhere"
    silent_since = right() - store.LEASE_TIMEOUT - 1
    os.utime(lease_of(node), (silent_since, silent_since))
    assert Store(tmp_path).owner(node) is None


def test_who_waits_does_not_count_the_time_in_which_it_was_stopped_itself(node, monkeypatch):
    write_json(lease_of(node), ELSEWHERE)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lease = waiter(node)
    assert not lease.acquire()
    now[0] += (
        3600  # its owner was stopped too: the machine slept, or the file server did not answer
    )
    assert not lease.acquire()
    looks = 0
    while not lease.acquire():  # the owner stays silent, and this time we watch
        now[0] += 0.2
        looks += 1
    lease.release()
    assert looks * 0.2 == pytest.approx(store.LEASE_TIMEOUT, abs=leases.LOOK + 0.2)


def test_an_owner_that_lives_is_never_given_up(node, monkeypatch):
    write_json(lease_of(node), ELSEWHERE)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lease = waiter(node)
    for beat in range(15):
        os.utime(lease_of(node), (beat, beat))
        for _ in range(25):
            assert not lease.acquire()
            now[0] += 0.2


# -- machines ----------------------------------------------------------------------------------


def test_a_machine_of_the_same_name_is_another_one(node, tmp_path):
    """Its processes are not ours to look up: this number is free here."""
    here = leases._this_process()
    here.pop("boot", None)
    theirs = here | {"pid": 2**22 + 1, "boot": "another"}
    write_json(lease_of(node), theirs)
    assert Store(tmp_path).owner(node) == f"process {theirs['pid']} on {here['host']}"
    assert not waiter(node).acquire()


def test_a_process_of_this_machine_that_is_gone_holds_nothing(node, tmp_path):
    write_json(lease_of(node), leases._this_process() | {"pid": 2**22 + 1})
    assert Store(tmp_path).owner(node) is None
    lease = waiter(node)
    assert lease.acquire()
    assert lease.held()
    lease.release()


# -- file systems ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: Store(folder).compute("dense", {}, lambda work: None),
        lambda folder: claims.submitting(Store(folder)).__enter__(),
        lambda folder: job._lock(folder).__enter__(),
    ],
    ids=["compute", "submit", "preprocess"],
)
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, act):
    def flock(file: object, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(LotteryError, match=rf"^the file system of {tmp_path}.* support flock; cho"):
        act(tmp_path)


@pytest.fixture
def stopped(tmp_path) -> Iterator[int]:
    """A process that was stopped in the moment in which nobody may take its lease over."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            lease = waiter(Store(tmp_path).node("dense", {}))
            lease.acquire()
            with lease.exclusively():
                os.write(theirs, b"!")
                os.kill(os.getpid(), signal.SIGSTOP)
            lease.release()
        os._exit(0)
    os.close(theirs)
    os.read(ours, 1)
    os.waitpid(child, os.WUNTRACED)
    yield child
    os.close(ours)
    os.kill(child, signal.SIGCONT)
    os.waitpid(child, 0)


def test_who_is_stopped_while_it_publishes_keeps_only_its_own_node(node, tmp_path, stopped):
    assert Store(tmp_path).compute("dense", {"seed": 1}, lambda work: None).done
    assert {p.name for p in lease_of(node).parent.iterdir()} == {
        lease_of(node).name, f".{lease_of(node).name}.guard",
    }  # fmt: skip


def test_who_waits_for_a_process_that_is_stopped_says_so(node, tmp_path, stopped, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(files, "LOCK_TELL", 0.1)
    monkeypatch.setattr(store, "LEASE_TIMEOUT", 0.1)
    monkeypatch.setattr(
        files.log, "warning",
        lambda text, *values: (said.append(text % values), os.kill(stopped, signal.SIGCONT)),
    )  # fmt: skip
    assert Store(tmp_path).compute("dense", {}, lambda work: None).done
    (line,) = said
    assert f"waiting for process {stopped} on {socket.gethostname()}, which holds the lock" in line
    assert not list(lease_of(node).parent.iterdir())


def test_a_lock_whose_file_was_removed_meanwhile_is_no_lock(tmp_path):
    """Its holder took it along; somebody else may hold the one that took its place."""
    path = tmp_path / "lock"
    flock = fcntl.flock

    def late(fd: int, how: int) -> None:
        monkeypatch.undo()
        path.unlink()
        path.touch()
        flock(fd, how)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(fcntl, "flock", late)
        with files.locked(path), pytest.raises(BlockingIOError), files.locked(path, wait=False):
            pass


def test_a_lease_that_is_replaced_while_we_look_is_looked_at_again(node, tmp_path, monkeypatch):
    write_json(lease_of(node), ELSEWHERE)
    opened, stale = Path.open, [True]

    def open_(path: Path, *arguments: object, **options: object) -> object:
        if path == lease_of(node) and stale.pop():
            stale.extend([True, False])
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_)
    assert Store(tmp_path).owner(node) == "process 1 on elsewhere"
    assert not waiter(node).acquire()


def test_what_a_file_system_remembers_as_missing_is_looked_up_again(node, tmp_path, monkeypatch):
    """Clients of NFS do so until the folder changes, by their own doing or as they find out."""
    write_json(lease_of(node), ELSEWHERE)
    folder = lease_of(node).parent
    look, remembered = leases._look, folder.stat().st_mtime_ns
    monkeypatch.setattr(
        leases,
        "_look",
        lambda path: None if folder.stat().st_mtime_ns == remembered else look(path),
    )
    assert not waiter(node).acquire()
    assert Store(tmp_path).owner(node) == "process 1 on elsewhere"


def test_looking_up_again_leaves_nothing(tmp_path):
    before = tmp_path.stat().st_mtime_ns
    assert refresh(tmp_path) == pytest.approx(tmp_path.stat().st_mtime, abs=1)
    assert tmp_path.stat().st_mtime_ns > before
    assert not list(tmp_path.iterdir())


# -- those who lost it ---------------------------------------------------------------------------


def test_who_lost_its_lease_publishes_nothing_and_leaves_it_to_its_successor(tmp_path):
    """Found to be so at the last moment: everything is computed, nothing has failed."""
    root = Store(tmp_path)
    node = root.node("dense", {})

    def produce(work: Path) -> None:
        (work / "all").touch()
        lease_of(node).unlink()
        write_json(lease_of(node), ELSEWHERE)

    with pytest.raises(StoreError, match=r"^process 1 on elsewhere took over dense"):
        root.compute("dense", {}, produce)
    assert not node.path.exists()
    assert read_json(lease_of(node)) == ELSEWHERE


def test_an_error_that_has_nothing_to_do_with_the_lease_is_passed_on(tmp_path):
    def produce(work: Path) -> None:
        raise FileNotFoundError("another file")

    with pytest.raises(FileNotFoundError, match="another file"):
        Store(tmp_path).compute("dense", {}, produce)
