"""Who wins, and what is said of it: the test's level, chance, the best dense network, ties."""

import io
import json
import shutil
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery.analysis import (
    collect,
    deployment,
    figures,
    page,
    plots,
    selection,
    table,
    tables,
    ticket,
    ticket_file,
)
from lottery.analysis.collect import Cell
from lottery.points import Point
from lottery.verdict import comparison, single

LEVEL = 0.05


def result(hits: int, images: int = 5000, majority: int | None = None, **more: Any) -> dict:
    """What a run with so many hits on validation has left."""
    return {
        "val_top1": hits / images, "val_top5": 1.0, "val_loss": 1.0, "val_examples": images,
        "val_majority": images // 10 if majority is None else majority, "classes": 10,
        "test_top1": 0.5, "test_top5": 0.9, "test_loss": 1.0, "test_examples": 1000,
        "epochs": 2, "seconds": 90.0, "images_per_second": 100.0, **more,
    }  # fmt: skip


def mask(percentile: float, prunable: int = 1000, kernels: int = 1000) -> dict[str, Any]:
    kept = prunable - int(prunable * percentile / 100)
    return {
        "percentile": percentile, "prunable": prunable, "kept": kept, "density": kept / prunable,
        "kernels": kernels, "density_of_kernels": (kernels - prunable + kept) / kernels,
        "total_parameters": kernels + 100, "density_of_all": 0.5,
        "layers": {"classifier/kernel": {"size": prunable, "kept": kept}},
    }  # fmt: skip


def cell(
    percentile: float,
    dense: int,
    hits: int,
    *,
    epoch: int | None = 0,
    seed: int = 0,
    images: int = 5000,
    majority: int | None = None,
    masked: dict[str, Any] | None = None,
    **options: Any,
) -> Cell:
    """A finished cell; dense and ticket have so many hits."""
    own = {"mask.percentile": percentile, "rewind.epoch": epoch, "seed": seed, **options}
    key = "-".join(map(str, (seed, *options.values())))
    return Cell(
        f"{percentile}-{epoch}-{key}", "done", own, tuple(f"{k}={v}" for k, v in own.items()),
        dense={"key": f"dense-{key}", **result(dense, images, majority)},
        ticket={"key": "t", **result(hits, images, majority)},
        mask=masked or mask(percentile),
    )  # fmt: skip


def judged(cells: list[Cell], tolerance: float = 1.0) -> tuple[collect.Study, selection.Selection]:
    study = collect._study(Path("sweep"), cells)
    return study, selection.select(selection.points(study), tolerance, LEVEL)


def chosen(cells: list[Cell], tolerance: float = 1.0) -> selection.Selection:
    return judged(cells, tolerance)[1]


def percentile(found: selection.Judged | None) -> float | None:
    return found and found.point.percentile


def printed(cells: list[Cell], tolerance: float = 1.0) -> str:
    """What a report on them prints."""
    console = table.terminal(width=200, record=True, file=io.StringIO())
    study, found = judged(cells, tolerance)
    tables.show(study, found, console)
    tables.show_end(study, found, [Path("page")], console)
    return console.export_text()


def shown(about: dict[str, Any], show: Callable[..., None] = table.show) -> str:
    """What a job prints at its end."""
    console = table.terminal(width=120, record=True, file=io.StringIO())
    show(about, Path("result.json"), console)
    return console.export_text()


def report(dense: dict[str, Any], own: dict[str, Any], tolerance: float = 1.0, **of_mask: Any):
    """A result.json of prune.py."""
    return {
        "dense": dense, "ticket": own, "mask": {**mask(80), **of_mask}, "tolerance": tolerance,
        "matched": single.matches(dense, own, tolerance),
        "doubt": single.doubt(dense, tolerance),
    }  # fmt: skip


# The level of the test


