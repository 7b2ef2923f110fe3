"""A study of one's own network and data, in a notebook or a script."""

import hashlib
import inspect
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lottery import choices
from lottery.api import datasets, optimizers, session
from lottery.api.answers import Answer, Sweep
from lottery.errors import ConfigError

if TYPE_CHECKING:
    import keras

Numbers = float | Sequence[float]
OUTPUTS = "outputs"


@dataclass(frozen=True, eq=False)
class Study:
    """One network and data set, and how it is trained: what all its answers have in common.

    ``model`` is a functional or Sequential Keras network that ends in logits, a function
    ``(input_shape, classes)`` or ``()`` that makes one, or the name of a choice such as
    ``"resnet20"``. It is trained from fresh weights, which follow from the seed; with
    ``pretrained`` from those that it has.

    ``data`` are arrays ``(x, y)``, a finite ``tf.data.Dataset`` of such pairs, a file of
    ``numpy.savez``, or the name of a choice such as ``"cifar10"``. Examples x [N, ...] are taken as
    they are, as ``model.fit`` takes them; labels y [N] are class numbers. ``test`` and
    ``validation`` are of the same kind, or the share of ``data`` to hold out; None: as ``prune.py``
    has it, a tenth for validation and, where there is no test split, a fifth for test.

    ``optimizer`` is one of Keras, or its name; None: that of ``prune.py``. A learning rate that is
    a number stays constant. ``options`` are any others, as typed behind ``prune.py``:
    ``"mask=channel"``, ``"data.flip=true"``, ``"logger=wandb"``. Results lie in ``outputs``, runs
    in ``outputs/store``, as those of the scripts, under the same keys.

    Raises :class:`~lottery.errors.LotteryError`, in one line, for what cannot be trained or known
    again by its content.
    """

    model: "keras.Model | Callable[..., keras.Model] | str"
    data: Any
    validation: Any = None
    test: Any = None
    optimizer: Any = None
    epochs: int | None = None
    batch_size: int | None = None
    seed: int = 0
    pretrained: bool = False
    classes: Sequence[str] | None = None
    outputs: str | Path = OUTPUTS
    options: Sequence[str] = ()
    _common: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        source, shape, count = datasets.chosen(self.data, self.validation, self.test, self.classes)
        common = [
            "logger=csv",
            session.value("paths.outputs", str(Path(self.outputs).resolve())),
            *source,
            *_network(self, shape, count),
            *optimizers.chosen(self.optimizer),
        ]
        length = {"trainer.epochs": self.epochs, "trainer.batch_size": self.batch_size}
        common += [session.value(o, given) for o, given in length.items() if given is not None]
        common += [session.value("seed", self.seed), *_texts(self.options)]
        object.__setattr__(self, "_common", common)

    def dense(self, *options: str) -> Answer:
        """The trained dense network."""
        return Answer(self._asked("dense", options), str(self.outputs))

    def ticket(
        self, *options: str, percentile: float | None = None, rewind: int | None = None
    ) -> Answer:
        """The ticket with ``percentile`` percent of the prunable weights removed.

        It is rewound to the end of epoch ``rewind``. ``options`` are others, such as
        ``"mask=iterative"``; what is not given is as ``prune.py`` has it.
        """
        own = [*_grid(percentile, rewind), *options]
        return Answer(self._asked("ticket", own), str(self.outputs))

    def grid(
        self,
        *options: str,
        percentile: Numbers | None = None,
        rewind: Numbers | None = None,
        seed: Numbers | None = None,
    ) -> Sweep:
        """All combinations of percentiles, rewind epochs and seeds, and the verdict.

        ``options`` may sweep others: ``"mask=magnitude,snip"``, ``"mask.percentile=50,60,...,90"``.
        """
        own = [*_grid(percentile, rewind, seed), *options]
        return Sweep(self._asked("grid", own), str(self.outputs))

    def search(
        self,
        *options: str,
        percentile: Numbers | None = None,
        rewind: Numbers | None = None,
        seed: Numbers | None = None,
    ) -> Sweep:
        """The sparsest ticket of :meth:`grid` that matches dense, for few trainings."""
        return self.grid(
            "search=sparsest", *options, percentile=percentile, rewind=rewind, seed=seed
        )

    def transfer(
        self,
        ticket: Any,
        data: Any,
        *options: str,
        validation: Any = None,
        test: Any = None,
        epochs: int | None = None,
        controls: str | Sequence[str] = "none",
        classes: Sequence[str] | None = None,
    ) -> Answer:
        """The ticket with a new head, fine-tuned on other data.

        ``ticket`` is an answer of this study or a ticket file; ``data``, ``validation`` and
        ``test`` are as those of the study, and so is how it is trained, but for the epochs: 5 if
        none are given. ``controls`` are what to compare with: ``"all"``, or names such as
        ``"fresh"``, ``"random"`` and ``"scratch"``.
        """
        source, _, _ = datasets.chosen(data, validation, test, classes)
        place = getattr(ticket, "folder", ticket)
        about = [session.value("ticket", str(place)), session.value("transfer.controls", controls)]
        if epochs is not None:
            about.append(session.value("trainer.epochs", epochs))
        # All but what is about its data, its network, or finding a ticket.
        others = ("data=", "data.digest", "data.validation", "data.test_fraction", "model", "mask",
                  "rewind", "verdict", "search", "trainer.epochs", "profile")  # fmt: skip
        common = [o for o in self._common if not o.startswith(others)]
        own = [*about, *_texts(options)]
        folder = session.told("transfer", [*source, *common], own, str(self.outputs))
        return Answer(folder, str(self.outputs))

    def _asked(self, method: str, options: Sequence[str]) -> Path:
        return session.told(method, self._common, _texts(options), str(self.outputs))


