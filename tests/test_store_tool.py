"""store.py: what it lists, what it removes and what never, beside jobs and whatever kills it."""

import contextlib
import dataclasses
import io
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import THOROUGH, TINY, composed, laboratory, run
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import lottery
from lottery import files, stability, studies, transfer
from lottery import store as store_module
from lottery.analysis import collect
from lottery.errors import LotteryError, StoreError
from lottery.experiment import find_ticket, train_dense
from lottery.lineage import lineage
from lottery.points import Point
from lottery.runs import Run, load_run, runs_of
from lottery.store import Node, Store
from lottery.sweep import claims
from lottery.sweep.plan import Plan, cells_of
from lottery.sweep.staged import StagedSweep, next_wave
from lottery.training.checkpoints import CheckpointFolder, equal
from lottery.upkeep import (
    collection,
    listing,
    printing,
    removal,
    transport,
    users,
    verification,
)
from lottery.upkeep.inventory import Inventory, size
from lottery.upkeep.requests import Request, asking, note, request, requests

THREE = (*TINY, "trainer.epochs=3", "rewind.keep=[2]")
OTHER = (*THREE, "rewind.epoch=2", "mask.percentile=80")
"""The cell of a command that never came so far: it rewinds to epoch 2."""


@dataclass(frozen=True)
class Study:
    """A store with a ticket, rewound to epoch 1 of 3, two children of epoch 0 and their line.

    The dense network has kept epochs 0 and 2 too.
    """

    root: Path
    result: dict[str, Any]
    config: Any

    @property
    def ticket_key(self) -> str:
        return str(self.result["ticket"]["key"])

    @property
    def dense_key(self) -> str:
        return str(self.result["dense"]["key"])

    @property
    def ticket(self) -> Run:
        return Run(self.root / "ticket" / self.ticket_key)

    @property
    def dense(self) -> Run:
        return Run(self.root / "dense" / self.dense_key)

    @property
    def store(self) -> Store:
        return Store(self.root)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    lab, config = laboratory(folder), composed(*THREE, "mask.percentile=50")
    result = find_ticket(config, lab)
    children = composed(*THREE, "rewind.epoch=0", "stability.points=3", name="stability")
    stability.stability(children, lab)
    outputs = folder / "outputs"
    for number, (own, chain) in enumerate(
        [(config, lineage(config, lab.store)), (children, stability.chain(children, lab.store))]
    ):
        (outputs / str(number)).mkdir(parents=True)
        command = f"python prune.py number={number}"
        note(lab.store, request(command, outputs / str(number), [(chain, own)]))
    return Study(lab.store.root, result, config)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    """The ticket of :data:`OTHER`, from a study that nothing disturbed."""
    lab = laboratory(tmp_path_factory.mktemp("whole"))
    return runs_of(find_ticket(composed(*OTHER), lab))["ticket"]


@pytest.fixture
def study(made, tmp_path) -> Study:
    """A copy that a test may change."""
    root = tmp_path / "store"
    shutil.copytree(made.root, root)
    return replace(made, root=root)


def tool(*arguments: str) -> str:
    """What store.py prints."""
    process = run("store.py", *arguments)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return process.stdout


