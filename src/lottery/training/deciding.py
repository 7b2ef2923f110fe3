"""Callbacks that decide at the ends of epochs how a training goes on, and what they remember.

They see an epoch's metrics, may say that it was the last, and may set the weights when training has
ended. Their memory is written beside every checkpoint, so a training that was killed goes on as the
unbroken one. It belongs to one training: where another starts from a state of it, rewound or not,
theirs is empty.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lottery.errors import ConfigError
from lottery.training.checkpoints import Memory

if TYPE_CHECKING:
    from lottery.training.loop import Loop

log = logging.getLogger(__name__)


class Deciding:
    """The callbacks of ``chosen``, choices by label, over ``loop``; ``memory`` is that of before.

    Every process of a job has its own: they see the same metrics, and so decide the same.
    """

    def __init__(self, chosen: Mapping[str, Any], loop: "Loop", memory: Memory | None = None):
        self._chosen = chosen
        self._network = _Network(loop)
        self._built = {label: choice.build() for label, choice in chosen.items()}
        self._last_epoch: int | None = None
        for callback in self._built.values():
            callback.set_model(self._network)
            callback.on_train_begin()
        self._recall(memory or Memory())

    @property
    def stopped(self) -> bool:
        """Whether the training ends although its schedule does not."""
        return self._network.stop_training

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Show them the metrics of an epoch."""
        self._last_epoch = epoch + 1
        for label, callback in self._built.items():
            callback.on_epoch_end(epoch, dict(logs))
            if self._network.weights_set and not self.stopped:
                raise ConfigError(
                    f"callback={label} sets weights in a training that goes on, where only those "
                    "with which it ends may be set: do it in on_train_end, or leave out `remembers`"
                )

    def end(self) -> None:
        """Let them set the weights of the network that the training leaves."""
        for callback in self._built.values():
            callback.on_train_end()
        for label, told in self._told().items():
            words = (f"{name.replace('_epoch', ' after epoch')} {n}" for name, n in told.items())
            log.info("callback=%s: %s", label, ", ".join(words))

    @property
    def summary(self) -> dict[str, Any]:
        """What the result has to say of them: ``told`` of their choices, and what all must say.

        That is after which epoch they have stopped the training, if so, and that they have set its
        last weights; ``restored_epoch`` is None if nobody says of which epoch those are.
        """
        told = {name: value for told in self._told().values() for name, value in told.items()}
        unknown = {"restored_epoch": None} if self._network.weights_set else {}
        return {**unknown, **told, **({"stopped_epoch": self._last_epoch} if self.stopped else {})}

    def memory(self) -> Memory:
        """All that they remember. Raises :class:`TypeError` for what cannot be written."""
        values: dict[str, Any] = {}
        arrays: dict[str, Any] = {}
        for label, callback in self._built.items():
            for name in self._chosen[label].remembers:
                value, place = getattr(callback, name), f"{label}/{name}"
                if isinstance(value, list | tuple) and all(
                    isinstance(v, np.ndarray) for v in value
                ):
                    values[place] = {"arrays": len(value)}
                    arrays |= {f"{place}/{i}": array for i, array in enumerate(value)}
                else:
                    values[place] = value.item() if isinstance(value, np.generic) else value
        if self._built:
            values |= {"stopped": self.stopped, "last_epoch": self._last_epoch}
            values |= {"weights_set": self._network.weights_set}
        return Memory(values, arrays)

    def _recall(self, memory: Memory) -> None:
        if not memory.values:
            return
        self._network.stop_training = memory.values["stopped"]
        self._network.weights_set = memory.values.get("weights_set", False)
        self._last_epoch = memory.values["last_epoch"]
        for label, callback in self._built.items():
            for name in self._chosen[label].remembers:
                place = f"{label}/{name}"
                value = memory.values[place]
                if isinstance(value, dict):
                    value = [memory.arrays[f"{place}/{i}"] for i in range(value["arrays"])]
                setattr(callback, name, value)

    def _told(self) -> dict[str, dict[str, Any]]:
        told = {
            label: choice.told(self._built[label], self._last_epoch)
            for label, choice in self._chosen.items()
            if hasattr(choice, "told")
        }
        return {label: values for label, values in told.items() if values}


class _Network:
    """What such a callback sees of the network: its weights at full size, and a flag to stop by."""

    metrics: tuple[Any, ...] = ()

    def __init__(self, loop: "Loop") -> None:
        self._loop = loop
        self.stop_training = False
        self.weights_set = False

    def get_weights(self) -> list[Any]:
        """All weights and moving statistics, in an order that never changes."""
        state = self._loop.state()
        return [state[name] for name in self._names(state)]

    def set_weights(self, arrays: Sequence[Any]) -> None:
        """Set them all; what is pruned stays zero."""
        self.weights_set = True
        state = dict(self._loop.state())
        self._loop.load(state | dict(zip(self._names(state), arrays, strict=True)))
        with self._loop.strategy.scope():
            self._loop.masking.zero_pruned(self._loop.strategy)

    @staticmethod
    def _names(state: Mapping[str, Any]) -> list[str]:
        return sorted(n for n in state if n.startswith("model/") and "seed_generator" not in n)
