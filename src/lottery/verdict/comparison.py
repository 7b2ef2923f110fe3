"""Whether tickets are *not inferior* to dense: one-sided tests over seeds and validation images.

A mean difference over S seeds errs in two ways. The seeds spread: Student's t on the differences,
one a seed. And the validation images are a sample, the same one for every seed, so that no spread
between seeds shows its error: two proportions on n images. The bound adds both in quadrature, each
at its own quantile,

    lower = difference - sqrt(t^2 s^2 / S + z^2 v),

which is at least as cautious as the weighted mean of quantiles of Cochran (1964), *Biometrics*
20(1), and so holds its level whichever of the two errors is the larger. ``v`` is the variance of
Agresti & Caffo (2000), *The American Statistician* 54(4), one hit and one miss added to each
network, so that it is never zero; it takes the two networks' errors as independent. Networks that
fail on the same images differ by less, so the test is then on the safe side. Non-inferiority is
half of the two one-sided tests of Schuirmann (1987), *J. Pharmacokinetics and Biopharmaceutics* 15.
"""

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lottery.verdict.single import matches

_SURE = 1e-100  # the smallest p-value that is told


@dataclass(frozen=True)
class Comparison:
    """Tickets of ``n`` seeds against their dense parents, in points of validation top-1.

    ``sampling`` is the standard error that the choice of validation images leaves. ``lower``
    bounds the mean difference from below with confidence 1 - level; with one seed it is the
    difference itself, and there is no spread, p-value or power. ``power`` is the probability of
    showing non-inferiority if the true difference is 0 and the spread is the one observed.
    """

    n: int
    difference: float
    sd: float | None
    sampling: float
    lower: float
    p_value: float | None
    power: float | None
    not_inferior: bool


Pair = tuple[Mapping[str, Any], Mapping[str, Any]]
"""The results of a dense run and of its ticket."""


def compare(pairs: Sequence[Pair], tolerance: float, level: float) -> Comparison:
    """Tickets against their dense parents, one pair a seed. Reads validation results only.

    One pair is judged as the single sample it is. Raises :class:`ValueError` if there is none.
    """
    if not pairs:
        raise ValueError("no finished cell to compare")
    differences = [100 * (t["val_top1"] - d["val_top1"]) for d, t in pairs]
    sampling = math.sqrt(statistics.fmean(map(sampling_variance, pairs)))
    if len(pairs) == 1:
        accepted = matches(*pairs[0], tolerance)
        only = differences[0]
        return Comparison(1, only, None, sampling, only, None, None, accepted)
    return non_inferiority(differences, tolerance, level, sampling=sampling)


def sampling_variance(pair: Pair) -> float:
    """Variance of a difference, in points squared, by the choice of validation images."""
    variance = 0.0
    for run in pair:
        examples = run["val_examples"]
        share = (round(run["val_top1"] * examples) + 1) / (examples + 2)
        variance += share * (1 - share) / (examples + 2)
    return 100**2 * variance


def non_inferiority(
    differences: Sequence[float], tolerance: float, level: float, *, sampling: float
) -> Comparison:
    """One-sided test that the true mean of ``differences`` (points) exceeds ``-tolerance``.

    ``sampling`` is the standard error by the validation images, in points. Raises
    :class:`ValueError` for fewer than two differences, or without a sampling error: nothing would
    tell equal differences from certainty.
    """
    if sampling <= 0:
        raise ValueError("the sampling error of a finite validation set is above zero")
    n = len(differences)
    mean, sd = statistics.fmean(differences), statistics.stdev(differences)
    p = _p_value(n, sd, sampling, mean + tolerance)
    lower = mean - float(margin(n, sd, sampling, level))
    power = _power(n, sd, sampling, tolerance, level)
    return Comparison(n, mean, sd, sampling, lower, p, power, p < level)


def margin(n: int, sd: Any, sampling: Any, level: float) -> Any:
    """How far below the mean of ``n`` differences its bound with confidence 1 - ``level`` lies.

    Elementwise over arrays; negative above a level of one half.
    """
    from scipy import special

    tail = min(level, 1 - level)
    t, z = special.stdtrit(n - 1, tail), special.ndtri(tail)
    return math.copysign(1.0, 0.5 - level) * ((t * sd) ** 2 / n + (z * sampling) ** 2) ** 0.5


def _p_value(n: int, sd: float, sampling: float, above: float) -> float:
    """The level at which the bound lies ``above`` below the mean."""
    from scipy import optimize

    if above < 0:
        return 1 - _p_value(n, sd, sampling, -above)
    if above >= margin(n, sd, sampling, _SURE):
        return _SURE
    solution = optimize.brentq(
        lambda exponent: float(margin(n, sd, sampling, 10.0**exponent)) - above,
        math.log10(_SURE),
        math.log10(0.5),
        xtol=1e-13,
    )
    return float(10.0**solution)


def _power(n: int, sd: float, sampling: float, tolerance: float, level: float) -> float:
    """Probability of a bound above ``-tolerance`` if the true difference is zero."""
    from scipy import special

    error = math.sqrt(sd**2 / n + sampling**2)
    # The spread between seeds is an estimate: the mean over its distribution.
    spare = tolerance - margin(n, sd * _estimates(n - 1), sampling, level)
    return float(special.ndtr(spare / error).mean())


@functools.cache
def _estimates(free: int) -> Any:
    """A thousand quantiles of an estimated standard deviation, as factors of the true one."""
    import numpy as np
    from scipy import special

    return (special.chdtri(free, 1 - (np.arange(1000) + 0.5) / 1000) / free) ** 0.5