def refused(*arguments: str) -> str:
    """The one line with which store.py ends."""
    process = run("store.py", *arguments)
    assert process.returncode == 1, process.stdout
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file of nodes and of work, by its relative path."""
    own = [root / name for name in ("dense", "mask", "ticket", "child", "line", "state", "work")]
    paths = (path for folder in own for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def kept_steps(run_: Run) -> list[str]:
    return [str(point) for point in run_.points]


def promise(study: Study, output: Path, *overrides: str) -> Request:
    """Note the request of a command that has not come far, as its job would."""
    config = composed(*overrides)
    output.mkdir(exist_ok=True)
    chain = lineage(config, study.store)
    asked = request(f"python prune.py {output.name}", output, [(chain, config)])
    note(study.store, asked)
    return asked


# -- who asked -------------------------------------------------------------------------------------


def test_every_node_knows_the_commands_and_the_folders_that_asked_for_it(real_sweep):
    store = Store(real_sweep.parents[1] / "store")
    asked = requests(store.root)
    for entry in Inventory.of(store).entries.values():
        folders = {Path(r.output).name for r in asked if entry.key in r.keys}
        assert real_sweep.name in folders
        assert folders & {"0", "1"}, entry.name
    (first,) = (r for r in asked if Path(r.output).name == "0")
    assert first.command.startswith("python prune.py model=lenet_300_100 ")
    assert "mask.percentile=50 " in first.command
    assert "-m" not in first.command.split()
    assert not any(r.open(store.root) for r in asked)
    assert not list((store.root / "using").iterdir())


def test_a_finished_command_is_noted_too(real_sweep):
    outputs = real_sweep.parents[1]
    before = len(requests(outputs / "store"))
    process = run("prune.py", *TINY, "mask.percentile=80", f"paths.outputs={outputs}")
    assert process.returncode == 0, process.stderr
    asked = requests(outputs / "store")
    assert len(asked) == before + 1
    output = process.stdout.rstrip().rpartition("\nresult: ")[2].removesuffix("/result.json")
    assert asked[-1].output == output
    assert "kind" not in tool("show", output, f"store={outputs / 'store'}")


def test_what_is_made_on_the_way_knows_its_command_too(tmp_path):
    store = Store(tmp_path / "store")
    asked = Request("python prune.py x", str(tmp_path), ("ticket/" + "0" * 20,))
    with asking(store, asked):
        node = store.compute("score", {"ranked": "0" * 20}, lambda work: None)
    alone = store.compute("score", {"ranked": "1" * 20}, lambda work: None)
    assert listing.details(store, node.key).asked == (asked,)
    assert listing.details(store, alone.key).asked == ()


def test_a_job_whose_store_is_not_its_own_is_not_noted_and_goes_on(study, monkeypatch):
    def not_ours(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(users, "locked", not_ours)
    monkeypatch.setattr(files, "write_json", not_ours)
    with asking(study.store, Request("python prune.py", "/x", ())):
        pass


# -- ls and show -----------------------------------------------------------------------------------


def test_ls_has_a_line_a_run_and_the_same_where_as_the_report(study):
    said = tool("ls", f"store={study.root}")
    lines = [line for line in said.splitlines() if "lenet_300_100" in line]
    assert [line.split()[1] for line in lines] == ["dense", "ticket", "child", "child"]
    (ticket,) = (line for line in lines if " ticket " in line)
    assert ticket.split()[0] == study.ticket_key[:8]
    for text in ("50 %", f"{100 * study.ticket.result['val_top1']:.2f}", "prune.py number=0"):
        assert text in ticket
    assert "4 runs, " in said

    own = tool("ls", "where={mask.percentile: 50, seed: [0, 1]}", f"store={study.root}")
    assert [line.split()[1] for line in own.splitlines() if "lenet" in line] == ["ticket"]
    of_kind = tool("ls", "where={kind: [dense, child]}", f"store={study.root}")
    assert [line.split()[1] for line in of_kind.splitlines() if "lenet" in line] == [
        "dense", "child", "child"
    ]  # fmt: skip
    assert refused("ls", "where={model.nam: x}", f"store={study.root}").startswith(
        "where: option model.nam is unknown; did you mean model.name"
    )


def test_a_child_has_the_seed_of_its_study(study):
    rows = listing.listed(study.store)
    assert {row.seed for row in rows} == {0}
    assert [row.rewound for row in rows] == ["", "1", "0", "0"]


def test_show_tells_commands_parents_children_folders_and_bytes(study):
    said = tool("show", study.dense_key[:6], f"store={study.root}")
    for text in (
        f"dense/{study.dense_key}", "python prune.py number=0", "python prune.py number=1",
        f"    ticket/{study.ticket_key}", "checkpoints/step_00000008", "metrics.csv",
    ):  # fmt: skip
        assert text in said
    found = listing.details(study.store, study.ticket_key)
    assert f"dense/{study.dense_key}" in found.parents
    assert sum(found.parts.values()) == found.entry.bytes
    assert [r.command for r in found.asked] == ["python prune.py number=0"]
    folder = study.root / "ticket" / study.ticket_key
    assert study.ticket_key in tool("show", str(folder), f"store={study.root}")


def test_a_key_that_does_not_exist_is_answered_by_the_nearest(study):
    wrong = study.ticket_key[:7] + ("0" if study.ticket_key[7] != "0" else "1")
    said = refused("show", wrong, f"store={study.root}")
    assert said.startswith(f"the store {study.root} has no node {wrong}; the nearest: ticket/")
    assert said.split("the nearest: ")[1].split()[0] == f"ticket/{study.ticket_key}"
    (study.root / "work" / f"ticket-{'0' * 20}.0123456789ab").mkdir()
    with pytest.raises(StoreError, match=f"ticket/{'0' * 20} is begun and not finished"):
        listing.details(study.store, "0" * 20)
    assert "no run store" in refused("ls", "store=/nowhere")
    assert "did you mean verify" in refused("verifi", f"store={study.root}")


# -- rm --------------------------------------------------------------------------------------------


def test_rm_names_what_depends_on_it_and_removes_nothing_unless_told(study):
    before = snapshot(study.root)
    said = tool("rm", study.dense_key[:10], f"store={study.root}")
    assert f"would remove dense/{study.dense_key}" in said
    assert "and 5 that depend on it:" in said
    assert f"  ticket/{study.ticket_key}, " in said
    assert "Nothing was removed: add yes=true" in said
    assert snapshot(study.root) == before
    said = tool("rm", study.dense_key[:10], f"store={study.root}", "yes=true")
    assert f"removed dense/{study.dense_key}" in said
    assert Inventory.of(study.store).entries == {}
    assert not list((study.root / "trash").iterdir())


def test_rm_of_a_ticket_leaves_what_it_comes_from(study):
    removal.remove(study.store, [study.ticket_key], dry_run=False)
    left = Inventory.of(study.store).entries.values()
    assert sorted(entry.kind for entry in left) == ["child", "child", "dense", "line", "mask"]
    missing = lineage(study.config, study.store).rounds[0]
    assert missing.mask.done
    assert not missing.ticket.done


def test_rm_refuses_what_a_running_job_needs(study):
    mask = study.ticket.path.parent.parent / "mask"
    (mask,) = mask.iterdir()
    needs = [study.ticket_key]
    with users.using(study.store, needs, "python prune.py x", "/out/x"):
        for key in (study.ticket_key, mask.name, study.dense_key):  # parents of what it needs too
            with pytest.raises(StoreError, match=f"is needed by process {os.getpid()} on "):
                removal.remove(study.store, [key], dry_run=False)
        said = refused("rm", study.dense_key, f"store={study.root}", "yes=true")
        assert "(python prune.py x), which writes to /out/x: wait until it has ended" in said
    assert removal.remove(study.store, [study.dense_key]).entries


def test_rm_refuses_the_parent_of_a_node_that_is_being_computed(study):
    """By a process that asked for it without a command, as from a notebook."""
    seen = []

    def produce(work: Path) -> None:
        with pytest.raises(StoreError, match=f"dense/{study.dense_key}, which would go, is needed"):
            removal.remove(study.store, [study.dense_key])
        seen.append(work)

    study.store.compute("ticket", {"dense": study.dense_key, "mask": None}, produce)
    assert seen


def test_rm_tells_of_commands_that_have_not_finished(study, tmp_path):
    promise(study, tmp_path / "unfinished", *OTHER)
    found = removal.remove(study.store, [study.dense_key])
    assert [r.command for r in found.open] == ["python prune.py unfinished"]
    said = tool("rm", study.dense_key, f"store={study.root}")
    assert "commands that have not finished will have to compute them again:" in said


def test_rm_refuses_what_a_queued_job_needs(study, tmp_path, monkeypatch):
    """SLURM's job has not begun, so that it could not say itself what it needs."""
    asked = promise(study, tmp_path / "unfinished", *OTHER)
    kind, key = next(n for n in asked.nodes if n.startswith("ticket")).split("/")
    claims.claim(study.store, Node(kind, key, study.root / kind / key), "77", tmp_path)
    monkeypatch.setattr(claims.slurm, "queued", lambda: {"77": "PENDING"})
    with pytest.raises(StoreError, match=r"^SLURM job 77 \(pending\) is to compute ticket/"):
        removal.remove(study.store, [study.dense_key], dry_run=False)
    monkeypatch.setattr(claims.slurm, "queued", dict)
    removal.remove(study.store, [study.dense_key], dry_run=False)


