"""search=sparsest: the grid's answer from few of its cells, and what shows it."""

import importlib.util
import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery import choices
from lottery.errors import ConfigError
from lottery.sweep.proposers import Candidate
from lottery.sweep.proposers._evidence import Evidence, State
from lottery.sweep.proposers._rows import networks
from lottery.verdict.rule import walk

EPOCHS = 90
MODES = ("many", "few", "2")
UNTIMED = settings(deadline=None)  # the first judgement imports SciPy


def search(candidates, parallel=6, **options):
    """A proposer; without fresh seeds unless they are asked for."""
    chosen = choices.search.of({"name": "sparsest", "confirm": 0, **options})
    return chosen.proposer(candidates, parallel)


def grid(rows, rungs, seeds=2, iterative=False, **more):
    """Candidates of rows rewound to points that are equally far apart; percentiles 50, 51, …"""
    return [
        candidate(row, 50 + rung, seed, rows=rows, iterative=iterative, **more)
        for row in range(rows)
        for rung in range(rungs)
        for seed in range(seeds)
    ]


def candidate(row, percentile, seed, rows=1, iterative=False, **more):
    network = more.get("network", "")
    rounds = range(50, percentile + 1) if iterative else [percentile]
    epochs = {f"dense {network} {seed}": EPOCHS}
    epochs |= {f"{network} {row} {p} {seed}": EPOCHS * (1 - row / rows) for p in rounds}
    typed = (f"mask.percentile={percentile}", f"rewind.epoch={row}", f"seed={seed}")
    typed += (f"model={network}",) if network else ()
    return Candidate(
        typed, f"rewind.epoch={row}", percentile, seed, epochs, position=row / rows,
        iterative=iterative, **{"level": None, **more},
    )  # fmt: skip


def result(loss, images=1000, **of_dense):
    """What a cell has left that loses so many points."""
    dense = {"val_top1": 0.9, "val_examples": images, **of_dense}
    return {"dense": dense, "ticket": {"val_top1": 0.9 - loss / 100, "val_examples": images}}


def passing(table):
    """Results of a table of which cells pass, by row and rung; the others lose ten points."""

    def shown(cell):
        row, rung = int(cell.row.partition("=")[2]), round(cell.percentile) - 50
        return result(0 if table[row][rung] else 10)

    return shown


def play(proposer, candidates, shown, waves=1000):
    """Answer what a proposer asks, as a sweep would; the waves, as lists of candidates.

    Holds what every search must: it asks for candidates or fresh seeds alone, for nothing twice,
    and for nothing that is in the store already.
    """
    by_overrides = {c.overrides: c for c in candidates}
    asked, paid, told = [], set(), set()
    while len(asked) < waves and (wave := [tuple(cell) for cell in proposer.ask()]):
        assert len(set(wave)) == len(wave)
        assert not set(wave) & told
        for cell in wave:
            if cell not in by_overrides:  # a fresh seed
                seed = int(cell[-1].partition("=")[2])
                alike = [c for c in candidates if set(cell[:-1]) < set(c.overrides)]
                assert seed > max(c.seed for c in candidates)
                by_overrides[cell] = replace(alike[0], overrides=cell, seed=seed, epochs={})
        asked.append([by_overrides[cell] for cell in wave])
        paid |= {key for c in asked[-1] if shown(c) is not None for key in c.epochs}
        in_store = {c.overrides for c in candidates if c.epochs.keys() <= paid}
        for cell in sorted({*wave, *in_store} - told):
            proposer.tell(cell, shown(by_overrides[cell]))
            told.add(cell)
    return asked


def found(proposer):
    """The only network's record."""
    (network,) = proposer.record()["networks"]
    return network


def sparsest(table):
    """The rung that the whole grid crowns; None without one."""
    return max((r for row in table if (r := walk(enumerate(row))) is not None), default=None)


