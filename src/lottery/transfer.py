"""A ticket on another data set, and the runs that it has to be compared with.

The network gets a new head for the new classes; its mask stays, exactly zero throughout. Weights
that were trained before are fine-tuned at a low learning rate; fresh ones, a new head's or a
control's, get the full one: a control that is held down proves nothing. Images are normalised as
the ticket's were, and resized on the device to what it takes, in every run alike. Each run is a
node of the store.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from lottery import choices, files
from lottery.config import Transfer, TransferConfig
from lottery.data import crop_size, describe, is_square_image
from lottery.data.overlap import overlap
from lottery.data.splits import steps_per_epoch
from lottery.errors import ConfigError, DataError, DivergedError, TicketError
from lottery.lineage import Lineage, code_of, source, training_identity
from lottery.models.cost import whole
from lottery.options import bound_errors, did_you_mean, identity
from lottery.pruning import masks
from lottery.pruning.units import needs_ties
from lottery.rewinding import Start, fresh_seed
from lottery.runs import Run
from lottery.store import Node, Store
from lottery.studies.transfer import Moved
from lottery.tickets import Ticket, asked_for, check_fit
from lottery.tickets.ticket import data_name
from lottery.trainings import (
    Attempt,
    Laboratory,
    Sparse,
    from_start,
    load_data,
    trained,
    training_module,
)

log = logging.getLogger(__name__)

TITLES = {
    "ticket": "ticket",
    "fresh": "mask, fresh weights",
    "random": "random mask, fresh",
    "dense": "dense, fine-tuned",
    "scratch": "scratch, same epochs",
    "scratch_time": "scratch, same time",
}
CONTROLS = tuple(name for name in TITLES if name != "ticket")


@dataclass(frozen=True)
class Variant:
    """One of the runs: what it starts from, and how it is trained."""

    name: str
    config: TransferConfig
    start: Mapping[str, Any]
    """What determines the start, besides the config; JSON values."""
    weights: Callable[[], Mapping[str, Any] | None]
    mask: masks.Mask
    head_only: bool = False
    head_rate: float = 1.0
    """How much faster the head learns than the rest."""
    seed: int | None = None
    """Of the initial weights; None: that of the config."""
    pristine: bool = True
    """Whether no weight that it starts from has been trained before."""
    shuffled: bool = False
    """Whether the mask is permuted within each layer, in its own pattern."""

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the run."""
        return {**training_identity(self.config), "start": dict(self.start)}

    def node(self, store: Store) -> Node:
        """Its place in the store."""
        return store.node("transfer", self.identity)


def transfer(config: TransferConfig, lab: Laboratory) -> dict[str, Any]:
    """Move the ticket of a config to the config's data, with the controls it asks for.

    Returns what ``result.json`` has. Raises :class:`TicketError` for a ticket that cannot be had,
    and :class:`ConfigError` where it does not fit the data.
    """
    ticket = asked_for(config.ticket, config.paths.outputs)
    config = fitted(config, ticket)
    seen = seen_images(config, ticket)
    wanted = ["ticket", *controls(config.transfer)]
    runs: dict[str, Run] = {}
    rows = []

    def left_out(name: str, reason: str) -> None:
        log.warning("%s: %s", TITLES[name], reason)
        rows.append({"name": name, "title": TITLES[name], "missing": reason})

    for name in wanted:
        if reason := _impossible(name, ticket, lab.store, runs):
            left_out(name, reason)
            continue
        of_time = _affordable(config, ticket, runs) if name == "scratch_time" else None
        variant = make(name, config, ticket, lab.store, epochs=of_time)
        if of_time is not None and (reason := _too_short(variant.config)):
            left_out(name, reason)
            continue
        try:
            runs[name] = _run(variant, ticket, lab)
        except DivergedError as error:
            if name == "ticket":
                raise
            left_out(name, str(error))
        else:
            rows.append(_row(variant, runs[name]))
    return Moved(
        ticket=ticket.summary(config.ticket),
        data={
            "name": describe(config.data).name,
            "classes": list(describe(config.data).classes),
        },
        transfer={
            "weights": config.transfer.weights,
            "train": config.transfer.train,
            "epochs": config.trainer.epochs,
            "seed": config.seed,
        },
        seen=seen,
        runs=rows,
        store=str(lab.store.root.resolve()),
    ).written()


