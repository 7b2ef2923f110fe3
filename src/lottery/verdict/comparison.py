"""A cell's tickets against their dense networks: shown to be *not inferior*, or not.

A mean difference over S seeds errs in two ways: the seeds spread (:mod:`.spread`), and the
validation images are a sample (:mod:`.images`). Each error has its quantile, and the bound adds
them in quadrature,

    lower = difference - sqrt(t_1^2 shared / S + t_2^2 own / S + z^2 images),

which is at least as cautious as the weighted mean of quantiles of Cochran (1964), *Biometrics*
20(1), and so holds its level whichever of the errors is the largest. What all cells share errs once
for all of them, so its quantile is that of the level; the others are those of the level divided by
how often a wrong cell may be looked at (Bonferroni). Non-inferiority is half of the two one-sided
tests of Schuirmann (1987), *J. Pharmacokinetics and Biopharmaceutics* 15.
"""

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lottery.verdict import images, single
from lottery.verdict.images import Pair, Sampling
from lottery.verdict.spread import Spread

_SURE = 1e-100  # the smallest p-value that is told
DECIDES = 0.8  # the power that a study should have
_MOST_SEEDS, _MOST_IMAGES = 1000, 10_000_000


@dataclass(frozen=True)
class Comparison:
    """Tickets of ``n`` seeds against their dense networks, in points of validation top-1.

    ``passes`` if a loss of ``tolerance`` points or more can be ruled out at ``level``, which holds
    over all the ``looks`` at cells that a study may take. With ``level`` None nothing is tested:
    the mean itself decides. With one seed (``spread`` None) all of it is about that ticket, not
    about others of the same recipe.
    """

    n: int
    difference: float
    spread: Spread | None
    images: Sampling
    tolerance: float
    level: float | None
    looks: int
    passes: bool

    @property
    def sd(self) -> float | None:
        """Standard deviation between seeds; None with one."""
        return self.spread.sd if self.spread else None

    @property
    def sampling(self) -> float:
        """Standard error that the choice of validation images leaves."""
        return math.sqrt(self.images.variance(self.difference))

    @functools.cached_property
    def lower(self) -> float:
        """Bound of the true difference from below, at the level, over all cells."""
        return self._bound(-1, self.level or 0.5, self.looks)

    @functools.cached_property
    def interval(self) -> tuple[float, float]:
        """Interval of the true difference of this cell alone, confidence 1 - 2 level (or 90 %).

        Its lower end is above -tolerance where the one-sided test of this cell alone passes.
        """
        each = self.level or 0.05
        return self._bound(-1, each, 1), self._bound(1, each, 1)

    @functools.cached_property
    def p_value(self) -> float:
        """The level, over all cells, at which the tolerance could just be ruled out; at most 1."""
        above, here = self.difference + self.tolerance, self.images.variance(-self.tolerance)
        if above < 0:
            same = replace(self, difference=-above - self.tolerance)
            return 1 - same._level_of(-above, here) if self.looks == 1 else 1.0
        return self._level_of(above, here)

    @functools.cached_property
    def power(self) -> float:
        """Probability of passing if the true difference is zero and the spread as estimated."""
        return _power(self.spread, self.images, self.tolerance, self.level or 0.5, self.looks)

    @functools.cached_property
    def enough_seeds(self) -> int | None:
        """Seeds with which a ticket as good as dense would pass with a power of 0.8; None: none."""
        if self.spread is None:
            return None
        spread = self.spread

        def power(seeds: int) -> float:
            cells = spread.freedom / (spread.seeds - 1)  # whose freedom grows with the seeds
            more = replace(spread, seeds=seeds, freedom=max(int(cells * (seeds - 1)), 1))
            return _power(more, self.images, self.tolerance, self.level or 0.5, self.looks)

        return _smallest(power, 2, _MOST_SEEDS)

    @functools.cached_property
    def enough_images(self) -> int | None:
        """Validation images with which it would, with the seeds there are; None: none would do."""
        have = self.images.n

        def power(count: int) -> float:
            more = _Scaled(self.images, have / count)
            return _power(self.spread, more, self.tolerance, self.level or 0.5, self.looks)

        return _smallest(power, 1, _MOST_IMAGES)

    def _bound(self, side: int, level: float, looks: int) -> float:
        """Where the true difference is as far off as it can be: below (-1) or above (1)."""
        from scipy import optimize

        def spare(at: float) -> float:
            error = margin(level, looks, self.spread, self.images.variance(at))
            return side * (at - self.difference) - float(error)

        away = 1.0
        while spare(self.difference + side * away) < 0:
            away *= 4
        outermost = self.difference + side * away
        return float(optimize.brentq(spare, self.difference, outermost, xtol=1e-9))

    def _level_of(self, above: float, variance: float) -> float:
        """The level at which the margin is ``above``."""
        from scipy import optimize

        def spare(exponent: float) -> float:
            return float(margin(10.0**exponent, self.looks, self.spread, variance)) - above

        if spare(math.log10(_SURE)) <= 0:
            return _SURE
        most = math.log10(0.5)
        if spare(most) >= 0:
            return 0.5 if self.looks == 1 else 1.0
        return float(10.0 ** optimize.brentq(spare, math.log10(_SURE), most, xtol=1e-13))


