"""The schema of every config group: types, ranges, one-line docs. The contract with ``conf/``.

What an option's metadata means is said in :mod:`lottery.options`.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING, DictConfig, MissingMandatoryValue, OmegaConf, open_dict

from lottery import choices
from lottery.errors import ConfigError
from lottery.options import option
from lottery.points import START, Point

if TYPE_CHECKING:
    from lottery.data.sources import Source


def _is(**values: str) -> Callable[[Any], bool]:
    """Whether a group has these values: for ``only``."""
    return lambda group: all(getattr(group, name) == value for name, value in values.items())


LONGEST_SIDE = 2**16  # pixels; of more, the sizes of tensors overflow


@dataclass(frozen=True)
class Data:
    """A labelled image set, its splits and how an image reaches the network.

    These are the options of every source, on top of which it may have its own.
    """

    source: ClassVar[str]
    """Name of the choice."""
    code: ClassVar[int | str | None]
    """What identifies the code of the choice in keys, if its name is not enough."""

    validation: float = option(0.1, "share of train held out, stratified", gt=0, lt=1)
    test_fraction: float = option(
        0.2, "share cut off for test where the source has no such split", gt=0, lt=1
    )
    split_seed: int = option(0, "seed of the splits; the same for all runs of a study", ge=0)
    classes: list[int] | None = option(None, "keep these classes only, renumbered in order", ge=0)
    stored_size: int | None = option(
        None,
        "side in pixels images are resized and centre-cropped to; None: as stored",
        ge=1,
        le=LONGEST_SIDE,
    )
    image_size: int | None = option(
        None,
        "side in pixels the network sees, cropped from the stored image; None: all of it",
        ge=1,
        le=LONGEST_SIDE,
    )
    resize: int | None = option(
        None,
        "side in pixels images are resized to on the device, after the crop",
        ge=1,
        le=LONGEST_SIDE,
    )
    crop: str = option(
        "window",
        "random crop in training: a window of image_size, or a random area resized to it",
        choices=("window", "resized"),
    )
    crop_padding: int = option(
        0, "zero pixels around an image before its random crop", ge=0, le=LONGEST_SIDE
    )
    crop_area: list[float] = option(
        [0.08, 1.0],
        "crop=resized: smallest and largest share of the image taken",
        only=_is(crop="resized"),
    )
    crop_aspect: list[float] = option(
        [0.75, 1.3333],
        "crop=resized: smallest and largest width over height",
        only=_is(crop="resized"),
    )
    flip: bool = option(False, "mirror half of the training images")
    mixup: float = option(0.0, "alpha of mixup, e.g. 0.2; 0: none", ge=0)
    mean: list[float] = option([0.5], "per-channel mean of pixels scaled to [0, 1]")
    std: list[float] = option([0.5], "per-channel standard deviation of the same", gt=0)
    label_noise: float = option(
        0.0,
        "share of the training labels, of each class, that another class replaces; drawn by "
        "split_seed and the example; validation and test stay clean",
        ge=0,
        lt=1,
    )
    in_memory: bool | None = option(
        None, "hold decoded images in memory; None: if they fit memory_limit", identity=False
    )
    memory_limit: float = option(4.0, "GiB of decoded images to hold", identity=False, gt=0)

    def open(self) -> "Source":
        """What is there. Raises :class:`ConfigError` or :class:`DataError`."""
        raise NotImplementedError


@dataclass
class Trainer:
    """How long, in which batches and on what to train."""

    epochs: int = option(MISSING, "passes over the training split", ge=1)
    batch_size: int = option(
        MISSING,
        "examples per optimizer step, over all devices of all nodes; optimizer.learning_rate "
        "belongs to it, and neither is scaled by the number of devices",
        ge=1,
    )
    label_smoothing: float = option(0.0, "share of the target spread evenly", ge=0, lt=1)
    class_weights: Any = option(
        None,
        "what an example of each class counts in the loss of training: balanced (as much for each "
        "class), a list, or a dictionary as in {cat: 2, dog: 0.5}; null: all the same",
    )
    precision: str = option(
        "float32", "compute type", choices=("float32", "mixed_float16", "mixed_bfloat16")
    )
    sync_batch_norm: bool = option(
        False,
        "BatchNorm over the whole batch, not over each device's part of it",
        only=lambda t: t.strategy != "one",
    )
    strategy: str = option(
        "auto",
        "devices: one, mirrored (all GPUs of the machine), multiworker (those of all nodes of the "
        "job); auto: as many as the job has",
        identity=False,
        choices=("auto", "one", "mirrored", "multiworker"),
    )
    jit_compile: bool = option(False, "compile the step with XLA", identity=False)
    steps_per_call: int = option(
        1, "optimizer steps per call of the compiled loop; more is faster for small networks",
        identity=False, ge=1,
    )  # fmt: skip
    deterministic: bool | None = option(
        None, "bit-for-bit repeatable; None: on a CPU only, where it is cheap", identity=False
    )
    eval_batch_size: int = option(
        256, "examples per evaluation step", identity=False, ge=1, lt=2**31
    )
    validation_steps: int | None = option(
        None, "steps between measurements of validation, besides those at the end of each epoch; "
        "left in validation.csv, with the step of the lowest loss in the result",
        ge=1,
    )  # fmt: skip
    compact: bool | None = option(
        None,
        "train a network without what the mask has cut off, a smaller one that computes the same; "
        "null: where that pays",
        identity=False,
    )
    checkpoint_epochs: int = option(
        1, "epochs between checkpoints to resume from", identity=False, ge=1
    )
    measure_step: bool | None = option(
        None,
        "time a ticket's training step against the dense network's, after its training; null: "
        "after trainings of more than ten minutes and a hundred calls; never in jobs of several "
        "processes",
        identity=False,
    )


def _removes_any(mask: "Mask") -> bool:
    return mask.percentile > 0


def _is_scored(mask: "Mask") -> bool:
    """Whether a mask is made of scores, and not while a network is trained."""
    return mask.percentile > 0 and mask.during is None


@dataclass
class Mask:
    """Which weights go."""

    score: Any = option(MISSING, "how much a weight matters", kind=choices.score, only=_is_scored)
    scope: Any = option(
        MISSING, "how many weights each layer keeps", kind=choices.allocation, only=_removes_any
    )
    pattern: Any = option(
        MISSING, "which weights go together", kind=choices.pattern, only=_removes_any
    )
    at: str = option(
        "end",
        "whose weights are scored: those of the end of training, of the start (before training), "
        "or of a point in the dense network's training: 5ep, 2000it",
        only=_is_scored,
    )
    during: Any = option(
        None, "how the mask changes during training, from fresh weights; null: not at all",
        kind=choices.dynamics,
    )  # fmt: skip
    percentile: float = option(MISSING, "percent of the prunable weights to remove", ge=0, lt=100)
    rate: float | None = option(
        None,
        "iterative: percent of the survivors removed per round; None: all at once",
        gt=0,
        lt=100,
    )
    shuffle: bool = option(
        False, "permute the mask within each layer: the control that keeps layer-wise densities"
    )
    depthwise: bool = option(False, "prune depthwise kernels too")
    skip_first: bool = option(False, "leave the first prunable layer dense")
    skip_last: bool = option(False, "leave the last prunable layer dense")

    @property
    def scored(self) -> Point | None:
        """The point in the dense network's training whose weights are scored; None: its end.

        Raises :class:`ConfigError` for what is no point.
        """
        if self.at == "end":
            return None
        return START if self.at == "start" else Point.of(self.at)


@dataclass
class Logger:
    """Where metrics go besides metrics.csv."""

    name: str = option("wandb", "sink", identity=False, choices=("wandb", "csv"))
    mode: str = option(
        "offline", "wandb: send now, keep for `wandb sync`, or nothing", identity=False,
        choices=("online", "offline", "disabled"),
    )  # fmt: skip
    project: str = option("lottery", "wandb project", identity=False)
    entity: str | None = option(None, "wandb user or team", identity=False)
    group: str | None = option(None, "wandb group; None: the sweep", identity=False)
    tags: list[str] = option([], "wandb tags", identity=False)


@dataclass
class Paths:
    """Where results go."""

    outputs: str = option("outputs", "root of everything written", identity=False)
    store: str = option("${.outputs}/store", "the run store", identity=False)


@dataclass
class Verdict:
    """When a ticket counts as winning."""

    tolerance: float = option(
        1.0, "points of validation top-1 a matching ticket may lose", identity=False, ge=0, le=100
    )
    level: float | None = option(
        0.05,
        "chance, over all cells, of a winner that loses more; null: nothing is tested, the mean "
        "over the seeds decides",
        identity=False, gt=0, le=0.5,
    )  # fmt: skip


@dataclass
class Sweep:
    """How a sweep is launched."""

    dry_run: bool = option(False, "print the plan and launch nothing", identity=False)
    detach: bool = option(
        False, "SLURM: submit everything with dependencies and return", identity=False
    )
    report: bool = option(True, "write the report of prune.py's sweep at its end", identity=False)
    objective: Any = option(
        "val_top1",
        "what a job returns to a sweeper that optimises: val_top1, density (of a ticket within "
        "verdict.tolerance), density_of_kernels, or a list, [val_top1,density]",
        identity=False,
    )


@dataclass
class Transfer:
    """How a ticket is moved to another data set."""

    weights: str = option(
        "trained", "the ticket's weights to begin with: after its training, or where it began",
        choices=("trained", "rewound"),
    )  # fmt: skip
    train: str = option(
        "all", "what is trained: all weights that the mask left, or the new head alone",
        choices=("all", "head"),
    )  # fmt: skip
    rate: float = option(
        0.1,
        "fine-tuning: share of optimizer.learning_rate that weights trained before learn at; fresh "
        "ones, the new head's too, always learn at all of it",
        gt=0,
    )
    seen_images: str = option(
        "refuse",
        "test or validation images that the ticket was trained on, test images that it was judged "
        "by, or nobody can tell: refuse to run, or run and report it",
        identity=False,
        choices=("refuse", "report"),
    )
    controls: Any = option(
        "none", "runs to compare with: all, none, or a list of names", identity=False
    )
    longest: int = option(
        200, "from scratch for the same time: at most this many epochs", identity=False, ge=1
    )


@dataclass
class Training:
    """What trains a network on data, and where results go."""

    seed: int = option(0, "initialisation, data order and augmentation", ge=0, lt=2**31)
    data: Any = option(MISSING, "the images", kind=choices.source)
    model: Any = option(MISSING, "the network", kind=choices.model)
    optimizer: Any = option(MISSING, "what takes the steps", kind=choices.optimizer)
    schedule: Any = option(
        MISSING, "the learning rate over time, relative to its peak", kind=choices.schedule
    )
    augmentation: dict[str, Any] = option(
        {}, "what else happens to training images, in this order", kind=choices.augmentation
    )
    callback: dict[str, Any] = option(
        {}, "Keras callbacks of your own in every training", kind=choices.callback
    )
    search: Any = option(
        MISSING, "who asks for the cells of a sweep", kind=choices.search, identity=False
    )
    trainer: Trainer = field(default_factory=Trainer)
    plugins: list[str] = option(
        [], "modules that register choices of your own, e.g. my_lab.pruning", identity=False
    )
    logger: Logger = field(default_factory=Logger)
    paths: Paths = field(default_factory=Paths)
    sweep: Sweep = field(default_factory=Sweep)


@dataclass
class Config(Training):
    """A study: what makes a dense network, how it is pruned and judged, where results go."""

    profile: bool = option(
        False, "train.py: measure where the time of a step goes, and do not train", identity=False
    )
    mask: Mask = field(default_factory=Mask)
    rewind: Any = option(MISSING, "where the survivors start again", kind=choices.rewinding)
    verdict: Verdict = field(default_factory=Verdict)


@dataclass
class TransferConfig(Training):
    """What transfer.py does: the network is the ticket's, so ``model`` is filled in from it."""

    model: Any = option(None, "the ticket's", kind=choices.model)
    ticket: str | None = option(None, "ticket file, run folder or report", identity=False)
    transfer: Transfer = field(default_factory=Transfer)


