"""Hydra's grid sweeper with ellipses, every job checked before any is launched, in stages.

A thin shell over :mod:`lottery.sweep`. (Hydra imports this file for every command: keep it light,
and free of ``from __future__ import annotations``, which breaks its dataclasses.)
"""

import copy
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

log = logging.getLogger(__name__)


@dataclass
class LotterySweeperConf(BasicSweeperConf):
    """Options of the sweeper: those of Hydra's basic one."""

    _target_: str = "hydra_plugins.lottery_sweeper.LotterySweeper"


ConfigStore.instance().store(
    group="hydra/sweeper", name="lottery", node=LotterySweeperConf, provider="lottery"
)


class LotterySweeper(BasicSweeper):
    """All combinations of the swept values: dense networks first, nothing that is done already."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._checked_cells: dict[tuple[str, ...], tuple[DictConfig, Any]] = {}
        self._composed_kin: dict[tuple[tuple[str, ...], tuple[str, ...]], DictConfig] = {}
        self._overrides_parsed: dict[str, Override] = {}

    def sweep(self, arguments: list[str]) -> None:
        """Compute the cells that the proposer asks for, a wave at a time.

        Of each wave, all cells are checked and the plan is printed before anything is launched.
        Raises :class:`ConfigCompositionException` if a cell cannot run, and
        :class:`LotteryError` at the end if one failed.
        """
        from lottery import cli, studies
        from lottery.analysis import overview
        from lottery.errors import ConfigError
        from lottery.store import Store
        from lottery.sweep import detached, staged
        from lottery.sweep.jobs import Launchers
        from lottery.sweep.waves import ComposedBefore

        assert self.config is not None
        assert self.hydra_context is not None
        study = studies.of_script(self.task_function)
        cli.check_folder(self.config.hydra, self.config.hydra.sweep.dir)
        cells = self._cells(arguments)
        composed = self._composed(cells)
        first = composed[0][1]
        store = Store(first.paths.store)
        waves = self._waves(cells, store, study)
        wave = waves.next()
        if wave is None:
            raise ConfigError(f"search={self._search.name} asks for no cell at all")
        launcher = Launchers.of(self.config, self.config.hydra.sweep.dir)
        overview.show_wave(wave, waves, launcher)
        if first.sweep.dry_run:
            if not wave.asked and (asked := waves.next()) is not None:
                overview.show_wave(asked, waves, launcher)
            return
        if wave.plan.jobs or waves.proposer.adaptive:
            store.check_writable()
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        sweep = staged.StagedSweep(
            folder,
            store,
            wave.plan,
            wave.configs,
            main=self.task_function,
            study=study,
            launcher=launcher,
            callbacks=self.hydra_context.callbacks,
            batch=self.max_batch_size,
            search=waves.record(),
            candidates=waves.grid if waves.proposer.adaptive else (),
        )
        if first.sweep.detach:
            configs = [config for config, _ in composed]
            waves.compose = ComposedBefore(dict(zip(map(tuple, cells), configs, strict=True)))
            if detached.Detached(sweep, waves if waves.proposer.adaptive else None).start():
                print(sweep.farewell("detached"))
            return
        with sweep.searching():
            sweep.run()
            while wave := staged.next_wave(sweep, waves):
                overview.show_wave(wave, waves, launcher)
                sweep.run()
        if error := sweep.end():
            raise error

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Remember what Hydra gives; launchers are made when there is something to launch."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    @property
    def _search(self) -> Any:
        """The choice of who asks for cells."""
        from lottery import choices

        assert self.config is not None
        return choices.search.of(self.config.search)

    def _cells(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of each cell, ellipses expanded."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        (cells,) = self.split_arguments([_expanded(o) for o in overrides], None)
        return cells

    def _waves(self, cells: Sequence[Sequence[str]], store: Any, study: Any) -> Any:
        """The waves in which the search asks for cells of this grid."""
        from lottery.barriers import barriers
        from lottery.sweep import plan
        from lottery.sweep.candidates import candidates
        from lottery.sweep.jobs import Launchers
        from lottery.sweep.waves import Waves

        assert self.config is not None

        options = [options for _, options in self._composed(cells)]
        grid = plan.cells_of(zip(cells, options, strict=True), store, chain=study.lineage)
        parallel = Launchers.of(self.config, self.config.hydra.sweep.dir).parallel
        proposer = self._search.proposer(candidates(grid, barriers(store)), parallel)
        return Waves(proposer, grid, self._composed, store, study.lineage)

    def _composed(self, cells: Sequence[Sequence[str]]) -> list[tuple[DictConfig, Any]]:
        """Config and options of cells, checked, with one launcher for all so far."""
        assert self.config is not None
        found = self._checked(cells)
        every = {cell: config for cell, (config, _) in self._checked_cells.items()}
        with read_write(self.config.hydra):
            self.config.hydra.launcher = _agreed_launcher(list(every), list(every.values()))
        return found

    def _checked(self, cells: Sequence[Sequence[str]]) -> list[tuple[DictConfig, Any]]:
        """Compose and check all cells; report every error at once."""
        from lottery import studies
        from lottery.cli import explain
        from lottery.config import typed

        study = studies.of_script(self.task_function)
        wrong: dict[str, list[str]] = {}  # error -> the cells that have it
        found = []
        for overrides in cells:
            if (known := self._checked_cells.get(tuple(overrides))) is not None:
                found.append(known)
                continue
            try:
                config = self._composition(overrides)
                options = typed(config)
                errors = study.check(options)
                if getattr(options, "profile", False):
                    errors.append("profile=true measures one configuration: leave out -m")
                if options.search != self._search:
                    errors.append("one search asks for all cells of a sweep: do not sweep it")
                found.append((config, options))
            except Exception as failure:
                message = explain(failure)
                if message is None:
                    raise
                errors = [message]
            for error in errors:
                wrong.setdefault(error, []).append(" ".join(overrides))
        if wrong:
            lines = [
                f"  {error}  [{jobs[0]}{f' and {len(jobs) - 1} more' if jobs[1:] else ''}]"
                for error, jobs in wrong.items()
            ]
            raise ConfigCompositionException("\n".join(["nothing was launched:", *lines]))
        self._checked_cells |= zip(map(tuple, cells), found, strict=True)
        every = [options for _, options in self._checked_cells.values()]
        _check_agreed(every, ("paths.", "sweep.", *study.read_once))
        return found

    def _composition(self, overrides: Sequence[str]) -> DictConfig:
        """What Hydra composes from the overrides, sooner.

        Hydra reads every YAML file again for each cell, a tenth of a second. Cells that differ in
        plain values only are copies of one that it composed; any doubt is left to Hydra.
        """
        from lottery.choices import as_group

        overrides = [as_group(o) for o in overrides]  # of a file, a proposer, or one of a sweep
        assert self.hydra_context is not None
        assert self.config is not None
        loader = self.hydra_context.config_loader
        parsed = [self._parsed(o) for o in overrides]
        plain = {o.key_or_group: o.value() for o in parsed if self._is_plain(o)}
        others = [str(o.input_line) for o in parsed if o.key_or_group not in plain]
        kin = (tuple(others), tuple(plain))
        if kin in self._composed_kin:
            config = copy.deepcopy(self._composed_kin[kin])
            try:
                for key, value in plain.items():
                    OmegaConf.update(config, key, value, merge=True)
            except OmegaConfBaseException:
                pass  # Hydra says it better
            else:
                task = [o.input_line for o in parsed if not o.is_hydra_override()]
                config.hydra.overrides.task = task
                naming = config.hydra.job.config.override_dirname
                config.hydra.job.override_dirname = get_overrides_dirname(
                    [o for o in parsed if not o.is_hydra_override()],
                    naming.exclude_keys, naming.item_sep, naming.kv_sep,
                )  # fmt: skip
                return config
        config = loader.load_sweep_config(self.config, list(overrides))
        self._composed_kin[kin] = copy.deepcopy(config)
        return config

    def _is_plain(self, override: Override) -> bool:
        """Whether it sets an existing option of the study to a value, and does nothing else."""
        assert self.config is not None
        special = override.is_add() or override.is_force_add() or override.is_delete()
        if special or override.package is not None or override.is_hydra_override():
            return False
        group, _, name = override.key_or_group.rpartition(".")
        parent = OmegaConf.select(self.config, group) if group else self.config
        if not isinstance(parent, DictConfig) or name not in list(parent):
            return False
        return OmegaConf.is_missing(parent, name) or not isinstance(parent[name], DictConfig)

    def _parsed(self, override: str) -> Override:
        if override not in self._overrides_parsed:
            assert self.hydra_context is not None
            parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
            (self._overrides_parsed[override],) = parser.parse_overrides([override])
        return self._overrides_parsed[override]


def _check_agreed(cells: Sequence[Any], names: tuple[str, ...]) -> None:
    """Raise :class:`ConfigCompositionException` if cells differ in an option that is read once.

    ``names`` are what the names of such options begin with.
    """
    from lottery.options import options

    values: dict[str, dict[str, None]] = {}  # of each option, in order
    for cell in cells:
        for name, _, value in options(cell):
            if name.startswith(names):
                values.setdefault(name, {})[str(value)] = None
    for name, chosen in values.items():
        if len(chosen) > 1:
            raise ConfigCompositionException(
                f"nothing was launched: all cells of a sweep have the same {name}, and these "
                f"have {' and '.join(chosen)}: start a sweep for each"
            )


def _agreed_launcher(cells: Sequence[Sequence[str]], configs: Sequence[DictConfig]) -> DictConfig:
    """The launcher that all cells choose: an experiment that is swept may override it.

    Raises :class:`ConfigCompositionException` if they differ.
    """
    kinds: dict[str, int] = {}
    for number, config in enumerate(configs):
        kinds.setdefault(json.dumps(_plain(config.hydra.launcher), sort_keys=True), number)
    if len(kinds) > 1:
        common = set.intersection(*map(set, cells))
        chosen = [
            {"hydra/launcher": configs[n].hydra.runtime.choices.get("hydra/launcher")}
            | {f"hydra.launcher.{k}": v for k, v in _plain(configs[n].hydra.launcher).items()}
            for n in kinds.values()
        ]
        lines = []
        for number, options in zip(kinds.values(), chosen, strict=True):
            own = " ".join(o for o in cells[number] if o not in common)
            odd = (k for k in options if any(options[k] != other.get(k) for other in chosen))
            name = next(odd)  # the preset, if that is what differs
            lines.append(f"  {own}: {name}={options[name]}")
        raise ConfigCompositionException(
            "nothing was launched: one launcher runs all cells of a sweep, and these differ:\n"
            + "\n".join(lines)
            + "\nsweep them one by one, or choose for all with hydra/launcher=..."
        )
    agreed: DictConfig = configs[0].hydra.launcher
    return copy.deepcopy(agreed)


def _plain(config: DictConfig) -> dict[str, Any]:
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    return plain


def _expanded(override: Override) -> Override:
    from lottery.errors import LotteryError
    from lottery.sweep.progression import ELLIPSIS, expand

    sweep = override.value()
    if not isinstance(sweep, ChoiceSweep) or ELLIPSIS not in sweep.list:
        return override
    try:
        values = expand(override.get_key_element(), [str(v) for v in sweep.list])
    except LotteryError as error:
        raise ConfigCompositionException(str(error)) from None
    log.info("%s=%s", override.get_key_element(), ",".join(values))
    choices: list[Any] = list(values)
    return replace(override, _value=replace(sweep, list=choices))
