"""How a verdict was reached and what it is worth, in sentences that need no statistics."""

import math
from collections.abc import Iterator

from lottery.analysis.selection import Judged, Selection
from lottery.verdict.comparison import DECIDES, Comparison
from lottery.verdict.images import Paired
from lottery.verdict.rule import LITERATURE


def evidence(chosen: Selection) -> str:
    """What the verdict rests on; empty without a result."""
    judged = chosen.winner or chosen.nearest
    if judged is None or judged.comparison is None:
        return ""
    return " ".join([*_claim(judged.comparison), *_rule(chosen, judged.comparison)])


def lines(chosen: Selection) -> Iterator[str]:
    """All there is to say below the verdict, a paragraph each."""
    if text := evidence(chosen):
        yield text
    if chosen.winner and (text := confirmation(chosen.winner)):
        yield text
    if any(j.comparison for j in chosen.judged):
        yield literature(chosen)


def literature(chosen: Selection) -> str:
    """Who would win by the tolerance that papers use."""
    found = chosen.literature
    by_mean = _named(found.by_mean, "no ticket")
    looked = any(c.status == "unneeded" for j in chosen.judged for c in j.point.cells)
    among = "Among the cells that the search looked at, by" if looked else "By"
    text = f"{among} the literature's {LITERATURE:g} points of the mean, untested: {by_mean}"
    if chosen.level is not None:
        text += f"; shown as above: {_named(found.shown, 'none')}"
    return f"{text}."


def confirmation(judged: Judged) -> str:
    """What its fresh seeds say; empty if there are none."""
    found = judged.confirmation
    if found is None:
        return ""
    seeds = f"{found.n} fresh seed{'s' * (found.n > 1)}"
    chose = judged.comparison.difference if judged.comparison else math.nan
    return (
        f"The accuracy is that of {seeds}, which had no part in choosing it "
        f"({chose:+.2f} points from dense with those that chose it)."
    )


def _claim(found: Comparison) -> Iterator[str]:
    low, high = found.interval
    sure = f"{100 * (1 - 2 * (found.level or 0.05)):g} % confidence"
    between = f"lies between {low:+.2f} and {high:+.2f} points"
    images = f"{found.images.n:,} validation images"
    if isinstance(found.images, Paired) and found.n == 1:
        lost, won = round(found.images.lost), round(found.images.won)
        answers = f" Of {images} it lost {lost} that dense got right, and won {won} others."
    elif isinstance(found.images, Paired):
        answers = ""
    else:
        answers = (
            " Which images each network got right was not kept, so their errors count as "
            "independent, which is cautious."
        )
    if found.n == 1:
        yield (
            "One seed, so this is about that very ticket, not about others of the same recipe."
            f"{answers} Its true difference from dense {between} ({sure})."
        )
        return
    by_seeds = (found.sd or 0) / math.sqrt(found.n)
    yield (
        f"{found.n} seeds, so this is about the recipe, on average over seeds. The true difference "
        f"from dense {between} ({sure}; standard errors: {by_seeds:.2f} by the seeds, "
        f"{found.sampling:.2f} by the choice of {images}).{answers}"
    )


def _rule(chosen: Selection, found: Comparison) -> Iterator[str]:
    loss = f"a loss of more than {_points(chosen.tolerance)}"
    if found.level is None:
        yield f"Nothing was tested: {loss} is judged by the mean alone (verdict.level=null)."
        return
    holds = (
        f"p = {found.p_value:.2g} with all cells of the grid taken into account, level "
        f"{found.level:g}"
    )
    if found.passes:
        yield f"So {loss} is ruled out ({holds})."
    elif found.interval[1] < -chosen.tolerance:
        yield f"So it loses more than {_points(chosen.tolerance)}."
        return
    else:
        yield f"So {loss} cannot be ruled out ({holds})."
    yield (
        f"A ticket as good as dense would pass here with probability {found.power:.2f}"
        f"{_more(found)}."
    )


def _more(found: Comparison) -> str:
    """What it would take to decide, where the power is low."""
    if found.power >= DECIDES:
        return ""
    images, seeds = found.enough_images, found.enough_seeds
    ways = [f"{seeds} seeds"] if seeds else []
    ways += [f"{images:,} validation images"] if images else []
    if not ways:
        return f"; neither more seeds nor more images alone would make that {DECIDES:g}"
    return f"; it would take {' or '.join(ways)} for {DECIDES:g}"


def _named(judged: Judged | None, nobody: str) -> str:
    if judged is None:
        return nobody
    at = judged.point.rewound
    start = "" if at is None else f", rewound to {at.words}"
    series = f" ({judged.point.series})" if judged.point.series else ""
    return f"{judged.kept}{start}{series}"


def _points(value: float) -> str:
    return f"{value:g} point{'' if value == 1 else 's'}"
