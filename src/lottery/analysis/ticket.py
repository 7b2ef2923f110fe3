"""``winning_ticket.json``: the verdict on a study, and what it takes to check and repeat it."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lottery import files
from lottery.analysis import price
from lottery.analysis.collect import Study
from lottery.analysis.selection import DENSITY, OF_KERNELS, Judged, Point, Selection
from lottery.points import columns
from lottery.studies import IN_PYTHON, command_line
from lottery.verdict.comparison import Comparison
from lottery.verdict.rule import LITERATURE
from lottery.verdict.single import one_image

VERSION = 3
MEASURES = {
    DENSITY: "share of the prunable weights that is left",
    OF_KERNELS: (
        "share of all kernels' weights that is left, for tickets differ in what was prunable"
    ),
}


def verdict(
    study: Study, chosen: Selection, file: Path | None = None, seed: int | None = None
) -> dict[str, Any]:
    """The content of ``winning_ticket.json``; accuracies in percent, differences in points.

    ``file`` is the winner's ticket file and ``seed`` the one of its seeds that it is of.
    """
    nearest = chosen.nearest
    return {
        "version": VERSION,
        "study": str(study.folder.resolve()),
        "winner": (
            _about(study, chosen, chosen.winner)
            | {"ticket_file": str(file.resolve()) if file else None, "seed": seed}
            if chosen.winner
            else None
        ),
        "reason": chosen.reason,
        "nearest_miss": _about(study, chosen, nearest) if nearest else None,
        "selection": {
            "metric": "top-1 on validation data",
            "tolerance_points": chosen.tolerance,
            "seeds": chosen.seeds,
            "sparsest_by": MEASURES[chosen.measure],
            **_test(chosen),
            "literature": _literature(chosen),
            "refuted": [_place(j.point) for j in chosen.judged if j.refuted],
            "candidates": sum(j.complete and not j.point.control for j in chosen.judged),
            "left_out": [
                {**_place(j.point), "seeds": [c.seed for c in j.point.done]}
                for j in chosen.left_out
            ],
            "validation_only": (
                "test data decide nothing: the best of many cells by test accuracy would look "
                "better than it is. Test accuracy is measured once a run and only reported"
            ),
            "controls": "random masks and fresh weights are compared, never chosen",
        },
        "sparsest_match_by_series": {
            series: _place(j.point) | {"control": j.point.control} if j else None
            for series, j in chosen.best_of_series().items()
        },
        "cells": {
            "done": sum(c.done for c in study.cells),
            "all": len(study.asked),
            "not_needed": len(study.cells) - len(study.asked),
        },
        "cost": _cost(study),
        "search": {name: v for name, v in study.search.items() if name != "candidates"} or None,
        "revision": study.revision,
        "notes": list(study.notes),
    }


def write(about: dict[str, Any], folder: Path) -> Path:
    """Save what :func:`verdict` returned; returns the file's path."""
    path = folder / "winning_ticket.json"
    files.write_json(path, about)
    return path


def summary(chosen: Selection) -> str:
    """The verdict in one sentence, what stands against it first."""
    judged = chosen.winner or chosen.nearest
    if judged is None or judged.comparison is None:
        return f"No winning ticket: {chosen.reason}."
    point, found = judged.point, judged.comparison
    where = f"{judged.kept}{_rewound(point)}"
    if point.series:
        where += f" ({point.series})"
    told = judged.confirmation or found
    own = point.values("ticket", "val_top1", fresh=judged.confirmation is not None)
    change = (
        f"validation top-1 {statistics.fmean(own):.2f} %, {told.difference:+.2f} points from dense"
    )
    if chosen.winner:
        against = " and ".join(doubts(chosen))
        head = f"Winning ticket, but {against}" if against else "Winning ticket"
        return f"{head}: {where}; {change}."
    return f"No winning ticket: {chosen.reason}. The nearest miss keeps {where}: {change}."


def doubts(chosen: Selection) -> Iterator[str]:
    """Why the winner may be less than it seems."""
    judged = chosen.winner
    if judged is None:
        return
    if judged.best and not chosen.near_best(judged):
        named = f", {judged.best.series}" if judged.best.series else ""
        yield (
            f"{100 * float(judged.behind_best):.2f} points below the best dense network on this "
            f"data ({100 * float(judged.best.top1):.2f} %{named})"
        )
    if coarse := chosen.too_coarse(judged):
        yield f"{coarse}, more than the tolerance of {chosen.tolerance:g}"