def test_a_job_that_begins_while_something_is_removed_waits(study):
    """Else it might see a node that is gone a moment later."""
    order = []

    def begin() -> None:
        with users.using(study.store, [study.dense_key], "job", ""):
            order.append("job")

    with users.removing(study.store):
        job = threading.Thread(target=begin)
        job.start()
        time.sleep(0.2)
        order.append("removed")
    job.join()
    assert order == ["removed", "job"]


# -- gc --------------------------------------------------------------------------------------------


def test_gc_tells_first_and_keeps_what_something_begins_with(study):
    before = snapshot(study.root)
    said = tool("gc", f"store={study.root}")
    assert f"dense/{study.dense_key}: nothing begins at epoch 2" in said
    assert "Nothing was removed: add yes=true" in said
    assert snapshot(study.root) == before
    said = tool("gc", f"store={study.root}", "yes=true")
    assert "the store had " in said
    assert kept_steps(study.dense) == ["0ep", "1ep", "3ep"]
    assert kept_steps(study.ticket) == ["1ep", "3ep"]
    assert "there is nothing to remove" in tool("gc", f"store={study.root}")
    assert "without 1 states that were collected since" in tool("verify", f"store={study.root}")


def test_what_gc_took_is_trained_again_bit_for_bit(study, whole):
    """A later command that rewinds to it ends where it would have ended without."""
    collection.collect(study.store, dry_run=False)
    config = composed(*OTHER)
    after = runs_of(find_ticket(config, laboratory(study.root.parent)))["ticket"]
    assert after.key == whole.key
    assert after.result["replayed"] == "exactly"
    assert all(equal(after.state(point), whole.state(point)) for point in whole.points)
    # The replayed state is the ticket's beginning, so it stays as one that the network kept would.
    states = list((study.root / "state").glob("*/done.json"))
    assert len(states) == 1
    assert not collection.collect(study.store).items
    removal.remove(study.store, [whole.key], dry_run=False)
    (item,) = collection.collect(study.store).items
    assert item.path == states[0].parent


def test_the_initial_state_of_a_network_that_is_trained_since_goes(study):
    def produce(work: Path) -> None:
        (work / "x").touch()

    for dense in (study.dense_key, "0" * 20):
        study.store.compute("state", {"dense": dense, "untrained": True}, produce)
    (item,) = (i for i in collection.collect(study.store).items if i.of.startswith("state/"))
    assert item.why == f"dense/{study.dense_key} has it"


def test_gc_keeps_what_a_command_that_has_not_finished_may_want(study, tmp_path):
    output = tmp_path / "unfinished"
    promise(study, output, *OTHER)
    assert not collection.collect(study.store).items
    shutil.rmtree(output)  # nobody goes on with that
    assert [item.why for item in collection.collect(study.store).items] == [
        "nothing begins at epoch 2"
    ]


def test_gc_leaves_what_a_process_uses_alone(study):
    with users.using(study.store, [study.ticket_key], "job", ""):
        assert not collection.collect(study.store, dry_run=False).items


def begun(study: Study, asked: Request | None, *, days: float = 0) -> Path:
    """The work folder of a node whose owner was killed."""
    name = next(n for n in asked.nodes if n.startswith("ticket")) if asked else f"ticket/{'0' * 20}"
    work = study.root / "work" / f"{name.replace('/', '-')}.0123456789ab"
    work.mkdir(parents=True)
    (work / "piece").write_text("x")
    return work


def test_gc_of_abandoned_work(study, tmp_path, monkeypatch):
    asked = promise(study, tmp_path / "unfinished", *OTHER)
    wanted, unknown = begun(study, asked), begun(study, None)
    finished = study.root / "work" / f"dense-{study.dense_key}.0123456789ab"
    finished.mkdir()

    def going(**options: Any) -> set[Path]:
        found = collection.collect(study.store, **options).items
        return {item.path for item in found if item.kind == collection.WORK}

    assert going() == {finished}
    monkeypatch.setattr(collection, "WEEK", -1.0)
    assert going() == {finished, unknown}
    assert going(abandoned=0) == {finished, unknown, wanted}
    assert going(abandoned=1) == {finished, unknown}
    shutil.rmtree(tmp_path / "unfinished")
    assert going() == {finished, unknown, wanted}
    _, kind, key = "", *wanted.name.partition(".")[0].split("-")
    lease = study.store.lease_of(Node(kind, key, study.root / kind / key))
    assert lease.acquire()
    try:
        assert going() == {finished, unknown}
    finally:
        lease.release()


