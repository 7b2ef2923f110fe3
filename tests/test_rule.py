"""The rule of the verdict: its level over whole studies, its power, its parts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery import choices
from lottery.sweep.proposers import Candidate
from lottery.verdict import comparison, images
from lottery.verdict.comparison import Comparison
from lottery.verdict.images import ANSWERS, Independent, Paired
from lottery.verdict.rule import Rule, walk
from lottery.verdict.spread import Spread, spreads

LEVEL = 0.05
ROWS, RUNGS = 3, 5


def run(correct: np.ndarray, key: str) -> dict[str, Any]:
    """What a verdict reads of a run that got these validation images right."""
    return {
        "key": key, "val_examples": len(correct), "val_top1": correct.mean(), "val_images": "same",
        ANSWERS: correct,
    }  # fmt: skip


def pair(answers: np.ndarray, seed: int = 0) -> images.Pair:
    """Dense and ticket, which lost the images with -1 and won those with 1."""
    return run(answers <= 0, f"dense {seed}"), run(answers >= 0, f"ticket {seed}")


def simulated(
    generator: np.random.Generator, n: int, seeds: int, spread: float, loss: float, alike: float
) -> dict[Any, list[images.Pair]]:
    """A study whose every ticket is truly ``loss`` points worse than dense, on average over seeds.

    A tenth of the images is such that a ticket may lose or win them, and each is ``alike`` often
    lost or won by the same draw in all seeds, and half of that in all cells. Half of the variance
    between seeds is that of the dense networks, which cells share. One seed is about its ticket.
    """
    may_differ = generator.random(n) < 0.1
    in_all_cells = generator.random(n)
    own = spread * 0.5**0.5 * (seeds > 1)
    of_dense = own * generator.standard_normal(seeds)
    study = {}
    for place in np.ndindex(ROWS, RUNGS):
        draw = np.where(generator.random(n) < 0.5, in_all_cells, generator.random(n))
        lost = loss / 100 - (of_dense + own * generator.standard_normal(seeds)) / 100
        cell = []
        for seed, excess in enumerate(lost):
            of_seed = np.where(generator.random(n) < alike, draw, generator.random(n))
            share = (0.1 + excess) / 2 / 0.1  # of those images, lost ones
            answers = np.where(may_differ, np.where(of_seed < share, -1, 1), 0)
            cell.append(pair(answers, seed))
        study[place] = cell
    return study


def crowned(study: dict[Any, list[images.Pair]], tolerance: float = 1.0) -> bool:
    """Whether any ticket counts."""
    found = Rule(tolerance, LEVEL, ROWS, RUNGS).judge(study)
    rows = ([(k, found[row, k].passes) for k in range(RUNGS)] for row in range(ROWS))
    return any(walk(row) is not None for row in rows)


def searched(study: dict[Any, list[images.Pair]], waves: str, tolerance: float = 1.0) -> bool:
    """Whether a search of that grid finds a winner; nothing of it is replaced but the training."""
    cells = {
        (f"mask.percentile={90 + k}", f"rewind.epoch={row}", f"seed={seed}"): result
        for (row, k), pairs in study.items()
        for seed, result in enumerate(pairs)
    }
    candidates = [
        Candidate(cell, cell[1], float(cell[0][16:]), int(cell[2][5:]), {str(cell): 1.0},
                  position=int(cell[1][-1]) / ROWS, tolerance=tolerance, level=LEVEL)
        for cell in cells
    ]  # fmt: skip
    proposer = choices.search.of({"name": "sparsest", "waves": waves, "confirm": 0}).proposer(
        candidates, 6
    )
    while asked := proposer.ask():
        for cell in asked:
            dense, ticket = cells[tuple(cell)]
            proposer.tell(cell, {"dense": dense, "ticket": ticket})
    (network,) = proposer.record()["networks"]
    return network["winner"] is not None


def shares_crowned(
    n: int, seeds: int, spread: float, studies: int, loss: float = 1.0
) -> dict[str, float]:
    """How often the grid, and the search of it, has a winner."""
    generator = np.random.default_rng(n + seeds + int(10 * spread))
    counts = dict.fromkeys(("grid", "many", "few"), 0)
    for number in range(studies):
        study = simulated(generator, n, seeds, spread, loss, alike=number % 2)
        counts["grid"] += crowned(study)
        for waves in ("many", "few"):
            counts[waves] += searched(study, waves)
    return {who: count / studies for who, count in counts.items()}


@pytest.mark.parametrize(("n", "seeds", "spread"), [(216, 3, 0.3), (1000, 1, 0.0), (1000, 2, 1.0)])
def test_a_study_of_tickets_that_are_worse_crowns_one_at_the_level_at_most(n, seeds, spread):
    for share in shares_crowned(n, seeds, spread, 60).values():
        assert share <= LEVEL + 3 * (LEVEL * 0.95 / 60) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("n", [216, 1000, 5000])
@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_the_level_is_held_at_every_size_and_spread(n, seeds):
    """Half of the studies have images that all seeds lose, half such that each loses its own."""
    for spread in (0.0, 0.3, 1.0) if seeds > 1 else (0.0,):
        for share in shares_crowned(n, seeds, spread, 100).values():
            assert share <= LEVEL + 3 * (LEVEL * 0.95 / 100) ** 0.5


def test_a_study_of_tickets_as_good_as_dense_crowns_one():
    assert min(shares_crowned(10_000, 3, 0.3, 20, loss=0.0).values()) > 0.8


# The images


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_variance_is_that_of_the_likeliest_shares_at_the_tested_difference(data):
    """Tango (1998), against the likelihood itself."""
    from scipy import optimize

    n = data.draw(st.integers(20, 5000))
    lost = data.draw(st.integers(0, n // 3))
    won = data.draw(st.integers(0, n // 3))
    difference = data.draw(st.floats(-20, 20).filter(lambda d: abs(d) > 0.1))
    delta = difference / 100

    def unlikely(won_share: float) -> float:
        lost_share = won_share - delta
        rest = 1 - won_share - lost_share
        return -sum(
            count * np.log(max(share, 1e-300))
            for count, share in ((won, won_share), (lost, lost_share), (n - lost - won, rest))
        )

    low, high = max(delta, 0.0), (1 + delta) / 2
    best = optimize.minimize_scalar(
        unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    )
    share = min((best.x, low, high), key=unlikely)
    expected = 100**2 * (2 * share - delta - delta**2) / n
    found = images.score_variance(n, lost, won, difference)
    assert found == pytest.approx(max(expected, 100**2 / n**2), rel=1e-3)


def test_no_difference_seen_is_no_certainty():
    """With a loss of a point, one of nine samples of 216 images shows none of it."""
    found = Rule(1.0, LEVEL).judge({0: [pair(np.zeros(216, int))]})[0]
    assert found.difference == 0
    assert not found.passes
    assert 0.05 < found.p_value < 0.12
    assert found.interval[0] < -1 < 1 < found.interval[1]


def test_images_are_compared_one_by_one():
    """The same accuracies: networks that fail on the same images differ by less."""
    answers = np.zeros(1000, int)
    answers[:5], answers[5:10] = -1, 1
    same = Rule(1.0, LEVEL).judge({0: [pair(answers)]})[0]
    far = answers.copy()
    far[10:110], far[110:210] = -1, 1
    apart = Rule(1.0, LEVEL).judge({0: [pair(far)]})[0]
    assert same.difference == apart.difference == 0
    assert same.passes
    assert not apart.passes
    dense, ticket = pair(answers)
    other = Rule(1.0, LEVEL).judge({0: [(dense, {**ticket, "val_images": "others"})]})[0]
    assert isinstance(other.images, Independent)
    assert isinstance(same.images, Paired)


def test_seeds_that_lose_other_images_say_more():
    n, seeds = 4000, 3
    generator = np.random.default_rng(0)
    one = np.zeros(n, int)
    one[:60], one[60:100] = -1, 1
    alike = images.sampling([pair(one, s) for s in range(seeds)])
    apart = images.sampling([pair(generator.permutation(one), s) for s in range(seeds)])
    assert isinstance(alike, Paired)
    assert isinstance(apart, Paired)
    assert alike.common == pytest.approx(1, abs=1e-3)
    assert apart.common == pytest.approx(1 / seeds, abs=0.03)
    assert alike.lost == apart.lost == 60


# The seeds


def told(spread: Spread | None, difference: float = 0.0, variance: float = 1e-14, **more: Any):
    about: dict[str, Any] = {"tolerance": 1.0, "level": LEVEL, "looks": 1, "passes": False, **more}
    seeds = spread.seeds if spread else 1
    return Comparison(seeds, difference, spread, Independent(1000, variance), **about)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=6).filter(lambda d: np.std(d) > 1e-3),
    st.floats(0, 3),
    st.floats(0.001, 0.5),
)
def test_one_cell_on_endless_images_is_tested_by_students(differences, tolerance, level):
    from scipy import stats

    (spread,) = spreads({0: dict(enumerate(differences))}).values()
    found = told(spread, float(np.mean(differences)), tolerance=tolerance, level=level)
    expected = stats.ttest_1samp(differences, -tolerance, alternative="greater")
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-5, abs=1e-9)
    bound = expected.confidence_interval(1 - level).low
    assert found.lower == pytest.approx(bound, rel=1e-5, abs=1e-5)
    both = stats.ttest_1samp(differences, 0).confidence_interval(1 - 2 * level)
    assert found.interval == pytest.approx((both.low, both.high), rel=1e-5, abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.floats(-3, 3), st.floats(0, 3), st.floats(0.001, 0.5), st.floats(0.01, 3))
def test_of_one_seed_the_images_decide(mean, tolerance, level, sampling):
    from scipy import stats

    found = told(None, mean, sampling**2, tolerance=tolerance, level=level)
    p = stats.norm.sf((mean + tolerance) / sampling)
    assert found.p_value == pytest.approx(p, rel=1e-5, abs=1e-9)
    assert found.p_value > 0
    assert found.sd is None


@given(st.integers(2, 12), st.integers(2, 5), st.integers(0, 1000))
def test_the_spread_is_that_of_an_analysis_of_variance(cells, seeds, number):
    table = np.random.default_rng(number).standard_normal((cells, seeds))
    found = spreads({c: dict(enumerate(row)) for c, row in enumerate(table)})
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    pooled = (rest**2).sum() / ((cells - 1) * (seeds - 1))
    shared = table.mean(0).var(ddof=1)
    for cell, row in enumerate(table):
        one = found[cell]
        assert one is not None
        assert one.shared == pytest.approx(shared)
        assert one.freedom == (cells - 1) * (seeds - 1)
        expected = (1 - 1 / cells) * max(pooled, row.var(ddof=1) - shared)
        assert one.own == pytest.approx(expected)


def test_other_dense_networks_are_not_averaged_with_these():
    cells = {0: {"a": 0.0, "b": 1.0}, 1: {"a": 0.1, "b": 0.9}, 2: {"c": 0.0, "d": 5.0}}
    found = spreads(cells)
    assert [one and one.freedom for one in found.values()] == [1, 1, 1]
    assert found[2] == Spread(2, 0.0, 12.5, 1)
    assert spreads({0: {"a": 1.0}}) == {0: None}


def test_what_has_collapsed_does_not_widen_the_others():
    """Only cells that may pass say how far seeds lie apart."""
    generator = np.random.default_rng(0)

    def cell(loss: int, spread: int) -> list[images.Pair]:
        found = []
        for seed in range(3):
            answers = np.zeros(5000, int)
            answers[: max(loss + int(spread * generator.standard_normal()), 0)] = -1
            found.append(pair(answers, seed))
        return found

    fine = {k: cell(10, 5) for k in range(4)}
    with_collapsed = {**fine, 4: cell(1500, 500)}
    rule = Rule(1.0, LEVEL, 1, 5)
    before, after = rule.judge(fine), rule.judge(with_collapsed)
    assert [before[k].sd for k in fine] == [after[k].sd for k in fine]
    assert not after[4].passes


# The level over all cells


def test_the_looks_are_those_of_a_walk_and_of_a_search():
    assert Rule(1.0, LEVEL).looks == 1
    assert Rule(1.0, LEVEL, 1, 2).looks == 2
    assert Rule(1.0, LEVEL, 5, 19).looks == 5 * 6
    assert Rule(1.0, LEVEL, 10, 10).looks == 10 * 5


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_p_value_below_the_level_passes(seeds):
    generator = np.random.default_rng(seeds)
    passed = set()
    for number in range(60):
        study = simulated(generator, 1500, seeds, 0.3, 0.4 * generator.random(), number % 2)
        for found in Rule(1.0, LEVEL, ROWS, RUNGS).judge(study).values():
            assert found.passes == (found.p_value < LEVEL) == (found.lower > -1)
            passed.add(found.passes)
        if len(passed) == 2 and number > 5:
            return
    raise AssertionError(passed)


def test_without_a_level_the_mean_decides_in_whole_images():
    lost = np.zeros(1000, int)
    lost[:10] = -1  # exactly a point
    rule = Rule(1.0, None)
    assert rule.judge({0: [pair(lost)]})[0].passes
    grid = Rule(1.0, None, ROWS, RUNGS).judge({0: [pair(lost)]})[0]
    assert grid.lower == pytest.approx(grid.difference)
    lost[10] = -1
    assert not rule.judge({0: [pair(lost)]})[0].passes
    assert rule.judge({0: [pair(lost), pair(np.abs(lost), 1)]})[0].passes


def test_nothing_is_compared_with_nothing():
    with pytest.raises(ValueError, match="no finished cell"):
        comparison.compare([], 1.0, LEVEL)
    with pytest.raises(ValueError, match="spread between seeds"):
        comparison.compare([pair(np.zeros(10, int), s) for s in range(2)], 1.0, LEVEL)


# What it would take


@pytest.mark.parametrize(
    ("spread", "variance"),
    [
        (None, 0.16),
        (Spread(2, 0.0, 0.01, 1), 0.04),
        (Spread(3, 0.0, 0.09, 2), 0.04),
        (Spread(3, 0.05, 0.05, 20), 0.04),
    ],
)
def test_the_power_that_is_told_is_how_often_a_ticket_as_good_as_dense_passes(spread, variance):
    from scipy import stats

    generator = np.random.default_rng(0)
    count, told_power = 4000, told(spread, 0.0, variance).power
    means = variance**0.5 * generator.standard_normal(count)
    if spread is None:
        passes = means + 1 > comparison.margin(LEVEL, 1, None, variance)
    else:
        both = (spread.shared + spread.own) / spread.seeds
        means += both**0.5 * generator.standard_normal(count)
        free = (spread.seeds - 1, spread.freedom)
        drawn = [stats.chi2.rvs(f, size=count, random_state=generator) / f for f in free]
        seen = replace(spread, shared=spread.shared * drawn[0], own=spread.own * drawn[1])
        passes = means + 1 > comparison.margin(LEVEL, 1, seen, variance)
    assert told_power == pytest.approx(np.mean(passes), abs=0.04)


@pytest.mark.parametrize("spread", [None, Spread(3, 0.02, 0.3, 2), Spread(3, 0.02, 0.3, 28)])
def test_what_it_would_take_has_the_power(spread):
    found = told(spread, 0.0, 0.3, looks=10)
    assert found.power < 0.8
    if (count := found.enough_images) is not None:
        assert count > 1000
        more = replace(found, images=Independent(count, 0.3 * 1000 / count))
        assert more.power >= 0.8
        fewer = replace(found, images=Independent(count, 0.3 * 1000 / (0.9 * count)))
        assert fewer.power < 0.8
    if spread is None:
        assert found.enough_seeds is None


def test_more_seeds_help_where_seeds_are_what_spreads():
    found = told(Spread(3, 0.0, 0.5, 2), 0.0, 0.01)
    assert found.enough_images is None
    assert found.enough_seeds is not None
    assert 3 < found.enough_seeds < 20


# Rows


@pytest.mark.parametrize(
    ("row", "end"),
    [
        ("", None), ("0", None), ("1", 0), ("1101", 3), ("11001", 1), ("01", 1), ("001", None),
        ("10101", 4), ("100", 0),
    ],
)  # fmt: skip
def test_a_row_ends_with_two_failures(row, end):
    looked = [(rung, passed == "1") for rung, passed in enumerate(row)]
    assert walk(reversed(looked)) == end


def test_rungs_that_nobody_looked_at_are_passed_over():
    assert walk([(0, True), (5, True), (9, False), (14, False), (17, True)]) == 5