def command(study: Study, point: Point) -> str:
    """What to type to compute a point again, all its seeds, quoted for the shell."""
    first = point.done[0] if point.done else point.cells[0]
    seeds = [c.seed for c in (point.done or point.cells)]
    overrides = [o for o in first.overrides if not o.startswith(("search=", "search."))]
    if len(seeds) > 1:
        own = [o for o in overrides if not o.startswith("seed=")]
        overrides = ["-m", *own, f"seed={','.join(map(str, seeds))}"]
    script = study.script
    if script.startswith(IN_PYTHON):
        script = f"{IN_PYTHON}{'grid' if seeds[1:] else 'ticket'}"
    return command_line(script, overrides)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation between seeds (None for one) and the values themselves."""
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "values": list(values),
    }


def in_points(value: float) -> str:
    """``1 point``, ``0.5 points``."""
    return f"{value:g} point{'' if value == 1 else 's'}"


def _test(chosen: Selection) -> dict[str, Any]:
    about = "that very ticket" if chosen.seeds < 2 else "the recipe, on average over seeds"
    if chosen.level is None:
        return {
            "test": None,
            "rule": "mean validation top-1 at most the tolerance below dense, in whole examples",
            "about": about,
        }
    errors = "the choice of validation images"
    if chosen.seeds > 1:
        errors = f"the spread between seeds (analysis of variance over cells) and {errors}"
    return {
        "test": (
            "one-sided test of H0: mean(ticket - dense) <= -tolerance, paired by seed and by "
            f"validation image; its error is {errors}. A cell passes if p < level, and counts "
            "unless two cells before it in its row (from dense to sparse) have failed in succession"
        ),
        "level": chosen.level,
        "looks": chosen.rule.looks,
        "holds": (
            "over all cells: the level is divided by the number of cells worse than the tolerance "
            "that may be looked at, on a way through all rows"
        ),
        "about": about,
    }


def _literature(chosen: Selection) -> dict[str, Any]:
    found = chosen.literature
    places = {"by_mean": found.by_mean, "shown": found.shown}
    return {
        "tolerance_points": LITERATURE,
        **{name: _place(j.point) if j else None for name, j in places.items()},
    }


def _confirmed(judged: Judged) -> dict[str, Any] | None:
    """What the seeds showed that had no part in choosing it."""
    if judged.confirmation is None:
        return None
    point = judged.point
    return {
        "seeds": [c.seed for c in point.fresh if c.done],
        "validation_top1": spread(point.values("ticket", "val_top1", fresh=True)),
        "test_top1": spread(point.values("ticket", "test_top1", fresh=True)),
        "dense": {
            "validation_top1": spread(point.values("dense", "val_top1", fresh=True)),
            "test_top1": spread(point.values("dense", "test_top1", fresh=True)),
        },
        "difference": judged.confirmation.difference,
        "interval": list(judged.confirmation.interval),
    }


def _about(study: Study, chosen: Selection, judged: Judged) -> dict[str, Any]:
    """All there is to say of one point, its neighbours included."""
    point = judged.point
    first = point.done[0]
    mask = first.mask or {}
    return {
        **_place(point),
        "density": point.density,
        "density_of_kernels": point.share(OF_KERNELS),
        "sparsity": 1 - (point.density or 0.0),
        "kept": mask.get("kept"),
        "prunable": mask.get("prunable"),
        "kernels": mask.get("kernels"),
        "density_of_all": mask.get("density_of_all"),
        "shares_of_dense": {n: spread(v) for n, v in price.of_points([judged]).items()},
        "seeds": [c.seed for c in point.done],
        "validation_top1": spread(point.values("ticket", "val_top1")),
        "test_top1": spread(point.values("ticket", "test_top1")),
        "dense": {
            "validation_top1": spread(point.values("dense", "val_top1")),
            "test_top1": spread(point.values("dense", "test_top1")),
        },
        "comparison": _numbers(judged.comparison),
        "confirmation": _confirmed(judged),
        "dense_at_chance": judged.at_chance,
        "best_dense": _best(chosen, judged),
        "points_of_one_validation_image": max(one_image(d) for d, _ in point.pairs),
        "neighbours": {
            direction: {
                **_place(j.point),
                "density": j.point.density,
                "density_of_kernels": j.point.share(OF_KERNELS),
                "status": _status(j),
                "validation_top1": _mean(j.point, "val_top1"),
                "difference": j.comparison.difference if j.comparison else None,
                "passes": j.comparison.passes if j.comparison else None,
            }
            for direction, j in chosen.neighbours(judged).items()
        },
        "command": command(study, point),
        "runs": [
            {
                "cell": c.name,
                "seed": c.seed,
                "folder": str(c.folder.resolve()) if c.folder else None,
                "dense": (c.dense or {}).get("key"),
                "ticket": (c.ticket or {}).get("key"),
            }
            for c in point.done
        ],
    }


def _cost(study: Study) -> dict[str, Any]:
    """Of all trainings, each once; and what they would have cost if cells shared nothing."""
    cost, alone = price.of_study(study)
    return {**asdict(cost), "without_sharing": asdict(alone)}


def _best(chosen: Selection, judged: Judged) -> dict[str, Any] | None:
    """The best dense network of the study on the same data, and how the ticket compares."""
    if judged.best is None:
        return None
    return {
        "series": judged.best.series,
        "validation_top1": 100 * float(judged.best.top1),
        "difference": -100 * float(judged.behind_best),
        "within_tolerance": chosen.near_best(judged),
    }


def _place(point: Point) -> dict[str, Any]:
    where = {"series": point.series, "percentile": point.percentile, **columns(point.rewound)}
    return {**where, "barrier": point.barrier}


def _numbers(found: Comparison | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "seeds": found.n,
        "difference": found.difference,
        "sd": found.sd,
        "sampling_error": found.sampling,
        "paired_by_image": found.images.paired,
        "validation_images": found.images.n,
        "interval": list(found.interval),
        "lower_bound": found.lower,
        "p_value": found.p_value,
        "power": found.power,
        "enough_seeds": found.enough_seeds,
        "enough_images": found.enough_images,
        "passes": found.passes,
    }


def _status(judged: Judged) -> str:
    if judged.complete:
        return "done"
    return "partly done" if judged.comparison else judged.point.cells[0].status


def _mean(point: Point, metric: str) -> float | None:
    values = point.values("ticket", metric)
    return statistics.fmean(values) if values else None


def _rewound(point: Point) -> str:
    return "" if point.rewound is None else f", rewound to {point.rewound.words}"
