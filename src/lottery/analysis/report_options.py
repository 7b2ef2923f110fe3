"""What report.py can be told. Imports nothing heavy: ``--help`` must not wait."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from lottery.errors import ConfigError
from lottery.options import did_you_mean, text_errors

MEAN = "mean"  # a level that is none: what report.py calls verdict.level=null
HIGHEST_LEVEL = 0.5
FORMATS = ("latex", "markdown", "csv")
ROWS = ("cell", "series")
METRICS = (
    "density", "density_of_kernels", "n", "validation", "test", "validation_top5", "test_top5",
    "surviving", "computed", "difference", "p",
)  # fmt: skip
USUAL = {
    "cell": ("density", "n", "validation", "test", "surviving"),
    "series": ("validation", "test"),
}


@dataclass
class Wandb:
    """Where the W&B workspace goes: `offline` writes its JSON, `online` sends it too."""

    mode: str = "offline"
    project: str = "lottery"
    entity: str | None = None


@dataclass
class Table:
    """The table for a paper that ``table=latex`` and the like ask for."""

    latex: bool = False
    markdown: bool = False
    csv: bool = False
    rows: str = "cell"
    columns: Any = None  # a name or several; null: the usual ones
    p_values: bool = False

    @property
    def formats(self) -> tuple[str, ...]:
        """Those to write; empty if no table is wanted."""
        return tuple(name for name in FORMATS if getattr(self, name))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the columns with numbers."""
        names = USUAL[self.rows] if self.columns is None else tuple(self.columns)
        return (*names, "p") if self.p_values and "p" not in names else names


@dataclass
class Figures:
    """How the figures are drawn: for a screen, or for so many ``columns`` of a paper."""

    columns: int | None = None


@dataclass
class Options:
    """All of it; ``conf/report.yaml`` has the help."""

    sweep: str | None = None
    store: str | None = None
    where: Any = None  # a typed dictionary would take no new keys from the command line
    transfers: str | None = None
    benchmarks: str | None = None
    tolerance: float | None = None
    level: Any = None  # a number, or mean
    output: str | None = None
    table: Table = field(default_factory=Table)
    figures: Figures = field(default_factory=Figures)
    plugins: list[str] = field(default_factory=list)
    logger: Wandb = field(default_factory=Wandb)


def register_schema() -> None:
    """Make the schema known to Hydra, for ``conf/report.yaml`` to build on."""
    ConfigStore.instance().store("report_schema", Options)


def typed(config: DictConfig) -> Options:
    """The options of a command line. Raises :class:`ConfigError` for what cannot be meant."""
    options: Options = OmegaConf.to_object(config)  # type: ignore[assignment]
    if errors := text_errors(options):
        raise ConfigError("; ".join(errors))
    if (options.sweep is None) == (options.store is None):
        raise ConfigError(
            "say what to report on: sweep=<folder of a sweep>, or store=<run store>"
            + (", not both" if options.sweep else "")
        )
    if options.where is not None and not isinstance(options.where, dict):
        raise ConfigError("where needs options and values: 'where={model.name: resnet20, seed: 0}'")
    if options.level is not None and options.level != MEAN:
        if isinstance(options.level, bool) or not isinstance(options.level, int | float):
            raise ConfigError(f"level={options.level} must be a number, or {MEAN}")
        if not 0 < options.level <= HIGHEST_LEVEL:
            raise ConfigError(f"level={options.level:g} must be > 0 and <= {HIGHEST_LEVEL:g}")
    if options.tolerance is not None and not 0 <= options.tolerance <= 100:
        raise ConfigError(f"tolerance={options.tolerance:g} must be >= 0 and <= 100")
    _known("logger.mode", options.logger.mode, ("online", "offline", "disabled"))
    _known("table.rows", options.table.rows, ROWS)
    columns = options.table.columns
    if columns is not None:
        options.table.columns = columns = columns if isinstance(columns, list) else [columns]
        for name in columns:
            _known("table.columns", str(name), METRICS)
        if twice := {name for name in columns if columns.count(name) > 1}:
            raise ConfigError(f"table.columns names {', '.join(sorted(twice))} more than once")
    if not options.table.formats and options.table != Table():
        raise ConfigError("say how to write the table: table=latex, markdown or csv")
    if options.figures.columns not in (None, 1, 2):
        raise ConfigError(
            f"figures.columns={options.figures.columns} must be 1 or 2 (columns of a paper), or "
            "null for a screen"
        )
    return options


def _known(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = did_you_mean(value, known) or f" (known: {', '.join(known)})"
        raise ConfigError(f"{option}={value} is unknown{hint}")
