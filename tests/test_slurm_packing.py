"""Processes of one job that were started by different commands, and jobs side by side."""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import hydra
import pytest
from conftest import REPOSITORY, TINY, command, composed, environment, together
from slurm_cluster import Cluster

from lottery import cli, store
from lottery.files import read_json
from lottery.leases import Lease
from lottery.lineage import training_identity
from lottery.store import Store
from lottery.training import cluster
from lottery.training.cluster import Command

TRAIN = (*TINY, "trainer.epochs=1", "rewind.epoch=0")


def test_one_command_or_none():
    from lottery.training.workers import different

    first, other = Command("train.py seed=0", "/a"), Command("train.py seed=2", "/a")
    assert different([first] * 3) is None
    said = different([first, first, other])
    assert said is not None
    assert "process 0 was started by train.py seed=0 and process 2 by train.py seed=2" in said
    assert said.endswith(
        "srun --exact --ntasks=1 python train.py seed=0 & "
        "srun --exact --ntasks=1 python train.py seed=2 & ... wait"
    )
    assert "\n" not in said
    said = different([first, replace(first, folder="/b")])
    assert said is not None
    assert "by train.py seed=0 in /a and process 1 by train.py seed=0 in /b" in said
    said = different([first, replace(first, config="another")])
    assert said is not None
    assert "process 1 by train.py seed=0, which mean different configurations" in said


def test_a_command_is_what_it_means_here(monkeypatch, capsys):
    monkeypatch.setenv("SLURM_PROCID", "3")
    typed = ["/somewhere/train.py", "seed=${oc.env:SLURM_PROCID}", "name=${now:%f}_${mask.rate}"]
    assert cluster.started(typed).line == shlex.join(["train.py", "seed=3", typed[2]])

    main = hydra.main(str(REPOSITORY / "conf"), "train", version_base="1.3")(lambda config: None)

    def meant(*overrides: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(REPOSITORY / "train.py"), *overrides])
        return cli._composed(main)

    named = "paths.outputs=${now:%f}"
    meaning = meant("seed=${oc.env:SLURM_PROCID}", named)
    assert "seed: 3\n" in meaning
    assert meaning == meant("seed=3", named)
    assert sys.argv[1:] == ["seed=3", named]
    assert meant("-m", "seed=1,2") == meant("--help") == ""
    assert capsys.readouterr().out == ""


def trained_together(
    *overrides: list[str], folders: Sequence[Path] | None = None
) -> list[subprocess.Popen[str]]:
    """Processes of train.py that are to train together, each with overrides of its own."""
    return together(*(command("train.py", *TRAIN, *own) for own in overrides), folders=folders)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "folders", "told"),
    [
        (["seed=0", "seed=1"], "aa", ("seed=0", "seed=1")),
        (2 * ["seed=${oc.env:SLURM_PROCID}"], "aa", ("seed=0", "seed=1")),
        (2 * ["+own=seed"], "aa", ("mean different configurations",)),
        (2 * ["seed=0"], "ab", ("/a and process 1", "/b. To run")),
    ],
    ids=["typed", "interpolated", "in a file", "folders"],
)
def test_processes_with_different_commands_all_refuse(tmp_path, typed, folders, told):
    (tmp_path / "conf" / "own").mkdir(parents=True)
    (tmp_path / "conf" / "own" / "seed.yaml").write_text(
        "# @package _global_\nseed: ${oc.env:SLURM_PROCID}\n"
    )
    outputs = [f"paths.outputs={tmp_path}", f"--config-dir={tmp_path / 'conf'}"]
    for name in folders:
        (tmp_path / name).mkdir(exist_ok=True)
    processes = trained_together(
        *([each, *outputs] for each in typed), folders=[tmp_path / name for name in folders]
    )
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 1, said
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, said
        assert all(words in errors[0] for words in told)
        assert "srun --exact --ntasks=1" in errors[0]
    assert not (tmp_path / "store").exists()
    (folder,) = (tmp_path / "train").iterdir()
    assert read_json(folder / "status.json")["status"] == "failed"


@pytest.mark.slow
def test_a_signal_reaches_the_first_of_several_processes_while_it_waits(tmp_path):
    outputs = f"paths.outputs={tmp_path}"
    store_of_runs = Store(tmp_path / "store")
    node = store_of_runs.node("dense", training_identity(composed(*TRAIN, outputs)))
    path = store_of_runs.root / "leases" / f"dense-{node.key}"
    path.parent.mkdir(parents=True)
    lease = Lease(path, heartbeat=store.HEARTBEAT, timeout=store.LEASE_TIMEOUT)
    assert lease.acquire()
    first, second = trained_together([outputs], [outputs])
    try:
        assert first.stdout is not None
        assert any("waiting for process" in line for line in first.stdout)
        time.sleep(2)  # TensorFlow takes SIGTERM at some moment; a poll takes it back
        first.terminate()
        first.communicate(timeout=120)
    finally:
        lease.release()
        second.kill()
        second.communicate()
    assert first.returncode == 128 + signal.SIGTERM
    (folder,) = (tmp_path / "train").iterdir()
    status = read_json(folder / "status.json")
    assert status["status"] == "failed"
    assert "SIGTERM" in status["error"]


@pytest.mark.slow
def test_on_a_cluster(cluster: Cluster, tmp_path):
    """One step of two tasks refuses; two steps of one task, side by side, compute two runs."""

    def allocated(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["salloc", "--nodes=1", "--ntasks=2", "bash", "-c", script],
            env=environment(**cluster.environment), cwd=REPOSITORY, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip

    def seeded(seed: str) -> str:
        return " ".join(command("train.py", *TRAIN, f"seed={seed}", f"paths.outputs={tmp_path}"))

    together = allocated(f"srun --ntasks=2 bash -c '{seeded('$SLURM_PROCID')}'")
    assert together.returncode == 1, together.stdout + together.stderr
    assert "srun --exact --ntasks=1 python train.py" in together.stderr
    assert not (tmp_path / "store").exists()

    step = "srun --exact --ntasks=1"
    apart = allocated(f"{step} {seeded('0')} & {step} {seeded('1')} & wait")
    assert apart.returncode == 0, apart.stdout + apart.stderr
    results = [f / "result.json" for f in (tmp_path / "train").iterdir()]
    keys = {read_json(path)["dense"]["key"] for path in results if path.exists()}
    assert len(keys) == 2
