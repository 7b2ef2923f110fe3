"""Several processes as one: the chief tells the story, the others join in its trainings.

Every process of a job is started by the same command, or all refuse. The chief, rank 0, does what a
process that is alone does: it alone finds out what is done, holds leases, writes the store and the
output folder, and logs. The others, the followers, know nothing of the study. Before anything that
all compute together, be it the training of a dense network, of a ticket or a replay, the chief
publishes a plan of it: its kind and JSON values, which name what to read from the shared file
system. Every follower does what belongs to the kind, so it takes the same steps, writing nothing.
Plans are numbered entries in the key-value store of TensorFlow's coordination service, which runs
in the chief. The last entry, as the chief's process ends, is the word to leave.

What ends a training early ends it for all at the same step: a loss that is not finite, since all
see the same sums, and a signal, since all agree on it within the step. Followers then wait for the
next plan, while the chief writes, queues the job again and leaves. Anything else that goes wrong in
one process ends all: the service reports a process that is silent, which fails the collective
operations of the others, and srun ends a job of which a task fails (``--kill-on-bad-exit``). The
store then holds the last checkpoint, and the same command goes on from there.
"""

import atexit
import dataclasses
import functools
import json
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from lottery.errors import ClusterError, DivergedError, StoppedError
from lottery.interrupts import keep_hearing
from lottery.training import cluster, devices

log = logging.getLogger(__name__)

POLL = 1000  # milliseconds between chances to handle a signal
FAREWELL = 30_000  # milliseconds for a follower to confirm that it leaves, or has compared
END = "end"
GONE = "{} of this job does not answer any more; the same command goes on from the last checkpoint"


@dataclasses.dataclass
class _Chief:
    followers: int
    plans: int = 0
    broken: bool = False


_chief: _Chief | None = None


def lead() -> None:
    """Meet the followers, if this is the chief of several processes; once is enough.

    Raises :class:`ClusterError` if they do not come, or were started by another command.
    """
    global _chief
    task = cluster.task()
    if task is None or task.rank > 0 or _chief is not None:
        return
    devices.strategy("multiworker")
    _compare(task)
    keep_hearing()
    _chief = _Chief(followers=len(task.addresses) - 1)
    atexit.register(_dismiss, _chief)


@contextmanager
def together(kind: str, about: Mapping[str, Any]) -> Iterator[None]:
    """A computation that the followers, if there are any, join by a plan of that kind.

    ``about`` holds JSON values. Raises :class:`ClusterError` if an earlier computation left the
    followers in the middle of a step.
    """
    if _chief is None:
        yield
        return
    if _chief.broken:
        raise ClusterError("the processes of this job are out of step after an earlier error")
    _publish(_chief, json.dumps({"kind": kind, "about": about}))
    try:
        with _answering("another process"):
            yield
    except (StoppedError, DivergedError):  # the same for all
        raise
    except BaseException:
        _chief.broken = True
        raise


def follow(joins: Mapping[str, Callable[[Mapping[str, Any]], None]]) -> None:
    """Meet the chief and join in what it plans, until it says that it was the last.

    ``joins`` has for each kind of plan what a follower does by it.

    Raises :class:`ClusterError` if the chief is gone, or a process was started by another command.
    """
    task = cluster.task()
    assert task is not None
    devices.strategy("multiworker")
    _compare(task)
    number = 0
    while (text := _value(f"lottery/plan/{number}")) != END:
        plan = json.loads(text)
        try:
            with _answering("the first process"):
                joins[plan["kind"]](plan["about"])
        except (StoppedError, DivergedError) as error:  # the chief deals with it
            log.info("%s", error)
        number += 1
    context.context().set_config_key_value(f"lottery/left/{task.rank}", END)


def different(commands: Sequence[cluster.Command]) -> str | None:
    """What is wrong with commands that started the processes of one job; None if they agree."""
    first = commands[0]
    other = next((rank for rank, command in enumerate(commands) if command != first), None)
    if other is None:
        return None
    pair, tail = (first, commands[other]), ""
    names = chdir = ["", ""]
    if pair[0].folder != pair[1].folder:
        names = [f" in {c.folder}" for c in pair]
        chdir = [shlex.join([f"--chdir={c.folder}"]) + " " for c in pair]
    elif pair[0].line == pair[1].line:
        tail = ", which mean different configurations, by an interpolation such as ${oc.env:...}"
    steps = " ".join(
        f"srun --exact --ntasks=1 {where}python {c.line} &"
        for c, where in zip(pair, chdir, strict=True)
    )
    return (
        f"the {len(commands)} processes of a job step (or of TF_CONFIG) train one network together,"
        f" but process 0 was started by {pair[0].line}{names[0]} and process {other} by "
        f"{pair[1].line}{names[1]}{tail}. To run jobs of one process side by side in an "
        f"allocation, give each a step of its own, in the background, and wait for all: {steps} "
        "... wait"
    )


@functools.cache
def _commands(task: cluster.Task) -> tuple[cluster.Command, ...]:
    """The command that started each process, by rank."""
    own = cluster.command or cluster.started(sys.argv)
    said = json.dumps(dataclasses.asdict(own))
    context.context().set_config_key_value(f"lottery/command/{task.rank}", said)
    ranks = range(len(task.addresses))
    return tuple(cluster.Command(**json.loads(_value(f"lottery/command/{r}"))) for r in ranks)


def _compare(task: cluster.Task) -> None:
    """Raise :class:`ClusterError` unless one command started all processes."""
    wrong = different(_commands(task))
    if wrong is None:
        return
    try:  # none can read what the others said once the chief has gone
        if task.rank > 0:
            context.context().set_config_key_value(f"lottery/compared/{task.rank}", END)
        for rank in range(1, len(task.addresses)) if task.rank == 0 else ():
            context.context().get_config_key_value(f"lottery/compared/{rank}", FAREWELL)
    except tf.errors.OpError as error:
        log.debug("no farewell: %s", error)
    raise ClusterError(wrong)


def _publish(chief: _Chief, text: str) -> None:
    context.context().set_config_key_value(f"lottery/plan/{chief.plans}", text)
    chief.plans += 1


def _value(key: str) -> str:
    """What another process says under a key, once it does."""
    while True:
        try:
            return str(context.context().get_config_key_value(key, POLL))
        except tf.errors.DeadlineExceededError:
            continue
        except tf.errors.OpError as error:
            raise ClusterError(GONE.format("the first process")) from error


@contextmanager
def _answering(who: str) -> Iterator[None]:
    try:
        yield
    except tf.errors.UnavailableError as error:  # of a collective operation
        raise ClusterError(GONE.format(who)) from error


def _dismiss(chief: _Chief) -> None:
    if chief.broken:
        return
    try:
        _publish(chief, END)
        for rank in range(1, chief.followers + 1):
            context.context().get_config_key_value(f"lottery/left/{rank}", FAREWELL)
    except tf.errors.OpError as error:  # they are gone already
        log.debug("no farewell: %s", error)
