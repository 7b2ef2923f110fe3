"""What report.py does: collect, judge, and write tables, pictures, the page and the verdict."""

import hashlib
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from lottery.analysis.report_options import MEAN, Options, typed
from lottery.errors import LotteryError

if TYPE_CHECKING:  # report.py --help must not wait for them
    from lottery.analysis.collect import Study
    from lottery.analysis.selection import Selection

USUAL_RULE = {"tolerance": 1.0, "level": 0.05}  # of runs that know no rule
_LONGEST = 120  # letters of a folder's name


def main(config: DictConfig) -> None:
    """Write the report and print its table. Raises :class:`LotteryError` for bad input."""
    publish(typed(config))


def publish(options: Options) -> str:
    """Write a report, print its table, and return the verdict in a sentence.

    Raises :class:`LotteryError` if there is nothing to report on.
    """
    from lottery.analysis import (
        deployment,
        deployment_tables,
        figures,
        latencies,
        page,
        paper_formats,
        plots,
        table,
        tables,
        ticket,
        ticket_file,
    )

    study, chosen = judge(options)
    deployed = deployment.collect(
        study, chosen, moved=options.transfers, exported=options.benchmarks
    )
    name = folder_name(options, study, chosen.tolerance, chosen.level)
    output = Path(options.output) if options.output else study.folder / name
    output.mkdir(parents=True, exist_ok=True)
    carried = ticket_file.write(chosen, output)
    study = replace(study, notes=(*study.notes, *deployed.notes, *carried.notes))
    drawn = figures.prepare(chosen)
    panels = latencies.panels(deployed.latencies)
    for_paper = paper_formats.write(study, chosen, options.table, output)
    written = [
        ticket.write(ticket.verdict(study, chosen, carried.path, carried.seed), output),
        *([carried.path] if carried.path else []),
        *tables.write(study, chosen, output),
        *for_paper,
        *deployment_tables.write(deployed, output),
        *plots.write(drawn, latencies.shown(panels), output, options.figures.columns),
    ]
    wandb = options.logger
    if wandb.mode != "disabled":
        from lottery.analysis import workspace  # imports W&B: a second and a half

        written.append(workspace.write(study, output, wandb.project, wandb.entity))
    written.append(page.write(study, chosen, drawn, carried, deployed, panels, output))
    console = table.terminal()
    tables.show(study, chosen, console)
    deployment_tables.show(deployed, panels, chosen.winner, console)
    for text in for_paper.values():
        console.print(text)
    tables.show_end(study, chosen, written, console)
    if wandb.mode == "online":  # last, for it may fail
        print(f"workspace: {workspace.send(study, wandb.project, wandb.entity)}")
    return ticket.summary(chosen)


def judge(options: Options) -> "tuple[Study, Selection]":
    """The study that the options name, and its winner."""
    from lottery.analysis import collect, gate, selection

    folder = Path(options.sweep or options.store or "")
    study = collect.from_sweep(folder) if options.sweep else collect.from_store(folder, _defaults())
    grid = selection.points(study)
    if options.where:
        study = collect.where(study, options.where)
    study = gate.with_barriers(study)
    tolerance, level = rule(options, study)
    found = selection.points(study)
    for network in study.search.get("networks", ()):
        if (network["tolerance"], network["level"]) != (tolerance, level):
            note = (
                f"the search was for a loss of at most {network['tolerance']:g} points (level "
                f"{network['level'] or MEAN}); this is the sparsest of the cells that it looked at"
            )
            study = replace(study, search={}, notes=(*study.notes, note))
            break
    seeds = selection.seeds_of(study, found)
    return study, selection.select(found, tolerance, level, grid=grid, seeds=seeds)


def rule(options: Options, study: "Study") -> tuple[float, float | None]:
    """Tolerance and level of a report: those that the options name, or else those of the runs.

    Raises :class:`LotteryError` if the runs have different ones and the options name none.
    """
    tolerance, level = options.tolerance, options.level
    if tolerance is None:
        tolerance = _of_runs(study, "tolerance")
    if level is None:
        level = _of_runs(study, "level")
    return 1.0 if tolerance is None else tolerance, None if level == MEAN else level


def folder_name(options: Options, study: "Study", tolerance: float, level: float | None) -> str:
    """``report``, with what makes this one differ from the study's own, which it leaves alone.

    That is the part of the cells that ``where`` keeps, and a rule that is not that of the runs:
    ``report-seed-0-tolerance-2``.
    """
    words = ["report"]
    for option, value in (options.where or {}).items():
        words += [option, "+".join(map(str, value if isinstance(value, list) else [value]))]
    if _values(study, "tolerance") != {tolerance}:
        words += ["tolerance", f"{tolerance:g}"]
    if _values(study, "level") != {level}:
        words += ["level", MEAN if level is None else f"{level:g}"]
    name = "-".join(words)
    # Letters that mean something neither to a shell nor to Hydra: ticket=<folder> names it.
    plain = re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)[:_LONGEST]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _defaults() -> dict[str, Any]:
    """The config of prune.py without overrides, by Hydra, which runs already."""
    from hydra import compose

    from lottery.analysis.configs import flat

    config: Any = OmegaConf.to_container(compose("config"), resolve=True)
    return flat(config)


def _values(study: "Study", name: str) -> set[float | None]:
    """The values that the runs have of an option of ``verdict``."""
    from lottery.analysis import selection

    return selection.option_values(study.cells, f"verdict.{name}") or {USUAL_RULE[name]}


def _of_runs(study: "Study", name: str) -> float | None:
    """The value that all runs have."""
    values = _values(study, name)
    if len(values) > 1:
        listed = ", ".join(MEAN if v is None else f"{v:g}" for v in sorted(values, key=_last_none))
        raise LotteryError(f"the runs have different {name}s ({listed}): say which with {name}=…")
    return values.pop()


def _last_none(value: float | None) -> float:
    return math.inf if value is None else value
