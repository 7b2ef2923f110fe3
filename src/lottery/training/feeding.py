"""From a data set of this process's batches to batches that lie spread over its replicas."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from lottery.data import Share
from lottery.training import devices

BATCHES_AHEAD = 2  # on a GPU: one to compute on, and one on its way


def ahead(dataset: Any, device: str | None) -> Any:
    """The data set, with its next elements on that device before they are asked for; if any."""
    if device is None:
        return dataset
    return dataset.apply(tf.data.experimental.prefetch_to_device(device, BATCHES_AHEAD))


class Feed:
    """How the processes and replicas of a strategy share each batch.

    ``replicas`` are those of all ``workers``, the processes that train together; this one feeds its
    ``share`` of the rows.
    """

    def __init__(self, strategy: Any) -> None:
        self.replicas: int = strategy.num_replicas_in_sync
        rank, self.workers = devices.place(strategy)
        self.share = Share(rank, self.workers)
        self._strategy = strategy

    def __call__(self, dataset: Any, batch_axis: int = 1) -> Iterator[Any]:
        """Iterate over the batches of this process, each spread over its replicas."""
        if self.replicas == 1:
            return iter(ahead(dataset, devices.gpu()))

        local = self.replicas // self.workers

        def slices(*parts: Any) -> Any:
            return tuple(tf.stack(tf.split(p, local, axis=batch_axis)) for p in parts)

        spread = dataset.map(slices)
        if self.workers == 1:
            one = spread.unbatch()
            return iter(self._strategy.distribute_datasets_from_function(lambda context: one))
        return (self._on_devices(*parts) for parts in spread.prefetch(2))

    def _on_devices(self, *parts: Any) -> Any:
        """The slices of this process, each on its device."""

        # Not by the strategy's own iterators: they talk to the other processes before each batch,
        # and may wait for them for minutes when they are deleted.
        def slices(part: Any) -> Any:
            return self._strategy.experimental_distribute_values_from_function(
                lambda context: part[context.replica_id_in_sync_group % len(part)]
            )

        return tuple(map(slices, parts))