def test_gc_of_stray_files(study, monkeypatch):
    monkeypatch.setattr(collection, "HOUR", -1.0)
    monkeypatch.setattr(collection, "_DAY", 1e-9)
    strays = {
        study.dense.path / "checkpoints" / ".step_00000004.01234567",
        study.root / ".store.json.01234567",
        study.root / "dense" / ("f" * 20),
        study.root / "trash" / "dense",
        study.root / "incoming" / "0123456789ab",
        study.root / "using" / "0123456789ab",
        study.root / "leases" / f"dense-{'0' * 20}",
    }
    ours = {study.root / ".snapshot", study.root / "report", study.root / "notes.txt"}
    for path in strays | ours:
        path.parent.mkdir(exist_ok=True)
        path.touch() if "." in path.name[1:] else path.mkdir()
    for name in ("using", "leases"):
        (path,) = (p for p in strays if p.parent.name == name)
        path.rmdir()
        files.write_json(path, {"host": "elsewhere", "pid": 1, "started": "0"})
        os.utime(path, (0, 0))
    going = {i.path for i in collection.collect(study.store).items if i.kind == collection.STRAY}
    assert going == strays
    collection.collect(study.store, dry_run=False)
    assert not any(path.exists() for path in strays)
    assert all(path.exists() for path in ours)


def killed(number: int, act: Callable[[], object]) -> bool:
    """Whether a process that does this dies before its n-th change to the disk; else it ends."""
    if (child := os.fork()) == 0:
        left = itertools.count()

        def counting(change):
            def counted(*arguments, **options):
                if next(left) == number:
                    os._exit(9)
                return change(*arguments, **options)

            return counted

        for owner, name in (
            (Path, "rename"), (Path, "unlink"), (Path, "replace"), (Path, "mkdir"),
            (os, "unlink"), (os, "rmdir"), (shutil, "copyfile"), (shutil, "copyfileobj"),
        ):  # fmt: skip
            setattr(owner, name, counting(getattr(owner, name)))
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def needed_by_reports(study: Study) -> dict[str, bytes]:
    """All but the states in the middle: what reports, tickets and children begin with and end."""
    return {
        name: content
        for name, content in snapshot(study.root).items()
        if not name.startswith("work/") and "step_00000008" not in name
    }


@settings(deadline=None, max_examples=100 if THOROUGH else 12)
@given(
    kills=st.lists(st.integers(0, 60), max_size=3),
    unfinished=st.booleans(),
    busy=st.booleans(),
    leftover=st.booleans(),
)
def test_gc_in_a_store_in_use_killed_anywhere_loses_nothing_that_is_needed(
    made, tmp_path_factory, kills, unfinished, busy, leftover
):
    """Whatever is unfinished finds its states and its work; what others left goes at last."""
    folder = tmp_path_factory.mktemp("killed")
    shutil.copytree(made.root, folder / "store")
    study = replace(made, root=folder / "store")
    asked = promise(study, folder / "unfinished", *OTHER) if unfinished else None
    work = begun(study, asked)
    needed, report = needed_by_reports(study), collect.from_store(study.root, {}).cells
    use = users.using(study.store, [study.dense_key], "job", "") if busy else None
    with use or contextlib.nullcontext():
        for kill in [*kills, 10**6]:
            if leftover:
                (study.root / "trash" / f"left-{kill}").mkdir(parents=True, exist_ok=True)
            struck = killed(kill, lambda: collection.collect(study.store, dry_run=False))
            assert needed_by_reports(study) == needed
            assert collect.from_store(study.root, {}).cells == report
            assert (work / "piece").exists()
            kept = ["0ep", "1ep", "2ep", "3ep"]
            if unfinished or busy:
                assert kept_steps(study.dense) == kept
            else:
                assert kept_steps(study.dense) in (kept, ["0ep", "1ep", "3ep"])
            assert not any(node.damage for node in verification.verify(study.store))
    assert not struck
    assert not list((study.root / "trash").glob("*"))
    shutil.rmtree(folder)


def collect_often(root: Path) -> None:
    while True:
        collection.collect(Store(root), dry_run=False, abandoned=None)


def test_a_ticket_that_was_stopped_goes_on_beside_collections_that_are_killed(
    whole, tmp_path, monkeypatch
):
    """The same command, afterwards and meanwhile: bit for bit what an unbroken one leaves."""
    config = composed(*OTHER)
    lab = laboratory(tmp_path / "broken")
    train_dense(config, lab)
    output = tmp_path / "output"
    output.mkdir()
    note(lab.store, request("python prune.py", output, [(lineage(config, lab.store), config)]))
    saved = CheckpointFolder.save

    def stop(self, state, progress):
        saved(self, state, progress)
        if "ticket-" in str(self.root):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFolder, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            find_ticket(config, lab)
    (work,) = (lab.store.root / "work").iterdir()
    fork = multiprocessing.get_context("fork")
    for pause in (0.01, 0.05, 0.1):
        collector = fork.Process(target=collect_often, args=(lab.store.root,))
        collector.start()
        time.sleep(pause)
        os.kill(collector.pid, signal.SIGKILL)
        collector.join()
    assert list(work.glob("checkpoints/step_*"))
    assert kept_steps(Run(next((lab.store.root / "dense").iterdir()))) == [
        "0ep", "2ep", "3ep"
    ]  # fmt: skip
    collector = fork.Process(target=collect_often, args=(lab.store.root,))
    collector.start()
    try:
        ticket = runs_of(find_ticket(config, lab))["ticket"]
    finally:
        os.kill(collector.pid, signal.SIGKILL)
        collector.join()
    assert ticket.key == whole.key
    assert "replayed" not in ticket.result
    assert all(equal(ticket.state(point), whole.state(point)) for point in whole.points)
    assert ticket.points == whole.points


# -- verify ----------------------------------------------------------------------------------------


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_verify_names_each_damaged_file(study):
    assert "nothing is damaged" in tool("verify", f"store={study.root}")
    flip(study.dense.path / "checkpoints" / "step_00000004" / "state.safetensors")
    flip(study.ticket.path / "metrics.csv")
    (study.ticket.path / "mask.safetensors").unlink()
    process = run("store.py", "verify", f"store={study.root}")
    assert process.returncode == 1
    for line in (
        f"dense/{study.dense_key}: checkpoints/step_00000004/state.safetensors has another "
        "checksum",
        f"ticket/{study.ticket_key}: metrics.csv has another checksum",
        f"ticket/{study.ticket_key}: mask.safetensors is missing",
    ):
        assert line in process.stdout
    (error,) = process.stderr.splitlines()
    assert error.startswith("error: 2 nodes are damaged: remove what is, store.py rm dense/")


