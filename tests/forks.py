"""A process that has imported what the entry scripts import, and forks for each command.

A command then starts in a tenth of a second, where Python alone takes five to import TensorFlow. A
fork differs from ``python script.py`` in that alone: what a process imports, how it reads variables
that Python or TensorFlow look at when they start, and how it dies of signals is tested on processes
of their own (``conftest.command``).
"""

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

LIMIT = 600  # seconds that a command may take
SHALLOW = "TEST_SHALLOW_RESNET"  # environment variable: resnet20 has four layers


class Forks:
    """The end of the tests: start it, let it run commands, stop it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=dict(environment),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(
        self, command: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """A script and its arguments, run to their end; nobody answers prompts."""
        with tempfile.TemporaryDirectory() as folder:
            outputs = [Path(folder) / name for name in ("stdout", "stderr")]
            asked = [list(command), dict(environment), str(Path.cwd()), *map(str, outputs)]
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            print(json.dumps(asked), file=self._process.stdin, flush=True)
            code = self._process.stdout.readline()
            assert code, "the process that forks is gone"
            said = [path.read_text() for path in outputs]
            return subprocess.CompletedProcess(command, int(code), *said)

    def stop(self) -> None:
        self._process.communicate()


def serve() -> None:
    """Fork for each line of standard input; in a fork, return after its script has ended."""
    asked, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    _import_what_scripts_do()
    gc.collect()
    gc.freeze()  # or each fork that collects copies all of it
    for line in asked:
        pid = os.fork()
        if pid == 0:
            asked.close()
            answers.close()
            return _become(*json.loads(line))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
    return None


def _become(
    command: list[str], environment: dict[str, str], folder: str, stdout: str, stderr: str
) -> None:
    signal.alarm(LIMIT)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in (1, stdout), (2, stderr):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    if SHALLOW in environment:
        resnet20 = importlib.import_module("lottery.models.networks._resnet20")
        resnet20._CHANNELS, resnet20._BLOCKS = (16,), 1
    sys.argv, sys.path[0] = command, str(Path(command[0]).parent)
    runpy.run_path(command[0], run_name="__main__")


def _import_what_scripts_do() -> None:
    from lottery import cli, trainings, transfer
    from lottery.analysis import report
    from lottery.export import job as export
    from lottery.preprocess import job as preprocess
    from lottery.sweep import staged

    assert all((cli, transfer, report, export, preprocess, staged))
    trainings._imported()
    for name in "sklearn.datasets", "matplotlib.pyplot", "plotly", "wandb", "scipy.stats":
        importlib.import_module(name)


if __name__ == "__main__":
    serve()
