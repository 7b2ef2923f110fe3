"""The value: a sparse network's description, mask and weights, and where it came from."""

import functools
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lottery import choices, files, provenance
from lottery.choices.code import shipped
from lottery.errors import ConfigError, TicketError
from lottery.models.loading import misfit, with_weights
from lottery.points import START
from lottery.pruning import masks
from lottery.runs import Run

if TYPE_CHECKING:
    import keras

Array = np.ndarray[Any, Any]
WEIGHTS = ("trained", "rewound")


@dataclass(frozen=True)
class Network:
    """How :func:`lottery.models.build` makes the network."""

    name: str
    input_shape: tuple[int, ...]
    """(height, width, channels); of examples that are no images, their shape."""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def choice(self) -> Any:
        """The choice of ``model`` that it is. Raises :class:`ConfigError` if there is none."""
        return choices.model.of({"name": self.name, **self.options})


@dataclass(frozen=True, eq=False)
class Ticket:
    """A pruned network that can be loaded, transferred and exported anywhere.

    ``mask`` is True where a weight survives, by the path of its variable. ``trained`` and
    ``rewound`` hold all variables, pruned weights being exactly zero: after the last epoch, and at
    the point where the sparse network's training began. If its mask changed as it was trained, both
    are pruned by the last one.
    """

    network: Network
    classes: tuple[str, ...]
    """Names by output."""
    mean: tuple[float, ...]
    """Of pixels scaled to [0, 1]: inputs are ``(pixels / 255 - mean) / std``; one value, or one per
    channel."""
    std: tuple[float, ...]
    mask: Mapping[str, Array]
    trained: Mapping[str, Array]
    rewound: Mapping[str, Array]
    provenance: Mapping[str, Any]
    """JSON values: keys of the runs, resolved config, versions, results."""

    @property
    def description(self) -> dict[str, Any]:
        """What the network is, as JSON values."""
        return {
            "network": {**asdict(self.network), "input_shape": list(self.network.input_shape)},
            "classes": list(self.classes),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the description, the mask and both sets of weights: which ticket it is.

        Where and when it was found does not matter to it.
        """
        content = hashlib.sha256(json.dumps(self.description, sort_keys=True).encode())
        for name in ("mask", *WEIGHTS):
            arrays: Mapping[str, Array] = getattr(self, name)
            for path in sorted(arrays):
                array = np.ascontiguousarray(arrays[path])
                content.update(f"{name}/{path} {array.dtype} {array.shape}".encode())
                content.update(array.tobytes())
        return content.hexdigest()

    @property
    def pristine(self) -> bool:
        """Whether the ``rewound`` weights have never been trained: those of an initialisation."""
        return bool(self.provenance["pristine"])

    @property
    def density(self) -> float:
        """The share of the prunable weights that survive."""
        size = sum(m.size for m in self.mask.values())
        return sum(int(np.count_nonzero(m)) for m in self.mask.values()) / size if size else 1.0

    @property
    def computed_share(self) -> float:
        """The share of its network's multiply-adds that its own training computed; 1 if unknown."""
        result = self.provenance.get("results", {}).get("ticket", {})
        work = result.get("multiply_adds")
        return float(work["computed"] / work["network"]) if work else 1.0

    @property
    def key(self) -> str:
        """Key of the run that made it: where it was found, or moved to other data."""
        runs = self.provenance["runs"]
        return str(runs.get("transfer", runs["ticket"]))

    @property
    def data(self) -> str:
        """The data set that it was found on, for people."""
        return str(self.provenance["data"])

    def summary(self, file: str | None) -> dict[str, Any]:
        """Which ticket it is and the ``file`` it was read from: JSON values for results."""
        return {
            "key": self.key,
            "digest": self.digest,
            "file": file,
            "density": self.density,
            "network": self.network.name,
            "data": self.data,
            "classes": len(self.classes),
        }

    @property
    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation, one value for each channel."""
        channels = self.network.input_shape[-1]
        mean, std = (list(v) * (channels if len(v) == 1 else 1) for v in (self.mean, self.std))
        return mean, std

    def normalised(self, pixels: Array) -> Array:
        """What :meth:`model` takes, float32, from pixels 0 to 255 [..., C]."""
        mean, std = (np.array(v) for v in self.statistics)
        scale, shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
        return np.asarray(np.asarray(pixels, np.float32) * scale + shift)

    def weights(self, which: str) -> Mapping[str, Array]:
        """All variables by path, ``trained`` or ``rewound``.

        Raises :class:`TicketError` for another word.
        """
        if which not in WEIGHTS:
            raise TicketError(f"a ticket has {' and '.join(WEIGHTS)} weights, not {which}")
        weights: Mapping[str, Array] = getattr(self, which)
        return weights

    def model(self, weights: str = "trained") -> "keras.Model":
        """The network in Keras: normalised images (batch, height, width, channels) to logits.

        Pruned weights are exactly zero; nothing keeps them so in further training (transfer.py
        does). Raises :class:`TicketError` if this version of the program builds another network
        under that name.
        """
        arrays = self.weights(weights)

        def check(network: "keras.Model") -> None:
            check_fit(network, arrays, self, all_variables=True)
            check_fit(network, self.mask, self)

        shape, classes = self.network.input_shape, len(self.classes)
        try:
            return with_weights(lambda: self.network.choice, shape, classes, arrays, check)
        except ConfigError as error:
            raise TicketError(f"the ticket's network cannot be built: {error}") from error

    @property
    def pattern(self) -> Any:
        """The choice of ``mask.pattern`` that its mask has.

        Raises :class:`ConfigError` for one of a plug-in that is not here.
        """
        return choices.pattern.of(self.provenance["mask"].get("pattern", {"name": "weight"}))

    @property
    def plugins(self) -> tuple[str, ...]:
        """The modules that brought choices to the run that made it, to be typed as ``plugins=``."""
        return tuple(self.provenance.get("plugins", ()))

    def check_known(self, *kinds: choices.Kind) -> None:
        """Raise :class:`TicketError` unless its choices of these kinds are known here.

        Kinds are those of the network, the pattern of its mask and the source of its data.
        """
        recorded = self.provenance.get("config", {}).get("data", {})
        names = {
            choices.model.group: self.network.name,
            choices.pattern.group: self.provenance["mask"].get("pattern", {}).get("name"),
            choices.source.group: recorded.get(choices.source.key),
        }
        for kind in kinds:
            name = names[kind.group]
            if name is not None and name not in kind.names() and self.plugins:
                raise TicketError(
                    f"the ticket has {kind.group}={name}, which is unknown without the plug-in it "
                    f"came from: add plugins=[{','.join(self.plugins)}]"
                )

    @property
    def made_with(self) -> str:
        """The versions that it was made with, for messages."""
        versions = self.provenance.get("versions", {})
        known = ", ".join(f"{k} {v}" for k, v in versions.items() if k in ("lottery", "keras"))
        return f"it was made with {known}" if known else "it does not say what it was made with"


def check_fit(
    network: "keras.Model",
    arrays: Mapping[str, Array],
    ticket: Ticket,
    *,
    but: Collection[str] = (),
    all_variables: bool = False,
) -> None:
    """Raise :class:`TicketError` unless arrays of a ticket belong to the variables of a network.

    ``but`` and ``all_variables`` are those of :func:`lottery.models.loading.misfit`.
    """
    if path := misfit(network, arrays, but=but, all_variables=all_variables):
        raise TicketError(
            f"the ticket does not fit {ticket.network.name} as this version of lottery builds it, "
            f"beginning with {path}; {ticket.made_with}"
        )


def of_run(run: Run) -> Ticket:
    """The ticket of a finished run in the store.

    Raises :class:`TicketError` for a run without a mask, or whose dense network is not trained yet,
    :class:`CheckpointError` if its weights cannot be read, and :class:`FileNotFoundError` if there
    is no run.
    """
    kind = run.kind
    if kind == "mask" or not run.mask:
        raise TicketError(f"{run.path} is no ticket, but a {kind}: it is not a network with a mask")
    dense = run.parent if kind == "ticket" else None
    if dense is not None and not (dense.path / "done.json").exists():
        raise TicketError(
            f"the dense network {dense.path} of the ticket {run.key} is not trained yet: the "
            "command that trained the ticket goes on to it"
        )
    config = run.config
    # Where its first weights came from is no part of a network.
    model = {name: value for name, value in config["model"].items() if name != "weights"}
    data = config["data"]
    return Ticket(
        network=Network(model.pop("name"), run.input_shape, model),
        classes=run.classes,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        mask=run.mask,
        trained=run.weights(),
        rewound=_begun(run),
        provenance=_provenance(run),
    )


def _needs_training(run: Run) -> bool:
    """Whether mask or weights came from a trained network, to which it is not compared alone."""
    start = files.read_json(run.path / "start.json")
    if not start.get("initial", start["pristine"]):
        return True
    store, mask = run.path.parent.parent, _identity(run.path)["mask"]
    about = None if mask is None else _identity(store / "mask" / mask)
    if about is not None and "shuffled" in about:
        about = _identity(store / "mask" / about["shuffled"])
    return about is not None and "initial" not in about  # None: of a mask that changes


def _identity(node: Path) -> dict[str, Any]:
    identity: dict[str, Any] = files.read_json(node / "done.json")["identity"]
    return identity


def _pristine(run: Run) -> bool:
    return bool(files.read_json(run.path / "start.json")["pristine"])


def _begun(run: Run) -> Mapping[str, Array]:
    """The weights that a training began with, those that its last mask prunes being zero."""
    during = run.config.get("mask", {}).get("during")
    if during is None:
        return run.weights(run.points[0])
    # Its first mask was another. What it pruned then is known of the dense network, which began
    # with the same weights.
    assert run.parent is not None
    return masks.apply(run.mask, run.parent.weights(START), lambda path: path)


def data_name(data: Mapping[str, Any]) -> str:
    """A data config for people: ``digits, classes 0 1 2``."""
    name = str(data.get("name") or data["source"])
    classes = data.get("classes")
    return f"{name}, classes {' '.join(map(str, classes))}" if classes else name


def _provenance(run: Run) -> dict[str, Any]:
    if run.kind == "transfer":
        return _moved(run)
    ancestors = run.ancestors
    found_with = [*ancestors, run] if _needs_training(run) else [run]
    return {
        "runs": {"dense": ancestors[0].key, "rounds": [r.key for r in ancestors[1:]]}
        | {"ticket": run.key},
        **_facts(run),
        "seen": images_seen(run),
        "results": {"dense": ancestors[0].result, "ticket": run.result},
        # What finding it cost: dense training and every round, if it needed them, and its own.
        "seconds": sum(r.result["seconds"] for r in found_with),
    }


def _moved(run: Run) -> dict[str, Any]:
    """Of a ticket that was moved to another data set: the ticket before is part of it."""
    origin = files.read_json(run.path / "origin.json")
    before = origin["ticket"]
    return {
        "variant": origin["variant"],
        "runs": {**before["runs"], "transfer": run.key},
        **_facts(run),
        "moved_from": before["data"],
        "seen": images_seen(run),
        "results": {"ticket": run.result},
        "seconds": before["seconds"] + run.result["seconds"],
    }


def images_seen(run: Run) -> list[dict[str, Any]]:
    """The data that a run was trained on and judged by: how to find it, and to know it again.

    Before its own that of the ticket that was moved, and of the weights that its dense network
    began with.
    """
    file = (run if run.kind == "transfer" else run.parent or run).path / "origin.json"
    origin = files.read_json(file) if file.exists() else {}
    before = origin.get("ticket", origin).get("seen", [])
    return [*before, {"data": run.config["data"], "fingerprint": run.fingerprint}]


def plugins_of(config: Mapping[str, Any]) -> list[str]:
    """The modules that were typed; else those of choices that an installed package brought."""
    if config.get("plugins"):
        return list(config["plugins"])
    chosen = (
        (choices.model, config["model"]),
        (choices.pattern, config["mask"]["pattern"] if "mask" in config else {}),
        (choices.source, config["data"]),
    )
    found = set()
    for kind, values in chosen:
        name = str(values.get(kind.key))
        cls = kind.registered.get(name)
        if getattr(cls, "code", None) is not None and not shipped(kind.group, name):
            found.add(str(cls.__module__))
    return sorted(found)


def _facts(run: Run) -> dict[str, Any]:
    attempts = files.read_json(run.path / "provenance.json")
    mask = files.read_json(run.path / "mask.json")
    versions = {k: attempts[-1][k] for k in ("revision", "python", "tensorflow", "keras", "numpy")}
    return {
        "data": data_name(run.config["data"]),
        "config": run.config,
        "plugins": plugins_of(run.config),
        "versions": {"lottery": provenance.version(), **versions},
        "mask": {k: v for k, v in mask.items() if k != "layers"},
        "rewound_to": str(run.points[0]),
        "pristine": _pristine(run),
    }