def decided(cells):
    """Whether the cells of a record pass, by row and rung; without those that are not decided."""
    return {
        (c["row"], round(c["percentile"]) - 50): c["state"] == "passed"
        for c in cells
        if c["state"] not in ("open", "unknown")
    }


def check_certificate(record, rows, rungs):
    """No undecided cell could beat the winner by passing; its cells alone show that."""
    winner = record["winner"]
    best = -1 if winner is None else winner["percentile"] - 50
    assert record["certified"]
    for cells in (record["looked"], record["certificate"]):
        known = decided(cells)
        for row in (f"rewind.epoch={i}" for i in range(rows)):
            own = {r: ok for (name, r), ok in known.items() if name == row}
            for rung in set(range(rungs)) - own.keys():
                if rung > best:
                    assert (walk({**own, rung: True}.items()) or -1) <= best
    if winner:
        assert winner in record["certificate"]
    looked = {(c["row"], c["percentile"]) for c in record["looked"]}
    never = {(c["row"], c["percentile"]) for c in record["never_needed"]}
    assert not looked & never
    assert len(looked | never) == rows * rungs


@st.composite
def tables(draw, monotone=True):
    """Which cells pass, by row and rung."""
    rows, rungs = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    if not monotone:
        return [[draw(st.booleans()) for _ in range(rungs)] for _ in range(rows)]
    limits = [draw(st.integers(0, rungs)) for _ in range(rows)]
    return [[rung < limit for rung in range(rungs)] for limit in limits]


# The answer, and what shows it


@UNTIMED
@given(tables(), st.sampled_from(MODES), st.booleans(), st.integers(1, 3), st.integers(1, 12))
def test_the_answer_is_the_grid_s(table, waves, iterative, seeds, parallel):
    cells = grid(len(table), len(table[0]), seeds, iterative)
    proposer = search(cells, parallel, waves=waves)
    play(proposer, cells, passing(table))
    record = found(proposer)
    best = sparsest(table)
    assert (record["winner"] and record["winner"]["percentile"] - 50) == best
    check_certificate(record, len(table), len(table[0]))


@UNTIMED
@given(tables(monotone=False), st.sampled_from(MODES), st.booleans())
def test_where_accuracy_is_not_monotone_what_was_looked_at_decides(table, waves, iterative):
    cells = grid(len(table), len(table[0]), 2, iterative)
    proposer = search(cells, waves=waves)
    play(proposer, cells, passing(table))
    record = found(proposer)
    check_certificate(record, len(table), len(table[0]))
    known = decided(record["looked"])
    reached = [
        walk((rung, ok) for (name, rung), ok in known.items() if name == row)
        for row in record["rows"]
    ]
    best = max((r for r in reached if r is not None), default=None)
    assert (record["winner"] and record["winner"]["percentile"] - 50) == best
    if record["winner"]:
        assert record["winner"]["state"] == "passed"
        assert len(record["winner"]["seeds"]) == 2


def test_a_single_failure_is_passed_over():
    """A ticket may beat dense, fail, and pass again."""
    for waves in MODES:
        table = [[True, True, True, False, True, False, False, True]]
        cells = grid(1, 8)
        proposer = search(cells, waves=waves)
        for percentile in (52, 53):
            for seed in (0, 1):
                c = candidate(0, percentile, seed)
                proposer.tell(c.overrides, passing(table)(c))
        play(proposer, cells, passing(table))
        assert found(proposer)["winner"]["percentile"] == 54


@pytest.mark.parametrize("waves", MODES)
def test_most_cells_are_never_trained(waves):
    table = [[rung < 10 + (row == 3) for rung in range(20)] for row in range(5)]
    cells = grid(5, 20, 3)
    asked = list(itertools.chain(*play(search(cells, 60, waves=waves), cells, passing(table))))
    assert len(asked) < {"many": 35, "few": 105, "2": 60}[waves]


