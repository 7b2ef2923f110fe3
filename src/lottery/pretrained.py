"""Weights that a study begins with instead of fresh ones: ``model.weights``. No TensorFlow here.

They come from a Keras file (``.keras``, ``.weights.h5``), a ticket, or a finished run, whose last
weights they are. Keys hold what is in them, not where they lie. They are the initialisation of a
study, epoch 0: what is rewound there goes back to them, and only controls with fresh weights
(``rewind=reinit``) do without. The head is left fresh where it is one for other classes.
"""

import functools
import hashlib
import io
import logging
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lottery import choices
from lottery.config import Training
from lottery.data import describe
from lottery.data.overlap import overlap
from lottery.errors import ConfigError, LotteryError
from lottery.rewinding import Start

log = logging.getLogger(__name__)

Arrays = Mapping[str, np.ndarray[Any, Any]]
KERAS, WEIGHTS_H5 = ".keras", ".weights.h5"
_INSIDE = "model.weights.h5"  # of a .keras file, which is a zip archive
_NOT_OF_THE_NETWORK = {"optimizer", "metrics", "compile_metrics"}  # groups of such a file
_STATE_OF_DROPOUT = "seed_generator"  # follows from the seed of the study


@dataclass(frozen=True, eq=False)
class Pretrained:
    """What a file or folder of weights holds."""

    arrays: Arrays
    by_path: bool
    """Whether they are named by the paths of variables; else as a Keras file names them: by the
    classes of the layers, and their order."""
    classes: tuple[str, ...] | None = None
    """Of its head, where that is known."""
    seen: tuple[Mapping[str, Any], ...] = ()
    """The data that they were trained on, as a ticket's provenance has it."""
    runs: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the runs that they come from, by kind, likewise."""

    @property
    def digest(self) -> str:
        """SHA-256 of the arrays with their names, and of the classes."""
        content = hashlib.sha256(repr(self.classes).encode())
        for name in sorted(n for n in self.arrays if _STATE_OF_DROPOUT not in n):
            array = np.ascontiguousarray(self.arrays[name])
            content.update(f"{name} {array.dtype} {array.shape}".encode())
            content.update(array.tobytes())
        return content.hexdigest()


def digest(place: str) -> str:
    """Which weights ``place`` holds, for keys. Raises :class:`ConfigError` if it holds none."""
    return _known(place)[0]


def runs(place: str) -> Mapping[str, Any]:
    """The runs that the weights in ``place`` come from, as :attr:`Pretrained.runs`."""
    return _known(place)[1]


def _known(place: str) -> tuple[str, Mapping[str, Any]]:
    path = Path(place).expanduser()
    try:
        file = next(f for f in (path / "done.json", path / "result.json", path) if f.exists())
    except StopIteration:
        hint = (
            ""
            if place != "imagenet"
            else (
                "; save those of Keras once, as a file: keras.applications.<network>("
                "weights='imagenet').save('imagenet.keras')"
            )
        )
        raise ConfigError(f"model.weights={place}: there is no such file or folder{hint}") from None
    status = file.stat()
    return _digest_and_runs(place, (status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=64)  # all cells of a sweep ask
def _digest_and_runs(place: str, stamp: tuple[int, ...]) -> tuple[str, Mapping[str, Any]]:
    found = read(place)
    return found.digest, found.runs


def read(place: str) -> Pretrained:
    """The weights in a Keras file, a ticket, or the folder of a run.

    Raises :class:`ConfigError` if there are none, or not finite ones.
    """
    path = Path(place).expanduser()
    try:
        found = _keras(path) if path.name.endswith((KERAS, WEIGHTS_H5)) else _ours(path)
    except LotteryError as error:
        raise ConfigError(f"model.weights={place}: {error}") from error
    for name, array in found.arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ConfigError(f"model.weights={place}: {name} has values that are not finite")
    return found


def _ours(path: Path) -> Pretrained:
    from lottery.runs import load_run
    from lottery.tickets import FILE, load_ticket
    from lottery.tickets.ticket import images_seen

    a_run = (path / "done.json").exists() or (path / "result.json").exists()
    if a_run and not (path / FILE).exists():
        run = load_run(path)
        seen = tuple(images_seen(run))
        return Pretrained(run.weights(), True, run.classes, seen, {run.kind: run.key})
    if path.is_file() and path.suffix not in (".safetensors", ".json"):
        raise ConfigError(
            f"weights are a {KERAS} or {WEIGHTS_H5} file, a ticket, or the folder of a run"
        )
    ticket = load_ticket(path)
    told = ticket.provenance
    return Pretrained(ticket.trained, True, ticket.classes, tuple(told["seen"]), told["runs"])


def _keras(path: Path) -> Pretrained:
    import h5py

    file: Any = path
    arrays = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and name.split("/")[0] not in _NOT_OF_THE_NETWORK:
            arrays[name] = np.asarray(node[()])

    try:
        if path.name.endswith(KERAS):
            with zipfile.ZipFile(path) as archive:
                file = io.BytesIO(archive.read(_INSIDE))
        with h5py.File(file, "r") as content:
            content.visititems(visit)
    except FileNotFoundError:
        raise ConfigError("there is no such file") from None
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise ConfigError(f"no Keras file, or damaged: {error}") from error
    return Pretrained(arrays, by_path=False)


def begin(config: Training) -> tuple[Start, dict[str, Any]]:
    """Where a study's dense network starts, and what there is to say of it if it is not fresh.

    Imports TensorFlow if ``model.weights`` says where from. Raises :class:`ConfigError` if what
    lies there does not fit the network.
    """
    place = config.model.weights
    if not place:
        return Start(seed=config.seed), {}
    found = read(place)
    weights, head = _fitted(config, found)
    log.info(
        "the network begins with the weights of %s%s", place,
        "" if head else "; its head, which is for other classes there, is left fresh",
    )  # fmt: skip
    about = {"file": place, "digest": found.digest, "head": "taken" if head else "fresh"}
    noted = {**about, "held_out": _held_out(config, found)} if found.seen else about
    return Start(seed=config.seed, weights=weights, pristine=False), {
        "noted": noted, "seen": list(found.seen), "runs": dict(found.runs)
    }  # fmt: skip


def _fitted(config: Training, found: Pretrained) -> tuple[Arrays, bool]:
    """The weights by path of the network's variables, and whether those of its head are there."""
    from lottery.trainings import training_module

    run = training_module(config)
    data = describe(config.data)
    network = run.network(config, data)
    arrays = found.arrays if found.by_path else _by_path(network, found.arrays)
    arrays = {path: a for path, a in arrays.items() if _STATE_OF_DROPOUT not in path}
    own = {v.path: v for v in network.variables if _STATE_OF_DROPOUT not in v.path}
    of_head = {v.path for v in run.models.head(network).variables}
    wrong = [
        f"{path} is {_shape(arrays[path]) if path in arrays else 'missing'} there and "
        f"{_shape(v)} here"
        for path, v in own.items()
        if path not in of_head and (path not in arrays or arrays[path].shape != tuple(v.shape))
    ]
    wrong += [f"{path} is there and not here" for path in sorted(set(arrays) - set(own) - of_head)]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ConfigError(
            f"model.weights={config.model.weights} does not fit model={config.model.name} for "
            f"images of {'x'.join(map(str, data.input_shape))}: {wrong[0]}{more}"
        )
    same = found.classes in (None, data.classes) and all(
        path in arrays and arrays[path].shape == tuple(own[path].shape) for path in of_head
    )
    taken = {p: a.astype(own[p].dtype) for p, a in arrays.items() if same or p not in of_head}
    return taken, same