def controls(options: Transfer) -> list[str]:
    """The names of the controls asked for, in the order in which they can be run.

    Raises :class:`ConfigError` for an unknown one.
    """
    wanted = options.controls
    names = [str(n) for n in (wanted if isinstance(wanted, list) else [wanted])]
    if names in (["none"], ["None"]):
        return []
    if names == ["all"]:
        return list(CONTROLS)
    for name in names:
        if name not in CONTROLS:
            hint = did_you_mean(str(name), ("all", "none", *CONTROLS))
            raise ConfigError(f"transfer.controls={name} is unknown{hint}")
    if "scratch_time" in names and "scratch" not in names:
        names.append("scratch")  # which tells how long an epoch takes
    return [name for name in CONTROLS if name in names]


def fitted(config: TransferConfig, ticket: Ticket) -> TransferConfig:
    """The config with the ticket's network, its normalisation, and images of the size it takes.

    Raises :class:`ConfigError` if the images have other channels, or the network no square ones.
    """
    resize = _resize(config, ticket)
    return replace(
        config,
        model=ticket.network.choice,
        data=replace(
            config.data, mean=list(ticket.mean), std=list(ticket.std), resize=resize
        ),
    )  # fmt: skip


def _resize(config: TransferConfig, ticket: Ticket) -> int | None:
    """Side in pixels to which the images must be resized; None if they are as the ticket takes."""
    takes, found = ticket.network.input_shape, describe(config.data)
    before = ticket.provenance["seen"][-1]["fingerprint"].get("dtype", "uint8")
    if (now := found.fingerprint.get("dtype", "uint8")) != before:
        raise ConfigError(
            f"the ticket was found on {before} examples ({ticket.data}), and {found.name} has "
            f"{now}: give them in the same type and units"
        )
    if found.image_shape[-1] != takes[-1]:
        channels = takes[-1]
        raise ConfigError(
            f"the ticket takes images with {channels} channel{'s' * (channels > 1)} "
            f"({ticket.network.name}, found on {ticket.data}), and {found.name} has "
            f"{found.image_shape[-1]}"
        )
    if is_square_image(takes) and is_square_image(found.image_shape):
        return None if crop_size(config.data, found.image_shape) == takes[0] else takes[0]
    if found.image_shape != takes:
        shape = "x".join(map(str, takes))
        raise ConfigError(
            f"the ticket takes examples of shape {shape}, and {found.name} has "
            f"{'x'.join(map(str, found.image_shape))}: only square images are resized"
        )
    return None


def make(
    name: str, config: TransferConfig, ticket: Ticket, store: Store, *, epochs: int | None = None
) -> Variant:
    """One of the runs of a :func:`fitted` config; ``epochs`` if not those of the config."""
    options, seed = config.transfer, config.seed
    pristine = name == "ticket" and options.weights == "rewound" and ticket.pristine
    head_only = options.train == "head"
    rate = 1.0 if pristine or head_only else options.rate
    low = replace(
        config,
        optimizer=replace(config.optimizer, learning_rate=config.optimizer.learning_rate * rate),
    )
    head_rate = 1 / rate  # which brings it back to the full learning rate
    how = {"train": options.train, "head_rate": head_rate}
    which = masks.digest(ticket.mask)
    fresh = fresh_seed(seed)  # not that of the dense network in which the mask was found
    if name == "ticket":
        about: dict[str, Any] = {"ticket": ticket.digest, "weights": options.weights, **how}
        weights = ticket.weights(options.weights)
        return Variant(
            name, low, about, lambda: weights, ticket.mask, head_only, head_rate, pristine=pristine
        )
    if name == "dense":
        parent = dense_parent(ticket, store)
        about = {"dense": parent.key, **how}
        trained_before = Run(parent.path).weights
        return Variant(name, low, about, trained_before, {}, head_only, head_rate, pristine=False)
    if name == "fresh":
        return Variant(name, config, {"mask": which}, lambda: None, ticket.mask, seed=fresh)
    if name == "random":
        pattern = ticket.pattern  # which draws the mask
        about = {"mask": which, "shuffled": seed, "pattern": identity(pattern)}
        about |= code_of(pattern=pattern)
        return Variant(name, config, about, lambda: None, ticket.mask, seed=fresh, shuffled=True)
    if epochs is not None:
        config = replace(config, trainer=replace(config.trainer, epochs=epochs))
    return Variant(name, config, {}, lambda: None, {})


