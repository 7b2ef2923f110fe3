"""The figures of a report: their text is whole, legible, and over nothing else."""

import dataclasses
import itertools
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text

from lottery.analysis import (
    canvas,
    collect,
    deployment,
    figures,
    latencies,
    page,
    plots,
    selection,
    ticket_file,
)
from lottery.analysis.collect import Cell

IMAGES = 1000
LONG = "method=magnitude, layer of a network of my own, rewound with everything"


def outcome(hits: int) -> dict[str, Any]:
    """The results of one run on so many right images."""
    top = {f"{split}_top{k}": hits / IMAGES for split in ("val", "test") for k in (1, 5)}
    return {
        **top, "val_loss": 1.0, "test_loss": 1.0, "val_examples": IMAGES, "test_examples": IMAGES,
        "val_majority": 100, "classes": 10, "val_images": "same", "epochs": 2, "seconds": 60.0,
        "images_per_second": 900.0,
        "multiply_adds": {"network": 2000, "surviving": 500, "computed": 1500},
    }  # fmt: skip


def cell(
    percentile: float, hits: int, *, epoch: int = 0, seed: int = 0, rival: str = "", **options: Any
) -> Cell:
    """A finished ticket; those with the same ``rival`` and seed have one dense network."""
    own = {"mask.percentile": percentile, "rewind.epoch": epoch, "seed": seed, **options}
    kept = round(1000 - 10 * percentile)
    layers = {f"block_{n}_depthwise_convolution/kernel": {"size": 100, "kept": 100 - 9 * n}
              for n in range(8)}  # fmt: skip
    return Cell(
        "-".join(map(str, own.values())), "done", own, tuple(f"{k}={v}" for k, v in own.items()),
        dense={"key": f"dense-{rival}-{seed}", **outcome(900 + seed)},
        ticket={"key": "-".join(map(str, own.values())), **outcome(hits)},
        mask={"percentile": percentile, "prunable": 1000, "kept": kept, "density": kept / 1000,
              "kernels": 1000, "density_of_kernels": kept / 1000, "layers": layers},
    )  # fmt: skip


def judged(
    cells: list[Cell], tolerance: float = 1.0, level: float | None = 0.05
) -> tuple[collect.Study, selection.Selection]:
    study = collect._study(Path("sweep"), cells)
    return study, selection.select(selection.points(study), tolerance, level)


def drawn(series: int, starts: int, percentiles: int, *, own: bool = False) -> figures.Figures:
    """Figures of so many series; ``own``: each with dense networks of its own."""
    cells = [
        cell(50 + 45 * p / percentiles, 905 - 40 * (p == percentiles - 1) - 3 * n, epoch=epoch,
             seed=seed, rival=str(n) if own else "", method=f"{LONG}{n}"[-60 - 4 * n:])
        for n in range(series)
        for p in range(percentiles)
        for epoch in range(starts)
        for seed in range(2)
    ]  # fmt: skip
    made = figures.prepare(judged(cells)[1])
    curves = [
        figures.Curve(f"{n} % left", role, "#000000", (1, 2, 3), (50.0, 60.0, 70.0 + n))
        for n, role in enumerate(("dense", "winner", *["ticket"] * percentiles))
    ]
    again = figures.Accuracies("test", (), (), None)  # is drawn as validation is, so once will do
    return dataclasses.replace(made, curves={LONG: tuple(curves)}, shown=LONG, test=again)


def speeds(count: int) -> list[latencies.Line]:
    quartiles = latencies.Quartiles(2.0, 1.5, 2.5)
    dots = tuple(latencies.Dot(d, quartiles, 1.0, 1.0, 1.0, (), None) for d in (100.0, 20.0, 10.0))
    return [latencies.Line(LONG, f"LiteRT, {n} threads, {LONG}", "#000000", n, dots)
            for n in range(count)]  # fmt: skip


