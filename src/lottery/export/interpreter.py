"""Running a LiteRT file where it is: on this machine's CPU, with XNNPACK.

The interpreter is that of ``ai-edge-litert``: TensorFlow's own says that it goes away, and takes
TensorFlow along, which would hide what a file itself costs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lottery.errors import ExportError
from lottery.quiet import quiet_stderr


@dataclass(frozen=True)
class Tensor:
    """The input or the output of a file: real values, or integers that stand for them."""

    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero_point: int

    @property
    def about(self) -> dict[str, Any]:
        """JSON values: its ``type`` and, of integers, ``scale`` and ``zero_point``."""
        found: dict[str, Any] = {"type": self.dtype.name}
        if self.dtype.kind != "f":
            found |= {"scale": self.scale, "zero_point": self.zero_point}
        return found

    def encode(self, values: NDArray[Any]) -> NDArray[Any]:
        """``values`` as this tensor holds them: integer r stands for scale (r - zero_point)."""
        if self.dtype.kind == "f":
            return np.ascontiguousarray(values, self.dtype)
        limits = np.iinfo(self.dtype)
        integers = np.rint(np.asarray(values, np.float32) / self.scale) + self.zero_point
        clipped: NDArray[Any] = np.clip(integers, limits.min, limits.max).astype(self.dtype)
        return clipped

    def decode(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """The real values that ``values`` of this tensor stand for."""
        if self.dtype.kind == "f":
            return values.astype(np.float32)
        return (values.astype(np.float32) - self.zero_point) * np.float32(self.scale)


class Interpreter:
    """A file made ready to run batches of ``batch`` images on ``threads`` threads.

    Raises :class:`ExportError` for a file that is missing or that LiteRT cannot run.
    """

    def __init__(self, file: Path, *, batch: int = 1, threads: int = 1) -> None:
        with quiet_stderr():
            from ai_edge_litert import interpreter

            try:
                self._runtime = interpreter.Interpreter(str(file), num_threads=threads)
                entry = self._runtime.get_input_details()[0]
                if entry["shape"][0] != batch:
                    self._runtime.resize_tensor_input(entry["index"], [batch, *entry["shape"][1:]])
                self._runtime.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise ExportError(f"LiteRT cannot run {file}: {_first_line(error)}") from error
        self.input = _tensor(self._runtime.get_input_details()[0])
        self.output = _tensor(self._runtime.get_output_details()[0])

    def feed(self, images: NDArray[Any]) -> None:
        """Set the input to ``images`` [batch, height, width, channels]."""
        self._runtime.set_tensor(self.input.index, self.input.encode(images))

    def invoke(self) -> None:
        """Run the network on the images fed last."""
        self._runtime.invoke()

    def logits(self) -> NDArray[np.float32]:
        """Outputs [batch, classes] of the last run."""
        return self.output.decode(self._runtime.get_tensor(self.output.index))


def predict(
    file: Path, images: NDArray[Any], *, threads: int = 1, batch: int = 32
) -> NDArray[np.float32]:
    """Logits [N, classes] of the LiteRT ``file`` for ``images`` [N, height, width, channels].

    The last batch is filled up with zeros, so that all are of one size. Raises
    :class:`ExportError` for a file that LiteRT cannot run, or images that do not fit it.
    """
    batch = max(1, min(batch, len(images)))
    interpreter = Interpreter(file, batch=batch, threads=threads)
    if images.shape[1:] != interpreter.input.shape[1:]:
        wanted, given = (
            "x".join(map(str, s)) for s in (interpreter.input.shape[1:], images.shape[1:])
        )
        raise ExportError(f"{file} takes images of {wanted}, not {given}")
    logits = []
    for start in range(0, len(images), batch):
        rows = images[start : start + batch]
        missing = batch - len(rows)
        interpreter.feed(np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1)))
        interpreter.invoke()
        logits.append(interpreter.logits()[: len(rows)])
    return (
        np.concatenate(logits)
        if logits
        else np.empty((0, *interpreter.output.shape[1:]), np.float32)
    )


def _tensor(details: dict[str, Any]) -> Tensor:
    scale, zero_point = details["quantization"]
    shape = tuple(int(side) for side in details["shape"])
    return Tensor(
        details["index"], shape, np.dtype(details["dtype"]), float(scale), int(zero_point)
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
