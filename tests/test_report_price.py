"""What a report says of the price: of a ticket beside dense, and of the whole study."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from test_report import Sweep, reported, rows, verdict
from test_report import printed as printed
from test_report import sweep as sweep

from lottery import files
from lottery.analysis import price, report, report_options, table, tables

# Of an image: 1,000 multiply-adds, and 2,500 in training; a training has 8 million images.
WHOLE, TRAINING, IMAGES = 1000, 2500, 8_000_000


def tell(folder: Path, surviving: int, computed: int, step: float, energy: float) -> None:
    """Say what the two trainings of a cell have cost; the ticket's has half as many images."""
    result = json.loads((folder / "result.json").read_text())
    for kind, images, of_image in (
        ("dense", IMAGES, {"surviving": WHOLE, "computed": WHOLE, "training": TRAINING}),
        ("ticket", IMAGES // 2, {
            "surviving": surviving, "computed": computed, "training": computed * 5 // 2,
        }),
    ):  # fmt: skip
        result[kind] |= {
            "images_trained": images,
            "multiply_adds": {"network": WHOLE, **of_image},
            "training_multiply_adds": images * of_image["training"],
            "gpu_energy_joules": 4e6 if kind == "dense" else 4e6 * energy,
        }
    timed = {"seconds": 0.1 * step, "dense_seconds": 0.1, "ratio": step, "rounds": 9}
    result["ticket"]["step_time"] = timed
    files.write_json(folder / "result.json", result)


@pytest.fixture
def priced(sweep: Sweep) -> Sweep:
    """Two seeds of 80 %, one ticket of 90 %."""
    tell(sweep.add(80, 0, 0.9), 300, 1000, 1.02, 0.5)
    tell(sweep.add(80, 0, 0.9, seed=1), 310, 1000, 1.04, 0.5)
    tell(sweep.add(90, 0, 0.9), 150, 400, 0.6, 0.25)
    tell(sweep.add(90, 0, 0.9, seed=1), 150, 400, 0.6, 0.25)
    return sweep


def line(text: str, start: str) -> list[str]:
    (found,) = (line for line in text.splitlines() if line.strip().startswith(start))
    return found.split()


def test_a_reader_sees_which_sparsity_pays_where(priced: Sweep) -> None:
    text = printed(priced.folder).partition(price.TITLE)[2]
    heads = ["surviving", "computed", "training", "step", "energy"]
    assert line(text, "pruned") == ["pruned", "left", *heads]
    # Half the images of dense; at 80 % all of the multiply-adds of each are computed.
    assert line(text, "80 %") == ["80", "%", "20", "%", "30-31", "100", "50", "102-104", "50"]
    assert line(text, "90 %") == ["90", "%", "10", "%", "15", "40", "20", "60", "25"]
    output = reported(priced.folder)
    page = (output / "report.html").read_text()
    assert "<td>90</td><td>10</td><td>15</td><td>40</td><td>20</td><td>60</td><td>25</td>" in page
    assert "<b>40 %</b><span>of dense: those that are really computed</span>" in page
    grid = {float(row["percentile"]): row for row in rows(output, "grid")}
    found = [float(grid[80][f"{name}_share"]) for name in heads]
    assert found == pytest.approx([0.305, 1, 0.5, 1.03, 0.5])
    cells = rows(output)
    assert [cell["surviving_multiply_adds"] for cell in cells] == ["300", "310", "150", "150"]
    assert {cell["dense_training_multiply_adds"] for cell in cells} == {str(IMAGES * TRAINING)}
    winner = verdict(priced.folder)["winner"]["shares_of_dense"]
    assert {name: winner[name]["mean"] for name in heads} == pytest.approx(
        {"surviving": 0.15, "computed": 0.4, "training": 0.2, "step": 0.6, "energy": 0.25}
    )


