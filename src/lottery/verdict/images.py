"""The error that the choice of validation images leaves in a difference of two networks.

Validation images are a sample, the same one for both networks and for every seed. Where it is known
which of them each network got right, only those count on which the two disagree: the score test of
Tango (1998), *Statistics in Medicine* 17(8), whose variance is that of the most likely shares *if*
the true difference is the one that is tested. So it is above zero even where no image tells the two
apart. Over several seeds the answers to an image are alike, but not equal: how much so is counted.

Where that is not known (runs of others, published accuracies) the networks' errors are taken as
independent (Agresti & Caffo 2000, *The American Statistician* 54(4)), which is too cautious:
networks mostly fail on the same images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Pair = tuple[Mapping[str, Any], Mapping[str, Any]]
"""The results of a dense run and of its ticket."""

ANSWERS = "val_correct"
"""What a result has, besides what ``result.json`` holds, of a run that kept it: bool [images]."""


class Sampling(Protocol):
    """What the choice of images does to the mean difference of a cell."""

    paired: bool
    """Whether it is known which images each network got right."""

    @property
    def n(self) -> int:
        """Number of validation images."""
        ...

    def variance(self, difference: float) -> float:
        """Variance in points squared, if the true difference is ``difference`` points."""
        ...


@dataclass(frozen=True)
class Paired:
    """Images that a ticket ``lost`` and ``won`` against its dense network: means over its seeds.

    ``common`` is how alike seeds are: the variance of an image's mean over them, as a share of its
    variance with one; 1 where all lose and win the same images.
    """

    n: int
    lost: float
    won: float
    common: float
    paired = True

    def variance(self, difference: float) -> float:
        """See :class:`Sampling`."""
        return float(self.common * score_variance(self.n, self.lost, self.won, difference))


@dataclass(frozen=True)
class Independent:
    """Two proportions of ``n`` images, whatever the true difference is."""

    n: int
    variance_in_points: float
    paired = False

    def variance(self, difference: float) -> float:
        """See :class:`Sampling`."""
        return self.variance_in_points


def sampling(pairs: Sequence[Pair]) -> Sampling:
    """What is known of the images of a cell, one pair a seed."""
    answers = [_answers(pair) for pair in pairs]
    images = min(int(run["val_examples"]) for pair in pairs for run in pair)
    if any(a is None for a in answers):
        return Independent(images, float(np.mean([independent_variance(p) for p in pairs])))
    found = [a for a in answers if a is not None]
    lost, won = (float(np.mean([np.sum(a == sign) for a in found])) for sign in (-1, 1))
    same = len({str(run["val_images"]) for pair in pairs for run in pair}) == 1
    return Paired(images, lost, won, _alike(np.stack(found)) if same else 1.0)


def score_variance(n: Any, lost: Any, won: Any, difference: Any) -> Any:
    """Variance of a difference of ``difference`` points, in points squared; elementwise.

    Never below that of a single image that tells the networks apart.
    """
    delta = np.minimum(np.abs(difference) / 100, 1)
    # The side that must be in excess, if that is the true difference.
    more, fewer = np.where(difference <= 0, (lost, won), (won, lost))
    b = (2 * n - more + fewer) * delta - (more + fewer)
    share = (np.sqrt(b**2 + 8 * n * fewer * delta * (1 - delta)) - b) / (4 * n)
    return 100**2 * np.maximum((2 * share + delta - delta**2) / n, 1 / n**2)


def independent_variance(pair: Pair) -> float:
    """Variance of a difference, in points squared, as if the networks erred independently."""
    variance = 0.0
    for run in pair:
        examples = run["val_examples"]
        share = (round(run["val_top1"] * examples) + 1) / (examples + 2)
        variance += share * (1 - share) / (examples + 2)
    return 100**2 * variance


def _answers(pair: Pair) -> Any:
    """int8 [images]: -1 where the ticket lost an image, 1 where it won one; None if unknown."""
    dense, ticket = (run.get(ANSWERS) for run in pair)
    if dense is None or ticket is None or len(dense) != len(ticket):
        return None
    told = {run.get("val_images") for run in pair}
    if len(told) > 1 or None in told:
        return None
    return ticket.astype(np.int8) - dense.astype(np.int8)


def _alike(answers: Any) -> float:
    """``Paired.common`` of [seeds, images]; one image is added on which all agree with the worst.

    So few images that disagree prove nothing about others: with none it is 1.
    """
    seeds = len(answers)
    if seeds == 1:
        return 1.0
    of_mean = float(np.sum((answers.mean(0) - answers.mean()) ** 2))
    of_one = float(np.mean(np.sum((answers - answers.mean(1, keepdims=True)) ** 2, axis=1)))
    return (of_mean + 1) / (of_one + 1)
