"""Half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lottery import choices
from lottery.options import option
from lottery.training.schedules import Piece, Schedule


@choices.schedule("cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine, from the peak to a share of it."""

    final: float = option(0.0, "share of the peak left at the end", ge=0, le=1)

    def after(self, peak: float, *, warmup: int, steps: int) -> Any:
        """Keras's cosine over the rest of the training."""
        import keras

        rest = max(1, steps - warmup)
        return keras.optimizers.schedules.CosineDecay(peak, rest, alpha=self.final)

    def pieces_after(self, *, warmup: int, steps: int) -> Sequence[Piece]:
        """Half a wave, as long as what is left."""
        return [(warmup, ["cosine", max(1, steps - warmup), self.final])]
