"""One training from a starting point to the end of its schedule, in a folder, resumable."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from omegaconf import OmegaConf

from lottery import models, tensors
from lottery.config import Data, Training, typed
from lottery.data import Description, EncodedSplit, Splits, crop_size
from lottery.data.preprocessing import Preprocessing
from lottery.data.splits import steps_per_epoch
from lottery.files import read_json, write_json
from lottery.interrupts import StopSignals
from lottery.models.cost import whole
from lottery.models.kernels import kernels
from lottery.pruning import masks
from lottery.rewinding import Start, owner, without_slots
from lottery.training import devices, schedules, setting, workers
from lottery.training.callbacks import InputBound, MetricsFile
from lottery.training.checkpoints import CheckpointFolder, NoCheckpoints, Progress, State
from lottery.training.loop import Length, Loop
from lottery.training.setting import Setting

log = logging.getLogger(__name__)

START = "start.safetensors"  # weights to begin with, for the other processes of a job

Mask = Mapping[str, np.ndarray[Any, Any]]


def train(
    work: Path,
    config: Training,
    data: Splits,
    *,
    start: Start,
    last_epoch: int,
    keep_epochs: frozenset[int],
    mask: Mask,
    reset_slots: bool,
    callbacks: list[Any],
    signals: StopSignals,
    measure: bool = True,
    head_only: bool = False,
    head_rate: float = 1.0,
    noted: Mapping[str, Any] | None = None,
    compared: Mapping[str, Any] | None = None,
) -> None:
    """Train and leave in ``work``: checkpoints, metrics.csv, network.json, result.json.

    A folder that holds checkpoints of an interrupted attempt is continued from the newest
    readable one, and ends as the unbroken run would. With ``measure``, validation and test are
    measured at the end, the only time that test is looked at. With ``head_only`` all layers but the
    last one with a kernel, the head, keep their weights and statistics; the head learns at
    ``head_rate`` times the learning rate. ``noted`` is added to the result, and ``compared`` is the
    result of the run that it will be compared with.

    Raises what :meth:`Loop.fit` raises.
    """
    spe = steps_per_epoch(data.train.size, config.trainer.batch_size)
    if mask:
        masks.write(mask, work / "mask.safetensors")
    checkpoints = CheckpointFolder(
        work / "checkpoints", frozenset(k * spe for k in keep_epochs | {last_epoch})
    )
    stored = found = checkpoints.latest()
    if found is not None:
        log.info("resuming after step %d of %d", found[1].step, last_epoch * spe)
    elif start.state is not None:
        state = without_slots(start.state) if reset_slots else start.state
        found = masked(state, mask), Progress(start.epoch * spe)

    def plan() -> str:
        """For the processes that train along; they read the state and the mask from disk."""
        if found is not None and stored is None:
            checkpoints.save(*found)
        weights = None
        if found is None and start.weights is not None:
            weights = str(work / START)
            tensors.write(Path(weights), start.weights)
        joining = Joining(
            config={f.name: asdict(config)[f.name] for f in fields(Training)},
            seed=start.seed,
            last_rate=start.last_rate,
            last_epoch=last_epoch,
            mask=str(work / "mask.safetensors") if mask else None,
            checkpoints=str(checkpoints.root),
            step=found[1].step if found is not None else None,
            measure=measure,
            weights=weights,
            head_only=head_only,
            head_rate=head_rate,
        )
        return json.dumps(asdict(joining))

    with workers.training(plan):
        loop, length = build(
            config,
            data,
            start=start,
            last_epoch=last_epoch,
            mask=mask,
            head_only=head_only,
            head_rate=head_rate,
        )
        trained_on = _trained_on(work, loop.setting, continued=stored is not None)
        about = setting.result(trained_on)
        other = Setting.of(compared or {})
        if other is not None and (mixed := setting.mixture([*trained_on, other])):
            about["mixed"] = mixed
        if "mixed" in about:
            log.warning("%s", about["mixed"])
        write_json(
            work / "network.json",
            {
                "steps_per_epoch": spe,
                "whole": asdict(whole(loop.model)),
                "input_shape": data.description.input_shape,
                "classes": data.description.classes,
                "data": data.description.fingerprint,
                "kernels": [asdict(k) for k in kernels(loop.model)],
            },
        )
        progress = _begin(loop, found, mask, start.weights)
        metrics_file = MetricsFile(work / "metrics.csv", complete_epochs=progress.step // spe)
        input_bound = InputBound(decodes=isinstance(data.train, EncodedSplit))
        try:
            progress = loop.fit(
                data,
                length,
                progress,
                checkpoints=checkpoints,
                checkpoint_steps=config.trainer.checkpoint_epochs * spe,
                callbacks=[metrics_file, *callbacks, input_bound],
                signals=signals,
            )
            if measure:
                steps = progress.step - start.epoch * spe
                measured = _measured(loop, data, config, progress, steps=steps)
                write_json(work / "result.json", measured | about | dict(noted or {}))
        except tf.errors.UnavailableError:  # another process is gone
            raise
        except tf.errors.OpError:
            data.check()  # if images cannot be decoded, says which
            raise
    checkpoints.finish()
    (work / START).unlink(missing_ok=True)


@dataclass(frozen=True)
class Joining:
    """What a process needs to know to take part in a training; JSON values only."""

    config: dict[str, Any]
    seed: int
    last_rate: bool
    last_epoch: int
    mask: str | None
    checkpoints: str
    step: int | None
    """Of the checkpoint to start from; None is a fresh initialisation."""
    measure: bool
    weights: str | None
    """File of the weights to begin with instead of fresh ones."""
    head_only: bool
    head_rate: float


def join(plan: str, load: Callable[[Data], Splits]) -> None:
    """Take part in the training that another process calls :func:`train` for; write nothing.

    ``load`` gives the data set of a configuration. Raises what :meth:`Loop.fit` raises.
    """
    about = Joining(**json.loads(plan))
    merged: Any = OmegaConf.merge(OmegaConf.structured(Training), about.config)
    config = typed(merged)
    data = load(config.data)
    mask = masks.read(Path(about.mask)) if about.mask else {}
    found = None
    if about.step is not None:
        found = CheckpointFolder(Path(about.checkpoints)).load(about.step)
    weights = tensors.read(Path(about.weights))[0] if about.weights else None
    start = Start(seed=about.seed, last_rate=about.last_rate)
    loop, length = build(
        config,
        data,
        start=start,
        last_epoch=about.last_epoch,
        mask=mask,
        head_only=about.head_only,
        head_rate=about.head_rate,
    )
    with StopSignals() as signals:
        loop.fit(
            data,
            length,
            _begin(loop, found, mask, weights),
            checkpoints=NoCheckpoints(),
            checkpoint_steps=config.trainer.checkpoint_epochs * length.steps_per_epoch,
            callbacks=[],
            signals=signals,
        )
        if about.measure:
            for split in (data.validation, data.test):
                loop.evaluate(split)


def _begin(
    loop: Loop,
    found: tuple[State, Progress] | None,
    mask: Mask,
    weights: Mapping[str, np.ndarray[Any, Any]] | None,
) -> Progress:
    """Load a checkpoint, or mask the initial state, which nobody has stored."""
    if found is None:
        state: dict[str, np.ndarray[Any, Any]] = dict(loop.state())
        if weights is not None:
            new = {v.path for v in models.head(loop.model).variables}
            paths = (v.path for v in loop.model.variables if v.path not in new)
            state |= {f"model/{path}": weights[path] for path in paths}
        found = masked(state, mask), Progress(0)
    loop.load(found[0])
    return found[1]


def masked(state: State, mask: Mask) -> State:
    """The state with pruned weights, and their optimizer slots, zero."""
    paths = frozenset(n.removeprefix("model/") for n in state if n.startswith("model/"))
    return masks.apply(mask, state, lambda name: owner(name, paths))


def _trained_on(work: Path, here: Setting, *, continued: bool) -> list[Setting]:
    """What the attempts so far, this one the last, have trained on; each once in a row."""
    path = work / "trained_on.json"
    before = [Setting(**found) for found in read_json(path)] if continued and path.exists() else []
    attempts = before if before[-1:] == [here] else [*before, here]
    write_json(path, [asdict(attempt) for attempt in attempts])
    return attempts


def _measured(
    loop: Loop, data: Splits, config: Training, progress: Progress, steps: int
) -> dict[str, Any]:
    return {
        **loop.evaluate(data.validation).named("val_"),
        **loop.evaluate(data.test).named("test_"),
        "val_examples": data.validation.size,
        "val_majority": int(np.bincount(data.validation.labels).max()),
        "val_images": data.validation_images,
        "test_examples": data.test.size,
        "classes": len(data.description.classes),
        "epochs": steps // steps_per_epoch(data.train.size, config.trainer.batch_size),
        "seconds": progress.seconds,
        "images_per_second": steps * config.trainer.batch_size / progress.training_seconds
        if steps
        else 0.0,
    }


def network(config: Training, description: Description, *, head_only: bool = False) -> Any:
    """The network of a configuration for a data set, with fresh weights."""
    # With a single replica it would be the same but for rounding.
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return models.build_choice(
        config.model,
        description.input_shape,
        len(description.classes),
        sync_batch_norm=config.trainer.sync_batch_norm and several,
        head_only=head_only,
    )


def build(
    config: Training,
    data: Splits,
    *,
    start: Start,
    last_epoch: int,
    mask: Mask,
    head_only: bool = False,
    head_rate: float = 1.0,
) -> tuple[Loop, Length]:
    """The loop of a configuration, freshly initialised from ``start.seed``, and its length."""
    trainer = config.trainer
    strategy = devices.prepare(config)
    description = data.description
    spe = steps_per_epoch(data.train.size, trainer.batch_size)
    steps = trainer.epochs * spe
    rate = config.schedule.build(config.optimizer.learning_rate, steps=steps)
    if start.last_rate:
        rate = schedules.unchanging(float(rate(steps - 1)))
    keras.utils.set_random_seed(start.seed)
    (low, high), (narrow, wide) = config.data.crop_area, config.data.crop_aspect
    loop = Loop(
        network=lambda: network(config, description, head_only=head_only),
        optimizer=lambda: config.optimizer.build(rate),
        preprocessing=Preprocessing(
            description.input_shape,
            crop_padding=config.data.crop_padding,
            flip=config.data.flip,
            mean=tuple(config.data.mean),
            std=tuple(config.data.std),
            crop_area=(low, high) if config.data.crop == "resized" else None,
            crop_aspect=(narrow, wide),
            mixup=config.data.mixup,
            crop_size=crop_size(config.data, description.image_shape),
        ),
        batch_size=trainer.batch_size,
        eval_batch_size=trainer.eval_batch_size,
        seed=config.seed,
        strategy=strategy,
        label_smoothing=trainer.label_smoothing,
        jit_compile=trainer.jit_compile,
        mask=mask,
        head_rate=head_rate,
        sync_batch_norm=trainer.sync_batch_norm,
    )
    return loop, Length(last_epoch * spe, spe, trainer.steps_per_call)
