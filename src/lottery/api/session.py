"""The scripts' commands, inside a running Python: the same configs, jobs, sweeps and results.

What a script does is done by the same code, so that keys, results and reports are the same. Hydra
composes the options; what it sets in the process is put back afterwards.
"""

import contextlib
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from lottery import choices, cli, studies
from lottery.errors import ConfigError, LotteryError

STUDIES = {"dense": "train", "ticket": "prune", "grid": "prune", "transfer": "transfer"}
"""What the methods of ``lottery.Study`` ask for."""

_CONF = Path(__file__).parents[3] / "conf"


def told(method: str, common: Sequence[str], own: Sequence[str], outputs: str) -> Path:
    """The output folder of what a method of ``lottery.Study`` asks for, with these overrides.

    ``method`` is one of :data:`STUDIES`. The ``common`` overrides go into a primary config of their
    own, so that logs and results name what is asked for, the ``own`` ones, alone. Raises
    :class:`LotteryError` for what the scripts print as one line.
    """
    study = STUDIES[method]
    known, sweep = studies.find(study), method == "grid"

    def task(config: DictConfig) -> Any:
        return cli.job(config, known)

    task.study = known  # type: ignore[attr-defined]
    folder = Path(outputs, study, datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")).resolve()
    place = "hydra.sweep.dir" if sweep else "hydra.run.dir"
    common, own = ([cli.as_hydra_takes_it(o) for o in overrides] for overrides in (common, own))
    cli.load_plugins([*common, *own])
    arguments = [*own, f"{place}={cli.quoted(str(folder))}"]
    with _hydra(f"{studies.IN_PYTHON}{method}", own) as hydra, _one_line(known.schema):
        command = hydra.multirun if sweep else hydra.run
        # prune.py reads config.yaml, train.py what it adds to that.
        command(_primary({"prune": "config"}.get(study, study), common), task, arguments)
    return folder


def _primary(base: str, overrides: Sequence[str]) -> str:
    """The name of a primary config that is ``base`` with these overrides.

    Raises :class:`ConfigError` for one that does more than choose or set.
    """
    defaults: list[Any] = [base]
    values = OmegaConf.create()
    parser = OverridesParser.create()
    for parsed in parser.parse_overrides(list(overrides)):
        name = parsed.key_or_group
        special = parsed.is_add() or parsed.is_force_add() or parsed.is_delete()
        if special or parsed.package or parsed.is_sweep_override():
            raise ConfigError(
                f"{parsed.input_line} is no value for a whole study: give it to its dense(), "
                "ticket(), grid() or search()"
            )
        if (_CONF / name).is_dir() or any(kind.group == name for kind in choices.KINDS):
            defaults.append({f"override {name}": parsed.value()})
        else:
            OmegaConf.update(values, name, parsed.value(), force_add=True)
    content = json.dumps([defaults, OmegaConf.to_container(values)], sort_keys=True)
    unique = f"study_{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    node = {"defaults": [*defaults, "_self_"], **values}
    ConfigStore.instance().store(name=unique, node=node)
    return unique


def tool(
    name: str, act: Callable[[DictConfig], Any], schema: type, overrides: Sequence[str]
) -> None:
    """Run what a script without a study does, such as export.py; ``schema`` is of its options."""
    with _hydra(name, overrides) as hydra, _one_line(schema):
        config = hydra.compose_config(name, list(overrides), run_mode=RunMode.RUN)
        with open_dict(config):
            del config["hydra"]
        act(config)


def value(option: str, given: Any) -> str:
    """An override that gives an option a value: a number, a text, a list, True, False or None."""
    return f"{option}={_written(given)}"


def values(option: str, given: Sequence[Any]) -> str:
    """An override that sweeps an option over values."""
    return f"{option}={','.join(map(_written, given))}"


def offer(kind: choices.Kind, name: str, options: dict[str, Any]) -> str:
    """An override that chooses ``name`` with these options, however long they are.

    Hydra's grammar would read them letter by letter.
    """
    node = kind.node(name)
    node.update(options)
    content = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
    unique = f"{name}_{content[:12]}"
    ConfigStore.instance().store(group=kind.group, name=unique, node=node)
    return f"{kind.group}={unique}"


def _written(given: Any) -> str:
    if isinstance(given, np.generic):
        given = given.item()
    if given is None:
        return "null"
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, list | tuple):
        return f"[{','.join(map(_written, given))}]"
    return cli.quoted(given) if isinstance(given, str) else repr(given)


@contextlib.contextmanager
def _hydra(name: str, overrides: Sequence[str] = ()) -> Iterator[Hydra]:
    """A Hydra of this project's configs, whether or not the process has one of its own.

    ``name`` and ``overrides`` are noted as what was typed.
    """
    if not _CONF.is_dir():
        raise ConfigError(f"there are no configs in {_CONF}: install from the repository, with -e")
    own, typed = Singleton._instances.copy(), sys.argv
    for kind in (GlobalHydra, HydraConfig):
        Singleton._instances.pop(kind, None)
    sys.argv = [name, *overrides]
    try:
        with _own_logging(), _own_precision():
            yield Hydra.create_main_hydra2(name, create_config_search_path(str(_CONF)))
    finally:
        sys.argv = typed
        for kind in (GlobalHydra, HydraConfig):
            Singleton._instances.pop(kind, None)
            if kind in own:
                Singleton._instances[kind] = own[kind]


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Hide the caller's handlers: Hydra configures logging, which closes all that there are."""
    root = logging.getLogger()
    level, handlers, every = root.level, list(root.handlers), list(logging._handlerList)  # type: ignore[attr-defined]
    logging._handlerList.clear()  # type: ignore[attr-defined]
    root.handlers.clear()
    try:
        yield
    finally:
        for handler in list(root.handlers):
            handler.close()
        root.handlers[:] = handlers
        logging._handlerList[:] = every  # type: ignore[attr-defined]
        root.setLevel(level)


@contextlib.contextmanager
def _own_precision() -> Iterator[None]:
    """Put back the precision in which Keras builds layers, which a training sets."""
    before = sys.modules["keras"].config.dtype_policy() if "keras" in sys.modules else None
    try:
        yield
    finally:
        if "keras" in sys.modules:
            sys.modules["keras"].config.set_dtype_policy(before or "float32")


@contextlib.contextmanager
def _one_line(schema: type) -> Iterator[None]:
    """Errors that a user can fix as :class:`LotteryError` of one line; others as they are."""
    try:
        yield
    except cli.PastHydra as carrier:
        raise carrier.error from None
    except SystemExit as stopped:
        raise KeyboardInterrupt("stopped; the same call goes on from there") from stopped
    except LotteryError:
        raise
    except ConfigCompositionException as error:
        cause = error.__context__
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            raise ConfigError(cli.unknown_option(str(cause.full_key), error, schema)) from None
        if isinstance(cause, OmegaConfBaseException):  # Hydra names a file, which there is not
            raise ConfigError(f"{cause.full_key}: {str(cause).splitlines()[0]}") from None
        raise ConfigError(cli.explain(error, schema) or str(error)) from None
    except Exception as error:
        if (line := cli.explain(error, schema)) is None:
            raise
        raise ConfigError(line) from error