def test_fewer_waves_cost_more_cells():
    table = [[rung < 10 + (row == 3) for rung in range(20)] for row in range(5)]
    cells = grid(5, 20, 3)
    asked = {
        waves: play(search(cells, 60, waves=waves), cells, passing(table))
        for waves in ("many", "4", "few")
    }
    waves = [len(asked[name]) for name in asked]
    jobs = [sum(map(len, asked[name])) for name in asked]
    assert waves == sorted(waves, reverse=True)
    assert jobs == sorted(jobs)
    assert waves[-1] <= 3
    assert all(len(wave) <= 60 for wave in asked["few"])
    assert all(len(wave) <= 4 * 3 for wave in asked["4"])
    assert all(len({(c.row, c.percentile) for c in wave}) == 1 for wave in asked["many"])


# What was told


@UNTIMED
@given(tables(monotone=False), st.sampled_from(MODES), st.booleans(), st.randoms())
def test_who_goes_on_asks_what_it_would_have(table, waves, iterative, shuffled):
    """The order in which results are told does not matter, nor who asked for them."""
    cells = grid(len(table), len(table[0]), 2, iterative)
    proposer = search(cells, waves=waves)
    told, tell = [], proposer.tell
    proposer.tell = lambda cell, shown: (told.append((cell, shown)), tell(cell, shown))
    while wave := play(proposer, cells, passing(table), waves=1):
        shuffled.shuffle(told)
        again = search(cells, waves=waves)
        for cell, shown in told:
            again.tell(cell, shown)
        assert again.record()["networks"] == proposer.record()["networks"]
        asked = again.ask()
        assert asked == search_next(proposer)
        assert wave


def search_next(proposer):
    """What it would ask next, without asking."""
    return [list(job.overrides) for job in proposer._wave(proposer._searches, proposer._told)]


@UNTIMED
@given(tables(), st.sampled_from(MODES), st.integers(0, 9), st.integers(1, 9))
def test_what_is_in_the_store_is_used(table, waves, first, every):
    cells = grid(len(table), len(table[0]))
    proposer = search(cells, waves=waves)
    before = cells[first::every]
    for c in before:
        proposer.tell(c.overrides, passing(table)(c))
    asked = itertools.chain(*play(proposer, cells, passing(table)))
    assert not {c.overrides for c in before} & {c.overrides for c in asked}
    best = sparsest(table)
    assert (found(proposer)["winner"] or {"percentile": None})["percentile"] == (
        None if best is None else 50 + best
    )
    whole = search(cells, waves=waves)
    for c in cells:
        whole.tell(c.overrides, passing(table)(c))
    assert whole.ask() == []


# Seeds


def test_a_clear_failure_costs_one_seed_and_a_close_one_all():
    def shown(cell):
        losses = {50: 0, 51: (1.6, 0.6, 1.2)[cell.seed], 52: 6}
        return result(losses[round(cell.percentile)], images=10_000)

    cells = grid(1, 3, seeds=3, tolerance=1.0)
    proposer = search(cells)
    play(proposer, cells, shown)
    seen = {c["percentile"]: (c["state"], len(c["seeds"])) for c in found(proposer)["looked"]}
    assert seen == {50: ("passed", 3), 51: ("failed", 3), 52: ("given up", 1)}


def test_what_is_given_up_would_hardly_have_passed():
    """One in 160 of those that are at the tolerance."""
    draw = random.Random(0)
    cells = grid(1, 400, seeds=3, tolerance=0.5)
    (network,) = networks(cells)
    means = {c.percentile: draw.uniform(-1.5, 0.5) for c in cells}
    told = {
        c.overrides: result(-means[c.percentile] - draw.gauss(0, 0.4), images=2000) for c in cells
    }
    whole = Evidence(network).looks(told)
    some = {c.overrides for c in cells if c.seed == 0 or c.percentile < 60}
    first = Evidence(network).looks({o: r for o, r in told.items() if o in some})
    given_up = [place for place, look in first.items() if look.state is State.GIVEN_UP]
    assert 20 < len(given_up) < 200
    assert sum(whole[place].state is State.PASSED for place in given_up) <= 0.03 * len(given_up)