def test_a_lost_last_state_is_damage_and_not_a_collection(study):
    shutil.rmtree(study.dense.path / "checkpoints" / "step_00000012")
    (node,) = (n for n in verification.verify(study.store) if n.damage)
    assert node.damage == ("checkpoints/step_00000012/state.safetensors is missing",)


def older(path: Path) -> None:
    """Make a node as it was written before checksums were recorded."""
    about = files.read_json(path / "done.json")
    del about["files"]
    files.write_json(path / "done.json", about)


def test_verify_of_an_older_node_says_what_it_could_not_check(study):
    older(study.ticket.path)
    (node,) = (n for n in verification.verify(study.store) if n.unchecked)
    assert node.unchecked == ("metrics.csv",)
    flip(study.ticket.path / "correct.safetensors")
    (study.ticket.path / "config.json").write_text("{")
    (node,) = (n for n in verification.verify(study.store) if n.unchecked)
    assert [line.split()[0] for line in node.damage] == ["config.json", "correct.safetensors"]


def test_a_node_under_the_name_of_another_is_damage(study):
    about = files.read_json(study.ticket.path / "done.json")
    about["identity"]["mask"] = "0" * 20
    files.write_json(study.ticket.path / "done.json", about)
    (node,) = (n for n in verification.verify(study.store) if n.damage)
    assert "done.json says that it is ticket/" in node.damage[0]


# -- export and import -----------------------------------------------------------------------------


def test_a_part_goes_to_another_store_by_two_commands(study, tmp_path):
    part, other = tmp_path / "part.tar.gz", tmp_path / "other"
    said = tool("export", "where={kind: ticket}", f"to={part}", f"store={study.root}")
    assert said.startswith("3 nodes, ")
    assert tool("import", str(part), f"store={other}").startswith("3 nodes, ")
    entries = Inventory.of(Store(other)).entries
    assert sorted(e.kind for e in entries.values()) == ["dense", "mask", "ticket"]
    assert "3 were there already" in tool("import", str(part), f"store={other}")


@pytest.mark.parametrize("to", ["part.tar", "part.tar.gz", "folder"])
def test_a_part_goes_to_another_store_with_its_ancestors(study, tmp_path, to):
    part, other = tmp_path / to, Store(tmp_path / "other")
    transport.export_part(study.store, [study.ticket_key], part)
    assert len(transport.import_part(other, part).added) == 3
    ticket = Run(other.root / "ticket" / study.ticket_key)
    assert equal(ticket.state(), study.ticket.state())
    assert equal(ticket.parent.state(1), study.dense.state(1))
    assert not any(node.damage or node.unchecked for node in verification.verify(other))
    (asked,) = (r for r in requests(other.root) if ticket.key in r.keys)
    assert asked.command == "python prune.py number=0"
    assert not asked.open(other.root)
    # The rest is merged.
    assert len(transport.import_part(other, study.root).there) == 3
    assert snapshot(other.root) == snapshot(study.root)
    assert not list((other.root / "incoming").iterdir())
    assert not list((other.root / "using").iterdir())


def test_an_exported_folder_is_a_store_and_takes_more(study, tmp_path):
    part = tmp_path / "part"
    transport.export_part(study.store, [study.ticket_key], part)
    line = next(e for e in Inventory.of(study.store).entries.values() if e.kind == "line")
    added = transport.export_part(study.store, line.needs, part)
    assert sorted(n.partition("/")[0] for n in added.added) == ["child", "child", "line"]
    assert [row.entry.kind for row in listing.listed(Store(part))].count("child") == 2


def test_nodes_that_were_written_before_checksums_get_them_on_the_way(study, tmp_path):
    older(study.ticket.path)
    for to in ("part.tar", "folder"):
        transport.export_part(study.store, [study.ticket_key], tmp_path / to)
        transport.import_part(Store(tmp_path / f"to-{to}"), tmp_path / to)
        assert not any(n.unchecked for n in verification.verify(Store(tmp_path / f"to-{to}")))


def test_an_import_overwrites_nothing(study, tmp_path):
    part = tmp_path / "part.tar"
    transport.export_part(study.store, [study.ticket_key], part)
    (study.ticket.path / "own").write_text("mine")
    before = snapshot(study.root)
    moved = transport.import_part(study.store, part)
    assert not moved.added
    assert len(moved.there) == 3
    assert snapshot(study.root) == before


def test_an_import_leaves_to_a_process_what_it_computes(study, tmp_path):
    part, other = tmp_path / "part.tar", Store(tmp_path / "other")
    transport.export_part(study.store, [study.ticket_key], part)
    other.prepare("dense")
    lease = other.lease_of(Node("dense", study.dense_key, other.root / "dense" / study.dense_key))
    assert lease.acquire()
    moved = transport.import_part(other, part)
    assert moved.busy == [f"dense/{study.dense_key}"]
    lease.release()
    assert transport.import_part(other, part).added == [f"dense/{study.dense_key}"]


def test_a_damaged_part_is_refused_before_the_node_appears(study, tmp_path):
    part = tmp_path / "part"
    transport.export_part(study.store, [study.ticket_key], part)
    flip(part / "ticket" / study.ticket_key / "metrics.csv")
    said = refused("import", str(part), f"store={tmp_path / 'other'}")
    assert f"ticket/{study.ticket_key} is damaged: metrics.csv has another checksum" in said
    assert not list((tmp_path / "other").glob("ticket/*"))
    with pytest.raises(StoreError, match="is damaged"):
        transport.export_part(Store(part), [study.ticket_key], tmp_path / "again.tar")
    assert not (tmp_path / "again.tar").exists()


