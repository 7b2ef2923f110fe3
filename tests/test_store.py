"""The run store: computed once, whoever asks, whatever dies."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from lottery import store as store_module
from lottery.errors import StoreError
from lottery.files import read_json, write_json
from lottery.store import Store, key_of


def produce_slowly(work: Path) -> None:
    with (work.parent.parent / "calls").open("a") as calls:
        calls.write(f"{os.getpid()}\n")
    (work / f"piece-{os.getpid()}").touch()
    time.sleep(1)


def compute(root: Path) -> None:
    Store(root).compute("dense", {"seed": 0}, produce_slowly)


def started(root: Path) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=compute, args=(root,))
    process.start()
    return process


def calls(root: Path) -> list[str]:
    path = root / "calls"
    return path.read_text().split() if path.exists() else []


def wait_for(condition) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def test_a_node_is_computed_once_by_two_processes_at_the_same_time(tmp_path):
    processes = [started(tmp_path) for _ in range(3)]
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0, 0]
    assert len(calls(tmp_path)) == 1


def test_a_killed_owner_loses_its_lease_and_leaves_its_work(tmp_path):
    owner = started(tmp_path)
    wait_for(lambda: calls(tmp_path))
    os.kill(owner.pid, signal.SIGKILL)
    owner.join()
    compute(tmp_path)
    node = Store(tmp_path).node("dense", {"seed": 0})
    assert node.done
    assert len(list(node.path.glob("piece-*"))) == 2


def test_a_silent_owner_on_another_machine_loses_its_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "LEASE_TIMEOUT", 1.0)
    node = Store(tmp_path).node("dense", {"seed": 0})
    (tmp_path / "leases").mkdir(parents=True)
    write_json(
        tmp_path / "leases" / f"dense-{node.key}",
        {"host": "elsewhere", "pid": 1, "started": "0"},
    )
    before = time.monotonic()
    compute(tmp_path)
    assert time.monotonic() - before > 1.0
    assert node.done


def test_an_owner_whose_lease_was_taken_uses_the_result_of_its_successor(tmp_path):
    store = Store(tmp_path)
    node = store.node("dense", {})

    def produce(work: Path) -> None:
        lease = next((tmp_path / "leases").glob("dense-*"))
        lease.unlink()
        write_json(lease, {"host": "elsewhere", "pid": 1, "started": "0"})
        node.path.mkdir()
        (node.path / "by-the-successor").touch()
        write_json(node.path / "done.json", {"key": node.key})

    store.compute("dense", {}, produce)
    assert [p.name for p in node.path.glob("by-*")] == ["by-the-successor"]


def test_a_failure_leaves_no_node_and_the_next_attempt_finds_its_work(tmp_path):
    store = Store(tmp_path)

    def fail(work: Path) -> None:
        (work / "half").touch()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.compute("mask", {}, fail)
    assert not store.node("mask", {}).path.exists()
    node = store.compute("mask", {}, lambda work: None)
    assert (node.path / "half").exists()
    assert read_json(node.path / "done.json")["key"] == node.key
    assert not list((tmp_path / "leases").glob("mask-*"))


def test_a_node_without_its_mark_is_computed_again(tmp_path):
    store = Store(tmp_path)
    node = store.compute("mask", {}, lambda work: None)
    (node.path / "done.json").unlink()
    (node.path / "rubbish").touch()
    store.compute("mask", {}, lambda work: None)
    assert node.done
    assert not (node.path / "rubbish").exists()


def test_a_newer_store_is_refused(tmp_path):
    write_json(tmp_path / "store.json", {"version": store_module.VERSION + 1})
    with pytest.raises(StoreError, match="newer version"):
        Store(tmp_path)


def test_an_older_store_is_refused_in_one_line_that_says_what_to_do(tmp_path):
    write_json(tmp_path / "store.json", {"version": store_module.VERSION - 1})
    with pytest.raises(StoreError) as raised:
        Store(tmp_path)
    assert str(raised.value) == (
        f"the store {tmp_path} was written by an older version of lottery (layout "
        f"{store_module.VERSION - 1}), whose keys mean something else today: choose another "
        "paths.store, or remove it; report.py still reads its results"
    )


def test_keys_depend_on_content_not_order():
    assert key_of("dense", {"a": 1, "b": 2}) == key_of("dense", {"b": 2, "a": 1})
    assert key_of("dense", {"a": 1}) != key_of("ticket", {"a": 1})