def dense_parent(ticket: Ticket, store: Store) -> Node:
    """The dense network that the ticket was found in; it need not be in the store."""
    key = str(ticket.provenance["runs"]["dense"])
    return Node("dense", key, store.root / "dense" / key)


def lineage(config: TransferConfig, store: Store) -> Lineage:
    """The runs of a transfer, for the plan of a sweep.

    How many epochs fit into the same time is known only once one has been timed: until then that
    control has no name.
    """
    ticket = asked_for(config.ticket, config.paths.outputs)
    config = fitted(config, ticket)
    runs: dict[str, Run] = {}
    found, nameless = [], 0
    computed = {}
    for name in ["ticket", *controls(config.transfer)]:
        if name == "dense" and not dense_parent(ticket, store).done:
            continue
        if name == "scratch_time" and not {"ticket", "scratch"} <= set(runs):
            nameless += 1
            continue
        of_time = _affordable(config, ticket, runs) if name == "scratch_time" else None
        variant = make(name, config, ticket, store, epochs=of_time)
        if of_time is not None and _too_short(variant.config):
            continue
        node = variant.node(store)
        found.append(node)
        if name in ("ticket", "fresh"):
            computed[node.key] = ticket.computed_share
        if node.done:
            runs[name] = Run(node.path)
    parent = dense_parent(ticket, store)
    reads = (*((parent,) if parent.done else ()), *source(ticket.provenance["runs"], store))
    return Lineage(transfers=tuple(found), nameless=nameless, computed=computed, reads=reads)


def seen_images(config: TransferConfig, ticket: Ticket) -> list[dict[str, Any]]:
    """How many of the images that the config holds out the ticket has seen, and where.

    One entry for each data set that it was found on or moved to before: of ``test`` and
    ``validation`` the number of ``examples`` compared, and how many of them the ticket was trained
    on (``train``) or judged by (``validation``); or why that is not known. See
    :mod:`lottery.data.overlap` for what is compared, and what that costs.

    Raises :class:`ConfigError` if it was trained on any of them, or judged by test images, or if
    that is not known, unless ``transfer.seen_images=report``.
    """
    refused = config.transfer.seen_images == "refuse"
    entries = []
    for before in ticket.provenance["seen"]:
        name = data_name(before["data"])
        try:
            data = choices.source.of(choices.source.known_part(before["data"]))
            found = overlap(data, before["fingerprint"], config.data)
        except (DataError, ConfigError) as error:  # ConfigError: its source is not known here
            message = (
                f"whether the ticket, found with {name}, has seen images that are held out here is "
                f"not known: {error}"
            )
            if refused:
                raise ConfigError(
                    f"{message}; transfer.seen_images=report runs all the same and says so with "
                    "the result"
                ) from None
            log.warning("%s", message)
            entries.append({"data": name, "unknown": str(error)})
            continue
        entries.append({"data": name, **found.summary})
        if found.spoils and refused:
            raise ConfigError(
                f"the ticket has seen images of {describe(config.data).name} that are held out "
                f"here: {found}; choose images that are new to it (data.classes, another data "
                "set), or transfer.seen_images=report to run all the same and have them counted"
            )
    return entries


def check(config: TransferConfig) -> None:
    """Whether ticket, data and controls go together. Imports no TensorFlow.

    Raises :class:`LotteryError` for the first thing that is wrong.
    """
    names, store = controls(config.transfer), Store(config.paths.store)
    ticket = asked_for(config.ticket, config.paths.outputs)
    ticket.check_known(choices.model, choices.pattern)
    if found := bound_errors(ticket.network.choice):
        raise TicketError(f"the ticket's network cannot be: model.{found[0]}")
    fits = fitted(config, ticket)
    _check_schedule(fits)
    seen_images(fits, ticket)
    asked = config.transfer.controls != "all"
    if asked and "dense" in names and not dense_parent(ticket, store).done:
        raise TicketError(_missing_parent(ticket, store))


def _check_schedule(config: TransferConfig) -> None:
    """Whether the schedule fits the training. Raises :class:`ConfigError` if not."""
    spe = steps_per_epoch(describe(config.data).sizes["train"], config.trainer.batch_size)
    config.schedule.check(config.trainer.epochs * spe, spe)


