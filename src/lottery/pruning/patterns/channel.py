"""Output channels, with all that is tied to them: what makes a smaller dense network."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lottery import choices
from lottery.errors import ConfigError
from lottery.options import option
from lottery.pruning.units import Array, Mask, Shapes, Target, Ties, UnitPattern, Units

log = logging.getLogger(__name__)


@choices.pattern("channel")
@dataclass(frozen=True)
class Channel(UnitPattern):
    """Output channels of convolutions and dense layers, tied ones in all their kernels.

    In training, a channel that is pruned is zero: its bias, and BatchNorm's scale and shift of it,
    are pruned with its weights.
    """

    needs_ties: ClassVar[bool] = True
    whole_channels: ClassVar[bool] = True

    alive: int = option(1, "channels that every kernel keeps, whatever they score", ge=0)

    def units(self, shapes: Shapes, ties: Ties | None) -> Units:
        """A unit for each class of channels that no other kernel makes than those to prune.

        Its score is the mean over its weights in all of them. Channels that a kernel makes which is
        not pruned must stay: without its part they would go on. A kernel all of whose channels must
        stay, as the head does, has no units. Kernels that share a class are one layer.

        Raises :class:`ConfigError` if nobody said which channels are tied.
        """
        if ties is None:
            raise ConfigError(
                "mask.pattern=channel must know which channels are tied, and nothing tells that of "
                "this network: choose another mask.pattern"
            )
        classes = {p: np.array(c) for p, c in (*ties.made.items(), *ties.passed.items())}
        outside = [np.array(c) for path, c in ties.made.items() if path not in shapes]
        fixed = np.unique(np.concatenate([np.array([-1]), *outside]))
        own = {
            path: np.where(np.isin(classes[path], fixed), -1, classes[path])
            for path in shapes
            if path in classes
        }
        layers = _layers({path: c for path, c in own.items() if (c >= 0).any()})
        number: dict[int, int] = {}
        ends = [0]
        for paths in layers:
            for path in paths:
                for label in own[path]:
                    if label >= 0:
                        number.setdefault(int(label), len(number))
            ends.append(len(number))
        of = {
            path: _spread(np.array([number.get(int(c), -1) for c in own[path]]), shapes[path])
            for path in shapes
            if any(path in paths for paths in layers)
        }
        return Units(of, layers, np.array(ends))

    def held(self, units: Units, scores: Array, live: Array) -> Array:
        """The ``alive`` highest surviving channels of each kernel, the last of equal ones."""
        held = np.zeros(units.count, bool)
        for labels in units.of.values():
            own = np.unique(labels)
            count = self.alive - int((own < 0).any())
            own = own[own >= 0]
            own = own[live[own]]
            lowest = max(len(own) - max(count, 0), 0)  # a kernel may have fewer left
            held[own[np.argsort(scores[own], kind="stable")][lowest:]] = True
        return held

    def mask(
        self, scores: Mapping[str, Array], target: Target, within: Mask | None, ties: Ties | None
    ) -> dict[str, Array]:
        """The mask that removes the lowest channels; says which kernels ``alive`` has saved.

        Raises :class:`ConfigError` if not that many may go.
        """
        mask = super().mask(scores, target, within, ties)
        if self.alive:
            free = UnitPattern.mask(replace(self, alive=0), scores, target, within, ties)
            if saved := [path for path, m in mask.items() if (m & ~free[path]).any()]:
                _say(self.alive, tuple(saved))
        return mask


@functools.cache  # once in a process: a score that goes in rounds would say it in each
def _say(alive: int, paths: tuple[str, ...]) -> None:
    log.warning(
        "mask.pattern.alive=%d keeps channels, which score too low, of %s", alive, ", ".join(paths)
    )


def _layers(classes: Mapping[str, Array]) -> tuple[tuple[str, ...], ...]:
    """Paths of kernels that share classes, directly or through others, in their order."""
    groups: list[tuple[list[str], set[int]]] = []
    for path, labels in classes.items():
        paths, own = [path], set(labels[labels >= 0].tolist())
        for group in [g for g in groups if g[1] & own]:
            groups.remove(group)
            paths, own = group[0] + paths, group[1] | own
        groups.append((paths, own))
    place = {path: i for i, path in enumerate(classes)}
    ordered = (sorted(paths, key=place.__getitem__) for paths, _ in groups)
    return tuple(sorted(map(tuple, ordered), key=lambda paths: place[paths[0]]))


def _spread(labels: Array, shape: tuple[int, ...]) -> Array:
    """Labels of output channels for every weight: of a depthwise kernel, those of its last axes."""
    last = shape[-1:] if len(labels) == shape[-1] else shape[-2:]
    return np.broadcast_to(labels.reshape(last), shape)
