"""What a search shows for its answer: the cells that no further look could change."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lottery.analysis.collect import Study

HEADS = ("row", "pruned", "seeds", "points from dense", "")


def sentences(study: Study) -> Iterator[str]:
    """What it cost beside the grid, and what it claims; nothing of a grid."""
    search = study.search
    if cost := _cost(search):
        yield cost
    for network in search.get("networks", ()):
        if network.get("text"):
            yield str(network["text"])


def rows(study: Study) -> list[tuple[str, str, str, str, str]]:
    """The cells of the certificate, under :data:`HEADS`."""
    return [
        (
            cell["row"],
            f"{cell['percentile']:g} %",
            " ".join(map(str, cell["seeds"])),
            "" if cell["difference"] is None else f"{cell['difference']:+.2f}",
            cell["state"],
        )
        for network in study.search.get("networks", ())
        for cell in network.get("certificate", ())
    ]


def table(study: Study) -> Table | None:
    """The same for the terminal; None of a grid."""
    if not (cells := rows(study)):
        return None
    made = Table(box=SIMPLE_HEAD, pad_edge=False, title="the cells that show it")
    for head in HEADS:
        made.add_column(head, justify="right" if head in HEADS[1:4] else "left", no_wrap=True)
    for cell in cells:
        made.add_row(*cell)
    return made


def _cost(search: Mapping[str, Any]) -> str:
    asked, grid = search.get("asked"), search.get("grid")
    if not asked or not grid:
        return ""
    share = asked["epochs"] / grid["epochs"] if grid["epochs"] else 0.0
    waves = search.get("waves", 0)
    return (
        f"Searched: {asked['cells']:,} cells in {waves} wave{'s' * (waves != 1)}, where the grid "
        f"has {grid['cells']:,}; {asked['epochs']:,.6g} of its {grid['epochs']:,.6g} epochs "
        f"({100 * share:.3g} %)."
    )
