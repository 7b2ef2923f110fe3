"""What the formats and precisions are called: known before TensorFlow is loaded."""

from typing import Literal, get_args

Format = Literal["keras", "litert", "savedmodel"]
FORMATS: tuple[Format, ...] = get_args(Format)

Precision = Literal["float32", "float16", "int8"]
"""Numbers in a LiteRT file."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
