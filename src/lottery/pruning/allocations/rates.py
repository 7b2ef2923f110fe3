"""A rate of its own for each layer (Frankle & Carbin 2019, arXiv:1803.03635, section 2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from math import floor

from lottery import choices
from lottery.errors import ConfigError
from lottery.options import did_you_mean, option
from lottery.pruning.layers import Layer, require_reachable


@choices.allocation("rates")
@dataclass(frozen=True)
class Rates:
    """Each layer loses a factor of the round's rate: the output layer half of it."""

    factors: dict[str, float] = option(
        {}, "factors by path of the kernel, * and ? allowed; the first that fits counts",
        ge=0, le=1,
    )  # fmt: skip
    first: float = option(1.0, "factor of the first prunable layer", ge=0, le=1)
    last: float = option(
        0.5, "factor of the last prunable layer, the output (1 with mask.skip_last)", ge=0, le=1
    )

    def check(self, *, skip_first: bool, skip_last: bool) -> None:
        """Raise :class:`ConfigError` where a factor would be that of the wrong layer."""
        ends = {"first": (skip_first, self.first), "last": (skip_last, self.last)}
        for end, (skipped, factor) in ends.items():
            if skipped and factor != 1:
                raise ConfigError(
                    f"mask.skip_{end}=true leaves the {end} layer dense, so mask.scope.{end}="
                    f"{factor:g} would be the factor of the next one: set mask.scope.{end}=1, or "
                    "name layers by mask.scope.factors"
                )

    def removals(self, layers: Sequence[Layer], percentile: float, before: float) -> list[int]:
        """``floor(f * r * n)`` of the n weights that a layer of factor f has left.

        The round's rate r takes the percentile from that of the round before to this one:
        ``r = 1 - (1 - percentile / 100) / (1 - before / 100)``. So the percentile is that of layers
        whose factor is 1, and all layers together lose less. Tied kernels share the lowest factor.

        Raises :class:`ConfigError` for a factor that is no layer's.
        """
        paths = [path for layer in layers for path in layer.paths]
        for name in self.factors:
            if not any(fnmatchcase(path, name) for path in paths):
                raise ConfigError(
                    f"mask.scope.factors names {name}, which is no kernel that is pruned"
                    f"{did_you_mean(name, paths)}"
                )
        rate = 1 - (100 - _exact(percentile)) / (100 - _exact(before))
        counts = []
        for layer in layers:
            usual = self.last if layer.last else self.first if layer.first else 1.0
            factor = min(self._factor(path, usual) for path in layer.paths)
            loss = _exact(factor) * max(rate, Fraction(0))
            count = layer.dead + floor(loss * (layer.size - layer.dead))
            require_reachable([layer], count, percentile)
            counts.append(count)
        return counts

    def _factor(self, path: str, usual: float) -> float:
        fitting = (f for name, f in self.factors.items() if fnmatchcase(path, name))
        return next(fitting, usual)


def _exact(value: float) -> Fraction:
    return Fraction(repr(float(value)))  # the decimal that was typed
