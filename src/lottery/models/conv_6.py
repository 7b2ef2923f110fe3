"""Conv-6 of Frankle & Carbin 2019 (arXiv:1803.03635), figure 2."""

from functools import partial

from lottery.models import _conv

build = partial(_conv.build, 6)