def shown_texts(figure: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Boxes of the texts within plots (numbers of cells and bars), and of all that is outside."""
    inside = {id(t) for ax in figure.axes for t in ax.texts}
    hidden = {
        id(tick.label1) for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        if not ax.get_visible() or not tick.label1.get_visible() or not _in_view(axis, tick)
    } | {id(t) for ax in figure.axes if not ax.get_visible() for t in ax.findobj(Text)}  # fmt: skip
    renderer = figure.canvas.get_renderer()
    parts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for number, text in enumerate(figure.findobj(Text)):
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            box = text.get_window_extent(renderer)
            parts[id(text) not in inside][f"{number}: {text.get_text()!r}"] = box
    return parts


def _in_view(axis: Any, tick: Any) -> bool:
    low, high = sorted(axis.get_view_interval())
    return low <= tick.get_loc() <= high


def overlap(one: Any, other: Any) -> bool:
    """By more than a pixel."""
    return bool(
        min(one.x1, other.x1) - max(one.x0, other.x0) > 1
        and min(one.y1, other.y1) - max(one.y0, other.y0) > 1
    )


# (series, rewind points, percentiles, whether each series has dense networks of its own, columns)
CASES = [(1, 2, 3, False, 1), (4, 2, 2, False, None), (4, 2, 2, False, 1), (4, 1, 2, True, 2),
         (8, 1, 3, False, 2), (8, 2, 2, True, None)]  # fmt: skip
MANY = [(1, 5, 19, False, None), (8, 1, 19, False, None), (8, 1, 19, False, 1), (8, 2, 4, True, 1),
        (1, 5, 19, False, 2), (8, 2, 4, True, 2)]  # fmt: skip


@pytest.mark.parametrize(
    ("series", "starts", "percentiles", "own", "columns"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MANY)],
)
def test_no_text_is_cut_off_or_over_anything_else(
    series: int, starts: int, percentiles: int, own: bool, columns: int | None
) -> None:
    on = canvas.canvas(columns)
    prepared = drawn(series, starts, percentiles, own=own)
    with plots.plt.rc_context(on.style), warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that does not fit is one
        for name, figure in plots.figures(prepared, speeds(series), on):
            figure.draw_without_rendering()
            inside, outside = shown_texts(figure)
            edge = figure.bbox
            for text, box in (inside | outside).items():
                assert edge.x0 - 1 <= box.x0 < box.x1 <= edge.x1 + 1, (name, text)
                assert edge.y0 - 1 <= box.y0 < box.y1 <= edge.y1 + 1, (name, text)
            areas = [ax.get_window_extent() for ax in figure.axes if ax.get_visible()]
            for text, box in outside.items():
                assert not any(overlap(box, area) for area in areas), (name, text)
            for one, other in itertools.combinations(outside.items(), 2):
                assert not overlap(one[1], other[1]), (name, one[0], other[0])
            for one, other in itertools.combinations(inside.items(), 2):
                assert not overlap(one[1], other[1]), (name, one[0], other[0])
            assert all(area.width > 30 and area.height > 3 for area in areas), name
            if columns:
                assert figure.get_figwidth() == {1: 3.3, 2: 6.9}[columns]
                sizes = [t.get_fontsize() for t in figure.findobj(Text) if t.get_text().strip()]
                assert min(sizes) >= 7
            plots.plt.close(figure)


def test_a_paper_gets_its_figures_as_pdf_too(tmp_path: Path) -> None:
    only = dataclasses.replace(drawn(1, 1, 3), curves={}, layers=None, minutes=())
    written = plots.write(only, [], tmp_path, 1)
    assert {path.suffix for path in written} == {".png", ".svg", ".pdf"}
    assert (tmp_path / "accuracy.pdf").read_bytes().startswith(b"%PDF")
    assert {path.suffix for path in plots.write(only, [], tmp_path)} == {".png", ".svg"}


@pytest.mark.browser
def test_the_page_draws_as_many_series_whole(tmp_path: Path) -> None:
    """Legends lie above their plots, within the page, and leave them room."""
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("no chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    cells = [cell(p, 905 - n, epoch=e, seed=s, method=f"{LONG}{n}")
             for p in (50, 90) for e in (0, 1) for s in (0, 1) for n in range(4)]  # fmt: skip
    study, chosen = judged(cells)
    made = figures.prepare(chosen)
    path = page.write(
        study, chosen, made, ticket_file.Written(), deployment.Deployment(), {}, tmp_path
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(path.as_uri())
        tab.wait_for_selector("#throughput svg.main-svg", state="attached")
        tab.wait_for_selector("#heat-3 svg.main-svg", state="attached")
        for name in ("accuracy", "minutes", "throughput"):
            whole = tab.locator(f"#{name} svg.main-svg").first.bounding_box()
            legend = tab.locator(f"#{name} .legend").bounding_box()
            plot = tab.locator(f"#{name} .gridlayer").first.bounding_box()
            names = tab.locator(f"#{name} .legendtext").all()
            assert len(names) >= 8
            for box in (legend, *(text.bounding_box() for text in names)):
                assert (
                    whole["x"] <= box["x"] < box["x"] + box["width"] <= whole["x"] + whole["width"]
                )
                assert whole["y"] <= box["y"] < box["y"] + box["height"] <= plot["y"] + 6
            assert plot["height"] > 150
        left, right = (tab.locator(f"#heat-{n}").bounding_box() for n in (0, 1))
        assert left["y"] == right["y"]
        assert left["x"] + left["width"] <= right["x"]
        browser.close()