def test_a_study_costs_what_its_trainings_do_each_counted_once(priced: Sweep) -> None:
    cost = verdict(priced.folder)["cost"]
    dense, tickets = 2 * IMAGES * TRAINING, IMAGES // 2 * 2 * (2500 + 1000)
    assert cost["trainings"] == 6
    assert cost["images"] == 2 * IMAGES + 4 * IMAGES // 2
    assert cost["multiply_adds"] == dense + tickets
    assert cost["seconds"] == 6 * 90
    assert cost["joules"] == 4e6 * (2 + 0.5 + 0.5 + 0.25 + 0.25)
    alone = cost["without_sharing"]
    assert (alone["trainings"], alone["multiply_adds"]) == (8, 2 * dense + tickets)
    said = printed(priced.folder)
    told = "6 trainings, 32,000,000 images, 6.80e10 multiply-adds, 0.15 hours, 3.89 kWh."
    assert f"The study cost {told}" in said
    assert "8 trainings, 1.08e11 multiply-adds, 0.2 hours." in said
    assert "The study cost 6 trainings" in (reported(priced.folder) / "report.html").read_text()


def test_what_nobody_recorded_is_left_out(sweep: Sweep) -> None:
    folder = sweep.add(80, 0, 0.9)
    sweep.add(90, 0, 0.9)
    text = printed(sweep.folder)
    assert price.TITLE not in text
    assert "The study cost 3 trainings, 0.075 hours." in text
    assert price.TITLE not in (reported(sweep.folder) / "report.html").read_text().lower()
    # An older run beside one that knows: no column is empty, and no sum is half of one.
    tell(folder, 300, 1000, 1.02, 0.5)
    result = json.loads((folder / "result.json").read_text())
    del result["ticket"]["step_time"], result["ticket"]["gpu_energy_joules"]
    files.write_json(folder / "result.json", result)
    text = printed(sweep.folder)
    assert line(text.partition(price.TITLE)[2], "pruned")[2:] == [
        "surviving", "computed", "training",
    ]  # fmt: skip
    assert "The study cost 3 trainings, 0.075 hours." in text


def test_the_table_is_readable_in_100_columns(sweep: Sweep) -> None:
    for percentile in range(80, 99, 3):
        for epoch in (0, 1):
            tell(sweep.add(percentile, epoch, 0.9), 123, 456, 1.234 + epoch, 0.5 + epoch / 10)
    console = table.terminal(width=100, record=True, file=io.StringIO())
    tables.show(*report.judge(report_options.Options(sweep=str(sweep.folder))), console)
    shown = console.export_text().partition(price.TITLE)[2]
    assert max(map(len, shown.partition("Winning")[0].splitlines())) <= 100


def test_methods_are_compared_at_one_sparsity(sweep: Sweep) -> None:
    for score, computed in (("magnitude", 1000), ("snip", 500)):
        for percentile in (80, 90):
            folder = sweep.add(percentile, 0, 0.9, **{"mask.score.name": score})
            tell(folder, 200, computed, 1.0, 0.5)
    text = printed(sweep.folder).partition(price.TITLE)[2]
    assert line(text, "method=magnitude")[-7:] == ["10", "%", "20", "100", "50", "100", "50"]
    assert line(text, "method=snip")[-7:] == ["10", "%", "20", "50", "25", "100", "50"]
    page = (reported(sweep.folder) / "report.html").read_text()
    assert page.count("<td>20</td><td>50</td><td>25</td><td>100</td><td>50</td>") == 2


def test_a_job_ends_with_the_price_of_its_ticket(priced: Sweep) -> None:
    result: dict[str, Any] = json.loads((priced.folder / "2" / "result.json").read_text())
    assert price.sentence(result["dense"], result["ticket"]) == (
        "against dense: an image takes 15 % of its multiply-adds by the weights that are left, "
        "40 % as computed; a step takes 60 % of its time; the training took 1 MJ, that of dense "
        "1.11 kWh"
    )
    del result["ticket"]["multiply_adds"], result["ticket"]["step_time"]
    del result["dense"]["gpu_energy_joules"]
    assert price.sentence(result["dense"], result["ticket"]) is None