def _by_path(network: Any, arrays: Arrays) -> Arrays:
    """Arrays named as Keras's files name them, by the paths of the network's variables.

    Which name belongs to which variable tells a file of the network itself, whose variables are
    filled with their numbers for that.
    """
    variables = list(network.variables)
    for number, variable in enumerate(variables):
        variable.assign(np.full(variable.shape, number))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"own{WEIGHTS_H5}")
        network.save_weights(file)
        own = _keras(file).arrays
    names = {name: variables[int(a.flat[0])].path for name, a in own.items() if a.size}
    return {names.get(name, name): array for name, array in arrays.items()}


def _shape(array: Any) -> str:
    return "x".join(map(str, array.shape)) or "a number"


def _held_out(config: Training, found: Pretrained) -> list[dict[str, Any]]:
    """How many of the images held out here the weights have seen, and a warning if it is any."""
    from lottery.tickets.ticket import data_name

    entries = []
    for before in found.seen:
        name = data_name(before["data"])
        try:
            data = choices.source.of(choices.source.known_part(before["data"]))
            shared = overlap(data, before["fingerprint"], config.data)
        except LotteryError as error:
            log.warning(
                "whether the weights of %s, trained on %s, have seen images that are held out "
                "here is not known: %s", config.model.weights, name, error,
            )  # fmt: skip
            entries.append({"data": name, "unknown": str(error)})
            continue
        if shared.spoils:
            log.warning(
                "the weights of %s have seen images that are held out here (%s), so accuracy says "
                "too much", config.model.weights, shared,
            )  # fmt: skip
        entries.append({"data": name, **shared.summary})
    return entries
