"""The devices a run uses, and how exactly it repeats."""

from typing import Any

import keras
import tensorflow as tf

_strategies: dict[str, Any] = {}


def strategy(name: str) -> Any:
    """The ``tf.distribute`` strategy: ``one`` device, ``mirrored`` over all GPUs, or ``auto``.

    The object is reused within a process, since two mirrored strategies in one do not work.
    """
    mirrored = name == "mirrored" or (
        name == "auto" and len(tf.config.list_physical_devices("GPU")) > 1
    )
    kind = "mirrored" if mirrored else "one"
    if kind not in _strategies:
        _strategies[kind] = (
            tf.distribute.MirroredStrategy() if mirrored else tf.distribute.get_strategy()
        )
    return _strategies[kind]


def configure(*, precision: str, deterministic: bool | None) -> None:
    """Prepare this process for one more run, whatever ran in it before.

    ``deterministic=None`` makes runs repeatable bit for bit where there is no GPU; on GPUs some
    deterministic kernels are slow or missing.
    """
    # A sweep in one process traces the same functions again for each job, as it should.
    tf.get_logger().setLevel("ERROR")
    keras.backend.clear_session()
    keras.config.set_dtype_policy(precision)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # already in use by an earlier run of this process, with growth on
            break
    if deterministic or (deterministic is None and not gpus):
        tf.config.experimental.enable_op_determinism()
