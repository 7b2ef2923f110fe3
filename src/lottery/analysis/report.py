"""What report.py does: collect, judge, and write tables, pictures, the page and the verdict."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from lottery.errors import ConfigError, LotteryError
from lottery.options import text_errors

MEAN = "mean"  # a level that is none: what report.py calls verdict.level=null
HIGHEST_LEVEL = 0.5

if TYPE_CHECKING:  # report.py --help must not wait for them
    from lottery.analysis.collect import Study
    from lottery.analysis.selection import Selection


@dataclass
class Wandb:
    """Where the W&B workspace goes: `offline` writes its JSON, `online` sends it too."""

    mode: str = "offline"
    project: str = "lottery"
    entity: str | None = None


@dataclass
class Options:
    """What report.py can be told."""

    sweep: str | None = None
    store: str | None = None
    where: Any = None  # a typed dictionary would take no new keys from the command line
    transfers: str | None = None
    benchmarks: str | None = None
    tolerance: float | None = None
    level: Any = None  # a number, or mean
    output: str | None = None
    plugins: list[str] = field(default_factory=list)
    logger: Wandb = field(default_factory=Wandb)


def register_schema() -> None:
    """Make the schema known to Hydra, for ``conf/report.yaml`` to build on."""
    ConfigStore.instance().store("report_schema", Options)


def typed(config: DictConfig) -> Options:
    """The options of a command line. Raises :class:`ConfigError` for what cannot be meant."""
    chosen: Options = OmegaConf.to_object(config)  # type: ignore[assignment]
    if errors := text_errors(chosen):
        raise ConfigError("; ".join(errors))
    if (chosen.sweep is None) == (chosen.store is None):
        raise ConfigError(
            "say what to report on: sweep=<folder of a sweep>, or store=<run store>"
            + (", not both" if chosen.sweep else "")
        )
    if chosen.where is not None and not isinstance(chosen.where, dict):
        raise ConfigError("where needs options and values: 'where={model.name: resnet20, seed: 0}'")
    if chosen.level is not None and chosen.level != MEAN:
        if isinstance(chosen.level, bool) or not isinstance(chosen.level, int | float):
            raise ConfigError(f"level={chosen.level} must be a number, or {MEAN}")
        if not 0 < chosen.level <= HIGHEST_LEVEL:
            raise ConfigError(f"level={chosen.level:g} must be > 0 and <= {HIGHEST_LEVEL:g}")
    if chosen.tolerance is not None and not 0 <= chosen.tolerance <= 100:
        raise ConfigError(f"tolerance={chosen.tolerance:g} must be >= 0 and <= 100")
    if chosen.logger.mode not in ("online", "offline", "disabled"):
        raise ConfigError(
            f"logger.mode={chosen.logger.mode} is unknown (known: online, offline, disabled)"
        )
    return chosen


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
    output = Path(options.output) if options.output else study.folder / "report"
    output.mkdir(parents=True, exist_ok=True)
    carried = ticket_file.write(chosen, output)
    study = replace(study, notes=(*study.notes, *deployed.notes, *carried.notes))
    drawn, panels = figures.prepare(chosen), latencies.panels(deployed.latencies)
    written = [
        ticket.write(ticket.verdict(study, chosen, carried.path, carried.seed), output),
        *([carried.path] if carried.path else []),
        *tables.write(study, chosen, output),
        *deployment_tables.write(deployed, output),
        *plots.write(drawn, latencies.shown(panels), output),
    ]
    wandb = options.logger
    if wandb.mode != "disabled":
        from lottery.analysis import workspace  # imports W&B: a second and a half

        written.append(workspace.write(study, output, wandb.project, wandb.entity))
    written.append(page.write(study, chosen, drawn, carried, deployed, panels, output))
    console = table.terminal()
    tables.show(study, chosen, console)
    deployment_tables.show(deployed, panels, chosen.winner, console)
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
    tolerance, level = options.tolerance, options.level
    if tolerance is None:
        values = selection.option_values(study.cells, "verdict.tolerance")
        tolerance = _of_runs(values, "tolerance") if values else None
        tolerance = 1.0 if tolerance is None else tolerance
    if level is None:
        values = selection.option_values(study.cells, "verdict.level")
        level = _of_runs(values, "level") if values else 0.05
    level = None if level == MEAN else level
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


def _defaults() -> dict[str, Any]:
    """The config of prune.py without overrides, by Hydra, which runs already."""
    from hydra import compose

    from lottery.analysis.configs import flat

    config: Any = OmegaConf.to_container(compose("config"), resolve=True)
    return flat(config)


def _of_runs(found: set[float | None], name: str) -> float | None:
    """The value that all runs have."""
    if len(found) > 1:
        listed = ", ".join(MEAN if v is None else f"{v:g}" for v in sorted(found, key=_last_none))
        raise LotteryError(f"the runs have different {name}s ({listed}): say which with {name}=…")
    return found.pop() if found else None


def _last_none(value: float | None) -> float:
    return math.inf if value is None else value
