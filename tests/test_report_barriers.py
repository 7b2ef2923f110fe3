"""What stability.py has measured, beside the grid of a report."""

from pathlib import Path
from typing import Any

import pytest
from test_report import Sweep, printed, reported, rows, verdict
from test_report import sweep as sweep
from test_stability import line_of

from lottery import files
from lottery.store import VERSION


def left(sweep: Sweep, *lines: Any) -> None:
    """Lines in the store of a sweep."""
    files.write_json(sweep.store / "store.json", {"version": VERSION})
    for number, line in enumerate(lines):
        folder = sweep.store / "line" / str(number)
        folder.mkdir(parents=True)
        files.write_json(folder / "line.json", line.written())
        files.write_json(folder / "done.json", {})


def grid_row(text: str, name: str) -> list[str]:
    (row,) = (line.split() for line in text.splitlines() if line.split()[:1] == [name])
    return row[1:]


@pytest.fixture
def grid(sweep: Sweep) -> Sweep:
    for percentile in (50, 80):
        for epoch in (0, 1, 2):
            for seed in (0, 1):
                sweep.add(percentile, epoch, 0.9, seed=seed)
    return sweep


def test_barriers_stand_below_the_grid_by_rewind_epoch(grid: Sweep) -> None:
    left(
        grid,
        line_of("0ep", "dense-0", 31.0),
        line_of("0ep", "dense-1", 21.0),
        line_of("5it", "dense-0", 3.0),  # of 5 an epoch
        line_of("2ep", "dense-0", 50.0, mask="of masked children"),
        line_of("2ep", "another", 50.0),
    )
    text = printed(grid.folder)
    assert grid_row(text, "barrier") == ["25.00", "2.00"]  # means over dense networks
    assert "barrier: in points, stable below 2 (stability.py)" in text
    page = (reported(grid.folder, pictures=False) / "report.html").read_text()
    assert "in points of validation error, 0: 25.00, 1: 2.00; below 2 counts as stable" in page
    found = {(r["percentile"], r["rewind_epoch"]): r["barrier"]
             for r in rows(grid.folder / "report", "grid")}  # fmt: skip
    assert found == {(p, e): b for p in ("50.0", "80.0")
                     for e, b in (("0", "25.0"), ("1", "2.0"), ("2", ""))}  # fmt: skip
    winner = verdict(grid.folder)["winner"]
    assert winner["barrier"] == {0: 25, 1: 2, 2: None}[winner["rewind_epoch"]]


def test_without_barriers_nothing_is_said_of_them(grid: Sweep, tmp_path: Path) -> None:
    assert "barrier" not in printed(grid.folder)  # of a store of another layout
    left(grid, line_of("0ep", "another", 31.0))
    assert "barrier" not in printed(grid.folder)


def test_what_is_not_rewound_to_a_state_of_the_dense_network_has_none(sweep: Sweep) -> None:
    sweep.add(50, 1, 0.89, **{"rewind.name": "finetune"})
    left(sweep, line_of("1ep", "dense-0", 31.0))
    assert "barrier" not in printed(sweep.folder)
