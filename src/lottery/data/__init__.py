"""Labelled images: from a named source to seeded splits, and from splits to tf.data."""

from lottery.data.interface import Chunk, Description, EncodedSplit, Share, Split, Splits
from lottery.data.loading import crop_size, describe, is_square_image, load, summarise

__all__ = [
    "Chunk",
    "Description",
    "EncodedSplit",
    "Share",
    "Split",
    "Splits",
    "crop_size",
    "describe",
    "is_square_image",
    "load",
    "summarise",
]
