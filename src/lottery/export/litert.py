"""Keras networks as LiteRT (TensorFlow Lite) files, small where weights are zero."""

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lottery.errors import ConfigError, ExportError
from lottery.export import sparsity
from lottery.export.names import PRECISIONS, Precision
from lottery.quiet import quiet_stderr

if TYPE_CHECKING:
    import keras


def convert(
    model: "keras.Model",
    precision: Precision = "float32",
    *,
    calibration: NDArray[Any] | None = None,
    batch: int = 1,
) -> bytes:
    """The LiteRT file of ``model``; it takes batches of ``batch`` images.

    The batch is a number because LiteRT.js, and much of XNNPACK, do not run files that leave it
    open. An :class:`~lottery.export.interpreter.Interpreter` changes it when it loads the file.

    ``float16`` stores half of the bits and computes in float32. ``int8`` computes in integers and
    takes and gives uint8; it needs ``calibration``, inputs [N, height, width, channels] of the kind
    that the network will see, whose activations set the ranges.

    Kernels are stored sparsely where that is smaller (:mod:`lottery.export.sparsity`). Those of
    floating point then let XNNPACK compute sparsely (Elsen et al. 2020, arXiv:1911.09723), on Arm
    and in WebAssembly but not on x86, if over two thirds of all 1x1 convolutions' weights are zero.
    Such networks get a few channels of zeros where that is needed (:mod:`lottery.export.spacing`).

    Raises :class:`ExportError` for an operator that LiteRT does not have, or an ``int8`` without
    ``calibration``.
    """
    import tensorflow as tf

    if precision not in PRECISIONS:
        raise ExportError(f"no precision {precision}; there are {', '.join(PRECISIONS)}")
    if precision == "int8" and (calibration is None or not len(calibration)):
        raise ExportError("precision=int8 needs images to calibrate the ranges of activations with")
    try:
        with quiet_stderr(), warnings.catch_warnings(action="ignore"):
            function = _frozen(_spaced(model), batch)
            converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
            if precision != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if precision == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if precision == "int8" and calibration is not None:
                converter.representative_dataset = lambda: _batches(calibration, batch)
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                # uint8: LiteRT.js has no int8 tensors, and pixels are uint8.
                converter.inference_input_type = converter.inference_output_type = tf.uint8
            return sparsity.encode(bytes(converter.convert()))
    except Exception as error:  # of many classes, the converter's own among them
        raise ExportError(_complaint(error, precision)) from error


def with_normalisation(
    model: "keras.Model", mean: Sequence[float], std: Sequence[float]
) -> "keras.Model":
    """``model`` behind ``(pixels / 255 - mean) / std``: it takes pixels from 0 to 255.

    ``mean`` and ``std`` have a value for each channel. The normalisation stays a layer: inside the
    first convolution it would change what its zero padding stands for.
    """
    import keras

    scale = [1 / (255 * s) for s in std]
    offset = [-m / s for m, s in zip(mean, std, strict=True)]
    pixels = keras.Input(model.input_shape[1:], name="pixels")
    normalised = keras.layers.Rescaling(scale, offset, name="normalisation")(pixels)
    return keras.Model(pixels, model(normalised), name=model.name)


def _spaced(model: "keras.Model") -> "keras.Model":
    from lottery.export.spacing import space

    try:
        return space(model)
    except ConfigError:  # what is not functional is converted as it is
        return model


def _frozen(model: "keras.Model", batch: int) -> Any:
    # With its variables as constants: the converter compresses constants only.
    import tensorflow as tf
    from tensorflow.python.eager import wrap_function
    from tensorflow.python.framework import convert_to_constants

    function = tf.function(lambda image: model(image, training=False), autograph=False)
    image = tf.TensorSpec((batch, *model.input_shape[1:]), tf.float32, name="image")
    frozen = convert_to_constants.convert_variables_to_constants_v2(
        function.get_concrete_function(image)
    )
    graph = frozen.graph.as_graph_def()
    _open_reshapes(graph)
    inputs, outputs = ([t.name for t in ts] for ts in (frozen.inputs, frozen.outputs))
    return wrap_function.function_from_graph_def(graph, inputs, outputs)


def _open_reshapes(graph: Any) -> None:
    # Flatten's target [1, N] becomes [-1, N], the same for this batch and right for any other.
    import tensorflow as tf

    nodes = {node.name: node for node in graph.node}
    for node in graph.node:
        target = nodes[node.input[1]] if node.op == "Reshape" else None
        if target is not None and target.op == "Const":
            shape = tf.make_ndarray(target.attr["value"].tensor).copy()
            if shape.size and -1 not in shape:
                shape[0] = -1
                target.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(shape))


def _batches(images: NDArray[Any], batch: int) -> Iterator[list[NDArray[np.float32]]]:
    for start in range(0, len(images), batch):
        rows = np.arange(start, start + batch) % len(images)
        yield [np.asarray(images[rows], np.float32)]


def _complaint(error: Exception, precision: Precision) -> str:
    kind = f"LiteRT ({precision})"
    operators = sorted(set(re.findall(r"'(?:tf|tfl)\.(\w+)' op is neither", str(error))))
    if operators:
        return f"{kind} has no operator for {', '.join(operators)}; export another format"
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return f"the network does not convert to {kind}: {first}"
