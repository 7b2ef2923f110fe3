"""The signs of the initialisation, with other magnitudes (Zhou et al. 2019, arXiv:1905.01067)."""

from dataclasses import dataclass

import numpy as np

from lottery import choices
from lottery.points import START
from lottery.rewinding import Origin, Rewinding, Start, fresh_seed


@choices.rewinding("signs")
@dataclass(frozen=True)
class Signs(Rewinding):
    """Control: each weight keeps its initial sign, magnitudes are dealt out anew in each layer."""

    control = afresh = True
    takes_final = False

    def rewind(self, origin: Origin) -> Start:
        """The initialisation, its magnitudes permuted within each matrix, and the whole schedule.

        So each layer has the magnitudes that it had, and only their places are fresh.
        """
        generator = np.random.Generator(np.random.PCG64(fresh_seed(origin.seed)))
        state = dict(origin.dense(START))
        for name, array in state.items():
            if name.startswith("model/") and array.ndim > 1 and array.dtype.kind == "f":
                sizes = generator.permutation(np.abs(array).ravel()).reshape(array.shape)
                state[name] = np.where(np.signbit(array), -sizes, sizes)
        return Start(START, state)
