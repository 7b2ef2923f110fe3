"""Sparse weights in LiteRT files: the values that are not zero, and where they are.

The converter can do it too (``Optimize.EXPERIMENTAL_SPARSITY``), but from about 98 % zeros on it
stores a Dense kernel in blocks of 1x4: that takes more space, and loses columns if their number is
no multiple of 4.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lottery.quiet import quiet_stderr

_INT8 = 9
_DTYPES = {0: np.float32, 1: np.float16, _INT8: np.int8}  # by TensorType
_CONV_2D, _FULLY_CONNECTED, _DEQUANTIZE, _DENSIFY = 3, 9, 6, 124  # of BuiltinOperator
_DENSE, _CSR = 0, 1  # of DimensionType


def encode(content: bytes) -> bytes:
    """The LiteRT file ``content`` with kernels stored sparsely where that takes less space.

    A kernel of a convolution or a dense layer is a matrix, whose columns are its last dimension,
    the inputs; its rows are compressed (CSR). An operator DENSIFY restores it when the file is
    loaded, so any runtime computes as before, and XNNPACK looks whether sparse kernels pay.
    Integer kernels of dense layers stay as they are: XNNPACK (LiteRT 2.3) does not take them.
    """
    with quiet_stderr():
        from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    graph = model.subgraphs[0]
    densify: list[Any] = []
    for index in _kernels(model):
        stored = graph.tensors[index]
        values = _values(model, stored)
        packed = None if values is None else _compressed(values)
        if packed is None:
            continue
        stored.sparsity, content_left = packed
        stored.buffer = _appended(model.buffers, schema.BufferT(data=content_left))
        dense = schema.TensorT(
            shape=stored.shape,
            type=stored.type,
            name=stored.name + b"_dense",
            quantization=stored.quantization,
            hasRank=True,
        )
        position = _appended(graph.tensors, dense)
        for operator in graph.operators:
            operator.inputs = np.where(operator.inputs == index, position, operator.inputs)
        densify.append(schema.OperatorT(inputs=[index], outputs=[position]))
    if not densify:
        return content
    code = schema.OperatorCodeT(builtinCode=_DENSIFY, deprecatedBuiltinCode=_DENSIFY, version=1)
    position = _appended(model.operatorCodes, code)
    for operator in densify:
        operator.opcodeIndex = position
    graph.operators = densify + graph.operators
    _drop_unused_buffers(model)
    return serialised(model)


def _kernels(model: Any) -> list[int]:
    """Tensors that hold a kernel: the second input of an operator, or what that is cast from."""
    graph = model.subgraphs[0]
    codes = [model.operatorCodes[o.opcodeIndex].builtinCode for o in graph.operators]
    operators = list(zip(codes, graph.operators, strict=True))
    cast = {o.outputs[0]: o.inputs[0] for code, o in operators if code == _DEQUANTIZE}
    kernels = set()
    for code, operator in operators:
        if code in (_CONV_2D, _FULLY_CONNECTED):
            index = int(cast.get(operator.inputs[1], operator.inputs[1]))
            if code == _CONV_2D or graph.tensors[index].type != _INT8:
                kernels.add(index)
    return sorted(kernels)


def _values(model: Any, tensor: Any) -> NDArray[Any] | None:
    data = model.buffers[tensor.buffer].data
    if data is None or tensor.type not in _DTYPES:
        return None
    return np.asarray(data, np.uint8).view(_DTYPES[tensor.type]).reshape(tensor.shape)


def _compressed(values: NDArray[Any]) -> tuple[Any, NDArray[np.uint8]] | None:
    """How ``values`` are stored and their bytes, or ``None`` if that is not less than now."""
    from ai_edge_litert import schema_py_generated as schema

    rows = values.reshape(-1, values.shape[-1])
    row, column = np.nonzero(rows)
    ends = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(rows)))])
    segments, indices = _smallest(ends), _smallest(column)
    kept = rows[row, column]
    if kept.nbytes + segments.nbytes + indices.nbytes >= values.nbytes:
        return None
    *outer, _ = values.shape
    dimensions = [schema.DimensionMetadataT(format=_DENSE, denseSize=int(n)) for n in outer]
    segments_type, segments_vector = _vector(segments)
    indices_type, indices_vector = _vector(indices)
    inner = schema.DimensionMetadataT(
        format=_CSR,
        arraySegmentsType=segments_type,
        arraySegments=segments_vector,
        arrayIndicesType=indices_type,
        arrayIndices=indices_vector,
    )
    order = np.arange(values.ndim, dtype=np.int32)
    sparsity = schema.SparsityParametersT(traversalOrder=order, dimMetadata=[*dimensions, inner])
    return sparsity, np.frombuffer(kept.tobytes(), np.uint8)


def _smallest(integers: NDArray[Any]) -> NDArray[Any]:
    largest = int(integers.max(initial=0))
    return integers.astype(
        np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.int32
    )


def _vector(integers: NDArray[Any]) -> tuple[int, Any]:
    """``integers`` as a member of the schema's union SparseIndexVector, with its number there."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = {
        "int32": (schema.SparseIndexVector.Int32Vector, schema.Int32VectorT),
        "uint16": (schema.SparseIndexVector.Uint16Vector, schema.Uint16VectorT),
        "uint8": (schema.SparseIndexVector.Uint8Vector, schema.Uint8VectorT),
    }
    number, kind = kinds[integers.dtype.name]
    return number, kind(values=integers)


def _appended(items: list[Any], item: Any) -> int:
    items.append(item)
    return len(items) - 1


def _drop_unused_buffers(model: Any) -> None:
    used = {t.buffer for graph in model.subgraphs for t in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None


def serialised(model: Any) -> bytes:
    """The file of a model of the schema's generated classes.

    Its buffers begin at multiples of 16 bytes, as the schema asks and those classes do not see to.
    """
    import flatbuffers

    class Aligned(flatbuffers.Builder):  # type: ignore[misc]
        def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:  # noqa: N802, N803
            return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)

    builder = Aligned(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