def test_a_part_of_another_layout_is_refused(study, tmp_path, monkeypatch):
    transport.export_part(study.store, [study.ticket_key], tmp_path / "part.tar")
    transport.export_part(study.store, [study.ticket_key], tmp_path / "part")
    before = snapshot(study.root)
    for part in ("part.tar", "part"):
        with monkeypatch.context() as patch:
            patch.setattr(transport, "VERSION", 99)
            with pytest.raises(StoreError) as raised:
                transport.import_part(study.store, tmp_path / part)
        assert str(raised.value) == (
            f"{tmp_path / part} has the layout {store_module.VERSION} of another version of "
            "lottery, and this one has 99, whose keys mean something else: nothing was changed"
        )
    assert snapshot(study.root) == before


def test_what_is_no_part_is_refused(study, tmp_path):
    part = tmp_path / "part.tar"
    transport.export_part(study.store, [study.ticket_key], part)
    whole = part.read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.tar").write_text("no tar")
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        transport._add_json(tar, "store.json", {"version": store_module.VERSION})
        transport._add_json(tar, "dense/../../evil.json", {})
    other = Store(tmp_path / "other")
    for name, why in (
        ("cut.tar", "was cut short"), ("text.tar", "is no part of a run store"),
        ("evil.tar", "which is no file of a node"), ("nowhere.tar", "there is no "),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=why):
            transport.import_part(other, tmp_path / name)
    assert not any(node.damage for node in verification.verify(other))
    for to, why in (part, "is there already"), (tmp_path, "neither a run store nor an empty"):
        with pytest.raises(StoreError, match=why):
            transport.export_part(study.store, [study.ticket_key], to)
    assert "say where to" in refused("export", f"store={study.root}")
    assert "\n" not in refused("import", str(tmp_path / "text.tar"), f"store={other.root}")


@pytest.mark.parametrize("to", ["part.tar", "folder"])
def test_an_import_that_is_killed_anywhere_leaves_whole_nodes_with_their_parents(
    study, tmp_path, to
):
    transport.export_part(study.store, [study.ticket_key], tmp_path / to)
    other = Store(tmp_path / "other")
    for kill in (0, 1, 4, 9, 14, 20, 27, 35, 43, 60):
        killed(kill, lambda: transport.import_part(other, tmp_path / to))
        entries = Inventory.of(other).entries
        assert not any(node.damage for node in verification.verify(other))
        assert all(entry.needs <= set(entries) for entry in entries.values())
    transport.import_part(other, tmp_path / to)
    assert len(Inventory.of(other).entries) == 3
    collection.collect(other, dry_run=False)
    assert not list((other.root / "incoming").iterdir())


def test_rm_that_is_killed_anywhere_leaves_no_node_without_its_parents(study):
    entries = Inventory.of(study.store).entries
    for kill in (1, 6, 9, 14, 30):
        if study.dense_key in entries:
            killed(kill, lambda: removal.remove(study.store, [study.dense_key], dry_run=False))
        entries = Inventory.of(study.store).entries
        assert all(entry.needs <= set(entries) for entry in entries.values())
        assert not any(node.damage for node in verification.verify(study.store))
    collection.collect(study.store, dry_run=False)
    assert not list((study.root / "trash").iterdir())


# -- after a move ----------------------------------------------------------------------------------


