"""The accuracy of exported files, measured on the files themselves."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lottery.export import interpreter
from lottery.export.images import Images
from lottery.export.memory import sizes

if TYPE_CHECKING:
    import keras

Prepare = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From pixels to what a network takes."""
Logits = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def of_files(
    paths: Mapping[str, Path], images: Images | None, prepare: Prepare, folder: Path
) -> dict[str, dict[str, Any]]:
    """Path from ``folder``, bytes, gzipped bytes and accuracy (None without images) of files.

    And of LiteRT files what they take and give: :attr:`lottery.export.interpreter.Tensor.about`.
    """
    about = {}
    for name, path in paths.items():
        size = sizes(path)
        measured = None
        if images is not None:
            measured = _top1_and_top5(_runner(name, path), images, prepare)
        about[name] = {
            "path": path.relative_to(folder).as_posix(), "bytes": size.raw, "gzip": size.gzip,
            "accuracy": measured,
        }  # fmt: skip
        if name.startswith("litert"):
            runtime = interpreter.Interpreter(path)
            about[name] |= {"takes": runtime.input.about, "gives": runtime.output.about}
    return about


def of_model(
    model: "keras.Model", images: Images | None, prepare: Prepare
) -> dict[str, float] | None:
    """The accuracy of a network in memory; None without images."""
    if images is None:
        return None
    return _top1_and_top5(logits_of(model), images, prepare)


def logits_of(model: "keras.Model") -> Logits:
    """What a network in memory answers in inference mode."""
    import tensorflow as tf

    # Not predict(): it warns of every network after the fifth.
    compiled = tf.function(lambda inputs: model(inputs, training=False), autograph=False)
    return lambda inputs: np.asarray(compiled(tf.constant(inputs)), np.float32)


def _runner(name: str, path: Path) -> Logits:
    import keras
    import tensorflow as tf

    if name.startswith("litert"):
        return lambda inputs: interpreter.predict(path, inputs, threads=2)
    if name == "keras":
        return logits_of(keras.saving.load_model(path, compile=False))
    served = tf.saved_model.load(path)
    return lambda inputs: np.asarray(served.serve(tf.constant(inputs)))


def _top1_and_top5(logits: Logits, images: Images, prepare: Prepare) -> dict[str, float]:
    """The shares of test images whose class is the first, or among the first five."""
    import tensorflow as tf

    from lottery.training.metrics import hits

    found, count = np.zeros(2), 0
    for pixels, labels in images.test():
        outputs = tf.constant(np.asarray(logits(prepare(pixels)), np.float32))
        own = tf.constant(labels)
        found += [int(np.count_nonzero(hits(outputs, own, k))) for k in (1, 5)]
        count += len(labels)
    return {"test_top1": float(found[0] / count), "test_top5": float(found[1] / count)}