def compare(
    pairs: Sequence[Pair],
    tolerance: float,
    level: float | None,
    spread: Spread | None = None,
    looks: int = 1,
) -> Comparison:
    """Tickets against their dense networks, one pair a seed. Reads validation results only.

    ``spread`` is that of the seeds, if there are several. A dense network at chance is matched by
    nothing: whatever is as good has learnt as little. Raises :class:`ValueError` if there is no
    pair, or no spread of several.
    """
    if not pairs:
        raise ValueError("no finished cell to compare")
    if len(pairs) > 1 and spread is None:
        raise ValueError("the spread between seeds is not known")
    losses = [single.share(dense) - single.share(ticket) for dense, ticket in pairs]
    loss = statistics.mean(losses)
    difference = -100 * float(loss)
    sample = images.sampling(pairs)
    if level is None:  # in whole examples: exactly the tolerance still passes
        looks = 1  # nothing is tested, so nothing is corrected
        passes = loss <= single.points(tolerance)
    else:
        error = margin(level, looks, spread, sample.variance(-tolerance))
        passes = difference + tolerance > error
    passes = bool(passes) and not any(single.at_chance(dense) for dense, _ in pairs)
    return Comparison(len(pairs), difference, spread, sample, tolerance, level, looks, passes)


def differences(pairs: Sequence[Pair]) -> list[float]:
    """What each ticket is above its dense network, in points."""
    return [100 * float(single.share(ticket) - single.share(dense)) for dense, ticket in pairs]


def margin(level: float, looks: int, spread: Spread | None, variance: Any) -> Any:
    """How far below a difference its bound lies, in points; elementwise over arrays of a spread.

    ``variance`` is that by the images. ``level`` is at most one half.
    """
    from scipy import special

    square = special.ndtri(level / looks) ** 2 * variance
    if spread is not None:
        shared = special.stdtrit(spread.seeds - 1, level) ** 2 * spread.shared
        own = special.stdtrit(spread.freedom, level / looks) ** 2 * spread.own
        square = square + (shared + own) / spread.seeds
    return square**0.5


@dataclass(frozen=True)
class _Scaled:
    """The images, if there were more of them, or fewer."""

    images: Sampling
    factor: float
    paired = False

    @property
    def n(self) -> int:
        return round(self.images.n / self.factor)

    def variance(self, difference: float) -> float:
        return self.factor * self.images.variance(difference)


def _power(
    spread: Spread | None, sample: Sampling, tolerance: float, level: float, looks: int
) -> float:
    """Probability of a bound above ``-tolerance`` if the true difference is zero."""
    from scipy import special

    here, if_lost = sample.variance(0.0), sample.variance(-tolerance)
    if spread is None:
        spare = tolerance - margin(level, looks, None, if_lost)
        return float(special.ndtr(spare / here**0.5))
    error = ((spread.shared + spread.own) / spread.seeds + here) ** 0.5
    # The spread between seeds is an estimate: the mean over its distribution.
    guessed = replace(
        spread,
        shared=spread.shared * _estimates(spread.seeds - 1),
        own=spread.own * _estimates(spread.freedom),
    )
    spare = tolerance - margin(level, looks, guessed, if_lost)
    return float(special.ndtr(spare / error).mean())


@functools.cache
def _estimates(free: int) -> Any:
    """A thousand quantiles of an estimated variance, as factors of the true one."""
    import numpy as np
    from scipy import special

    return special.chdtri(free, 1 - (np.arange(1000) + 0.5) / 1000) / free


def _smallest(power: Any, least: int, most: int) -> int | None:
    """The smallest count that has enough power, within a twentieth; None if none has."""
    count = least
    while power(count) < DECIDES:
        if count >= most:
            return None
        count = min(max(count + 1, count * 21 // 20), most)
    return count
