"""What a training ran on, and where that is more than rounding. Imports no TensorFlow.

Devices, their number and XLA are not part of a run's key. What they change is recorded with its
result instead, and said where two runs are compared that differ in it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Setting:
    """What a training ran on; these fields are in the ``result.json`` of its run."""

    replicas: int
    """Devices that shared each batch."""
    devices: str
    """Their name; of a processor with the number of threads."""
    deterministic: bool
    """Whether it repeats bit for bit on the same devices."""
    jit_compile: bool
    tensorflow: str
    """Its version."""
    per_replica: str = ""
    """What in the network the number of replicas changes by more than rounding."""

    @staticmethod
    def of(result: Mapping[str, Any]) -> "Setting | None":
        """That of a run's ``result.json``; None if it tells of none."""
        names = [f.name for f in fields(Setting)]
        return Setting(**{n: result[n] for n in names}) if set(names) <= set(result) else None


def result(attempts: list[Setting]) -> dict[str, Any]:
    """The fields of a result, of one training that was perhaps interrupted and continued."""
    same = len(set(attempts)) == 1
    about = asdict(attempts[-1]) | {"deterministic": same and attempts[-1].deterministic}
    text = mixture(attempts)
    return about | ({"mixed": text} if text else {})


def mixture(settings: Iterable[Setting]) -> str | None:
    """What to say of trainings that are compared, if they differ by more than rounding."""
    settings = list(settings)
    counts = sorted({s.replicas for s in settings})
    parts = sorted({s.per_replica for s in settings} - {""})
    if len(counts) < 2 or not parts:
        return None
    numbers = " and ".join(map(str, counts))
    return (
        f"trained on {numbers} devices, and {' and '.join(parts)} depends on their number: the "
        "difference is not the ticket's alone"
    )


def inexact(here: Setting, dense: Setting | None) -> str | None:
    """Why a dense run's epoch, trained again here, is not the one that it had; None if it is."""
    if dense is None:
        return "what the dense run was trained on is not known"
    if not dense.deterministic:
        return "the dense run was trained without deterministic operations"
    if not here.deterministic:
        return "operations here are not deterministic"
    for name, what in (
        ("replicas", "the number of devices"),
        ("devices", "the kind of device"),
        ("jit_compile", "trainer.jit_compile"),
        ("tensorflow", "the version of TensorFlow"),
    ):
        was, now = getattr(dense, name), getattr(here, name)
        if was != now:
            return f"{what} is {now}, and was {was} for the dense run"
    return None
