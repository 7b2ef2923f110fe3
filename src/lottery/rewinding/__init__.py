"""Where the survivors start again: one module per choice of ``rewind``.

The class of a choice has the options of :class:`Rewinding`, on top of which it may have its own,
and a method ``rewind(origin) -> Start``. It sets ``control = True`` if it is an experimental
control that replaces only the last retraining of an iterative ticket, and ``afresh = True`` if it
starts at the beginning of the schedule with weights that were never trained.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lottery.options import option
from lottery.points import START, Point
from lottery.pruning import masks
from lottery.pruning.masks import Mask
from lottery.training.checkpoints import State


@dataclass(frozen=True)
class Rewinding:
    """What all rewindings have."""

    control: ClassVar[bool] = False
    """Whether it can be no ticket itself; then it replaces the last retraining alone."""
    afresh: ClassVar[bool] = False
    """Whether it starts at the beginning with untrained weights, so that neither the point nor the
    slots matter."""
    takes_final: ClassVar[bool] = True
    """Whether it may draw on a trained network: through ``origin.final()``, or a state of the dense
    run after its start. If not, its tickets need not wait for one."""
    takes_point: ClassVar[bool] = True
    """Whether it may draw on the dense run's state at the point, which must have come so far then;
    one that starts afresh does not."""

    epoch: int = option(
        "${usual_epoch:${mask.at}}", "complete epochs after which the dense run is rewound to",
        only=lambda r: r.step is None, ge=0,
    )  # fmt: skip
    step: int | None = option(None, "optimizer steps, instead of epochs", ge=0)
    optimizer: str = option(
        "restore", "optimizer slots: those of the rewound state, or zero",
        only=lambda r: r.name != "weights" or r.point != START,  # there they are zero
        choices=("restore", "reset"),
    )  # fmt: skip
    keep: list[Any] = option(
        [],
        "points whose state a dense run keeps for rewinding, besides its own: epochs, or 2000it",
        identity=False,
        ge=0,
    )

    @property
    def point(self) -> Point:
        """The point in the dense run that is rewound to."""
        return Point(self.epoch) if self.step is None else Point(steps=self.step)

    @property
    def kept(self) -> tuple[Point, ...]:
        """What a dense run keeps. Raises :class:`ConfigError` for what is no point."""
        return tuple(map(Point.of, self.keep))

    def rewind(self, origin: "Origin") -> "Start":
        """Where a training starts that is rewound in this way."""
        raise NotImplementedError


@dataclass(frozen=True)
class Origin:
    """What a rewinding may draw on.

    ``dense(at)`` is the dense run's state at a point, or after so many epochs; ``final()`` the last
    state of the run whose weights were ranked, which is the dense run itself for a one-shot mask.
    """

    dense: Callable[[Point | int], State]
    final: Callable[[], State]
    point: Point
    seed: int


@dataclass(frozen=True)
class Start:
    """Where a training starts.

    At ``point`` of the schedule with ``state``; ``state=None`` is a fresh initialisation from
    ``seed``, with ``weights``, by variable path, in place of those. ``last_rate``
    holds the schedule's last learning rate throughout. ``initial`` says that its weights are an
    initialisation, those that its dense network began with or others, and ``pristine`` that no
    weight has been trained before, not for ``model.weights`` either. Of a rewinding both are found
    out: it is ``afresh``, or its weights are the dense network's first ones.
    """

    point: Point = START
    state: State | None = None
    seed: int = 0
    last_rate: bool = False
    weights: Mapping[str, np.ndarray[Any, Any]] | None = None
    pristine: bool = True
    initial: bool = True


def fresh_seed(seed: int) -> int:
    """A seed for weights other than those that a study with ``seed`` begins with."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])


def owner(name: str, paths: frozenset[str]) -> str | None:
    """Path of the network variable that an entry of a state is, or is an optimizer slot of.

    Keras names a slot after its variable, with underscores for slashes, and a suffix.
    """
    if name.startswith("model/"):
        return name.removeprefix("model/")
    slots = [p for p in paths if name.startswith(f"optimizer/{p.replace('/', '_')}_")]
    return max(slots, key=len, default=None)


def without_slots(state: State) -> State:
    """The state with every optimizer slot zero; step counters stay, and with them the schedule."""
    paths = frozenset(n.removeprefix("model/") for n in state if n.startswith("model/"))
    return {
        name: np.zeros_like(array)
        if not name.startswith("model/") and owner(name, paths)
        else array
        for name, array in state.items()
    }


def masked(state: State, mask: Mask) -> State:
    """The state with pruned weights, and their optimizer slots, zero."""
    paths = frozenset(n.removeprefix("model/") for n in state if n.startswith("model/"))
    return masks.apply(mask, state, lambda name: owner(name, paths))


def with_counters(state: State, of: State) -> State:
    """The state with the step counters, and so the place in the schedule, of another."""
    return {n: of[n] if n.endswith("/iteration") else array for n, array in state.items()}
