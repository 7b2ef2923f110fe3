"""How a process ends: its status tells the truth, and nothing it prints is a traceback."""

import logging
import signal
import subprocess
from pathlib import Path

import pytest
import submitit
from conftest import TINY, command, composed, environment

from hydra_plugins.lottery_launcher import SlurmLauncher
from lottery import cli, store
from lottery.errors import StoppedError
from lottery.files import read_json
from lottery.leases import Lease
from lottery.lineage import training_identity
from lottery.store import Store


def status_of(folder: Path) -> dict[str, str]:
    return dict(read_json(folder / "status.json"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_waits_for_another_process(tmp_path, signum):
    config = composed(*TINY, f"paths.outputs={tmp_path}")
    node = Store(tmp_path / "store").node("dense", training_identity(config))
    path = tmp_path / "store" / "leases" / f"dense-{node.key}"
    path.parent.mkdir(parents=True)
    lease = Lease(path, heartbeat=store.HEARTBEAT, timeout=store.LEASE_TIMEOUT)
    assert lease.acquire()
    try:
        process = subprocess.Popen(
            command("train.py", *TINY, f"paths.outputs={tmp_path}"),
            env=environment(PYTHONUNBUFFERED="1"), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            # Who runs the tests in the background may have SIGINT ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert process.stdout is not None
        assert any("waiting for process" in line for line in process.stdout)
        process.send_signal(signum)
        _, said = process.communicate(timeout=60)
    finally:
        lease.release()
    assert process.returncode == 128 + signum
    assert "Traceback" not in said
    (folder,) = (tmp_path / "train").iterdir()
    assert status_of(folder)["status"] == "failed"
    assert status_of(folder)["error"].endswith("the same command goes on from there")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_a_signal_in_any_other_moment(tmp_path, signum):
    before = signal.getsignal(signum)

    def act() -> None:
        assert status_of(tmp_path)["status"] == "running"
        try:
            signal.raise_signal(signum)
        finally:
            signal.raise_signal(signum)  # once more, while it ends

    with pytest.raises(StoppedError), cli.status(tmp_path):
        act()
    assert status_of(tmp_path)["status"] == "failed"
    assert signal.Signals(signum).name in status_of(tmp_path)["error"]
    assert signal.getsignal(signum) == before


def test_a_signal_while_a_line_is_logged(tmp_path):
    """logging goes on after any Exception of its handlers."""

    class Interrupting(logging.Handler):
        def emit(self, record):
            try:
                signal.raise_signal(signal.SIGTERM)
            except Exception:
                self.handleError(record)

    logger = logging.getLogger("lottery.test")
    logger.addHandler(handler := Interrupting())
    try:
        with pytest.raises(StoppedError), cli.status(tmp_path):
            logger.error("a line")
    finally:
        logger.removeHandler(handler)
    assert status_of(tmp_path)["status"] == "failed"


def test_a_signal_that_is_handled_already_stays_so(tmp_path):
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda *_: heard.append("USR2"))
    try:
        with cli.status(tmp_path):
            signal.raise_signal(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == ["USR2"]
    assert status_of(tmp_path)["status"] == "done"


def test_nobody_reads_to_the_end():
    """As with ``prune.py --help | head``."""
    process = subprocess.Popen(
        command("prune.py", "--help"), env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 128 + signal.SIGPIPE


@pytest.mark.parametrize("options", [(), ("-m", "seed=0")], ids=["one", "sweep"])
def test_nobody_reads_what_a_run_says(tmp_path, options):
    """As with ``train.py … | head -1``: the run goes on, and is stored."""
    process = subprocess.Popen(
        command("train.py", *options, *TINY, f"paths.outputs={tmp_path}"), env=environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 0
    (folder,) = (tmp_path / "train").iterdir()
    folder = folder / "0" if options else folder
    assert status_of(folder)["status"] == "done"
    assert (folder / "result.json").exists()


def test_a_job_that_fails_outside_of_its_study_says_why(tmp_path):
    """As when what SLURM started cannot read what was submitted: no status.json can say it."""
    job = submitit.LocalExecutor(tmp_path).submit(int, "seven")
    job.wait()
    end = SlurmLauncher.outcome(None, job)
    assert str(end._return_value).startswith("ValueError: invalid literal for int()")
    assert str(job.paths.stderr) in str(end._return_value)