def draws(
    generator: np.random.Generator,
    n: int,
    seeds: int,
    spread: float,
    loss: float,
    accuracy: float,
    studies: int,
    *,
    sampled: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Hits of dense and tickets, [studies, seeds]: the ticket is ``loss`` points worse, and seeds
    spread around that. With ``sampled`` images are drawn once for all seeds, and the networks err
    independently, which is when a difference varies most; else the accuracies are as they are,
    rounded to whole images: what a spread between seeds alone gives.
    """  # fmt: skip
    lower = accuracy - loss / 100
    if sampled:
        both = accuracy * lower
        share = [both, accuracy - both, lower - both, 1 - accuracy - lower + both]
        drawn = generator.multinomial(n, share, studies)
        dense, own = drawn[:, 0] + drawn[:, 1], drawn[:, 0] + drawn[:, 2]
    else:
        dense, own = np.full((2, studies), n * np.array([[accuracy], [lower]]))
    noise = spread / 100 * n * generator.standard_normal((studies, seeds))
    tickets = np.clip(np.rint(own[:, None] + noise), 0, n)
    return np.repeat(np.rint(dense)[:, None], seeds, axis=1), tickets


def bounds(dense: np.ndarray, tickets: np.ndarray, n: int) -> np.ndarray:
    """The lower bound of each study's mean difference, by the package's own margin."""
    variances = [share * (1 - share) / (n + 2) for share in ((dense + 1) / (n + 2),
                                                             (tickets + 1) / (n + 2))]  # fmt: skip
    sampling = 100 * np.sqrt(sum(variances).mean(1))
    differences = 100 * (tickets - dense) / n
    margin = comparison.margin(dense.shape[1], differences.std(1, ddof=1), sampling, LEVEL)
    return differences.mean(1) - margin


@pytest.mark.parametrize("images", [19, 216, 1000, 5000])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_ticket_worse_by_the_tolerance_wins_at_the_level_at_most(seeds, images):
    """At spreads of 0, 0.3, 0.6 and 1 point, whether images are sampled or only coarse."""
    generator = np.random.default_rng(images + seeds)
    studies = 20_000
    limit = LEVEL + 4 * np.sqrt(LEVEL * (1 - LEVEL) / studies)
    for spread in (0.0, 0.3, 0.6, 1.0):
        for accuracy in (0.9, 0.97):
            for sampled in (True, False):
                dense, tickets = draws(
                    generator, images, seeds, spread, 1.0, accuracy, studies, sampled=sampled
                )
                share = np.mean(bounds(dense, tickets, images) > -1.0)
                assert share <= limit, (spread, accuracy, sampled, share)


def test_the_bound_of_the_simulation_is_that_of_the_verdict():
    dense, tickets = draws(np.random.default_rng(0), 216, 3, 0.6, 0.5, 0.95, 40, sampled=True)
    for row, before, own in zip(bounds(dense, tickets, 216), dense, tickets, strict=True):
        pairs = [
            (result(int(d), 216), result(int(t), 216)) for d, t in zip(before, own, strict=True)
        ]
        found = comparison.compare(pairs, 1.0, LEVEL)
        assert found.lower == pytest.approx(row, abs=1e-9)
        assert found.not_inferior == (found.lower > -1.0)


@pytest.mark.parametrize(
    ("images", "accuracy", "seeds", "spread", "least"),
    [(5000, 0.97, 2, 0.1, 0.75), (5000, 0.97, 3, 0.3, 0.7), (10_000, 0.9, 3, 0.1, 0.7),
     (50_000, 0.7, 3, 0.3, 0.75)],
)  # fmt: skip
def test_a_ticket_as_good_as_dense_can_win(images, accuracy, seeds, spread, least):
    """Its power is worth having with two or three seeds, and it is the one that is told."""
    generator = np.random.default_rng(0)
    dense, tickets = draws(generator, images, seeds, spread, 0.0, accuracy, 5000, sampled=True)
    share = np.mean(bounds(dense, tickets, images) > -1.0)
    assert share > least
    sampling = 100 * np.sqrt(2 * accuracy * (1 - accuracy) / images)
    sample = np.array([-1, *[0] * (seeds - 2), 1])
    differences = spread * sample / sample.std(ddof=1)
    told = comparison.non_inferiority(list(differences), 1.0, LEVEL, sampling=sampling).power
    assert told == pytest.approx(share, abs=0.03)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=6).filter(lambda d: np.std(d) > 1e-3),
    st.floats(0, 3),
    st.floats(0.001, 0.5),
)
def test_on_endless_images_the_test_is_students(
    differences: list[float], tolerance: float, level: float
) -> None:
    from scipy import stats

    found = comparison.non_inferiority(differences, tolerance, level, sampling=1e-9)
    expected = stats.ttest_1samp(differences, -tolerance, alternative="greater")
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-9)
    bound = expected.confidence_interval(1 - level).low
    assert found.lower == pytest.approx(bound, rel=1e-6, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.floats(-3, 3), st.floats(0, 3), st.floats(0.001, 0.99), st.floats(0.01, 3))
def test_without_spread_between_seeds_the_images_decide(mean, tolerance, level, sampling):
    from scipy import stats

    found = comparison.non_inferiority([mean] * 3, tolerance, level, sampling=sampling)
    p = stats.norm.sf((mean + tolerance) / sampling)
    assert found.p_value == pytest.approx(p, rel=1e-6, abs=1e-9)
    assert found.p_value > 0
    assert found.not_inferior == (found.p_value < level)


def test_equal_differences_of_few_images_are_no_certainty():
    """What crowned a ticket 0.46 points below dense and turned one down that was above."""
    for hits in (210, 211, 212):
        cells = [cell(80, 211 + s, hits + s, seed=s, images=216) for s in (0, 1)]
        found = chosen(cells).judged[0].comparison
        assert found is not None
        assert found.sd == pytest.approx(0)
        assert 0.01 < found.p_value < 0.5
        assert found.power < 0.5
        assert found.sampling > 1
    everything = [cell(80, 216, 216, seed=s, images=216) for s in (0, 1)]  # errors may be rare
    assert chosen(everything).winner is None
    better = [cell(80, 190, 210, seed=s, images=216) for s in (0, 1)]
    assert chosen(better).winner is not None


def test_a_test_without_an_error_is_refused():
    with pytest.raises(ValueError, match="above zero"):
        comparison.non_inferiority([0.0, 0.0], 1.0, LEVEL, sampling=0.0)
    with pytest.raises(ValueError, match="no finished cell"):
        comparison.compare([], 1.0, LEVEL)


# Networks that have learnt nothing


@pytest.mark.parametrize(("images", "majority"), [(216, 22), (5000, 700), (1, 1), (40, 39)])
def test_chance_is_a_binomial_test(images, majority):
    from scipy import stats

    for hits in range(0, images + 1, max(1, images // 300)):
        p = stats.binom.sf(hits - 1, images, majority / images)
        if abs(p - 0.05) > 1e-9:
            assert single.at_chance(result(hits, images, majority)) == (p > 0.05)


def test_the_tail_of_many_images_is_exact():
    from scipy import stats

    for hits in (5100, 5200, 5400):
        expected = stats.binom.sf(hits - 1, 50_000, 0.1)
        assert single._upper_tail(hits, 50_000, 0.1) == pytest.approx(expected, rel=1e-8)


def test_a_dense_network_at_chance_is_matched_by_nothing():
    """The case of 10 against 11 % on 216 images whose most frequent class has 22."""
    dense, own = (result(h, 216, 22) for h in (24, 22))
    text = shown(report(dense, own))
    assert "not matched: the dense network is at chance" in text
    assert "10.19 % of the validation images" in text
    assert report(dense, own)["matched"] is False
    cells = [cell(99.9, 24, 22, images=216, majority=22)]
    assert chosen(cells).winner is None
    text = printed(cells)
    assert "No winning ticket: the dense networks are at chance" in text
    assert "dense: 11.11; at chance" in text


def test_a_single_run_matches_within_the_tolerance_in_whole_images_above_chance():
    dense = result(4000)
    lost = {50: True, 51: False, 0: True, -500: True}  # an image is 0.02 points
    assert {n: single.matches(dense, result(4000 - n), 1.0) for n in lost} == lost
    assert not single.matches(result(500), result(4000), 1.0)


def test_one_collapsed_seed_is_enough_to_match_nothing():
    cells = [cell(80, d, d + 200, seed=s) for s, d in enumerate((560, 510))]
    assert [single.at_chance(result(d)) for d in (560, 510)] == [False, True]
    (only,) = chosen(cells).judged
    assert only.comparison is not None
    assert only.comparison.not_inferior
    assert not only.matches


def test_a_collapsed_network_crowns_no_ticket_beside_one_that_works():
    cells = [
        cell(p, d, h, images=216, majority=22, **{"optimizer.learning_rate": rate})
        for rate, d, held in ((1e-6, 25, {80: 30, 95: 34}), (1e-2, 199, {80: 199, 95: 180}))
        for p, h in held.items()
    ]
    found = chosen(cells)
    assert found.winner is not None
    assert (percentile(found.winner), found.winner.point.series) == (
        80, "optimizer.learning_rate=0.01",
    )  # fmt: skip
    text = printed(cells)
    assert "dense networks at chance (optimizer.learning_rate=1e-06)" in text
    assert "the tickets of 2 points match nothing" in text


def test_a_winner_is_near_the_best_dense_network_of_its_data():
    small, large = {"model.name": "small"}, {"model.name": "large"}
    cells = [cell(95, 4000, 4010, **small), cell(80, 4600, 4600, **large)]
    found = chosen(cells)
    assert percentile(found.winner) == 80
    assert printed(cells).count("Winning ticket: 20 % of the weights") == 1


def test_where_no_match_is_near_the_best_network_the_first_line_says_so():
    small, large = {"model.name": "small"}, {"model.name": "large"}
    cells = [cell(95, 4000, 4010, **small), cell(80, 4600, 4100, **large)]
    found = chosen(cells)
    assert percentile(found.winner) == 95
    text = ticket.summary(found)
    assert text.startswith(
        "Winning ticket, but 11.80 points below the best dense network on this data (92.00 %, "
        "model.name=large): 5 % of the weights"
    )
    about = ticket.verdict(judged(cells)[0], found)["winner"]["best_dense"]
    assert about["difference"] == pytest.approx(-11.8)
    assert (about["series"], about["within_tolerance"]) == ("model.name=large", False)


def test_another_data_set_s_best_network_is_no_measure():
    cells = [
        cell(80, 4600, 4600, **{"data.name": "digits"}),
        cell(95, 3000, 3000, **{"data.name": "photographs"}),
    ]
    assert percentile(chosen(cells).winner) == 95


@pytest.mark.parametrize("known", [True, False])
def test_the_same_images_under_two_paths_are_one_data_set(known):
    """A sweep whose jobs copy their data to a node's own disk has another folder in each."""
    cells = [
        cell(80, 4600, 4600, **{"data.dir": "/scratch/1"}),
        cell(95, 3000, 3000, **{"data.dir": "/scratch/2"}),
    ]
    for c in cells:
        assert c.dense is not None
        c.dense.update({"val_images": "0123"} if known else {})
    assert percentile(chosen(cells).winner) == (80 if known else 95)


# Coarse validation sets


def test_a_validation_image_that_weighs_more_than_the_tolerance_is_said():
    dense, own = result(17, 19, 4), result(18, 19, 4)
    text = shown(report(dense, own))
    assert "matched, but one validation image is 5.3 points, more than the tolerance of 1:" in text
    cells = [cell(80, 17, 18, images=19, majority=4)]
    assert ticket.summary(chosen(cells)).startswith(
        "Winning ticket, but one validation image is 5.3 points, more than the tolerance of 1: "
    )
    assert "note: one validation image is 5.3 points" in printed(cells)
    about = ticket.verdict(*judged(cells))["winner"]
    assert about["points_of_one_validation_image"] == pytest.approx(100 / 19)
    assert "image is" not in shown(report(result(4500), result(4500)))
    assert "image is" not in printed([cell(80, 4500, 4500)])
    assert single.too_coarse(result(90, 100), 1.0) is None
    assert single.too_coarse(result(90, 100), 0.9) is not None


def test_one_image_finds_nothing():
    text = shown(report(result(0, 1, 1), result(1, 1, 1)))
    assert "matched: 100.00" not in text
    assert "not matched: the dense network is at chance" in text
    assert chosen([cell(80, 0, 1, images=1, majority=1)]).winner is None


# Ranking


def test_equal_tickets_go_to_the_earlier_rewind_epoch():
    for epochs in ((0, 2, 5), (5, 2, 0)):
        found = chosen([cell(80, 4500, 4500, epoch=e) for e in epochs]).winner
        assert found is not None
        assert found.point.rewound == Point(0)
    better = chosen([cell(80, 4500, 4500 + e, epoch=e) for e in (0, 2, 5)]).winner
    assert better is not None
    assert better.point.rewound == Point(5)


@pytest.mark.parametrize("control", [{"mask.shuffle": True}, {"rewind.name": "reinit"}])
def test_a_control_with_more_seeds_disqualifies_no_ticket(control):
    cells = [cell(80, 4900, 4900, seed=s) for s in range(2)]
    cells += [cell(80, 4900, 4890, seed=s, **control) for s in range(3)]
    found = chosen(cells)
    assert percentile(found.winner) == 80
    assert found.seeds == 2
    assert found.left_out == ()
    assert "fewer seeds" not in printed(cells)
    alone = chosen([c for c in cells if c.control])
    assert alone.winner is None
    assert str(alone.reason).startswith("only controls")


def test_cells_that_lack_seeds_are_named_where_nothing_wins():
    cells = [cell(98, 500, 500, seed=s, lr=1e-6) for s in range(3)]
    cells += [cell(98, 4900, 4900, seed=s, lr=1e-2) for s in range(2)]
    reason = str(chosen(cells).reason)
    assert "the dense networks are at chance" in reason
    assert reason.endswith("1 cell with results of fewer seeds is left out")
    cells = [cell(99, 4900, 4000, seed=s) for s in range(3)]
    cells += [cell(p, 4900, 4900, seed=s) for p in (70, 80) for s in range(2)]
    reason = str(chosen(cells).reason)
    assert reason.endswith("below dense on validation; 2 cells with results of fewer seeds are "
                           "left out")  # fmt: skip


def test_a_result_from_other_devices_is_told_as_such():
    dense = result(4000, replicas=8, per_replica="batch normalisation")
    own = result(4000, replayed="operations here are not deterministic", mixed="trained on 1 and 8")
    text = shown(report(dense, own))
    assert "dense: trained on 8 devices, and batch normalisation depends on their number" in text
    assert "ticket: trained on 1 and 8" in text
    assert "not exactly one of the dense run: operations here are not deterministic" in text
    alike = result(4000, replicas=8, per_replica=""), result(4000, replayed="exactly", replicas=1)
    assert not any(word in shown(report(*alike)) for word in ("devices", "exactly"))


FIRST_SKIPPED = mask(90, prunable=612, kernels=1000)  # 62 + 388 = 45 % of all kernels
ALL_PRUNED = mask(88)


def two_prunable_sets() -> list[Cell]:
    return [
        cell(90, 4500, 4500, masked=FIRST_SKIPPED, **{"mask.skip_first": True}),
        cell(88, 4500, 4500, masked=ALL_PRUNED, **{"mask.skip_first": False}),
    ]


def test_tickets_that_differ_in_what_was_prunable_are_ranked_by_all_kernels():
    """10 % of 61 % of the weights and the others whole is more than 12 % of all."""
    study, found = judged(two_prunable_sets())
    assert found.measure == "density_of_kernels"
    assert percentile(found.winner) == 88
    text = printed(two_prunable_sets())
    assert "weights of all kernels left" in text
    assert "of the prunable" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "90 % 45 % 10.13 % 90.00" in lines
    assert "88 % 12 % 12 % *90.00" in lines
    assert "Winning ticket: 12 % of the weights of all kernels (12 % of the prunable ones)" in text
    grid = {row["percentile"]: row for row in tables.grid(found)}
    assert (grid[90]["density_of_kernels"], grid[90]["density"]) == (0.45, 62 / 612)
    about = ticket.verdict(study, found)
    assert about["winner"]["density_of_kernels"] == 0.12
    assert "all kernels" in about["selection"]["sparsest_by"]
    drawn = figures.prepare(found)
    assert drawn.share == "weights of all kernels left"
    assert sorted(dot.x for line in drawn.accuracy for dot in line.dots) == pytest.approx([12, 45])


def test_where_all_had_the_same_prunable_share_it_stays_the_density():
    """Of networks of any size."""
    cells = [
        cell(90, 4500, 4500, masked=mask(90, 500, 1000), **{"model.name": "small"}),
        cell(80, 4500, 4500, masked=mask(80, 5000, 10_000), **{"model.name": "large"}),
    ]
    found = chosen(cells)
    assert found.measure == "density"
    assert "kernels" not in printed(cells)


def test_a_single_ticket_s_table_says_both_shares_where_they_differ():
    some = shown(report(result(4500), result(4500), **FIRST_SKIPPED))
    assert (
        "10.13 % of the weights that could be pruned are left; of those of all kernels 45.00 %"
        in some
    )
    assert "kernels" not in shown(report(result(4500), result(4500)))


# Names for the eye and for the browser


@pytest.mark.parametrize("folder", ["x[/y]", "[red]x", ":smile:"])
def test_names_are_printed_as_they_are(folder, capsys):
    about = report(result(4500), result(4500))
    table.show(about, Path(folder, "result.json"))
    assert f"result: {folder}/result.json" in capsys.readouterr().out
    moved = {
        "ticket": {"network": folder, "data": folder},
        "data": {"name": folder, "classes": [folder]},
        "runs": [{"name": "ticket", "title": folder, "missing": folder}],
    }
    table.show_transfer(moved, Path(folder))
    assert f"{folder}: {folder}" in capsys.readouterr().out
    cells = [cell(p, 4500, 4500, **{"data.name": f"{folder}{p}"}) for p in (80, 90)]
    text = printed(cells)
    assert f"data.name={folder}90" in text


@pytest.mark.parametrize(("classes", "shows"), [(5, False), (6, True)])
def test_top5_is_shown_where_it_can_be_missed(classes, shows):
    dense = result(4500, classes=classes)
    text = shown(report(dense, dense))
    assert ("top-5" in text) == shows
    assert ("90.00 / 100.00" in text) == shows
    assert ("top-5" in shown({"dense": dense})) == shows
    runs = [{"name": "ticket", "title": "ticket", "density": 0.1, **dense}]
    moved = {"ticket": {"network": "a", "data": "b"}, "runs": runs,
             "data": {"name": "c", "classes": list(map(str, range(classes)))}}  # fmt: skip
    assert ("top-5" in shown(moved, table.show_transfer)) == shows


HOSTILE = "<!--<script>&\u2028</script>]]>$\\frac$"


def test_a_script_of_the_page_holds_names_without_ending_early():
    found = page._in_script({"name": HOSTILE})
    assert not set("<>&\u2028") & set(found)
    assert json.loads(found) == {"name": HOSTILE}


def hostile_report(folder: Path) -> Path:
    """The page of a study whose every name is made to break out of its place."""
    cells = [
        cell(p, 4500, 4500, **{"data.name": HOSTILE, "model.name": f"{HOSTILE}{p}"})
        for p in (80, 90)
    ]
    study, found = judged(cells)
    drawn = figures.prepare(found)
    written = ticket_file.Written()
    return page.write(study, found, drawn, written, deployment.Deployment(), {}, folder)


def test_a_dollar_sign_in_a_name_is_no_formula():
    _, found = judged([
        cell(p, 4500, 4500, **{"model.name": f"{HOSTILE}{p}"}) for p in (80, 90)
    ])  # fmt: skip
    with plots.plt.rc_context(plots.STYLE):
        figure = plots._accuracy(figures.prepare(found))
        figure.savefig(io.BytesIO(), format="svg")
        plots.plt.close(figure)


def test_a_name_is_only_a_name_in_the_page(tmp_path):
    text = hostile_report(tmp_path).read_text()
    own = text[text.rindex('<script id="data"') :]
    inside = own[own.index(">") + 1 : own.index("</script>")]
    assert "<" not in inside
    body = text[text.rindex("<body>") : text.rindex('<script id="data"')]
    assert "<!--" not in body
    assert (
        f"The winning ticket: 90 % pruned, rewound to epoch 0, model.name={escape(HOSTILE)}90"
        in (body)
    )  # as it is written
    assert "<script>" not in body


@pytest.mark.slow
def test_a_name_leaves_no_plot_empty_in_a_browser(tmp_path):
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("no chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    path = hostile_report(tmp_path)
    complaints: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("pageerror", lambda e: complaints.append(str(e)))
        tab.goto(path.as_uri())
        for name in ("accuracy", "heat-0", "layers", "minutes"):
            tab.wait_for_selector(f"#{name} svg.main-svg", state="attached", timeout=20_000)
        assert tab.locator("#accuracy .point").count() >= 2
        tab.locator("a[data-cell]").first.click()
        assert f'data.name: "{HOSTILE[:13]}' in tab.inner_text("#run-config")
        browser.close()
    assert complaints == []


def test_a_loss_of_exactly_the_tolerance_matches():
    dense, ticket = ({"val_examples": 1000, "val_top1": top1} for top1 in (0.9, 0.89))
    assert single.matches(dense, ticket, 1.0)
    assert not single.matches(dense, ticket, 0.99)
