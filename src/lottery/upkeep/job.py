"""What store.py does: list, show, remove, collect, verify, export and import."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from lottery.config import typed
from lottery.errors import ConfigError, LotteryError, StoreError
from lottery.options import bound_errors, did_you_mean, option

if TYPE_CHECKING:  # --help must not wait for it
    from lottery.store import Store

WORDS = ("action", "what")
"""The options that are typed without their names: the first word, and those after it."""


@dataclass
class Options:
    """What store.py can be told."""

    action: str | None = option(None, "what to do")
    what: Any = option([], "keys, folders, or the part to import")
    store: str = option("outputs/store", "the run store")
    where: Any = option(None, "trainings with these config values; a list means any of them")
    to: str | None = option(None, "of export: a tar file, or a folder")
    yes: bool = option(False, "of rm and gc: remove, do not only tell")
    abandoned: float | None = option(
        None, "of gc: days after which work goes that a command could go on with", ge=0
    )
    plugins: list[str] = option([], "modules that register choices")


def register_schema() -> None:
    """Make the schema known to Hydra, for ``conf/store.yaml`` to build on."""
    ConfigStore.instance().store("store_schema", Options)


def main(config: DictConfig) -> None:
    """Do what the options say. Raises :class:`LotteryError` for bad input."""
    options: Options = typed(config)
    act = check(options)
    from lottery.store import Store
    from lottery.upkeep.inventory import opened

    store = Store(options.store) if options.action == "import" else opened(options.store)
    act(store, options, [str(word) for word in options.what])


def check(options: Options) -> "Act":
    """The function of the action. Raises :class:`ConfigError` for what cannot be meant."""
    if options.action is None:
        raise ConfigError(f"say what to do: python store.py {'|'.join(_ACTIONS)}")
    if options.action not in _ACTIONS:
        raise ConfigError(
            f"store.py {options.action} is unknown{did_you_mean(options.action, _ACTIONS)}"
        )
    if found := bound_errors(options):
        raise ConfigError("; ".join(found))
    act, takes, count = _ACTIONS[options.action]
    if not isinstance(options.what, list):
        options.what = [options.what]
    if count is not None and not count(len(options.what)):
        raise ConfigError(f"store.py {options.action} takes {takes}")
    if options.where is not None and not isinstance(options.where, dict):
        raise ConfigError("where needs options and values: 'where={model.name: resnet20, seed: 0}'")
    of = {"where": ("ls", "export"), "to": ("export",), "yes": ("rm", "gc"), "abandoned": ("gc",)}
    for name, actions in of.items():
        if getattr(options, name) not in (None, False) and options.action not in actions:
            raise ConfigError(f"{name}=… is for store.py {' and '.join(actions)}")
    if options.action == "export" and options.to is None:
        raise ConfigError("say where to: to=<file that ends in .tar or .tar.gz, or folder>")
    return act


Act = Callable[["Store", Options, Sequence[str]], None]


def _ls(store: "Store", options: Options, what: Sequence[str]) -> None:
    from lottery.upkeep import listing, printing

    rows = listing.listed(store, options.where)
    if rows:
        printing.show_rows(rows)
    printing.show_totals(store, rows)


def _show(store: "Store", options: Options, what: Sequence[str]) -> None:
    from lottery.upkeep import listing, printing

    (name,) = what
    folder = Path(name)
    if not folder.is_dir() or (folder / "done.json").exists():
        printing.show_details(store, listing.details(store, name))
        return
    keys, main_run = _of_folder(store, folder)
    if main_run is None:
        rows = listing.listed(store, keys=keys)
        printing.show_rows(rows)
        printing.show_totals(store, rows)
    else:
        printing.show_details(store, listing.details(store, main_run))


def _of_folder(store: "Store", folder: Path) -> tuple[frozenset[str], str | None]:
    """The nodes that an output folder asked for; the key of its run, if it is of one alone."""
    from lottery import studies
    from lottery.upkeep.requests import requests

    try:
        return frozenset(), studies.read_file(folder / "result.json").main.path.name
    except FileNotFoundError:
        pass
    output = str(folder.resolve())
    asked = [request for request in requests(store.root) if request.output == output]
    if not asked:
        raise StoreError(f"nobody asked the store {store.root} for anything for {folder}")
    return asked[-1].keys, None


def _rm(store: "Store", options: Options, what: Sequence[str]) -> None:
    from lottery.upkeep import printing, removal

    found = removal.remove(store, what, dry_run=not options.yes)
    printing.show_removal(found, options.yes)


def _gc(store: "Store", options: Options, what: Sequence[str]) -> None:
    from lottery.upkeep import collection, printing

    found = collection.collect(store, dry_run=not options.yes, abandoned=options.abandoned)
    printing.show_collected(found, options.yes)


def _verify(store: "Store", options: Options, what: Sequence[str]) -> None:
    from lottery.upkeep import printing, verification

    found = list(verification.verify(store))
    printing.show_checked(found)
    if damaged := [node.name for node in found if node.damage]:
        nodes = f"{len(damaged)} node{'s are' if damaged[1:] else ' is'} damaged"
        raise StoreError(
            f"{nodes}: remove what is, store.py rm {damaged[0]}, and the command that asked for it "
            "computes it again"
        )


def _export(store: "Store", options: Options, what: Sequence[str]) -> None:
    from lottery.upkeep import listing, printing, transport
    from lottery.upkeep.inventory import Inventory

    assert options.to is not None
    inventory = Inventory.of(store)
    keys = {inventory.find(name).key for name in what}
    if options.where is not None:
        keys |= {row.entry.key for row in listing.listed(store, options.where)}
    elif not what:
        keys = set(inventory.entries)
    if not keys:
        raise LotteryError(f"the store {store.root} has nothing to export")
    printing.show_moved(transport.export_part(store, keys, Path(options.to)), options.to)


def _import(store: "Store", options: Options, what: Sequence[str]) -> None:
    from lottery.upkeep import printing, transport

    (part,) = what
    printing.show_moved(transport.import_part(store, Path(part)), str(store.root))


_ACTIONS: Mapping[str, tuple[Act, str, Callable[[int], bool] | None]] = {
    "ls": (_ls, "no further word, but where={…}", lambda n: n == 0),
    "show": (_show, "one key or folder", lambda n: n == 1),
    "rm": (_rm, "the keys to remove", lambda n: n > 0),
    "gc": (_gc, "no further word, but yes=true and abandoned=<days>", lambda n: n == 0),
    "verify": (_verify, "no further word", lambda n: n == 0),
    "export": (_export, "keys or where={…}, and to=…", None),
    "import": (_import, "one tar file or folder", lambda n: n == 1),
}