def _too_short(config: TransferConfig) -> str | None:
    """Why as many epochs as fit into a time are too few for the schedule, if so."""
    try:
        _check_schedule(config)
    except ConfigError as error:
        epochs = config.trainer.epochs
        return f"trainer.epochs={epochs} is what that time and transfer.longest allow, but {error}"
    return None


def _run(variant: Variant, ticket: Ticket, lab: Laboratory) -> Run:
    def start() -> Start:
        """The seed and the weights, which must be those of the network that is built."""
        seed = variant.config.seed if variant.seed is None else variant.seed
        weights = variant.weights()
        if weights is not None:
            network, new = _network(variant)
            check_fit(network, weights, ticket, but=new, all_variables=True)
            weights = {path: array for path, array in weights.items() if path not in new}
        return Start(seed=seed, weights=weights, pristine=variant.pristine)

    def sparse() -> Sparse:
        """The mask without the head's part: the new head is dense."""
        network, new = _network(variant)
        check_fit(network, variant.mask, ticket, but=new)
        mask, pattern = variant.mask, ticket.pattern
        if variant.shuffled:
            from lottery.compaction.ties import ties  # which imports Keras

            tied = ties(network) if needs_ties(pattern) else None
            mask = masks.shuffle(mask, variant.config.seed, pattern=pattern, ties=tied)
        kept = {path: m for path, m in mask.items() if path not in new}
        summary = masks.summary(kept, whole(network))
        percentile = 100 * (1 - summary["density"])
        about = {"percentile": percentile, "pattern": asdict(pattern)}
        return Sparse(kept, {**about, **summary})

    def attempt() -> Attempt:
        pruned, begin = sparse() if variant.mask else None, start()
        recipe = replace(
            from_start(variant.config, begin),
            head_only=variant.head_only,
            head_rate=variant.head_rate,
        )
        return Attempt(
            begin,
            recipe,
            pruned,
            origin={
                "variant": variant.name,
                "ticket": {"digest": ticket.digest, "network": ticket.network.name}
                | {k: ticket.provenance[k] for k in ("runs", "data", "seen", "seconds")},
            },
            tags=(variant.name, variant.config.transfer.weights),
        )

    return trained(variant.config, lab, "transfer", variant.identity, attempt)


def _network(variant: Variant) -> tuple[Any, set[str]]:
    """The network that a run trains, and the paths of its new head's variables."""
    module = training_module(variant.config)
    network = module.network(variant.config, load_data(variant.config.data).description)
    return network, {v.path for v in module.models.head(network).variables}


def _row(variant: Variant, run: Run) -> dict[str, Any]:
    dense = {"density": 1.0, "density_of_kernels": 1.0}
    mask = files.read_json(run.path / "mask.json") if variant.mask else dense
    return {
        "name": variant.name,
        "title": TITLES[variant.name],
        "key": run.key,
        **{name: mask[name] for name in dense if name in mask},
        "learning_rate": variant.config.optimizer.learning_rate,
        **run.result,
    }


def _affordable(config: TransferConfig, ticket: Ticket, runs: Mapping[str, Run]) -> int:
    """Epochs from scratch in the time that finding the ticket and moving it took in all."""
    one = runs["scratch"].result
    time = ticket.provenance["seconds"] + runs["ticket"].result["seconds"]
    epochs = max(1, round(time / one["seconds"] * one["epochs"]))
    longest = config.transfer.longest
    if epochs > longest:
        log.warning(
            "%d epochs from scratch would take the time of the ticket; training %d "
            "(transfer.longest)", epochs, longest,
        )  # fmt: skip
    return int(min(epochs, longest))


def _impossible(name: str, ticket: Ticket, store: Store, runs: Mapping[str, Run]) -> str | None:
    """Why a control cannot be run, if so."""
    if name == "dense" and not dense_parent(ticket, store).done:
        return _missing_parent(ticket, store)
    if name == "scratch_time" and "scratch" not in runs:
        return "how long an epoch takes is not known: the run from scratch failed"
    return None


def _missing_parent(ticket: Ticket, store: Store) -> str:
    parent = dense_parent(ticket, store)
    return f"the ticket's dense parent {parent.key} is not in the store {store.root} (paths.store)"
