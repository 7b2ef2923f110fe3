"""The training loop: one network on one ``tf.distribute`` strategy, masks inside the compiled step.

Steps are counted over the whole run: step ``s`` belongs to epoch ``s // steps_per_epoch``. The
examples of a step, their augmentation and so the whole computation are a function of the seed and
the step, so a run can start at any step from a state and nothing else. The replicas of a strategy
share each batch, and the gradient is added up over them before it is clipped, so their number
changes nothing but rounding (and what :attr:`Loop.setting` names).

Where several processes train together (:mod:`lottery.training.workers`), all of them must leave
the loop after the same step. So the signals that each has received are added up with the metrics,
and every process reads the sums after every call.
"""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lottery import models
from lottery.data import Chunk, Split, Splits
from lottery.data.preprocessing import Preprocessing, compiled_augmentation
from lottery.errors import CheckpointError, ConfigError
from lottery.interrupts import StopSignals
from lottery.models.cost import Anatomy
from lottery.pruning.dynamics import Course
from lottery.training import devices, optimizers, severance
from lottery.training.checkpoints import CheckpointFolder, Progress, State
from lottery.training.deciding import Deciding
from lottery.training.evaluation import Evaluation
from lottery.training.feeding import Feed
from lottery.training.length import Length
from lottery.training.masking import Masking
from lottery.training.metrics import Metrics, sums_of
from lottery.training.saving import Saver
from lottery.training.setting import Setting
from lottery.training.severance import Severance
from lottery.training.tally import Tally, refuse_divergence
from lottery.training.telemetry import GpuSampler
from lottery.training.update import Update

log = logging.getLogger(__name__)

CHUNKS_OF_A_PIPELINE = 2**16  # listed before it starts, so not those of any number of epochs


