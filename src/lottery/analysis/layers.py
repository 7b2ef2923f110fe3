"""How many weights each layer keeps: what masks of different methods differ in most."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lottery.analysis.grids import by_series, label
from lottery.analysis.selection import Judged, Selection
from lottery.points import columns

FEW = 12  # layers that are shown each; of more, those that keep least and most

Shares = Mapping[str, float]


def left(mask: Mapping[str, Any] | None) -> dict[str, float]:
    """Percent of the weights that a mask leaves in each layer, in the network's order."""
    counts = (mask or {}).get("layers") or {}
    return {path.removesuffix("/kernel"): 100 * c["kept"] / c["size"] for path, c in counts.items()}


def sentence(mask: Mapping[str, Any] | None) -> str | None:
    """The same for people; None without a mask."""
    shares = left(mask)
    if not shares:
        return None
    if len(shares) <= FEW:
        each = ", ".join(f"{name} {share:.3g} %" for name, share in shares.items())
        return f"weights left by layer: {each}"
    least, most = _extremes(shares)
    return f"weights left by layer: from {least} to {most}, {len(shares)} layers"


def rows(chosen: Selection) -> list[dict[str, Any]]:
    """One row for each layer of a point with a result; the percentages are means over seeds."""
    return [
        {
            "series": judged.point.series,
            "percentile": judged.point.percentile,
            **columns(judged.point.rewound),
            "layer": layer,
            "weights_left": share,
        }
        for judged in chosen.judged
        for layer, share in _mean(judged).items()
    ]


def table(chosen: Selection, focus: Judged) -> Table | None:
    """The layers of ``focus``, and of the ticket of each other series that is about as sparse.

    None if nothing is known of layers.
    """
    percentile = focus.point.percentile
    shown = []
    for judged in beside(chosen, focus):
        if shares := _mean(judged):
            shown.append((named(judged, focus), shares))
    if not shown:
        return None
    made = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        title=f"weights left by layer in percent, {percentile:g} % pruned",
    )
    names = tuple(shown[0][1])
    each = len(names) <= FEW and all(shares.keys() == set(names) for _, shares in shown)
    made.add_column("", no_wrap=True)
    for head in names if each else ("least", "most"):
        made.add_column(head, justify="right", no_wrap=True)
    for name, shares in shown:
        made.add_row(name, *([f"{shares[n]:.3g}" for n in names] if each else _extremes(shares)))
    return made


def beside(chosen: Selection, focus: Judged) -> list[Judged]:
    """``focus``, and the point of each other series that is about as sparse."""
    wanted = focus.point
    return [
        min(
            members,
            key=lambda j: (
                abs(j.point.percentile - wanted.percentile),
                j.point.rewound != wanted.rewound,
            ),
        )
        for members in by_series(j for j in chosen.judged if j.point.done).values()
    ]


def named(judged: Judged, focus: Judged) -> str:
    """A point of :func:`beside`: with its percentile, if that is not the one of ``focus``."""
    own = judged.point.percentile
    return label(judged) if own == focus.point.percentile else f"{label(judged)}, {own:g} % pruned"


def _mean(judged: Judged) -> dict[str, float]:
    found: Sequence[Shares] = [left(cell.mask) for cell in judged.point.done]
    return {
        name: statistics.fmean(shares[name] for shares in found)
        for name in (found[0] if found else ())
        if all(name in shares for shares in found)
    }


def _extremes(shares: Shares) -> tuple[str, str]:
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    return f"{shares[least]:.3g} % ({least})", f"{shares[most]:.3g} % ({most})"
