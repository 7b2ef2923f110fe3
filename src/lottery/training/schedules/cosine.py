"""Half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts)."""

from dataclasses import dataclass
from typing import Any

from lottery import choices
from lottery.options import option
from lottery.training.schedules import Schedule


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
