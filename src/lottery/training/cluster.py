"""The processes that train together, read from the environment. Imports no TensorFlow."""

import functools
import json
import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lottery.errors import ClusterError

# Below the ports that Linux gives to outgoing connections, 32768 and up.
FIRST_PORT, PORTS, PORTS_PER_JOB = 20000, 12000, 16


@dataclass(frozen=True)
class Task:
    """One process of several. The one of rank 0 is the chief."""

    rank: int
    addresses: tuple[str, ...]
    """``host:port`` of every process, by rank."""


@dataclass(frozen=True)
class Command:
    """What started a process: the same for all that train together."""

    line: str
    """As typed, with each argument's interpolations resolved where it can be done without others:
    ``seed=${oc.env:SLURM_PROCID}`` is another seed in each process."""
    folder: str
    config: str = ""
    """What tells configurations apart that the line means; empty if it names none by itself."""


command: Command | None = None  # what started this process, if a script has told


def started(typed: Sequence[str], config: str = "") -> Command:
    """The command ``typed``, a script and its arguments, as it is understood here and now."""
    line = shlex.join([Path(typed[0]).name, *map(_resolved, typed[1:])])
    return Command(line, str(Path.cwd()), config)


def _resolved(argument: str) -> str:
    if "${now:" in argument:  # another moment in each process
        return argument
    try:
        return str(OmegaConf.create({"it": argument})["it"])
    except OmegaConfBaseException:
        return argument


@functools.cache
def task() -> Task | None:
    """This process's place among several that train together, as :func:`read` has it."""
    return read(os.environ)


def read(environment: Mapping[str, str]) -> Task | None:
    """The task that environment variables describe; None for a process that is alone.

    ``TF_CONFIG`` counts if it is set; else SLURM's variables of the job step. (Those of a job alone
    say nothing: a batch script has them too.)

    Raises :class:`ClusterError` if what is there makes no sense.
    """
    if "TF_CONFIG" in environment:
        found = _from_tf_config(environment["TF_CONFIG"])
    elif int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        found = _from_slurm(environment)
    else:
        return None
    return found if len(found.addresses) > 1 else None


def _from_tf_config(text: str) -> Task:
    try:
        config = json.loads(text)
        chiefs, workers = (list(config["cluster"].get(kind, [])) for kind in ("chief", "worker"))
        kind, index = config["task"]["type"], int(config["task"]["index"])
        rank = {"chief": 0, "worker": len(chiefs)}[kind] + index
        addresses = (*chiefs, *workers)
        if not 0 <= rank < len(addresses):
            raise ValueError(f"there is no {kind} {index}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClusterError(
            f"TF_CONFIG={text} cannot be understood ({error!r}); unset it to use SLURM's variables"
        ) from error
    return Task(rank, addresses)


def _from_slurm(environment: Mapping[str, str]) -> Task:
    try:
        rank, job = int(environment["SLURM_PROCID"]), int(environment["SLURM_JOB_ID"])
        nodelist = environment["SLURM_STEP_NODELIST"]
        counts = tasks_per_node(environment["SLURM_STEP_TASKS_PER_NODE"])
        here = environment["SLURMD_NODENAME"]
    except (KeyError, ValueError) as error:
        raise ClusterError(f"SLURM's variables are incomplete: {error!r}") from error
    nodes = _scontrol("show", "hostnames", nodelist).split()
    node_of_rank = [node for node, n in zip(nodes, counts, strict=True) for _ in range(n)]
    if node_of_rank[rank] != here:
        raise ClusterError(
            f"task {rank} runs on {here}, not on {node_of_rank[rank]}: start the tasks with "
            "srun --distribution=block"
        )
    address = node_addresses(_scontrol("show", "node", nodelist, "--oneliner"))
    return Task(
        rank, tuple(f"{address[node]}:{port(job, r)}" for r, node in enumerate(node_of_rank))
    )


def tasks_per_node(text: str) -> list[int]:
    """SLURM's counts, such as ``2(x3),1``, as a list: [2, 2, 2, 1]."""
    counts: list[int] = []
    for part in text.split(","):
        count, _, times = part.removesuffix(")").partition("(x")
        counts += [int(count)] * int(times or 1)
    return counts


def node_addresses(text: str) -> dict[str, str]:
    """The address of each node in the output of ``scontrol show node --oneliner``."""
    found = re.findall(r"^NodeName=(\S+).*? NodeAddr=(\S+)", text, flags=re.MULTILINE)
    return dict(found)


def port(job: int, rank: int) -> int:
    """Where a process listens: the same on every attempt of a job, and apart from other jobs'.

    Ranks may share a host, and so may the jobs of an array, whose numbers follow each other.
    """
    return FIRST_PORT + (job * PORTS_PER_JOB + rank) % PORTS


def _scontrol(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["scontrol", *arguments], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        raise ClusterError(f"scontrol does not tell where the job runs: {said}") from error
    return done.stdout
