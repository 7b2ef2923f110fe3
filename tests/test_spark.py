"""preprocess.py on a real Spark: on this machine's cores, and on a cluster that loses a node."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import command, environment, run
from test_preprocess import same

pyspark = pytest.importorskip("pyspark", reason="PySpark is an extra: uv sync --extra spark")
pytestmark = pytest.mark.spark

HOME = Path(pyspark.__file__).parent
PORT = 47077


@pytest.fixture
def source(real_data: Path, tmp_path: Path) -> Path:
    """40 of the ImageNet images in 40 classes."""
    root = tmp_path / "source"
    for folder in sorted((real_data / "imagenet_sample" / "train").iterdir())[:40]:
        (root / folder.name).mkdir(parents=True)
        for path in folder.iterdir():
            (root / folder.name / path.name).symlink_to(path)
    return root


@pytest.fixture
def reference(source: Path, tmp_path: Path) -> Path:
    """What local processes make of the source."""
    done = run(
        "preprocess.py", f"source={source}", f"output={tmp_path / 'reference'}",
        "preprocess=processes", "workers=1", "shard_examples=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tmp_path / "reference"


class Cluster:
    """A standalone master and two workers of one core on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.master = f"spark://127.0.0.1:{PORT}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start them, one after the other, and wait until they know each other."""
        self._start("master", "org.apache.spark.deploy.master.Master",
                    "--host", "127.0.0.1", "--port", str(PORT), "--webui-port", "0")  # fmt: skip
        self._wait("master", "I have been elected leader")
        self.workers = [
            self._start(
                f"worker{i}", "org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1",
                "--cores", "1", "--memory", "1g", "--webui-port", "0",
                "--work-dir", str(self.folder / f"work{i}"), self.master,
            )
            for i in range(2)
        ]  # fmt: skip
        for i in range(2):
            self._wait(f"worker{i}", "Successfully registered with master")

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        log4j = self.folder / "log4j2.properties"
        log4j.write_text("rootLogger.level = info\nrootLogger.appenderRef.c.ref = c\n"
                         "appender.c.type = Console\nappender.c.name = c\n"
                         "appender.c.layout.type = PatternLayout\n"
                         "appender.c.layout.pattern = %m%n\n")  # fmt: skip
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [str(HOME / "bin" / "spark-class"), *arguments],
                env=environment(
                    SPARK_LOCAL_IP="127.0.0.1", SPARK_HOME=str(HOME),
                    SPARK_DAEMON_JAVA_OPTS=f"-Dlog4j2.configurationFile={log4j}",
                ),
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.processes = [*self.processes, process]
        return process

    def _wait(self, name: str, text: str) -> None:
        deadline = time.monotonic() + 120
        log = self.folder / f"{name}.log"
        while text not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)

    def kill_worker(self, number: int) -> None:
        """The worker, its executor and the Python processes below, at once: a node that is gone."""
        for pid in [*below(self.workers[number].pid), self.workers[number].pid]:
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        for process in reversed(self.processes):
            for pid in [*below(process.pid), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def below(pid: int) -> list[int]:
    """All descendants of a process."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in table.stdout.splitlines()]
    found, new = [], [pid]
    while new:
        new = [child for child, parent in pairs if parent in new]
        found += new
    return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    own = Cluster(tmp_path / "cluster")
    try:
        own.start()
        yield own
    finally:
        own.stop()


def spark(source: Path, output: Path, *options: str) -> list[str]:
    return [
        f"source={source}",
        f"output={output}",
        "preprocess=spark",
        "shard_examples=2",
        *options,
    ]


def test_local_spark_writes_what_processes_write(
    source: Path, reference: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    done = run("preprocess.py", *spark(source, output, 'spark.master="local[2]"'))
    assert done.returncode == 0, done.stderr
    assert same(output, reference)
    # Its own words and no others: Spark is silent.
    assert re.fullmatch(r"source \(folder\): 40 images in 20 shards\n(preprocessing: .*\n)+",
                        done.stderr)  # fmt: skip
    again = run("preprocess.py", *spark(source, output))
    assert "finished already" in again.stdout


def test_a_full_disk_under_spark(source: Path, small_disk: Path) -> None:
    done = run(
        "preprocess.py",
        *spark(source, small_disk / "out", 'spark.master="local[2]"'),
        "format=tfrecord", "encoding=jpeg",
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: cannot write or read")
    assert "No space left on device" in last
    assert "Traceback" not in done.stderr
    assert not (small_disk / "out" / "manifest.json").exists()


def test_a_cluster_loses_a_worker_and_nothing_else(
    source: Path, reference: Path, tmp_path: Path, cluster: Cluster
) -> None:
    output = tmp_path / "out"
    conf = "spark.conf={spark.driver.host: 127.0.0.1, spark.executor.memory: 512m}"
    options = (f"spark.master={cluster.master}", conf)
    process = subprocess.Popen(
        command("preprocess.py", *spark(source, output, *options)),
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while len(list(output.glob(".work/train-*.json"))) < 3:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    cluster.kill_worker(0)
    killed_at = len(list(output.glob(".work/train-*.json")))
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert killed_at < 20  # of 20 shards: it was in the middle
    assert same(output, reference)
    assert "Traceback" not in said
