"""Who wins, and what is said of it: chance, the best dense network, ties, fresh seeds."""

import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
from lottery.analysis.canvas import SCREEN
from lottery.analysis.collect import Cell
from lottery.points import Point
from lottery.verdict import single
from lottery.verdict.images import ANSWERS

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


def paired(hits: int, images: int, which: str) -> dict[str, Any]:
    """Networks fail on the same images, as far as they fail on as many."""
    return {"val_images": which, ANSWERS: np.arange(images) < hits}


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
    fresh: bool = False,
    **options: Any,
) -> Cell:
    """A finished cell; dense and ticket have so many hits."""
    which = str(options.get("data.name", ""))
    own = {"mask.percentile": percentile, "rewind.epoch": epoch, "seed": seed, **options}
    key = "-".join(map(str, (seed, *options.values())))
    return Cell(
        f"{percentile}-{epoch}-{key}", "done", own, tuple(f"{k}={v}" for k, v in own.items()),
        dense={"key": f"dense-{key}", **result(dense, images, majority),
               **paired(dense, images, which)},
        ticket={"key": "t", **result(hits, images, majority), **paired(hits, images, which)},
        mask=masked or mask(percentile), fresh=fresh,
    )  # fmt: skip


def judged(
    cells: list[Cell], tolerance: float = 1.0, level: float | None = LEVEL
) -> tuple[collect.Study, selection.Selection]:
    study = collect._study(Path("sweep"), cells)
    return study, selection.select(selection.points(study), tolerance, level)


def chosen(
    cells: list[Cell], tolerance: float = 1.0, level: float | None = LEVEL
) -> selection.Selection:
    return judged(cells, tolerance, level)[1]


def percentile(found: selection.Judged | None) -> float | None:
    return found and found.point.percentile


def printed(cells: list[Cell], tolerance: float = 1.0, level: float | None = LEVEL) -> str:
    """What a report on them prints."""
    console = table.terminal(width=200, record=True, file=io.StringIO())
    study, found = judged(cells, tolerance, level)
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
        "doubt": single.doubt(dense, tolerance), "level": LEVEL, "interval": [-2.0, 0.5],
        "shown": False,
    }  # fmt: skip


# Few images, few seeds


def test_equal_differences_of_few_images_are_no_certainty():
    """What crowned a ticket 0.46 points below dense and turned one down that was above."""
    for hits in (210, 211, 212):
        cells = [cell(80, 211 + s, hits + s, seed=s, images=216) for s in (0, 1)]
        found = chosen(cells).judged[0].comparison
        assert found is not None
        assert found.sd == pytest.approx(0)
        assert 0.01 < found.p_value < 0.5
        assert found.power < 0.8
        assert found.sampling > 0.3
    everything = [cell(80, 216, 216, seed=s, images=216) for s in (0, 1)]  # errors may be rare
    assert chosen(everything).winner is None
    better = [cell(80, 190, 210, seed=s, images=216) for s in (0, 1)]
    assert chosen(better).winner is not None


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
    assert only.comparison.difference > 0
    assert not only.matches


