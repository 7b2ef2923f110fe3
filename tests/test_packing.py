"""Processes of one job that were started by different commands, and jobs side by side."""

import json
import subprocess

import pytest
from conftest import REPOSITORY, TINY, command, environment
from slurm_cluster import Cluster, free_ports

from lottery.files import read_json

TRAIN = (*TINY, "trainer.epochs=1", "rewind.epoch=0")


def test_one_command_or_none():
    from lottery.training.workers import different

    assert different(["train.py seed=0"] * 3) is None
    said = different(["train.py seed=0", "train.py seed=0", "train.py seed=2"])
    assert said is not None
    assert "process 0 was started by train.py seed=0 and process 2 by train.py seed=2" in said
    assert said.endswith(
        "srun --exact --ntasks=1 python train.py seed=0 & "
        "srun --exact --ntasks=1 python train.py seed=2 & ... wait"
    )
    assert "\n" not in said


@pytest.mark.slow
def test_processes_with_different_commands_all_refuse(tmp_path):
    nodes = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for rank in range(2):
        config = {"cluster": {"worker": nodes}, "task": {"type": "worker", "index": rank}}
        line = command("train.py", *TRAIN, f"seed={rank}", f"paths.outputs={tmp_path}")
        processes.append(
            subprocess.Popen(
                line, env=environment(TF_CONFIG=json.dumps(config)), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 1, said
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, said
        assert "seed=0" in errors[0]
        assert "seed=1" in errors[0]
        assert "srun --exact --ntasks=1" in errors[0]
    assert not (tmp_path / "store").exists()
    (folder,) = (tmp_path / "train").iterdir()
    assert read_json(folder / "status.json")["status"] == "failed"


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
