"""SLURM's reasons in words: why jobs wait, which never can start, why some were refused."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reason:
    """Why a job waits."""

    words: str
    never: bool = False  # it cannot start as it was submitted
    options: tuple[str, ...] = ()  # of hydra.launcher, those behind it


_SIZE = ("nodes", "gpus_per_node", "cpus_per_task", "tasks_per_node", "mem_gb")

# squeue's %r -> words. Those that are not here are shown as they are.
REASONS = {
    "Resources": Reason("no node is free; it is next"),
    "Priority": Reason("other jobs come first"),
    "Dependency": Reason("it waits for the jobs that it depends on"),
    "DependencyNeverSatisfied": Reason("a job that it depends on failed", never=True),
    "JobArrayTaskLimit": Reason("as many run as array_parallelism allows"),
    "BeginTime": Reason("it may not start before its begin time; a requeued job waits a moment"),
    "JobHeldUser": Reason("it is held; `scontrol release` lets it go"),
    "JobHeldAdmin": Reason("an administrator holds it"),
    "JobHoldMaxRequeue": Reason("it was requeued too often and is held", never=True),
    "Licenses": Reason("a licence that it asks for is in use"),
    "Reservation": Reason("it waits for its reservation"),
    "PartitionDown": Reason("the partition is down", options=("partition",)),
    "PartitionInactive": Reason("the partition is inactive", options=("partition",)),
    "PartitionTimeLimit": Reason(
        "it asks for more time than the partition allows", True, ("timeout_min", "partition")
    ),
    "PartitionNodeLimit": Reason(
        "it asks for more nodes than the partition allows or has", True, ("nodes", "partition")
    ),
    "PartitionConfig": Reason(
        "it asks for what the partition does not have", True, (*_SIZE, "partition")
    ),
    "BadConstraints": Reason(
        "no node can ever give what it asks for", True, (*_SIZE, "constraint", "gres")
    ),
    "ReqNodeNotAvail": Reason("nodes that it needs are down, drained or reserved"),
    "NodeDown": Reason("a node that it needs is down"),
    "AssociationJobLimit": Reason("your account is at its limit of jobs at a time"),
    "AccountNotAllowed": Reason("the partition does not take the account", True, ("account",)),
    "InvalidAccount": Reason("the account is not valid", True, ("account",)),
    "QOSNotAllowed": Reason("the QOS is not allowed here", True, ("qos", "partition")),
    "InvalidQOS": Reason("the QOS is not valid", True, ("qos",)),
}
_DOWN = "Nodes required for job are DOWN"

# Limits of a QOS or an association (account and user): QOSMaxCpuPerUserLimit and hundreds like it.
_LIMIT = re.compile(
    r"(?P<who>QOS|Assoc)(?P<kind>Grp|Max|Min)(?P<what>\w*?)"
    r"(?P<per>PerJob|PerNode|PerUser|PerAccount)?(?:Limit)?"
)
_THINGS = {
    "Cpu": ("CPUs", ("cpus_per_task", "tasks_per_node", "nodes")),
    "CPU": ("CPUs", ("cpus_per_task", "tasks_per_node", "nodes")),
    "Node": ("nodes", ("nodes",)),
    "Mem": ("memory", ("mem_gb",)),
    "GRES": ("GPUs", ("gpus_per_node", "nodes")),
    "Gres": ("GPUs", ("gpus_per_node", "nodes")),
    "Wall": ("time", ("timeout_min",)),
    "Job": ("jobs at a time", ()),
    "Submit": ("submitted jobs", ()),
}

# What sbatch says when it refuses -> the options that asked for it.
REFUSALS = {
    "CPU count": ("cpus_per_task", "tasks_per_node"),
    "More processors requested": ("cpus_per_task", "tasks_per_node", "nodes"),
    "node configuration is not available": (*_SIZE, "constraint", "nodelist", "partition"),
    "Memory specification": ("mem_gb", "mem_per_cpu", "mem_per_gpu"),
    "(gres)": ("gpus_per_node", "gres"),
    "feature specification": ("constraint",),
    "node name": ("nodelist", "exclude"),
    "ode count": ("nodes",),
    "partition": ("partition",),
    "account": ("account", "partition"),
    "qos": ("qos",),
    "time limit": ("timeout_min", "partition"),
    "accounting/QOS policy": ("qos", "account", "timeout_min", *_SIZE),
}


def explain(reason: str) -> Reason:
    """A reason of squeue in words."""
    name = re.split(r"[,(]", reason, maxsplit=1)[0].strip()
    if name in REASONS:
        return REASONS[name]
    if reason.startswith(_DOWN):
        return REASONS["ReqNodeNotAvail"]
    if limit := _LIMIT.fullmatch(name):
        return _limit(**limit.groupdict())
    return Reason(f"SLURM says {reason}")


def _limit(who: str, kind: str, what: str, per: str | None) -> Reason:
    whose = "the QOS" if who == "QOS" else "your account"
    thing, options = next(
        (about for word, about in _THINGS.items() if word in what), (what or "jobs", ())
    )
    never = per in ("PerJob", "PerNode") or kind == "Min"
    if never:
        bound = "less" if kind == "Min" else "more"
        return Reason(f"it asks for {bound} {thing} than {whose} allows a job", True, options)
    shared = ", which others use too," if kind == "Grp" else ""
    return Reason(f"{whose}{shared} is at its limit of {thing}; it starts when others have ended")


def refusal(message: str, launcher: Mapping[str, Any]) -> str:
    """SLURM's words for why it refused jobs, and the options of ``launcher`` that asked for it."""
    said = message.strip()
    names = next((names for words, names in REFUSALS.items() if words in said), ())
    asked = options(names, launcher)
    return f"SLURM refused the jobs: {said}" + (f"\nasked for by {asked}" if asked else "")


def options(names: tuple[str, ...], launcher: Mapping[str, Any]) -> str:
    """Those options as they are set, as one would type them."""
    return ", ".join(
        f"hydra.launcher.{name}={launcher[name]}"
        for name in names
        if launcher.get(name) is not None
    )