def test_a_collapsed_network_crowns_no_ticket_beside_one_that_works():
    cells = [
        cell(p, d, h, images=2160, majority=220, **{"optimizer.learning_rate": rate})
        for rate, d, held in ((1e-6, 235, {80: 300, 95: 340}), (1e-2, 1990, {80: 1990, 95: 1800}))
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
        assert c.ticket is not None
        for one in (c.dense, c.ticket):
            one.update({"val_images": "0123"} if known else {})
    assert percentile(chosen(cells).winner) == (80 if known else 95)


# Coarse validation sets


def test_a_validation_image_that_weighs_more_than_the_tolerance_is_said():
    dense, own = result(17, 19, 4), result(18, 19, 4)
    text = shown(report(dense, own))
    assert "matched, but one validation image is 5.3 points, more than the tolerance of 1:" in text
    cells = [cell(80, 17, 18, images=19, majority=4)]
    assert chosen(cells).winner is None
    assert ticket.summary(chosen(cells, level=None)).startswith(
        "Winning ticket, but one validation image is 5.3 points, more than the tolerance of 1: "
    )
    assert "note: one validation image is 5.3 points" in printed(cells)
    about = ticket.verdict(*judged(cells, level=None))["winner"]
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


# Rows, and fresh seeds


def test_a_ticket_beyond_two_failures_does_not_count():
    """Nor for the report of a grid, which a search would not have found."""
    accuracies = {70: 4500, 80: 4495, 90: 4000, 95: 4000, 99: 4500}
    found = chosen([cell(p, 4500, hits) for p, hits in accuracies.items()])
    assert percentile(found.winner) == 80
    last = found.judged[-1]
    assert last.comparison is not None
    assert last.comparison.passes
    assert not last.counts
    assert not last.matches
    other = [cell(p, 4500, hits, epoch=2) for p, hits in ((70, 4500), (99, 4500))]
    found = chosen([cell(p, 4500, hits) for p, hits in accuracies.items()] + other)
    assert percentile(found.winner) == 99
    assert found.rule.rows == 2
    assert found.rule.rungs == 5


def test_a_cell_of_fewer_seeds_ends_a_row_only_if_a_search_gave_it_up():
    def row(given_up: bool) -> list[Cell]:
        full = {70: 4500, 95: 4000, 99: 4500}
        cells = [cell(p, 4500, hits, seed=s) for p, hits in full.items() for s in range(2)]
        return [*cells, replace(cell(90, 4500, 4000), given_up=given_up)]

    assert percentile(chosen(row(True)).winner) == 70
    assert chosen(row(True)).left_out == ()
    assert percentile(chosen(row(False)).winner) == 99
    assert len(chosen(row(False)).left_out) == 1


def test_of_equal_tickets_the_confirmed_one_wins():
    cells = [cell(90, 4500, 4500, epoch=e, seed=s) for e in (0, 2) for s in range(2)]
    assert chosen(cells).winner.point.rewound == Point(0)
    cells += [cell(90, 4500, 4490, epoch=2, seed=9, fresh=True)]
    assert chosen(cells).winner.point.rewound == Point(2)


def test_in_a_store_fresh_seeds_disqualify_no_other_ticket():
    """Nobody knows there which seeds had a part in choosing."""
    cells = [cell(p, 4500, 4500 - p, seed=s) for p in (80, 90, 95) for s in range(2)]
    cells += [cell(80, 4500, 4500, seed=s) for s in (5, 6)]
    study = replace(collect._study(Path("store"), cells), of_store=True)
    points = selection.points(study)
    assert selection.seeds_of(study, points) == 2
    found = selection.select(points, 5.0, LEVEL, seeds=selection.seeds_of(study, points))
    assert percentile(found.winner) == 95


def test_a_part_of_a_grid_is_tested_as_the_whole():
    cells = [cell(p, 4500, 4500, epoch=e) for p in (80, 90, 95) for e in range(4)]
    points = selection.points(collect._study(Path("sweep"), cells))
    some = [p for p in points if p.percentile == 95 and p.rewound == Point(0)]
    found = selection.select(some, 1.0, LEVEL, grid=points)
    assert found.rule.looks == selection.select(points, 1.0, LEVEL).rule.looks == 12


def with_fresh(*hits: int, at: int = 90) -> list[Cell]:
    """Two tickets, and fresh seeds of one."""
    cells = [cell(p, 4500, 4520, seed=s) for p in (80, 90) for s in range(3)]
    return cells + [
        cell(at, 4500, h, seed=s, fresh=True) for s, h in enumerate(hits, start=len(cells))
    ]


def test_the_accuracy_of_a_winner_is_that_of_its_fresh_seeds():
    cells = with_fresh(4480, 4490)
    study, found = judged(cells)
    assert percentile(found.winner) == 90
    assert found.seeds == 3
    text = printed(cells)
    assert "validation top-1 89.70 %, -0.30 points from dense" in text
    assert "that of 2 fresh seeds, which had no part in choosing it (+0.40 points" in text
    about = ticket.verdict(study, found)["winner"]
    assert about["confirmation"]["seeds"] == [6, 7]
    assert about["confirmation"]["difference"] == pytest.approx(-0.3)
    assert about["confirmation"]["validation_top1"]["values"] == pytest.approx([89.6, 89.8])
    assert about["validation_top1"]["values"] == [90.4] * 3
    assert ticket.verdict(*judged(with_fresh()))["winner"]["confirmation"] is None


def test_a_winner_that_fresh_seeds_refute_is_none():
    cells = with_fresh(4400, 4440)  # two points below, and 1.2
    study, found = judged(cells)
    assert percentile(found.winner) == 80
    about = ticket.verdict(study, found)
    assert [place["percentile"] for place in about["selection"]["refuted"]] == [90]
    alone = [c for c in cells if c.percentile == 90]
    assert str(chosen(alone).reason).endswith("; 1 that passed lost more with fresh seeds")


def test_the_tolerance_of_the_literature_is_told_beside_the_users():
    cells = [cell(p, 4500, hits) for p, hits in ((80, 4500), (90, 4492), (95, 4470))]
    study, found = judged(cells)
    assert percentile(found.winner) == 95
    about = ticket.verdict(study, found)["selection"]["literature"]
    assert about["tolerance_points"] == 0.2
    assert about["by_mean"]["percentile"] == 90
    assert about["shown"]["percentile"] == 80
    assert "By the literature's 0.2 points of the mean, untested: 10 % of the weights" in printed(
        cells
    )


def test_one_seed_is_about_its_ticket_and_several_about_the_recipe():
    one = [cell(80, 4500, 4490)]
    text = printed(one)
    assert "One seed, so this is about that very ticket" in text
    assert "Of 5,000 validation images it lost 10 that dense got right, and won 0 others" in text
    assert "(90 % confidence)" in text
    assert "So a loss of more than 1 point is ruled out" in text
    about = ticket.verdict(*judged(one))
    assert about["selection"]["about"] == "that very ticket"
    low, high = about["winner"]["comparison"]["interval"]
    assert -0.5 < low < -0.2 < high < 0.1
    several = [cell(80, 4500, 4490 - s, seed=s) for s in range(3)]
    text = printed(several)
    assert "3 seeds, so this is about the recipe, on average over seeds" in text
    assert ticket.verdict(*judged(several))["selection"]["about"].startswith("the recipe")
    unpaired = [replace(c, dense={**(c.dense or {}), ANSWERS: None}) for c in one]
    assert "was not kept, so their errors count as independent" in printed(unpaired)
    untested = printed(one, level=None)
    assert "Nothing was tested: a loss of more than 1 point is judged by the mean" in untested


def test_a_loss_that_is_larger_for_sure_is_said_to_be():
    assert "So it loses more than 1 point." in printed([cell(80, 4500, 4000)])
    worse = {**report(result(4500), result(4000)), "interval": [-11.0, -9.0]}
    assert "(90 %), so it loses more" in shown(worse)
    assert "so a larger loss is not ruled out" in shown(report(result(4500), result(4500)))


def test_what_a_decision_would_take_is_said_where_power_is_low():
    text = printed([cell(80, 200, 199, images=216)])
    assert "cannot be ruled out" in text
    power = re.search(
        r"would pass here with probability (0\.\d\d); it would take ([\d,]+) val", text
    )
    assert power is not None
    assert float(power[1]) < 0.8
    assert int(power[2].replace(",", "")) > 216
    assert "it would take" not in printed([cell(80, 4500, 4499)])


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
    dots = sorted(dot.x for line in drawn.accuracy.lines for dot in line.dots)
    assert dots == pytest.approx([12, 45])


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
    with plots.plt.rc_context(SCREEN.style):
        for _, figure in plots.figures(figures.prepare(found), [], SCREEN):
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
