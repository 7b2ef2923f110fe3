"""What a job returns to a sweeper that optimises, such as Optuna's (``hydra/sweeper=optuna``)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lottery.errors import ConfigError
from lottery.options import did_you_mean
from lottery.verdict.single import at_chance, points, share

if TYPE_CHECKING:
    from lottery.results import Result

TOP1 = "val_top1"
DENSITIES = ("density", "density_of_kernels")
"""By the names that they have in ``mask`` of a result."""
DIRECTIONS = {TOP1: "maximize", **dict.fromkeys(DENSITIES, "minimize")}
"""Which way each objective is better."""


def listed(objective: Any) -> tuple[str, ...]:
    """The names in ``sweep.objective``, which is one or a list.

    Raises :class:`ConfigError` for what is none, and for one that comes twice.
    """
    names = tuple(objective) if isinstance(objective, list) else (objective,)
    shown = f"sweep.objective={_shown(names)}"
    if not names:
        raise ConfigError(f"sweep.objective names nothing (known: {', '.join(DIRECTIONS)})")
    for name in names:
        if name not in DIRECTIONS:
            hint = did_you_mean(str(name), DIRECTIONS)
            raise ConfigError(
                f"{shown} is unknown{hint or ' (known: ' + ', '.join(DIRECTIONS) + ')'}"
            )
    if len(set(names)) != len(names):
        raise ConfigError(f"{shown} names one twice")
    return names


def check(objective: Any, study: str, sweeper: Any) -> None:
    """Raise :class:`ConfigError` if a sweeper would be led astray, before anything is trained.

    ``study`` is whose jobs it launches, and ``sweeper`` are the options of ``hydra.sweeper``.
    """
    names = listed(objective)
    if study != "prune" and set(names) & set(DENSITIES):
        raise ConfigError(
            f"sweep.objective={_shown(names)} asks for the density of a ticket that prune.py has "
            f"found; with {study}.py leave it out"
        )
    if "OptunaSweeper" not in sweeper._target_:
        return
    wanted = [DIRECTIONS[name] for name in names]
    asked = sweeper.direction
    asked = [asked] if isinstance(asked, str) or not hasattr(asked, "__len__") else list(asked)
    if [getattr(direction, "name", direction) for direction in asked] != wanted:
        raise ConfigError(
            f"sweep.objective={_shown(names)} needs hydra.sweeper.direction={_shown(wanted)}: "
            "Optuna minimizes what it is not told to maximize"
        )


def value(objective: Any, result: "Result") -> float | tuple[float, ...]:
    """What a sweeper is told of a result: a number, or one for each name in a list.

    ``val_top1`` is a share of 1. A density alone is that at the verdict's tolerance: of a ticket
    that does not match it is above 1, by the share of images that are missing, so that any ticket
    that matches is better, and of two that do not the one that is nearer. A dense network at
    chance, which nothing can match, makes it 2. Beside ``val_top1`` a density is as it is: the
    front of both shows what each density costs.
    """
    names = listed(objective)
    about = result.written()
    found = [result.main.result[n] if n == TOP1 else about["mask"][n] for n in names]
    if len(names) > 1:
        return tuple(map(float, found))
    (only,) = found
    if names[0] in DENSITIES:
        only = at_tolerance(only, about["dense"], about["ticket"], about["tolerance"])
    return float(only)


def at_tolerance(
    density: float, dense: Mapping[str, Any], ticket: Mapping[str, Any], tolerance: float
) -> float:
    """The density of a ticket that matches, in (0, 1]; of another a penalty in (1, 2]."""
    if at_chance(dense):
        return 2.0
    missing = share(dense) - share(ticket) - points(tolerance)
    return density if missing <= 0 else float(1 + missing)


def _shown(names: Any) -> str:
    names = list(map(str, names))
    return names[0] if len(names) == 1 else f"[{','.join(names)}]"
