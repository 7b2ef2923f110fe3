"""Whatever ends a process, the next one ends where an unbroken run would, bit for bit."""

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import TINY, command, environment, result_folder

from lottery.files import read_csv, read_json
from lottery.runs import Run, load_run
from lottery.training.checkpoints import equal

# Long enough to be interrupted: 24 epochs of 76 steps, with augmentation, momentum and dropout.
LONG = (
    *TINY, "model.dropout=0.3", "trainer.epochs=24", "trainer.batch_size=16", "rewind.epoch=3",
    "rewind.keep=[]", "mask.percentile=80", "trainer.steps_per_call=4",
)  # fmt: skip
STEPS_PER_EPOCH = 76
TIMINGS = {"images_per_second", "step_seconds", "input_wait"}


@dataclass
class Attempt:
    """One process of prune.py, and the store it works in."""

    process: subprocess.Popen[str]
    store: Path

    def interrupt(self, kind: str, signum: int, rng: random.Random) -> None:
        """Send a signal at a random instant, 1 to 4 epochs further on in a dense or ticket run."""
        goal = self._epoch(kind) + rng.randint(1, 4)
        while self._epoch(kind) < goal:
            assert self.process.poll() is None, ("ended before it was interrupted", self.end())
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        self.process.send_signal(signum)

    def _epoch(self, kind: str) -> int:
        """That of the newest checkpoint in the work folder."""
        steps = [p.name for p in self.store.glob(f"work/{kind}-*/checkpoints/step_*")]
        return max((int(s.removeprefix("step_")) // STEPS_PER_EPOCH for s in steps), default=0)

    def end(self) -> tuple[int, str]:
        """Exit code and output."""
        stdout, stderr = self.process.communicate(timeout=300)
        return self.process.returncode, stdout + stderr


# Starts a script with leases that lapse soon.
IMPATIENT = (
    "-c",
    "import runpy, sys; from lottery import store; store.LEASE_TIMEOUT, store.HEARTBEAT = 2, 0.2; "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')",
)


def start(outputs: Path, *overrides: str, python: tuple[str, ...] = ()) -> Attempt:
    process = subprocess.Popen(
        command("prune.py", *LONG, f"paths.outputs={outputs}", *overrides, python=python),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Attempt(process, outputs / "store")


def seeded() -> random.Random:
    """Random instants; pytest shows the seed of those that failed."""
    seed = int(os.environ.get("LOTTERY_KILL_SEED") or random.randrange(2**32))
    print(f"LOTTERY_KILL_SEED={seed}")
    return random.Random(seed)


def assert_same(a: Run, b: Run) -> None:
    """Every kept state bit for bit, every figure that is no timing, the mask."""
    assert a.key == b.key
    assert a.points == b.points
    assert all(equal(a.state(point), b.state(point)) for point in a.points)
    assert equal(a.mask, b.mask)
    for rows in zip(a.metrics, b.metrics, strict=True):
        one, other = ({k: v for k, v in r.items() if k not in TIMINGS} for r in rows)
        assert one == other
    timings = ("seconds", "images_per_second")
    one, other = ({k: v for k, v in r.result.items() if k not in timings} for r in (a, b))
    assert one == other


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> list[str]:
    """What two processes printed that wanted two tickets of one dense network at the same time."""
    outputs = tmp_path_factory.mktemp("unbroken")
    attempts = [start(outputs), start(outputs, "mask.percentile=90")]
    ends = [attempt.end() for attempt in attempts]
    assert [code for code, _ in ends] == [0, 0], ends
    return [said for _, said in ends]


@pytest.fixture(scope="module")
def unbroken(pair) -> Run:
    return load_run(result_folder(pair[0]))


@pytest.mark.kill
def test_two_processes_train_their_dense_parent_once(pair):
    assert sum("training dense" in said for said in pair) == 1
    waiting = next(said for said in pair if "training dense" not in said)
    assert "waiting for process" in waiting
    first, second = (load_run(result_folder(said)) for said in pair)
    assert first.parent is not None
    assert second.parent is not None
    assert first.parent.path == second.parent.path
    assert first.key != second.key
    assert not list((first.path.parents[1] / "work").iterdir())


@pytest.mark.kill
def test_kills_at_random_instants_change_nothing(unbroken, tmp_path):
    """Four of them; each attempt gets at least an epoch further than the one before."""
    rng = seeded()
    for kind, kill in (("dense", 0), ("dense", 1), ("ticket", 2), ("ticket", 3)):
        attempt = start(tmp_path)
        attempt.interrupt(kind, signal.SIGKILL, rng)
        code, said = attempt.end()
        assert code == -signal.SIGKILL, ("ended before it was killed", said)
        assert ("resuming after step" in said) == (kill > 0)
        # Nothing half-done passes for done.
        assert len(list((tmp_path / "store").glob("dense/*"))) == (kind == "ticket")
        assert not list((tmp_path / "store").glob("ticket/*"))
    code, said = start(tmp_path).end()
    assert code == 0, said
    assert "resuming after step" in said
    assert "training dense" not in said
    ticket = load_run(result_folder(said))
    assert_same(ticket, unbroken)
    assert_same(ticket.parent, unbroken.parent)
    # What the killed ones left half-written is gone.
    store = tmp_path / "store"
    assert not list((store / "work").iterdir())
    assert not list(store.rglob(".*"))


def test_an_epoch_whose_checkpoint_was_never_written_has_no_row(tmp_path):
    """The instant between the two is too short for a random kill to hit."""
    from lottery.training.callbacks import MetricsFile

    file = tmp_path / "metrics.csv"
    first = MetricsFile(file, complete_epochs=0)
    for epoch in range(3):
        first.on_epoch_end(epoch, {"loss": 1.0})
    resumed = MetricsFile(file, complete_epochs=1)
    for epoch in range(1, 3):
        resumed.on_epoch_end(epoch, {"loss": 2.0})
    assert [(r["epoch"], r["loss"]) for r in read_csv(file)] == [
        ("1", "1.0"), ("2", "2.0"), ("3", "2.0"),
    ]  # fmt: skip


@pytest.mark.kill
def test_a_termination_saves_says_so_and_the_next_run_goes_on(unbroken, tmp_path):
    attempt = start(tmp_path)
    attempt.interrupt("dense", signal.SIGTERM, seeded())
    code, said = attempt.end()
    assert code == 128 + signal.SIGTERM
    assert "Traceback" not in said
    assert "the same command goes on from there" in said
    (folder,) = (tmp_path / "prune").iterdir()
    status = read_json(folder / "status.json")
    assert status["status"] == "failed"
    assert "SIGTERM" in status["error"]
    assert status["error"] in said
    assert not (folder / "result.json").exists()
    # The lease is given back: nobody has to wait for it to lapse.
    assert not list((tmp_path / "store" / "leases").iterdir())

    code, said = start(tmp_path).end()
    assert code == 0, said
    assert "resuming after step" in said
    ticket = load_run(result_folder(said))
    assert_same(ticket, unbroken)
    assert_same(ticket.parent, unbroken.parent)
    assert not list((tmp_path / "store" / "work").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "ticket"])
def test_one_that_was_stopped_and_goes_on_leaves_its_successor_alone(unbroken, tmp_path, kind):
    """As by Ctrl-Z, or where a job is suspended; its lease lapses meanwhile."""
    first = start(tmp_path, python=IMPATIENT)
    first.interrupt(kind, signal.SIGSTOP, seeded())
    second = start(tmp_path, python=IMPATIENT)
    shown = ""
    assert second.process.stdout is not None
    for line in second.process.stdout:
        shown += line
        if "resuming after step" in line:
            break
    second.process.send_signal(signal.SIGSTOP)  # or it might end before the first goes on
    first.process.send_signal(signal.SIGCONT)
    code, said = first.end()
    assert code == 1, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert f"process {second.process.pid} on" in errors[0]
    assert f"took over {kind}" in errors[0]
    assert "Traceback" not in said
    second.process.send_signal(signal.SIGCONT)
    code, said = second.end()
    assert code == 0, shown + said
    ticket = load_run(result_folder(said))
    assert_same(ticket, unbroken)
    assert_same(ticket.parent, unbroken.parent)
    assert not list((tmp_path / "store" / "work").iterdir())