def test_a_run_is_found_after_its_store_or_its_outputs_were_moved(real_sweep, tmp_path):
    outputs = tmp_path / "moved"
    shutil.copytree(real_sweep.parents[1], outputs)
    (folder,) = outputs.glob("prune/*/0")
    about = files.read_json(folder / "result.json")
    about["store"] = str(tmp_path / "gone")
    (folder / "result.json").write_text(json.dumps(about))
    beside = load_run(folder)
    assert beside.path == outputs / "store" / "ticket" / about["ticket"]["key"]
    (outputs / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(LotteryError, match=r"not there any more; load_run\(.*, store=…\)"):
        load_run(folder)
    found = lottery.load_run(folder, store=tmp_path / "elsewhere")
    assert found.weights().keys() == found.parent.weights(Point(1)).keys()
    with pytest.raises(LotteryError, match=r"not there any more$"):
        load_run(folder, store=tmp_path)


# -- states that two trainings share ---------------------------------------------------------------


def share_a_state(study: Study) -> tuple[Path, Path]:
    """Let both children begin with one file, as a longer training does with a shorter one's."""
    first, second = (
        child / "checkpoints" / "step_00000000" / "state.safetensors"
        for child in sorted((study.root / "child").iterdir())
    )
    second.unlink()
    os.link(first, second)
    record = second.parents[2] / "done.json"  # the file tells too how many seconds it took
    about = files.read_json(record)
    about["files"] = files.contents(record.parent, without="done.json")
    files.write_json(record, about)
    return first, second


def test_a_tar_file_of_trainings_that_share_a_state_can_be_imported(study, tmp_path):
    paths = share_a_state(study)
    keys = [path.parents[2].name for path in paths]
    transport.export_part(study.store, keys, tmp_path / "part.tar")
    transport.import_part(Store(tmp_path / "other"), tmp_path / "part.tar")
    assert {*keys} <= {*Inventory.of(Store(tmp_path / "other")).entries}

    # So can one that holds the second as a link to the first, but none to what it does not hold.
    first, second = (str(path.relative_to(study.root)) for path in paths)
    for number, target in enumerate([first, "elsewhere"]):
        written = tmp_path / f"links-{number}.tar.gz"
        with tarfile.open(tmp_path / "part.tar") as tar, tarfile.open(written, "w:gz") as links:
            for member in tar:
                if member.name == second:
                    member.type, member.linkname, member.size = tarfile.LNKTYPE, target, 0
                links.addfile(member, tar.extractfile(member) if member.isreg() else None)
    linked = Store(tmp_path / "linked")
    transport.import_part(linked, tmp_path / "links-0.tar.gz")
    assert not any(node.damage for node in verification.verify(linked))
    with pytest.raises(StoreError, match="a link to elsewhere, which it does not hold"):
        transport.import_part(Store(tmp_path / "third"), tmp_path / "links-1.tar.gz")


def test_what_trainings_share_is_counted_once_and_free_when_the_last_of_them_goes(study):
    path, other = share_a_state(study)
    state = path.stat().st_size
    every = [path for path in study.root.rglob("*") if path.is_file()]
    assert size(study.root) == sum(path.stat().st_size for path in every) - state
    (line,) = (study.root / "line").iterdir()
    child = path.parents[2]
    found = removal.remove(study.store, [child.name])
    assert found.bytes == size(child) + size(line) - state
    both = removal.remove(study.store, [child.name, other.parents[2].name])
    assert both.bytes == size(child, other.parents[2], line)


# -- what a name means, and what is damaged --------------------------------------------------------


def test_a_folder_of_another_store_is_refused(study, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(study.root, other)
    for act in (listing.details, lambda store, name: removal.remove(store, [name])):
        with pytest.raises(StoreError, match=f"is of another store: add store={other}"):
            act(study.store, str(other / "dense" / study.dense_key))
    with pytest.raises(StoreError, match="is no folder of a node of the store"):
        removal.remove(study.store, [str(tmp_path)])
    (named,) = removal.remove(study.store, [str(study.root / "ticket" / study.ticket_key)]).named
    assert named.key == study.ticket_key


def test_a_key_of_another_kind_is_not_meant(study):
    with pytest.raises(StoreError, match=f"has no node mask/{study.dense_key[:6]}"):
        removal.remove(study.store, [f"mask/{study.dense_key[:6]}"])
    (named,) = removal.remove(study.store, [f"dense/{study.dense_key[:6]}"]).named
    assert named.key == study.dense_key


def test_rm_tells_what_was_named_apart_from_what_depends_on_it(study, capsys):
    child = sorted((study.root / "child").iterdir())[0].name
    names = [study.ticket_key, child]
    printing.show_removal(removal.remove(study.store, names), done=False)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"would remove ticket/{study.ticket_key}, ")
    assert said[1].startswith(f"would remove child/{child}, ")
    assert said[2] == "and 1 that depends on them:"
    assert said[3].startswith("  line/")


def test_a_node_whose_record_is_damaged_is_removed_by_the_name_that_verify_tells(study):
    (study.dense.path / "done.json").write_text("{")
    said = refused("verify", f"store={study.root}")
    assert f"remove what is, store.py rm dense/{study.dense_key}, and the command" in said
    for name in (f"dense/{study.dense_key}", str(study.dense.path)):
        assert len(removal.remove(study.store, [name]).entries) == 6
    removal.remove(study.store, [f"dense/{study.dense_key}"], dry_run=False)
    assert not study.dense.path.exists()


def test_gc_keeps_all_states_while_a_record_cannot_be_read(study):
    """The ticket begins at epoch 1, which its record alone tells."""
    (study.ticket.path / "done.json").write_text("{")
    (study.root / "trash").mkdir(exist_ok=True)
    (study.root / "trash" / "left").touch()
    found = collection.collect(study.store, dry_run=False)
    assert [item.kind for item in found.items] == [collection.STRAY]
    assert found.unreadable == (f"ticket/{study.ticket_key}",)
    assert kept_steps(study.dense) == ["0ep", "1ep", "2ep", "3ep"]


@pytest.mark.parametrize("gone", ["state", "node"])
def test_verify_looks_again_where_something_was_removed_meanwhile(study, monkeypatch, gone):
    path = study.dense.path / "checkpoints" / "step_00000008"
    read = files.sha256

    def sha256(file: Path) -> str:
        if file.parent == path:
            shutil.rmtree(path if gone == "state" else study.dense.path)
        return read(file)

    monkeypatch.setattr(files, "sha256", sha256)
    found = {node.name: node for node in verification.verify(study.store)}
    assert not any(node.damage for node in found.values())
    assert [node.given_up for name, node in found.items() if name.startswith("dense/")] == (
        [1] if gone == "state" else []
    )


# -- states that something still wants -------------------------------------------------------------


def test_gc_leaves_the_initial_state_to_a_ticket_that_begins_with_it(study):
    """It names the dense network alone, which may be finished while the ticket is trained."""
    about = {"dense": study.dense_key, "untrained": True}
    node = study.store.compute("state", about, lambda work: None)
    with users.using(study.store, [study.dense_key], "job", ""):
        assert not collection.collect(study.store, dry_run=False).items
    assert node.path in {item.path for item in collection.collect(study.store).items}


def test_gc_keeps_the_state_from_which_a_longer_training_goes_on(tmp_path):
    lab = laboratory(tmp_path)
    options = (*TINY, "trainer.epochs=3", "rewind.epoch=0", "schedule=wsd", "schedule.decay=4it")
    run_ = train_dense(composed(*options), lab)
    assert kept_steps(run_) == ["0ep", "2ep", "3ep"]
    assert not collection.collect(lab.store, dry_run=False).items


# -- runs that are named by their folder -----------------------------------------------------------


def test_a_run_whose_weights_a_network_begins_with_is_known_as_such(study, tmp_path):
    config = composed(*TINY, "rewind.epoch=0", f"model.weights={study.ticket.path}")
    chain = lineage(config, study.store)
    assert [node.key for node in chain.reads] == [study.ticket_key]
    asked = request("python prune.py x", tmp_path, [(chain, config)])
    needed = f"ticket/{study.ticket_key}, which would go, is needed"
    with asking(study.store, asked), pytest.raises(StoreError, match=needed):
        removal.remove(study.store, [study.ticket_key])
    begun_with = train_dense(config, laboratory(study.root.parent))
    staying = removal.remove(study.store, [study.ticket_key]).staying
    assert begun_with.key in {entry.key for entry in staying}
    parents = listing.details(study.store, begun_with.key).parents
    assert f"ticket/{study.ticket_key}" in parents
    transport.export_part(study.store, [begun_with.key], tmp_path / "part")
    assert {study.ticket_key, study.dense_key} <= {*Inventory.of(Store(tmp_path / "part")).entries}


@pytest.mark.parametrize("name", ["transfer", "stability"])
def test_a_job_that_takes_a_ticket_of_a_run_says_that_it_needs_it(study, name):
    chain_of = {"transfer": transfer.lineage, "stability": stability.chain}[name]
    options = ["data=digits"] if name == "transfer" else THREE
    config = composed(*options, f"ticket={study.ticket.path}", name=name)
    reads = {node.key for node in chain_of(config, study.store).reads}
    assert study.ticket_key in reads


def test_children_know_the_run_whose_mask_they_have(study):
    config = composed(*THREE, "stability.points=3", f"ticket={study.ticket.path}", name="stability")
    found = stability.stability(config, laboratory(study.root.parent))
    staying = {e.key for e in removal.remove(study.store, [study.ticket_key]).staying}
    assert {child["key"] for child in found["children"]} <= staying


def test_a_value_of_an_option_is_no_key(study):
    about = {"config": {"name": study.ticket_key}, "dense": study.dense_key, "start": {}}
    node = study.store.compute("x", about, lambda work: None)
    assert Inventory.of(study.store).entries[node.key].needs == {study.dense_key}


# -- a search between its waves --------------------------------------------------------------------


def test_a_search_keeps_what_its_candidates_may_begin_with_until_it_has_ended(study, tmp_path):
    wanted = [(("rewind.epoch=2", "mask.percentile=80"), composed(*OTHER))]
    sweep = StagedSweep(
        tmp_path / "sweep",
        study.store,
        Plan((), (), ()),
        [],
        main=lambda config: None,
        study=studies.find("prune"),
        launcher=None,  # type: ignore[arg-type]
        callbacks=None,
        candidates=cells_of(wanted, study.store),
    )
    for _ in range(2):  # in the second wave no dense network is to be trained any more
        sweep.begin()
        assert not collection.collect(study.store).items
        sweep.go_on(Plan((), (), ()), [])
    with sweep.searching(), pytest.raises(StoreError, match="which would go, is needed by process"):
        removal.remove(study.store, [study.dense_key])
    ended = SimpleNamespace(
        tell=list, next=lambda: None, record=lambda: {"candidates": [], "ended": True}
    )
    assert next_wave(sweep, ended) is None  # type: ignore[arg-type]
    going = [item.why for item in collection.collect(study.store).items]
    assert "nothing begins at epoch 2" in going


# -- who is at work, and who asked -----------------------------------------------------------------


def test_a_job_that_is_stopped_for_long_is_still_at_work(study):
    with users.using(study.store, [study.dense_key], "job", "") as name:
        os.utime(study.root / "using" / name, (0, 0))  # no heartbeat, as after Ctrl-Z
        assert [user.command for user in users.users(study.store)] == ["job"]
        assert not users.unused(study.store)
        with pytest.raises(StoreError, match="is needed by"):
            removal.remove(study.store, [study.dense_key])


def test_a_job_whose_sign_was_removed_puts_it_back(study, monkeypatch):
    monkeypatch.setattr(store_module, "HEARTBEAT", 0.01)
    with users.using(study.store, [study.dense_key], "job", "") as name:
        (study.root / "using" / name).unlink()
        deadline = time.monotonic() + 30
        while not users.users(study.store):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not list((study.root / "using").iterdir())


def test_commands_of_one_folder_and_folders_of_one_path_are_told_apart(tmp_path):
    store = Store(tmp_path / "store")
    first = Request("python prune.py x", str(tmp_path), ("ticket/" + "0" * 20,))
    for asked in (first, replace(first, command="python prune.py y"), replace(first, host="b")):
        note(store, asked)
        note(store, asked)
    assert len(requests(store.root)) == 3
    with asking(store, first):
        node = store.compute("score", {"ranked": "0" * 20}, lambda work: None)
    asked_for = listing.details(store, node.key).asked
    assert {(r.host, r.command) for r in asked_for} == {
        (first.host, "python prune.py x"), (first.host, "python prune.py y")
    }  # fmt: skip
    # Under another name, as an older version wrote it, a request is collected all the same.
    (store.root / "asked" / first.file).rename(store.root / "asked" / "other.json")
    removal.remove(store, [node.key], dry_run=False)
    files.write_json(
        store.root / "asked" / "other.json", dataclasses.asdict(replace(first, output="/gone"))
    )
    going = {item.path.name for item in collection.collect(store).items}
    assert "other.json" in going


def test_ls_leaves_commands_from_python_whole(study):
    rows = listing.listed(study.store)
    calls = [
        "study.ticket('mask.percentile=50')", 'study.ticket("data.name=it\'s")',
        "python prune.py mask.percentile=50 seed=1", "python prune.py mask.percentile=80 seed=1",
    ]  # fmt: skip
    rows = [
        replace(row, asked=(Request(call, "/x", ()),))
        for row, call in zip(rows, calls, strict=True)
    ]
    console = Console(force_terminal=True, width=400, file=io.StringIO(), color_system=None)
    printing.show_rows(rows, console)
    said = console.file.getvalue()
    for text in (*calls[:2], " prune.py mask.percentile=80 …", "… stands for seed=1"):
        assert text in said


def test_ls_leaves_out_what_says_too_little_of_itself(study):
    config = study.dense.config
    files.write_json(study.dense.path / "config.json", {"seed": config["seed"]})
    assert [row.entry.kind for row in listing.listed(study.store)] == ["ticket", "child", "child"]
