"""Who trains with whom, as the environment of a process tells it."""

import json

import pytest

from lottery.errors import ClusterError
from lottery.training import cluster
from lottery.training.cluster import Task

STEP = {
    "SLURM_JOB_ID": "1234", "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "gpu[7,9]", "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURMD_NODENAME": "gpu9",
}  # fmt: skip
NODES = (
    "NodeName=gpu7 Arch=x86_64 CoresPerSocket=8 NodeAddr=10.0.0.7 NodeHostName=gpu7 Port=6818\n"
    "NodeName=gpu9 Arch=x86_64 CoresPerSocket=8 NodeAddr=gpu9.site NodeHostName=gpu9 Port=6818\n"
)


@pytest.fixture(autouse=True)
def scontrol(monkeypatch):
    answers = {"hostnames": "gpu7\ngpu9\n", "node": NODES}
    monkeypatch.setattr(cluster, "_scontrol", lambda show, what, *more: answers[what])


def test_alone():
    assert cluster.read({}) is None
    assert cluster.read({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}) is None  # a batch script
    assert cluster.read(STEP | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert cluster.read({"TF_CONFIG": tf_config({"worker": ["a:1"]}, "worker", 0)}) is None


def test_a_step_of_several_tasks():
    ports = [20000 + (16 * 1234 + rank) % 12000 for rank in range(3)]
    assert cluster.read(STEP) == Task(
        2, (f"10.0.0.7:{ports[0]}", f"10.0.0.7:{ports[1]}", f"gpu9.site:{ports[2]}")
    )


def test_ports_of_jobs_that_share_a_node_differ_and_stay_below_the_system_s():
    ports = [cluster.port(job, rank) for job in range(4_000_000, 4_000_700) for rank in range(16)]
    assert len(set(ports)) == len(ports)
    assert 20000 <= min(ports) <= max(ports) < 32000


@pytest.mark.parametrize(
    ("text", "counts"), [("2", [2]), ("1(x3)", [1, 1, 1]), ("4(x2),1", [4, 4, 1])]
)
def test_tasks_per_node(text, counts):
    assert cluster.tasks_per_node(text) == counts


def test_tasks_dealt_out_otherwise_are_refused():
    with pytest.raises(ClusterError, match="task 2 runs on gpu7, not on gpu9"):
        cluster.read(STEP | {"SLURMD_NODENAME": "gpu7"})


def tf_config(nodes, kind, index):
    return json.dumps({"cluster": nodes, "task": {"type": kind, "index": index}})


def test_tf_config_outranks_slurm():
    nodes = {"worker": ["b:1", "c:2"], "chief": ["a:1"]}
    config = {"TF_CONFIG": tf_config(nodes, "worker", 1)}
    assert cluster.read(STEP | config) == Task(2, ("a:1", "b:1", "c:2"))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", tf_config({"worker": ["a:1", "b:1"]}, "worker", 2)]
)
def test_a_tf_config_that_makes_no_sense(text):
    with pytest.raises(ClusterError, match=r"TF_CONFIG=.* cannot be understood"):
        cluster.read({"TF_CONFIG": text})