def test_all_seeds_have_to_be_there_for_a_cell_to_win():
    """A cell with fewer seeds than others is not looked at."""
    cells = [c for c in grid(1, 4, seeds=3) if (c.percentile, c.seed) != (53, 2)]
    proposer = search(cells)
    asked = itertools.chain(*play(proposer, cells, passing([[True] * 4])))
    assert 53 not in {c.percentile for c in asked}
    record = found(proposer)
    assert record["winner"]["percentile"] == 52
    assert record["fewer_seeds"] == [{"row": "rewind.epoch=0", "percentile": 53}]
    assert "1 cell with fewer than 3 seeds cannot win" in record["text"]


def test_a_test_decides_where_there_is_a_level():
    """A loss just below the tolerance is no proof on few images."""
    for level, winner in ((None, 51), (0.05, 50)):
        cells = grid(1, 3, seeds=3, tolerance=1.0, level=level)

        def shown(cell):
            return result({50: -3, 51: 0.8, 52: 9}[round(cell.percentile)], images=2000)

        proposer = search(cells)
        play(proposer, cells, shown)
        assert found(proposer)["winner"]["percentile"] == winner


def test_a_dense_network_at_chance_is_matched_by_nothing():
    cells = grid(2, 4)
    proposer = search(cells)
    play(proposer, cells, lambda cell: result(0, val_top1=0.1, val_majority=100))
    assert found(proposer)["winner"] is None


# Rows


def test_rows_are_tried_from_a_third_of_the_training_outwards_and_unstable_ones_last():
    cells = [replace(c, barrier=9.0 if c.row == "rewind.epoch=2" else 1.0) for c in grid(6, 2)]
    cells += [
        replace(
            c,
            row="reinit",
            position=None,
            overrides=(*c.overrides, "rewind=reinit"),
            epochs={f"{c.overrides} afresh": 1.0},
        )
        for c in grid(1, 2)
    ]
    for gate, order in ((False, "213045"), (True, "130452")):
        names = [f"rewind.epoch={i}" for i in order]
        names.insert(len(names) - gate, "reinit")
        assert [row.name for row in networks(cells, gate)[0].rows] == names


def test_each_network_has_a_winner_of_its_own_in_the_same_waves():
    cells = [*grid(2, 6, network="small"), *grid(2, 6, network="large")]
    limit = {"small": 2, "large": 5}
    for waves in MODES:
        proposer = search(cells, 12, waves=waves)
        asked = play(
            proposer, cells, lambda c: result(0 if c.percentile < 50 + limit[c.network] else 9)
        )
        assert {c.network for c in asked[0]} == {"small", "large"}
        winners = {n["network"]: n["winner"] for n in proposer.record()["networks"]}
        assert {name: w["percentile"] for name, w in winners.items()} == {"small": 51, "large": 54}


def test_rounds_on_the_way_are_read():
    """Of an iterative chain nothing is asked for that is trained already: `play` holds that."""
    table = [[rung < 4 for rung in range(9)] for _ in range(3)]
    for waves in MODES:
        cells = grid(3, 9, 3, iterative=True)
        asked = play(search(cells, 9, waves=waves), cells, passing(table))
        assert len({(c.row, c.percentile) for wave in asked for c in wave}) < 3 * 9


# Fresh seeds


def with_confirmation(losses, cells, **options):
    """Of a search whose fresh seeds lose what ``losses`` says of a percentile."""
    proposer = search(cells, confirm=2, **options)

    def shown(cell):
        fresh = cell.seed > 1
        if not fresh:
            return result(0 if cell.percentile < 54 else 9)
        loss = losses.get(round(cell.percentile), 0)
        return None if loss is None else result(loss + (cell.seed - 2.5) / 5)

    return proposer, play(proposer, cells, shown)


