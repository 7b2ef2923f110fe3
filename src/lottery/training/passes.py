"""Passes through a network for pruning scores: gradients and Hessian products over examples.

Examples are drawn by the seed, not augmented, and split into batches that do not depend on the
devices. Each replica takes whole batches and the chief gets the result of each, so one device, two
replicas and two processes differ by nothing but the rounding of their kernels: BatchNorm sees the
same batch everywhere. The network is called as a pure function of its variables, of which none is
ever assigned. It computes in float32, whatever ``trainer.precision`` says: scores compare products
of weights and gradients over the whole network, of which float16 loses the smallest, and loss
scaling would have to be undone. The loss is the cross entropy of the papers, without label
smoothing, class weights, mixup and penalties, which are no evidence about the examples.

Each group of batches, one for each replica, is a plan of its own (:mod:`lottery.training.workers`):
so a score may stop in the middle, or look at several kinds of passes in turn.
"""

import functools
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lottery import tensors
from lottery.config import Data, Training
from lottery.data import Splits, describe
from lottery.data.splits import drawn
from lottery.errors import ConfigError
from lottery.pruning.evidence import Array, Arrays, Examples
from lottery.training import devices, workers
from lottery.training.flow import Flow
from lottery.training.pure import PureNetwork
from lottery.training.recipe import parts_from_json, parts_to_json

PLAN = "passes"  # the kind of plan by which followers join
LARGEST_BATCH = 128  # a replica takes whole batches, and a Hessian needs three times the memory

Load = Callable[[Data], Splits]


@dataclass(frozen=True, eq=False)
class NetworkPasses:
    """:class:`lottery.pruning.evidence.Passes` of a config's network and training split.

    Batches have at most ``trainer.batch_size`` examples and :data:`LARGEST_BATCH`, as equal in size
    as can be. ``load`` gives the data set of a configuration, the same each time: nothing is loaded
    for :meth:`flow`. Arrays pass through files in ``work``, which all processes see.
    """

    config: Training
    load: Load
    work: Path

    def gradients(
        self, weights: Arrays, examples: Examples, *, temperature: float = 1.0
    ) -> Iterator[dict[str, Array]]:
        """See :class:`lottery.pruning.evidence.Passes`; float32, in the order of the batches.

        Raises :class:`ConfigError` without labels or examples, and what :func:`join` raises.
        """
        for gradients, _ in self._each(examples, temperature, {"weights": weights}):
            yield gradients

    def hessian_product(
        self, weights: Arrays, direction: Arrays, examples: Examples, *, temperature: float = 1.0
    ) -> dict[str, Array]:
        """See :class:`lottery.pruning.evidence.Passes`; the mean over batches, in float64.

        Raises what :meth:`gradients` raises.
        """
        total: dict[str, Array] = {}
        count = 0
        parts = {"weights": weights, "direction": direction}
        for product, size in self._each(examples, temperature, parts):
            count += size
            for path, part in product.items():
                total[path] = total.get(path, 0.0) + size * part.astype(np.float64)
        return {path: added / count for path, added in total.items()}

    def flow(self, weights: Arrays) -> dict[str, Array]:
        """See :class:`lottery.pruning.evidence.Passes` and :meth:`Flow.__call__`."""
        return self._flow(weights)

    @functools.cached_property
    def _flow(self) -> Flow:
        devices.configure(precision="float32", deterministic=self.config.trainer.deterministic)
        return Flow(self.config.model, describe(self.config.data))

    def _each(
        self, examples: Examples, temperature: float, arrays: Mapping[str, Arrays]
    ) -> Iterator[tuple[dict[str, Array], int]]:
        """The result of each batch, and its size. ``arrays`` are weights, and maybe a direction."""
        batches = self._batches(examples)
        # A name of its own, since what was read is remembered by it.
        file = self.work / f"passes-{uuid.uuid4().hex}.safetensors"
        named = {f"{part}/{path}": a for part, of in arrays.items() for path, a in of.items()}
        tensors.write(file, named)
        plan = {
            "config": parts_to_json(self.config),
            "file": str(file),
            "product": "direction" in arrays,
            "temperature": temperature,
        }
        at_once = devices.strategy(self.config.trainer.strategy).num_replicas_in_sync
        try:
            for i in range(0, len(batches), at_once):
                group = batches[i : i + at_once]
                plan["batches"] = [rows.tolist() for rows in group]
                with workers.together(PLAN, plan):
                    found = _take_part(plan, self.load)
                yield from zip(found, map(len, group), strict=True)
        finally:
            file.unlink(missing_ok=True)

    def _batches(self, examples: Examples) -> list[Any]:
        labels: Any = self.load(self.config.data).train.labels
        if labels is None:
            raise ConfigError(
                f"needs labelled training examples, and those of data.source="
                f"{self.config.data.source} have no labels: score by magnitude or synflow"
            )
        rows = drawn(labels, examples.per_class, self.config.seed, examples.half)
        if not len(rows):
            raise ConfigError(
                f"half {examples.half} of the training examples is empty, as no class has two: "
                "take more data, or score by snip"
            )
        size = min(self.config.trainer.batch_size, LARGEST_BATCH)
        return np.array_split(rows, -(-len(rows) // size))


def join(plan: Mapping[str, Any], load: Load) -> None:
    """Take part in passes that another process asks for.

    ``load`` gives the data set of a configuration, the same each time. Raises
    :class:`~lottery.errors.DataError` for images that cannot be decoded.
    """
    _take_part(plan, load)


def _take_part(plan: Mapping[str, Any], load: Load) -> list[dict[str, Array]]:
    """What each batch of a plan gives, by kernel: the same in every process."""
    network = _network(json.dumps(plan["config"]), load)
    train = load(network.config.data).train

    def batch(rows: list[int]) -> tuple[Any, Any]:
        return train.take(np.array(rows)), train.labels[rows]

    call = network.hessian_products if plan["product"] else network.gradients
    return call(Path(plan["file"]), plan["batches"], batch, plan["temperature"])


@functools.lru_cache(maxsize=1)  # the plans of a score follow each other
def _network(config: str, load: Load) -> PureNetwork:
    parts = parts_from_json(json.loads(config))
    return PureNetwork(parts, load(parts.data).description)