@dataclass(eq=False, repr=False)
class Loop:
    """A network, its optimizer and the compiled steps over them.

    ``network`` and ``optimizer`` (one with a learning-rate schedule) are called within the
    strategy's scope. ``seed`` determines data order and augmentation. ``mask`` maps variable
    paths to boolean arrays of survivors: gradients of pruned weights are zero before the
    optimizer sees them, so they enter neither the gradient norm nor a slot, and the weights are
    exactly zero after every step; ``course`` changes it between steps. The head learns at
    ``head_rate`` times the learning rate. The loss of an example counts the weight of its class.

    What a mask that does not change has cut off is zero, too, or with ``compact`` not even there:
    see :mod:`lottery.training.severance`. With ``whole_channels`` the mask prunes channels;
    ``elementwise`` says that the optimizer updates weights one by one. States have the shapes of
    the whole network in any case.

    Raises :class:`ConfigError` if ``batch_size`` does not divide over the replicas, two variables
    have the same name in a state, or ``compact`` cannot be had.
    """

    network: Callable[[], Any]
    optimizer: Callable[[], Any]
    preprocessing: Preprocessing
    batch_size: int
    eval_batch_size: int
    seed: int
    strategy: Any
    label_smoothing: float = 0.0
    class_weights: Sequence[float] | None = None
    jit_compile: bool = False
    mask: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    course: Course | None = None
    whole_channels: bool = False
    compact: bool | None = False
    elementwise: bool = True
    head_rate: float = 1.0
    sync_batch_norm: bool = False

    def __post_init__(self) -> None:
        self._feed = Feed(self.strategy)
        self.replicas, self.workers = self._feed.replicas, self._feed.workers
        pairs = self.preprocessing.mixup > 0
        devices.check_batch(self.batch_size, self.replicas, in_pairs=pairs)
        with self.strategy.scope():
            network = self.network()
            optimizer = self.optimizer()
            self.severance, self.model = self._severed(network, optimizer)
            if keras.config.dtype_policy().name == "mixed_float16":
                optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer, name="loss_scale")
            optimizer.build(self.model.trainable_variables)
            # Keras would add up the gradients after clipping each replica's.
            inner = getattr(optimizer, "inner_optimizer", optimizer)
            inner._all_reduce_sum_gradients = lambda gradients_and_variables: (
                gradients_and_variables
            )
            if self.head_rate != 1:
                head = {v.path for v in models.head(self.model).variables}
                optimizers.accelerate(inner, head, self.head_rate)
            self._optimizer = optimizer
            self._refuse_equal_names()
            self.anatomy = Anatomy.of(network)
            part = self.mask if self.course else self.severance.mask_of_part()
            self.masking = Masking(
                self.model, optimizer, part, self.course, whole=self.severance.mask
            )
        self._update = Update(
            optimizer, self.model.trainable_variables, self.masking, self.strategy
        )
        others = self.model.non_trainable_variables
        self._statistics = [v for v in others if keras.backend.is_float_dtype(v.dtype)]
        self._seeds = [v for v in others if "seed_generator" in v.path]
        if self.severance.compact:  # which was initialised by other random numbers
            initial = {f"model/{v.path}": np.array(v.value) for v in network.variables}
            self.load({**self.state(), **initial})
        else:
            self._part_seeds()
        self._loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=self.label_smoothing, reduction="none"
        )
        # Nothing here needs AutoGraph, which takes a second to rewrite the source.
        self._train_call = tf.function(self._distributed_steps, autograph=False)
        self._measure_call = tf.function(self._distributed_measurement, autograph=False)
        self.evaluation = Evaluation(
            self.model, self.preprocessing, self.strategy, self._feed, self.eval_batch_size
        )
        classes = self.model.output_shape[-1]
        self._augment = compiled_augmentation(self.preprocessing, classes, self.batch_size)
        self._gradients_call = (
            tf.function(self._gradients, autograph=False, jit_compile=True)
            if self.jit_compile
            else self._gradients
        )

    def _severed(self, network: Any, optimizer: Any) -> tuple[Severance, Any]:
        if self.course is not None or not self.mask:
            return severance.nothing(network), network
        return severance.severed(
            network,
            self.mask,
            whole_channels=self.whole_channels,
            compact=self.compact,
            elementwise=self.elementwise,
        )

    @property
    def setting(self) -> Setting:
        """What this trains on, and what of its result the number of replicas changes."""
        layers = self.model._flatten_layers()
        norms = [n for n in layers if isinstance(n, keras.layers.BatchNormalization)]
        parts = {
            "batch normalisation": not self.sync_batch_norm and any(n.trainable for n in norms),
            "dropout": bool(self._seeds),
        }
        here = devices.setting(self.strategy, jit_compile=self.jit_compile)
        return replace(here, per_replica=", ".join(name for name, has in parts.items() if has))

    # -- state -----------------------------------------------------------------------------

    def variables(self) -> dict[str, Any]:
        """Every variable that steps change, by its name in a state."""
        return dict(self._named())

    def _named(self) -> Iterator[tuple[str, Any]]:
        yield from ((f"model/{v.path}", v) for v in self.model.variables)
        yield from ((v.path, v) for v in self._optimizer.variables)

    def _refuse_equal_names(self) -> None:
        """Raise :class:`ConfigError` for a name that two variables have: states would lose one."""
        counts = Counter(name for name, _ in self._named())
        if equal := [name for name, count in counts.items() if count > 1]:
            raise ConfigError(
                f"{counts[equal[0]]} variables of the network or its optimizer have the path "
                f"{equal[0].removeprefix('model/')}, so a state could not tell them apart: give "
                "each layer a name of its own"
            )

    def state(self) -> State:
        """A copy of all variables as arrays, and of a mask that changes."""
        copy = _copied if self.replicas == 1 else np.array
        arrays = {name: copy(v.value) for name, v in self.variables().items()}
        return {**self.severance.whole(arrays), **self.masking.state()}

    def load(self, state: State) -> None:
        """Set all variables. Raises :class:`CheckpointError` if names or shapes differ."""
        shapes = {name: array.shape for name, array in self.state().items()}
        if odd := sorted(set(state) ^ set(shapes)):
            raise CheckpointError(f"the state does not fit the network: {', '.join(odd[:3])} …")
        for name, shape in shapes.items():
            if shape != state[name].shape:
                raise CheckpointError(
                    f"{name} has shape {state[name].shape} in the state and {shape} here"
                )
        own = self.severance.part(self.severance.closed(state))
        for name, v in self.variables().items():
            v.assign(own[name])
        self.masking.load(state)
        self._part_seeds()

    def _part_seeds(self) -> None:
        """Let the dropout of each replica differ; the first has the seeds of a single device."""
        if self.replicas == 1 or not self._seeds:
            return

        def shift() -> None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            for v in self._seeds:
                v.assign(v.value + tf.cast(tf.stack([replica, 0]), v.dtype))

        tf.function(lambda: self.strategy.run(shift))()

    # -- training --------------------------------------------------------------------------

    def fit(
        self,
        data: Splits,
        length: Length,
        progress: Progress,
        *,
        checkpoints: CheckpointFolder,
        checkpoint_steps: int,
        callbacks: list[Any],
        signals: StopSignals,
        deciding: Deciding | None = None,
    ) -> Progress:
        """Train from ``progress`` to the end of ``length``, validating after each epoch.

        And within one, if ``length`` says so: callbacks with a method ``on_validation(step, logs)``
        hear of it. Saves a checkpoint every ``checkpoint_steps`` steps, at the steps that
        ``checkpoints`` keeps, and at the end, which ``deciding`` may bring earlier. ``callbacks``
        are Keras callbacks; the logs of an epoch hold the metrics of the design's Logging contract.

        Raises :class:`StoppedError` after saving, if a signal came, :class:`DivergedError`, keeping
        the last good checkpoint, if the loss is not finite, and what :class:`Saver` raises.
        """
        with Saver(checkpoints, self.masking.check) as saver:
            # Before callbacks may change anything: the state of step 0 is the initialisation.
            if progress.step in checkpoints.keep_steps and progress.step not in checkpoints.steps():
                saver.save(self.state(), progress)
            decisions = deciding or Deciding({}, self)
            return self._fit(
                data, length, progress, saver, checkpoint_steps, callbacks, signals, decisions
            )

    def _fit(
        self,
        data: Splits,
        length: Length,
        progress: Progress,
        saver: Saver,
        checkpoint_steps: int,
        callbacks: list[Any],
        signals: StopSignals,
        deciding: Deciding,
    ) -> Progress:
        spe = length.steps_per_epoch
        chunks = iter(()) if deciding.stopped else length.chunks(progress.step)
        bars = keras.callbacks.CallbackList(
            callbacks, model=self.model, epochs=length.last_step // spe, steps=spe, verbose=1
        )
        bars.on_train_begin()
        watching = [c for c in callbacks if hasattr(c, "on_validation")]
        chunks, ahead = itertools.tee(chunks)
        pipelines = (
            self.batches(data.train, part, spe)
            for part in iter(lambda: list(itertools.islice(ahead, CHUNKS_OF_A_PIPELINE)), [])
        )
        # The first one is made now, so that its time does not count as waiting for input.
        batches = itertools.chain(next(pipelines, ()), itertools.chain.from_iterable(pipelines))
        for epoch, of_epoch in itertools.groupby(chunks, key=lambda c: c.first_step // spe):
            bars.on_epoch_begin(epoch)
            tally = Tally(progress)
            with GpuSampler() as gpus:
                for chunk in of_epoch:
                    self._train_chunk(chunk, batches, tally, bars, length, signals)
                    if tally.step % spe == 0 or tally.step == length.last_step:
                        continue  # what follows the loop sees to it
                    if length.validates(tally.step):
                        self._validate_within(data, tally, watching)
                    if tally.step in saver.keep_steps or self._stopping(signals):
                        now = tally.progress(gpus.joules())
                        saver.save(self.state(), now, deciding.memory())
                    if self._stopping(signals):
                        saver.settle()
                        signals.stop(f"after step {tally.step} of {length.last_step}")
                trained = Metrics.of(tally.settle())
            validation = self.evaluate(data.validation)
            refuse_divergence(validation.loss, tally.step)
            if length.validates(tally.step):
                _tell(watching, tally.step, validation)
            joules = gpus.joules()
            progress = replace(tally.progress(joules), sums=())
            logs = (
                trained.named()
                | validation.named("val_")
                | {"learning_rate": self.learning_rate(progress.step - 1)}
                | ({"density": self.masking.density()} if self.course else {})
                | tally.rates(self.batch_size)
                | gpus.means()
                | ({} if joules is None else {"gpu_energy_joules": joules})
            )
            bars.on_epoch_end(epoch, logs)
            if getattr(self.model, "stop_training", False):
                raise ConfigError(
                    "a callback asks to stop the training, and would not after a kill, as nobody "
                    "knows what it remembers: name that in `remembers` of its class, which "
                    "CONTRIBUTING.md explains"
                )
            deciding.on_epoch_end(epoch, logs)
            ends = deciding.stopped or progress.step == length.last_step
            if ends:  # and may have other weights from now on
                deciding.end()
            if (
                progress.step % checkpoint_steps == 0
                or progress.step in saver.keep_steps
                or ends
                or self._stopping(signals)
            ):
                saver.save(self.state(), progress, deciding.memory())
            if self._stopping(signals):
                saver.settle()
                signals.stop(f"after step {progress.step} of {length.last_step}")
            if ends:
                break
        saver.settle()
        bars.on_train_end()
        return progress

    def batches(self, split: Split, chunks: list[Chunk], steps_per_epoch: int) -> Iterator[Any]:
        """What :meth:`train` takes for each chunk: images and labels, spread over the replicas."""
        dataset = split.training(
            chunks,
            batch_size=self.batch_size,
            steps_per_epoch=steps_per_epoch,
            seed=self.seed,
            share=self._feed.share,
        )
        return self._feed(dataset)

    def train(self, images: Any, labels: Any, first_step: int) -> Any:
        """Take the steps of one chunk; the sums of their metrics, perhaps still on their way."""
        return self._train_call(images, labels, tf.constant(first_step, tf.int64))

    def learning_rate(self, step: int) -> float:
        """The learning rate that the optimizer uses in a step."""
        optimizer = getattr(self._optimizer, "inner_optimizer", self._optimizer)
        return float(optimizer._learning_rate(step))

    def evaluate(self, split: Split) -> Metrics:
        """Metrics over a whole split; every example counts once."""
        return self.evaluation(split).metrics

    def _train_chunk(
        self,
        chunk: Chunk,
        batches: Iterator[Any],
        tally: Tally,
        bars: Any,
        length: Length,
        signals: StopSignals,
    ) -> None:
        spe, changes = length.steps_per_epoch, chunk.first_step + chunk.steps in length.changes
        started = time.perf_counter()
        images, labels = next(batches)
        fetched = time.perf_counter()
        bars.on_train_batch_begin(chunk.first_step % spe)
        noted = () if self.workers == 1 else (tf.constant(signals.noted(), tf.float64),)
        inputs = (images, labels, tf.constant(chunk.first_step, tf.int64), *noted)
        gradients = None
        if changes and length.measures:
            sums, gradients = self._measure_call(*inputs)
        else:
            sums = self._train_call(*inputs)
        if noted:
            sums, noted_by_all = sums
        tally.add(chunk, sums, wait=fetched - started)
        if noted:
            tally.settle()  # by the clock, processes would find out at different steps
            signals.agree(noted_by_all.numpy())
        if changes:
            tally.settle()  # what has diverged has no order to change the mask by
            self.masking.change(tally.step, gradients)
        bars.on_train_batch_end((tally.step - 1) % spe, tally.latest.named())

    def _validate_within(self, data: Splits, tally: Tally, watching: list[Any]) -> None:
        with tally.paused():
            validation = self.evaluate(data.validation)
        refuse_divergence(validation.loss, tally.step)
        _tell(watching, tally.step, validation)

    def _stopping(self, signals: StopSignals) -> bool:
        return (signals.received if self.workers == 1 else signals.agreed) is not None

    # -- inside the compiled step ------------------------------------------------------------

    def _distributed_steps(
        self, images: Any, labels: Any, first_step: Any, noted: Any = None
    ) -> Any:
        if self.replicas == 1:
            return self.strategy.run(self._steps, args=(images, labels, first_step))
        # A replica must not loop over steps that it synchronises in, so the loop is out here.
        steps = self.strategy.experimental_local_results(images)[0].shape[0]
        if steps == 1:
            sums = self._add_up(self._steps, images, labels, first_step)
        else:
            sums = self._in_turn(
                steps, lambda i: self._add_up(self._nth_step, images, labels, first_step, i)
            )
        return sums if noted is None else (sums, self._add_up(lambda: noted))

    def _distributed_measurement(
        self, images: Any, labels: Any, step: Any, noted: Any = None
    ) -> tuple[Any, list[Any]]:
        """As a call with one step, but it leaves the weights, and gives dense gradients too."""
        sums, gradients = self.strategy.run(self._measurement, args=(images, labels, step))
        gradients = [self.strategy.experimental_local_results(g)[0] for g in gradients]
        sums = self.strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)
        return sums if noted is None else (sums, self._add_up(lambda: noted)), gradients

    def _add_up(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.strategy.reduce(
            tf.distribute.ReduceOp.SUM, self.strategy.run(function, args=args), axis=None
        )

    def _steps(self, images: Any, labels: Any, first_step: Any) -> Any:
        steps = images.shape[0]
        if steps == 1:
            return self._step(images[0], labels[0], first_step)
        return self._in_turn(steps, lambda i: self._nth_step(images, labels, first_step, i))

    def _in_turn(self, steps: Any, step: Callable[[Any], Any]) -> Any:
        """The sums of ``step(0)``, ``step(1)`` and so on, added up."""

        def one(i: Any, sums: Any) -> tuple[Any, Any]:
            return i + 1, sums + step(i)

        return tf.while_loop(lambda i, _: i < steps, one, (0, tf.zeros([4], tf.float64)))[1]

    def _nth_step(self, images: Any, labels: Any, first_step: Any, i: Any) -> Any:
        return self._step(images[i], labels[i], first_step + tf.cast(i, tf.int64))

    def _step(self, images: Any, labels: Any, step: Any) -> Any:
        gradients, sums = self._dense_gradients(images, labels, step)
        self._update(gradients)
        return sums

    def _measurement(self, images: Any, labels: Any, step: Any) -> tuple[Any, list[Any]]:
        gradients, sums = self._dense_gradients(images[0], labels[0], step)
        self._optimizer.iterations.assign_add(1)  # which holds the place in the schedule
        return sums, self.masking.of_masked(gradients)

    def _dense_gradients(self, images: Any, labels: Any, step: Any) -> tuple[list[Any], Any]:
        """The gradients of a global batch, and the sums of this replica's metrics."""
        context = tf.distribute.get_replica_context()
        inputs, targets = self.augmented(images, labels, step)
        gradients, losses, logits = self._gradients_call(inputs, targets)
        if self.replicas > 1:
            gradients = self._all_reduce(context, gradients)
        return gradients, sums_of(losses, logits, labels, tf.ones_like(losses))

    def augmented(self, images: Any, labels: Any, step: Any) -> tuple[Any, Any]:
        """What the network trains on in a step, of this replica's part of the batch."""
        context = tf.distribute.get_replica_context()
        first_row = context.replica_id_in_sync_group * (self.batch_size // self.replicas)
        seed = tf.constant(self.seed, tf.int64)
        inputs, targets = self._augment(images, labels, seed, step, tf.convert_to_tensor(first_row))
        return inputs, targets

    def _all_reduce(self, context: Any, gradients: list[Any]) -> list[Any]:
        """The gradients summed over replicas; moving statistics become their mean on the way."""
        statistics = [v.value / self.replicas for v in self._statistics]
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, *statistics])
        for v, mean in zip(self._statistics, summed[len(gradients) :], strict=True):
            v.assign(mean)
        return list(summed[: len(gradients)])

    def _gradients(self, inputs: Any, targets: Any) -> tuple[list[Any], Any, Any]:
        with tf.GradientTape() as tape:
            logits = tf.cast(self.model(inputs, training=True), tf.float32)
            losses = self._loss(targets, logits)
            if self.class_weights is not None:
                losses *= tf.linalg.matvec(targets, tf.constant(self.class_weights, losses.dtype))
            loss = tf.reduce_sum(losses) / self.batch_size
            if self.model.losses:
                own = tf.add_n([tf.cast(x, loss.dtype) for x in self.model.losses])
                loss += own / self.replicas
            loss = self._optimizer.scale_loss(loss)
        return tape.gradient(loss, self.model.trainable_variables), losses, logits


def _copied(variable: Any) -> np.ndarray[Any, Any]:
    """The values of a variable of one device, in a quarter of the time that ``np.array`` takes."""
    value = tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
    return np.asarray(value.numpy())


def _tell(watching: list[Any], step: int, validation: Metrics) -> None:
    for callback in watching:
        callback.on_validation(step, validation.named("val_"))