def test_the_winner_is_trained_with_fresh_seeds():
    cells = grid(2, 6)
    proposer, asked = with_confirmation({53: 0.5}, cells)
    assert [c.overrides[-1] for c in asked[-1]] == ["seed=2", "seed=3"]
    record = found(proposer)
    assert record["confirmation"]["passed"] is True
    assert record["confirmation"]["difference"] == pytest.approx(-0.5)
    assert record["confirmation"]["cells"] == [list(c.overrides) for c in asked[-1]]
    assert record["text"].endswith("2 fresh seeds confirm it (-0.50 points against dense).")


def test_a_seed_that_was_not_typed_is_added():
    typed = [replace(c, overrides=c.overrides[:2]) for c in grid(1, 1, seeds=1)]
    proposer = search(typed, confirm=1)
    proposer.tell(typed[0].overrides, result(0))
    assert proposer.ask() == [["mask.percentile=50", "rewind.epoch=0", "seed=1"]]


def test_a_winner_that_fresh_seeds_refute_is_none():
    cells = grid(2, 6)
    proposer, asked = with_confirmation({53: 1.5}, cells)
    record = found(proposer)
    assert [(r["row"], r["percentile"]) for r in record["refuted"]] == [
        ("rewind.epoch=1", 53), ("rewind.epoch=0", 53),
    ]  # fmt: skip
    assert record["winner"]["percentile"] == 52
    assert record["confirmation"]["passed"] is True
    check = {c["state"] for c in record["certificate"] if c["percentile"] == 53}
    assert check == {"refuted"}
    assert record["text"].count("fresh seeds do not confirm it (-1.50 points") == 2
    assert len(asked) < 20


def test_after_three_refutations_the_next_is_said_to_be_without():
    cells = grid(4, 6)
    proposer, _ = with_confirmation({53: 5}, cells)
    record = found(proposer)
    assert len(record["refuted"]) == 3
    assert record["winner"]["percentile"] == 53
    assert record["confirmation"] is None
    assert "No fresh seeds confirm it." in record["text"]


def test_fresh_seeds_that_fail_confirm_nothing():
    cells = grid(2, 6)
    proposer, _ = with_confirmation({53: None}, cells)
    record = found(proposer)
    assert record["winner"]["percentile"] == 53
    assert record["confirmation"]["passed"] is None
    assert "The seeds that would confirm it are missing." in record["text"]


def test_controls_are_looked_at_beside_the_winner_alone():
    cells = grid(2, 6)
    cells += [
        replace(
            c,
            row=f"{c.row} shuffled",
            control=True,
            overrides=(*c.overrides, "mask.shuffle=true"),
            epochs={f"{key} shuffled": e for key, e in c.epochs.items()},
        )
        for c in cells
    ]
    proposer = search(cells, confirm=1)
    asked = play(proposer, cells, lambda c: result(0 if c.percentile < 53 or c.control else 9))
    *before, last = asked
    assert not any(c.control for wave in before for c in wave)
    winner = found(proposer)["winner"]
    assert winner["percentile"] == 52
    controls = {(c.row, c.percentile, c.seed) for c in last if c.control}
    assert controls == {(f"{winner['row']} shuffled", 52, seed) for seed in (0, 1)}
    assert len(last) == 3


# What fails


@UNTIMED
@given(tables(), st.sampled_from(MODES), st.booleans(), st.integers(0, 9), st.integers(2, 9))
def test_cells_that_end_with_an_error_are_passed_around(table, waves, iterative, first, every):
    cells = grid(len(table), len(table[0]), 2, iterative)
    lost = {c.overrides for c in cells[first::every]}
    shown = passing(table)
    proposer = search(cells, waves=waves)
    play(proposer, cells, lambda c: None if c.overrides in lost else shown(c))
    record = found(proposer)
    left = [
        [(rung, ok) for rung, ok in enumerate(row)
         if not any(c.overrides in lost for c in cells
                    if (c.row, c.percentile) == (f"rewind.epoch={i}", 50 + rung))]
        for i, row in enumerate(table)
    ]  # fmt: skip
    best = max((r for row in left if (r := walk(row)) is not None), default=None)
    assert (record["winner"] and record["winner"]["percentile"] - 50) == best