@dataclass
class Stability:
    """How the line between two children is measured."""

    points: int = option(31, "networks on the line, its two ends among them", ge=3)
    batches: int = option(
        100,
        "training batches from which the statistics of BatchNorm are recomputed, at each point of "
        "the line; at most an epoch's",
        ge=1,
    )


@dataclass
class StabilityConfig(Config):
    """What stability.py does: a study, of which two children are trained from a rewind point."""

    ticket: str | None = option(
        None, "ticket file, run folder or report whose mask the children have", identity=False
    )
    stability: Stability = field(default_factory=Stability)


DENSE = (
    "seed", "data", "model", "optimizer", "schedule", "augmentation", "callback", "trainer",
)  # fmt: skip
"""The parts of a config that determine a training from fresh weights."""


def typed(config: DictConfig) -> Any:
    """The dataclass instance of a config that Hydra composed, interpolations resolved.

    Raises :class:`ConfigError` for a value that is missing, for keys that the schema does not have,
    added with ``+``, for options that a choice does not have, and for a plug-in that cannot be
    imported.
    """
    config = config.copy()
    with open_dict(config):
        config.pop("hydra", None)
    choices.load_plugins(config.get("plugins") or ())
    if extra := list(_extra_keys(config)):
        raise ConfigError(f"option {extra[0]} is unknown")
    try:
        return _with_choices(OmegaConf.to_object(config))
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} has no value") from None


def _with_choices(group: Any) -> Any:
    """The group with a choice where a config, or JSON, has the values of one."""
    for f in dataclasses.fields(group):
        value = getattr(group, f.name)
        if (kind := f.metadata.get("kind")) and value is not None:
            setattr(group, f.name, kind.all_of(value) if kind.several else kind.of(value))
        elif dataclasses.is_dataclass(value):
            _with_choices(value)
    return group


def _extra_keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    schema = OmegaConf.get_type(config)
    if not dataclasses.is_dataclass(schema):  # a free dictionary, such as mask.scope.factors
        return
    known = {f.name for f in dataclasses.fields(schema)}
    for key in map(str, config):
        if key not in known:
            yield f"{prefix}{key}"
        elif isinstance(child := config._get_node(key), DictConfig):
            yield from _extra_keys(child, f"{prefix}{key}.")
