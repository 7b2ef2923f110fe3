"""Conv-6 of Frankle & Carbin 2019 (arXiv:1803.03635), figure 2."""

import keras

from lottery.models import _conv


def build(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    width: float,
    dropout: float,
    batch_norm_momentum: float,
) -> keras.Model:
    """:func:`lottery.models._conv.build` with 6 convolutions."""
    return _conv.build(
        6,
        input_shape,
        classes,
        width=width,
        dropout=dropout,
        batch_norm_momentum=batch_norm_momentum,
    )
