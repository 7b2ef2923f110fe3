"""One training from a starting point to the end of its schedule, in a folder, resumable."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lottery import models
from lottery.config import Config
from lottery.data import EncodedSplit, Splits
from lottery.data.preprocessing import Preprocessing
from lottery.data.splits import steps_per_epoch
from lottery.files import write_json
from lottery.models.cost import parameters
from lottery.models.kernels import kernels
from lottery.pruning import masks
from lottery.rewinding import Start, owner, without_slots
from lottery.training import devices, optimizers
from lottery.training.callbacks import InputBound, MetricsFile
from lottery.training.checkpoints import CheckpointFolder, Progress
from lottery.training.interrupts import StopSignals
from lottery.training.loop import Length, Loop

log = logging.getLogger(__name__)

Mask = Mapping[str, np.ndarray[Any, Any]]


def train(
    work: Path,
    config: Config,
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
) -> None:
    """Train and leave in ``work``: checkpoints, metrics.csv, network.json, result.json.

    A folder that holds checkpoints of an interrupted attempt is continued from the newest
    readable one, and ends as the unbroken run would. With ``measure``, validation and test are
    measured at the end, the only time that test is looked at.

    Raises what :meth:`Loop.fit` raises.
    """
    loop, length = build(config, data, start=start, last_epoch=last_epoch, mask=mask)
    spe = length.steps_per_epoch
    write_json(
        work / "network.json",
        {
            "steps_per_epoch": spe,
            "parameters": parameters(loop.model),
            "kernels": [asdict(k) for k in kernels(loop.model)],
        },
    )
    if mask:
        masks.write(mask, work / "mask.safetensors")
    checkpoints = CheckpointFolder(
        work / "checkpoints", frozenset(k * spe for k in keep_epochs | {last_epoch})
    )
    found = checkpoints.latest()
    if found is not None:
        state, progress = found
        loop.load(state)
        log.info("resuming after step %d of %d", progress.step, length.last_step)
    else:
        state, progress = start.state or loop.state(), Progress(start.epoch * spe)
        state = without_slots(state) if reset_slots else state
        paths = frozenset(n.removeprefix("model/") for n in state if n.startswith("model/"))
        loop.load(masks.apply(mask, state, lambda name: owner(name, paths)))
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
            _measure(work, loop, data, config, progress, steps=progress.step - start.epoch * spe)
    except tf.errors.OpError:
        data.check()  # if images cannot be decoded, says which
        raise
    checkpoints.finish()


def _measure(
    work: Path, loop: Loop, data: Splits, config: Config, progress: Progress, steps: int
) -> None:
    write_json(
        work / "result.json",
        {
            **loop.evaluate(data.validation).named("val_"),
            **loop.evaluate(data.test).named("test_"),
            "val_examples": data.validation.size,
            "test_examples": data.test.size,
            "epochs": steps // steps_per_epoch(data.train.size, config.trainer.batch_size),
            "seconds": progress.seconds,
            "images_per_second": steps * config.trainer.batch_size / progress.training_seconds
            if steps
            else 0.0,
        },
    )


def build(
    config: Config, data: Splits, *, start: Start, last_epoch: int, mask: Mask
) -> tuple[Loop, Length]:
    """The loop of a configuration, freshly initialised from ``start.seed``, and its length."""
    trainer = config.trainer
    devices.configure(precision=trainer.precision, deterministic=trainer.deterministic)
    description = data.description
    spe = steps_per_epoch(data.train.size, trainer.batch_size)
    rate = optimizers.schedule(
        config.schedule, config.optimizer.learning_rate, epochs=trainer.epochs, steps_per_epoch=spe
    )
    if start.last_rate:
        rate = optimizers.constant(float(rate(trainer.epochs * spe - 1)))
    keras.utils.set_random_seed(start.seed)
    model = config.model
    (low, high), (narrow, wide) = config.data.crop_area, config.data.crop_aspect
    loop = Loop(
        network=lambda: models.build(
            model.name,
            description.input_shape,
            len(description.classes),
            width=model.width,
            dropout=model.dropout,
            batch_norm_momentum=model.batch_norm_momentum,
            options=model.options,
        ),
        optimizer=lambda: optimizers.optimizer(config.optimizer, rate),
        preprocessing=Preprocessing(
            description.input_shape,
            crop_padding=config.data.crop_padding,
            flip=config.data.flip,
            mean=tuple(config.data.mean),
            std=tuple(config.data.std),
            crop_area=(low, high) if config.data.crop == "resized" else None,
            crop_aspect=(narrow, wide),
            mixup=config.data.mixup,
        ),
        batch_size=trainer.batch_size,
        eval_batch_size=trainer.eval_batch_size,
        seed=config.seed,
        strategy=devices.strategy(trainer.strategy),
        label_smoothing=trainer.label_smoothing,
        jit_compile=trainer.jit_compile,
        mask=mask,
    )
    # Replicas synchronise within a step, which a loop inside the compiled call does not allow.
    per_call = trainer.steps_per_call if loop.replicas == 1 else 1
    return loop, Length(last_epoch * spe, spe, per_call)