def test_cells_that_crash_where_the_next_ticket_would_be_leave_no_certificate():
    cells = grid(1, 6)
    proposer = search(cells, confirm=0)
    play(proposer, cells, lambda c: result(0) if c.percentile < 53 else None)
    record = found(proposer)
    assert record["winner"]["percentile"] == 52
    assert not record["certified"]
    assert record["certificate"] == []
    assert "might be sparser tickets: no certificate" in record["text"]


def test_rows_of_other_dense_networks_do_not_compete():
    cells = [replace(c, dense="sgd" if c.row == "rewind.epoch=0" else "adam") for c in grid(2, 4)]
    proposer = search(cells, confirm=0)
    play(proposer, cells, lambda c: result(0 if c.percentile < 52 + (c.row[-1] == "1") else 9))
    winners = [n["winner"]["percentile"] for n in proposer.record()["networks"]]
    assert sorted(winners) == [51, 52]


def test_what_changes_no_run_is_no_row():
    cells = grid(2, 3)
    same = [replace(c, row=f"{c.row} twice", overrides=(*c.overrides, "twice")) for c in cells]
    assert networks([*cells, *same]) == networks(cells)


@pytest.mark.parametrize("waves", MODES)
def test_a_refuted_winner_stays_one_whoever_is_the_next(waves):
    """And its fresh seeds stay what they are, though they are no longer those of the winner."""
    cells = grid(2, 3)

    def shown(c):
        fresh, passes = c.seed > 1, c.percentile < 52
        loss = 9.0 if fresh and c.row == "rewind.epoch=0" else 0.0 if passes else 9.0
        return result(loss if fresh or not passes else 0.1 * (c.row == "rewind.epoch=1"))

    proposer = search(cells, waves=waves, confirm=2)
    play(proposer, cells, shown)
    record = proposer.record()
    (network,) = record["networks"]
    refuted = [(r["row"], r["percentile"]) for r in network["refuted"]]
    confirmed = network["winner"]["row"]
    fresh = {tuple(c) for c in record["confirm"]}
    assert all("seed=2" in c or "seed=3" in c for c in fresh)
    assert confirmed == "rewind.epoch=1"
    # One cell at a time the second row is never asked for a rung that the first has reached.
    assert refuted == ([] if waves == "many" else [("rewind.epoch=0", 51)])
    assert len(fresh) == 2 + 2 * len(refuted)


@pytest.mark.parametrize("waves", ["few", "3"])
def test_unstable_rows_wait_for_the_stable_ones(waves):
    cells = [replace(c, barrier=9.0 if c.row == "rewind.epoch=1" else 0.5) for c in grid(3, 5)]
    proposer = search(cells, waves=waves, gate=True)
    assert not [c for c in proposer.ask() if "rewind.epoch=1" in c]


@pytest.mark.parametrize("waves", MODES)
def test_where_every_cell_fails_nothing_wins(waves):
    cells = grid(2, 3)
    proposer = search(cells, waves=waves)
    play(proposer, cells, lambda c: None)
    record = found(proposer)
    assert record["winner"] is None
    assert len(record["errors"]) == 6
    assert not record["certified"]
    assert record["text"].startswith("No cell passes, but 6 cells that ended with errors might be")


def test_what_was_never_told_counts_as_failed():
    cells = grid(1, 2)
    proposer = search(cells)
    while proposer.ask():
        pass
    assert len(found(proposer)["errors"]) == 2


def test_where_nothing_passes_the_densest_cells_show_it():
    cells = grid(3, 5)
    proposer = search(cells)
    play(proposer, cells, passing([[False] * 5] * 3))
    record = found(proposer)
    assert record["winner"] is None
    assert {(c["row"], c["percentile"]) for c in record["certificate"]} == {
        (f"rewind.epoch={row}", percentile) for row in range(3) for percentile in (50, 51)
    }
    assert "No cell passes" in record["text"]


