"""Times two ``.keras`` files in a process of their own; see :func:`lottery.export.latency.keras`.

Its argument is a JSON object with ``dense``, ``ticket``, ``batches``, ``threads`` and ``seconds``;
the last line it prints is another, the milliseconds of both networks for each batch size.
"""

import json
import sys
from typing import Any

import numpy as np

from lottery.export.latency import alternating
from lottery.quiet import import_tensorflow


def measure(task: dict[str, Any]) -> dict[int, dict[str, list[float]]]:
    """Milliseconds of ``dense`` and ``ticket`` for each batch size of ``task``."""
    import_tensorflow()
    import keras
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(task["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(task["threads"])
    models = {n: keras.saving.load_model(task[n], compile=False) for n in ("dense", "ticket")}
    times = {}
    for batch in task["batches"]:
        calls = {}
        for name, model in models.items():
            shape = (batch, *model.input_shape[1:])
            images = tf.constant(np.random.default_rng(0).standard_normal(shape), tf.float32)
            compiled = tf.function(lambda x, model=model: model(x, training=False))
            run = compiled.get_concrete_function(images)
            calls[name] = lambda run=run, images=images: run(images).numpy()
        times[batch] = alternating(calls, task["seconds"])
    return times


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
