"""The job on Spark: `local[*]`, or the nodes of a cluster, which share the folders.

A task is a shard's list of paths; workers open the files themselves. (Sending the bytes through
Spark's own file sources took four to seven times as long.)
"""

import importlib.util
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lottery.errors import ConfigError, LotteryError
from lottery.preprocess.processes import Map
from lottery.preprocess.shards import Result, Task, run

_INSTEAD = "or choose preprocess=processes, which needs neither"
_CONNECT = 5.0  # seconds a master has to answer
_PATIENCE = 60.0  # seconds that a job waits for a first or another worker
_POLL = 0.05
_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
# All that a worker imports, so that it needs numpy, Pillow, OpenCV and google-crc32c alone. The
# packages' own __init__ would ask for more.
_SHIPPED = (
    "errors", "files", "data/images", "data/interface", "preprocess/processes",
    "data/tfrecord", "preprocess/shards", "preprocess/spark",
)  # fmt: skip


def check(master: str) -> None:
    """Raise :class:`ConfigError` if Spark is not installed or its master does not answer."""
    if importlib.util.find_spec("pyspark") is None:
        raise ConfigError(
            "preprocess=spark needs PySpark: `uv sync --extra spark` or "
            f"`pip install -e '.[spark]'`, and Java 17 or newer; {_INSTEAD}"
        )
    home = os.environ.get("JAVA_HOME")
    if not (Path(home, "bin", "java").is_file() if home else shutil.which("java")):
        raise ConfigError(f"preprocess=spark needs Java 17 or newer (JAVA_HOME, PATH); {_INSTEAD}")
    if master.startswith("spark://"):
        _check_answer(master)
    elif not master.startswith(("local", "yarn", "k8s://")):
        raise ConfigError(f"spark.master={master} must be local[*], spark://host:port, or the like")


def _check_answer(master: str) -> None:
    # Spark's own client tries for a minute, with pages of warnings.
    reasons = []
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"spark.master={master} must be spark://host:port")
        try:
            socket.create_connection((host, int(port)), _CONNECT).close()
            return
        except OSError as error:
            reasons.append(str(error.strerror or error))
    raise ConfigError(f"no Spark master answers at {master}: {reasons[0]}")


@contextmanager
def open_engine(master: str, conf: dict[str, Any], log: Path, *, ui: bool = False) -> Iterator[Map]:
    """Maps tasks over Spark's workers, a partition each; results as they complete.

    What Spark writes goes to the file ``log``. Raises :class:`LotteryError` if Spark does not start
    or has no workers.
    """
    with ExitStack() as stack:
        context = stack.enter_context(_context(master, conf, log, ui))
        shipped = Path(stack.enter_context(tempfile.TemporaryDirectory()), "lottery-workers.zip")
        _pack(shipped)
        own = list(sys.path)
        context.addPyFile(str(shipped))
        sys.path[:] = own  # the package here is whole
        yield lambda tasks: _results(context, tasks, master, log)


@contextmanager
def _context(master: str, conf: dict[str, Any], log: Path, ui: bool) -> Iterator[Any]:
    import pyspark
    from pyspark.java_gateway import launch_gateway

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    log4j = Path(__file__).with_name("log4j2.properties")
    settings = {
        "spark.app.name": "lottery preprocess",
        "spark.ui.enabled": str(ui).lower(),
        "spark.ui.showConsoleProgress": "false",
        # The JVM only hands out tasks: its optimising compiler would take time from the workers.
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log4j} {_JVM}",
    }
    if master.startswith("local"):  # whatever this machine's name resolves to
        settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    settings |= {name: str(value) for name, value in conf.items()}
    chosen = pyspark.SparkConf().setMaster(master).setAll(list(settings.items()))
    with log.open("w") as file:
        try:
            gateway = launch_gateway(chosen, popen_kwargs={"stdout": file, "stderr": file})
            context = pyspark.SparkContext(conf=chosen, gateway=gateway)
        except Exception as error:  # of PySpark, Py4J or the JVM
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise LotteryError(f"Spark does not start: {reason} (see {log})") from error
        try:
            yield context
        finally:
            context.stop()
            gateway.shutdown()
            gateway.proc.stdin.close()  # which ends the JVM
            gateway.proc.wait()
            pyspark.SparkContext._gateway = pyspark.SparkContext._jvm = None


def _pack(path: Path) -> None:
    package = Path(__file__).parents[1]
    with zipfile.ZipFile(path, "w") as archive:
        for folder in ("", "data/", "preprocess/"):
            archive.writestr(f"lottery/{folder}__init__.py", "")
        for module in _SHIPPED:
            archive.write(package / f"{module}.py", f"lottery/{module}.py")


class _Collected:
    """An accumulator of lists. Spark adds what a successful task sent, once, when it ends."""

    def zero(self, value: list[Result]) -> list[Result]:
        return []

    def addInPlace(self, value: list[Result], more: list[Result]) -> list[Result]:  # noqa: N802
        value.extend(more)
        return value


def _results(
    context: Any, tasks: Sequence[Task], master: str, log: Path
) -> Generator[Result, None, None]:
    collected = context.accumulator([], _Collected())
    failure: list[Exception] = []

    def job() -> None:
        try:
            spread = context.parallelize(tasks, len(tasks))
            spread.foreach(lambda task: collected.add([run(task)]))
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    seen, waited_since = 0, time.monotonic()
    try:
        while True:
            running = thread.is_alive()  # asked before looking, so that nothing is missed
            found = collected.value
            while seen < len(found):
                yield found[seen]
                seen += 1
            if not running:
                break
            if not master.startswith("spark://") or _workers(context):
                waited_since = time.monotonic()
            elif time.monotonic() - waited_since > _PATIENCE:
                raise LotteryError(
                    f"no worker of {master} has taken the job for {_PATIENCE:.0f} s: are there "
                    "any, with free cores and memory?"
                )
            thread.join(_POLL)
    finally:
        if thread.is_alive():
            context.cancelAllJobs()
            thread.join(_CONNECT)
    if failure:
        reason = next(iter(str(failure[0]).strip().splitlines()), "")
        raise LotteryError(f"Spark gave up: {reason} (see {log})") from failure[0]


def _workers(context: Any) -> int:
    """Executors that are registered; the driver counts itself as one."""
    return int(context._jsc.sc().getExecutorMemoryStatus().size()) - 1