# What was typed


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({}, {"waves": "fewer"}, "search.waves=fewer must be many"),
        ({}, {"waves": "0"}, "search.waves=0 must be many"),
        ({}, {"waves": "1.5"}, "or the number of cells in a wave"),
        ({}, {"confirm": -1}, "search.confirm=-1 must be >= 0"),
        ({"percentile": None}, {}, "it is for prune.py"),
        ({"control": True}, {}, "has only controls to look at"),
    ],
)
def test_what_cannot_be_searched_is_refused(changes, options, said):
    cells = [replace(c, **changes) for c in grid(2, 3)]
    with pytest.raises(ConfigError, match=said):
        search(cells, **options)


def test_one_network_has_one_rule():
    cells = grid(2, 3)
    cells[0] = replace(cells[0], tolerance=0.5)
    with pytest.raises(ConfigError, match=r"do not sweep verdict.tolerance \(0.5, 1\)"):
        search(cells)


def test_nothing_is_asked_of_no_grid():
    assert search([]).ask() == []


def test_order_and_repetition_do_not_matter():
    cells = grid(2, 6)
    mixed = [*cells, *(replace(c, overrides=(*c.overrides, "again=1")) for c in cells)]
    table = [[True] * 4 + [False] * 2, [True] * 3 + [False] * 3]
    random.Random(0).shuffle(cells)
    asked = [list(itertools.chain(*play(search(g), g, passing(table)))) for g in (cells, mixed)]
    assert len(asked[0]) == len(asked[1])
    assert {c.percentile for c in asked[0]} == {c.percentile for c in asked[1]}


# Beforehand


@settings(deadline=None, max_examples=12)
@given(tables(), st.sampled_from(MODES), st.booleans(), st.integers(0, 2))
def test_the_outlook_holds_where_rows_are_alike(table, waves, iterative, confirm):
    alike = [table[0]] * len(table)
    cells = grid(len(table), len(table[0]), 2, iterative)
    proposer = search(cells, waves=waves, confirm=confirm)
    before = proposer.outlook()
    asked = play(proposer, cells, passing(alike))
    assert before.cells_from <= sum(map(len, asked)) <= before.cells_to
    assert before.waves_from <= len(asked) <= before.waves_to
    grid_epochs = {key: e for c in cells for key, e in c.epochs.items()}
    assert (before.grid_cells, before.grid_epochs) == (len(cells), sum(grid_epochs.values()))
    after = proposer.outlook()
    assert (after.cells_to, after.epochs_to, after.waves_to) == (0, 0, 0)


def test_the_outlook_is_of_what_is_left():
    cells = grid(2, 4)
    proposer = search(cells)
    for c in cells[:8]:
        proposer.tell(c.overrides, result(0))
    seen = proposer.outlook()
    assert seen.grid_cells == len(cells) - 8
    assert seen.grid_epochs == sum(
        {k: e for c in cells[8:] for k, e in c.epochs.items() if "dense" not in k}.values()
    )


# A grid that others trained


@pytest.mark.slow
def test_published_grids_have_the_same_answer(real_data):
    if not (folder := real_data / "renda2020").is_dir():
        pytest.skip("no published grid on this machine")
    path = Path(__file__).parents[1] / "benchmarks" / "search_on_published_grids.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    lines = [benchmark.compare(g, t, None) for g in benchmark.read(folder, None)
             for t in benchmark.TOLERANCES]  # fmt: skip
    whole = benchmark.shares(lines)
    assert whole["same_density"] >= 0.95
    assert whole["furthest_rungs"] <= 1
    one_shot = benchmark.shares([line for line in lines if not line["iterative"]])
    assert one_shot["epochs"] <= 1 / 6
    assert one_shot["epochs_20"] <= 0.4
    assert one_shot["most_waves_20"] <= 3