def _network(study: Study, shape: tuple[int, ...] | None, classes: int | None) -> list[str]:
    """The overrides that choose the network."""
    model: Any = study.model
    if isinstance(model, str):
        if study.pretrained:
            raise ConfigError(
                f'model={model} has fresh weights: options=["model.weights=<file>"] has others'
            )
        return [f"model={model}"]
    if shape is None or classes is None:
        raise ConfigError(
            "a network of your own needs data of your own: give arrays, a tf.data.Dataset or a "
            "file of numpy.savez, or choose the network by name"
        )
    from lottery.quiet import import_tensorflow

    import_tensorflow()
    import keras

    from lottery.models import reset_names
    from lottery.models.networks import _given

    if not isinstance(model, keras.Model) and callable(model):
        reset_names()
        model = model(*_arguments(model, shape, classes))
    architecture = _given.architecture(model)
    outputs = model.output_shape[-1]
    if outputs != classes:
        raise ConfigError(
            f"the network has {outputs} outputs, and the labels are of {classes} classes"
        )
    try:
        _given.build(architecture, shape, classes)
    except ValueError as error:
        raise ConfigError(
            f"the examples have the shape {shape}, and the network says: {error}"
        ) from error
    chosen = [session.offer(choices.model, "given", {"architecture": architecture})]
    if study.pretrained:
        chosen.append(session.value("model.weights", str(_saved(model, Path(study.outputs)))))
    return chosen


def _arguments(function: Callable[..., Any], *known: Any) -> tuple[Any, ...]:
    """What to call a function that makes a network with: the shape and the classes, or nothing."""
    parameters = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = [p.name for p in parameters if p.default is p.empty and p.kind in kinds]
    if len(wanted) not in (0, len(known)):
        raise ConfigError(
            f"the function that makes the network wants {', '.join(wanted)}: it may want the shape "
            "of an example and the number of classes, or nothing"
        )
    return known if wanted else ()


def _saved(model: "keras.Model", outputs: Path) -> Path:
    """A file with the weights of a network, named by what they are."""
    import keras

    content = hashlib.sha256()
    for variable in model.variables:
        content.update(variable.numpy().tobytes())
    path = (outputs / "weights" / f"{content.hexdigest()[:20]}.weights.h5").resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written = Path(folder, path.name)
        keras.Model(model.inputs[0], model.outputs[0]).save_weights(written)
        written.rename(path)
    return path


def _grid(percentile: Any = None, rewind: Any = None, seed: Any = None) -> list[str]:
    given = {"mask.percentile": percentile, "rewind.epoch": rewind, "seed": seed}
    return [
        session.values(
            option, list(v) if isinstance(v, Sequence) or hasattr(v, "__iter__") else [v]
        )
        for option, v in given.items()
        if v is not None
    ]


def _texts(options: Sequence[str]) -> list[str]:
    if isinstance(options, str) or not all(isinstance(o, str) and "=" in o for o in options):
        raise ConfigError(f'options are texts such as "mask=channel", not {options!r}')
    return list(options)
