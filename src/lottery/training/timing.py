"""How long a training step takes: on one cached batch, and of two networks in turn.

Only ratios of alternating runs are reliable on a machine whose speed varies. TensorFlow is imported
only where steps are taken, so that benchmarks of other things can use the rest.
"""

import logging
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from lottery.data import Chunk, Split

if TYPE_CHECKING:
    from lottery.training.loop import Loop

log = logging.getLogger(__name__)

ROUNDS = 9  # of each network
SECONDS, MOST_CALLS = 0.5, 200  # how long each is to last in a round
LONG = 600.0  # seconds of training: timing builds the dense network, and takes up to a minute
FEWEST_CALLS = 100  # of the compiled loop in such a training: timing takes about 30


def worth_it(asked: bool | None, seconds: float, calls: float) -> bool:
    """Whether to time the step after ``seconds`` of training, which took that many calls.

    ``asked`` is ``trainer.measure_step``. Unless asked to, it takes at most a tenth as long.
    """
    return (seconds > LONG and calls >= FEWEST_CALLS) if asked is None else asked


def against_dense(
    loop: "Loop", dense: Callable[[], "Loop"], split: Split, *, per_call: int, steps_per_epoch: int
) -> dict[str, Any]:
    """The step of ``loop`` and that of the dense network, in turn on the same cached batch.

    Returns ``seconds`` and ``dense_seconds`` of an optimizer step (medians), their ``ratio`` (the
    median over ``rounds`` of that of one round; below 1 the sparse one is faster). There are
    ``per_call`` steps in a call. Changes the weights of both, and Keras's random state. Nothing is
    returned if the device has no memory for both.
    """
    import tensorflow as tf

    try:
        batch = cached_batch(loop, split, per_call, steps_per_epoch)
        steps = {
            "sparse": partial(loop.train, *batch, 0),
            "dense": partial(dense().train, *batch, 0),
        }
        calls = min(enough(step, SECONDS, MOST_CALLS) for step in steps.values())
        variants = {name: partial(repeat, step, calls) for name, step in steps.items()}
        seconds = alternating(variants, ROUNDS)
    except tf.errors.ResourceExhaustedError:
        log.warning("the step is not timed: there is no memory for the dense network beside it")
        return {}
    except tf.errors.OpError as error:  # the training is done, and must not be lost for that
        log.warning("the step is not timed: %s", str(error).partition("\n")[0])
        return {}
    sparse, rival = (statistics.median(seconds[n]) / calls / per_call for n in ("sparse", "dense"))
    ratio = ratios(seconds, "dense")["sparse"]
    return {"seconds": sparse, "dense_seconds": rival, "ratio": ratio, "rounds": ROUNDS}


def cached_batch(
    loop: "Loop", split: Split, per_call: int, steps_per_epoch: int
) -> tuple[Any, Any]:
    """Images and labels of the first ``per_call`` steps, as :meth:`Loop.train` takes them."""
    import tensorflow as tf

    images, labels = next(loop.batches(split, [Chunk(0, per_call)], steps_per_epoch))
    if loop.replicas == 1:  # distributed batches are on their devices already
        images, labels = tf.identity(images), tf.identity(labels)
    return images, labels


def enough(act: Callable[[], Any], seconds: float, most: int) -> int:
    """How many calls last that long, at least one; the first ones trace and warm up."""
    timed(act, 2)
    return min(most, max(1, round(seconds / timed(act, 1))))


def timed(act: Callable[[], Any], calls: int) -> float:
    """Seconds of each of ``calls`` calls, the devices' work included."""
    started = time.perf_counter()
    repeat(act, calls)
    return (time.perf_counter() - started) / calls


def repeat(act: Callable[[], Any], calls: int) -> None:
    """Call it that often, until the devices are done with it."""
    import tensorflow as tf

    for _ in range(calls):
        act()
    tf.test.experimental.sync_devices()


def alternating(
    variants: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each variant in each round; one round runs every variant once, after a warm-up."""
    for run in variants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ratios(seconds: Mapping[str, list[float]], baseline: str) -> dict[str, float]:
    """Median over the rounds of each variant's time over the baseline's in the same round."""
    base = seconds[baseline]
    return {
        name: statistics.median(a / b for a, b in zip(own, base, strict=True))
        for name, own in seconds.items()
    }
