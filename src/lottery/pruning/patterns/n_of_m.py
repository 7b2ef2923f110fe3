"""n of m: of every m consecutive weights along the inputs, n stay (Mishra et al. 2021: 2 of 4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lottery import choices
from lottery.errors import ConfigError
from lottery.options import option
from lottery.pruning.units import Array, Mask, Target, Ties

_INPUTS = -2  # axis of a kernel: (*window, inputs, outputs)


@choices.pattern("n_of_m")
@dataclass(frozen=True)
class NOfM:
    """The n highest scores of every m consecutive input channels survive (arXiv:2104.08378)."""

    of_matrices: ClassVar[bool] = True

    n: int = option(2, "weights that stay of every m", ge=1)
    m: int = option(4, "consecutive input channels, as the runtime stores kernels", ge=2)
    pad: bool = option(
        False, "treat the last group of a layer that does not divide as filled up with zeros"
    )

    def check(self, target: Target) -> None:
        """Raise :class:`ConfigError` unless the percentile is that of the pattern."""
        if self.n >= self.m:
            raise ConfigError(f"mask.pattern.n={self.n} must be less than mask.pattern.m={self.m}")
        right = 100 * (1 - self.n / self.m)
        if round(target.percentile, 2) != round(right, 2):
            raise ConfigError(
                f"mask.percentile={target.percentile:g} is not what {self.n} of {self.m} weights "
                f"leave: set mask.percentile={right:.4g} and leave out mask.rate"
            )
        scope = getattr(target.allocation, "name", "global")
        if scope != "global":
            raise ConfigError(
                f"mask.scope={scope} has no effect with mask.pattern=n_of_m, which leaves the same "
                "share of every layer: leave it out"
            )

    def mask(
        self, scores: Mapping[str, Array], target: Target, within: Mask | None, ties: Ties | None
    ) -> dict[str, Array]:
        """Of each group the lowest m - n go, the first of equal ones first.

        What fills up the last group goes before its weights do. Raises :class:`ConfigError` for
        layers whose inputs do not divide by m, unless ``pad``.
        """
        odd = [p for p, s in scores.items() if s.shape[_INPUTS] % self.m]
        if odd and not self.pad:
            raise ConfigError(
                f"mask.pattern=n_of_m: the input channels of {', '.join(odd)} do not divide by "
                f"{self.m}. If it is the first layer, mask.skip_first=true leaves it dense; "
                "mask.pattern.pad=true fills the last group up with zeros"
            )
        mask = {}
        for path, score in scores.items():
            ranked = score.astype(float)
            if within is not None:
                ranked = np.where(within[path], ranked, -np.inf)
            groups = self._groups(ranked, -np.inf)
            order = np.argsort(groups, axis=-1, kind="stable")
            kept = np.ones(groups.shape, bool)
            np.put_along_axis(kept, order[:, : self.m - self.n], False, axis=-1)
            mask[path] = self._kernel(kept, score.shape)
            if within is not None:
                mask[path] &= within[path]
        return mask

    def shuffled(
        self, mask: Mask, generator: np.random.Generator, ties: Ties | None
    ) -> dict[str, Array]:
        """The survivors of each group at random places in it."""
        drawn = {}
        for path, m in mask.items():
            whole, rest = m.shape[_INPUTS] // self.m * self.m, m.shape[_INPUTS] % self.m
            first, last = np.split(m, [whole], axis=_INPUTS)
            groups = generator.permuted(self._groups(first, False), axis=-1)
            parts = [self._kernel(groups, first.shape)]
            if rest:
                parts.append(generator.permuted(last, axis=_INPUTS))
            drawn[path] = np.concatenate(parts, axis=_INPUTS)
        return drawn

    def _groups(self, kernel: Array, filling: float) -> Array:
        """(groups, m), the last group of each output filled up."""
        inputs_last = np.moveaxis(kernel, _INPUTS, -1)
        missing = -inputs_last.shape[-1] % self.m
        widths = [(0, 0)] * (kernel.ndim - 1) + [(0, missing)]
        padded = np.pad(inputs_last, widths, constant_values=filling)
        return padded.reshape(-1, self.m)

    def _kernel(self, groups: Array, shape: tuple[int, ...]) -> Array:
        """What :meth:`_groups` was made of."""
        *window, inputs, outputs = shape
        padded = groups.reshape(*window, outputs, inputs + -inputs % self.m)
        return np.moveaxis(padded[..., :inputs], -1, _INPUTS)
