"""What a process does around the steps of a training: the chief writes, the followers do not."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lottery import tensors
from lottery.data import EncodedSplit, Splits
from lottery.data.splits import steps_per_epoch
from lottery.files import read_json, write_json
from lottery.interrupts import StopSignals
from lottery.models import cost
from lottery.options import acting, stepping
from lottery.pruning import masks
from lottery.training import setting, timing
from lottery.training.callbacks import (
    Acting,
    InputBound,
    MetricsFile,
    ValidationFile,
    early_stop,
)
from lottery.training.checkpoints import CheckpointFolder, NoCheckpoints, Progress
from lottery.training.evaluation import Measured
from lottery.training.loop import Loop
from lottery.training.recipe import BEGINNING, CORRECT, MASK, WEIGHTS, Recipe
from lottery.training.setting import Setting
from lottery.training.severance import Severance
from lottery.training.watching import Watching

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Follower:
    """Takes every step, and writes nothing."""

    signals: StopSignals

    def checkpoints(self, recipe: Recipe) -> CheckpointFolder:
        """Where the states of the training go."""
        return NoCheckpoints()

    def begin(self, recipe: Recipe, data: Splits, loop: Loop, progress: Progress) -> list[Any]:
        """The Keras callbacks of the training, before its first step."""
        return []

    def masked(self, recipe: Recipe, loop: Loop) -> None:
        """Take note of the mask after the last step."""

    def end(
        self,
        recipe: Recipe,
        data: Splits,
        loop: Loop,
        progress: Progress,
        validation: Measured,
        test: Measured,
        decided: Mapping[str, Any],
    ) -> None:
        """Take note of what was measured at the end, and of what callbacks have decided."""

    def price(
        self,
        recipe: Recipe,
        data: Splits,
        loop: Loop,
        progress: Progress,
        per_call: int,
        dense: Callable[[], Loop],
    ) -> None:
        """Take note of what a step costs, after all else: nobody needs the loop any more.

        ``dense`` makes a loop over the dense network; ``per_call`` is steps of a call.
        """


@dataclass(frozen=True)
class Chief(Follower):
    """Leaves in ``work`` checkpoints, metrics.csv, network.json, trained_on.json, result.json.

    And correct.safetensors: which images of validation and test the network gets right at the end,
    in the order in which they are evaluated. And of a mask that changes the last one, as
    mask.safetensors and mask.json.

    ``callbacks`` are Keras callbacks of the caller; ``noted`` is added to the result, and
    ``compared`` is the result of the run that it will be compared with.
    """

    work: Path
    callbacks: Sequence[Any] = ()
    noted: Mapping[str, Any] = field(default_factory=dict)
    compared: Mapping[str, Any] = field(default_factory=dict)

    def checkpoints(self, recipe: Recipe) -> CheckpointFolder:
        """Those in the work folder."""
        return recipe.checkpoints(self.work)

    def begin(self, recipe: Recipe, data: Splits, loop: Loop, progress: Progress) -> list[Any]:
        """Write down what is trained on what, and rows of metrics from now on."""
        self._trained_on(loop.setting, continued=recipe.checkpoint is not None)
        if "mixed" in (about := self._setting()):
            log.warning("%s", about["mixed"])
        spe = _steps_per_epoch(recipe, data)
        write_json(
            self.work / "network.json",
            {
                "steps_per_epoch": spe,
                "whole": asdict(loop.anatomy.whole),
                "input_shape": data.description.input_shape,
                "classes": data.description.classes,
                "data": data.description.fingerprint,
                "kernels": [asdict(k) for k in loop.anatomy.kernels],
            },
        )
        metrics_file = MetricsFile(self.work / "metrics.csv", complete_epochs=progress.step // spe)
        files = [metrics_file]
        if recipe.config.trainer.validation_steps is not None:
            files.append(ValidationFile(self._validation_file, progress.step))
        chosen = recipe.config.callback
        acts = {c.name: c.build() for c in stepping(chosen)}
        watch = {label: c.build() for label, c in chosen.items() if c not in acting(chosen)}
        return [
            *files,
            *self.callbacks,
            *([Acting(acts, loop, progress.step)] if acts else []),
            *([Watching(watch, loop)] if watch else []),
            InputBound(decodes=isinstance(data.train, EncodedSplit)),
        ]

    def masked(self, recipe: Recipe, loop: Loop) -> None:
        """Write the mask, and what there is to say about it, if it was another one before."""
        if recipe.course is not None:
            mask = loop.masking.mask()
            masks.write(mask, self.work / MASK)
            # By single weights, as it began.
            about = {"percentile": recipe.course.percentile, "pattern": {"name": "weight"}}
            summary = masks.summary(mask, loop.anatomy.whole)
            write_json(self.work / "mask.json", {**about, **summary})

    def end(
        self,
        recipe: Recipe,
        data: Splits,
        loop: Loop,
        progress: Progress,
        validation: Measured,
        test: Measured,
        decided: Mapping[str, Any],
    ) -> None:
        """Write which images are correct, then the result.

        ``effective_density`` is the share of the prunable weights that survive and are not cut off
        (:mod:`lottery.training.severance`). What the training has cost is in it too:
        ``multiply_adds`` of an image (:func:`lottery.models.cost.of_training`),
        ``training_multiply_adds`` of all ``images_trained`` and, where NVML tells it,
        ``gpu_energy_joules`` of all attempts (:attr:`Progress.joules`). All of these count from the
        start of the training; what of it a finished one had done before is ``went_on_from``. So is
        what callbacks have ``decided``: after which epoch it was stopped, or has the weights of.
        """
        correct = {"validation": validation.correct, "test": test.correct}
        tensors.write_booleans(self.work / CORRECT, correct)
        steps = progress.step - recipe.first_step
        epochs = steps / _steps_per_epoch(recipe, data)
        images = steps * recipe.config.trainer.batch_size
        # What is cut off is zero, too.
        mask = loop.masking.mask() if recipe.course is not None else loop.severance.mask
        work = cost.of_training(loop.anatomy, mask, loop.model)
        result = {
            **validation.metrics.named("val_"),
            **test.metrics.named("test_"),
            **data.summary.result(),
            "val_examples": data.validation.size,
            "val_majority": int(np.bincount(data.validation.labels).max()),
            "val_images": data.validation_images,
            "test_examples": data.test.size,
            "test_images": data.test_images,
            "classes": len(data.description.classes),
            "epochs": int(epochs) if epochs == int(epochs) else epochs,
            "seconds": progress.seconds,
            "images_per_second": images / progress.training_seconds if steps else 0.0,
            "images_trained": images,
            "multiply_adds": work,
            "training_multiply_adds": images * work["training"],
            **_energy(progress.joules if steps else None),
            **_effective(loop.severance, loop.mask if recipe.course is None else {}),
            **early_stop(self._validation_file),
            **decided,
            **({"unreadable": list(bad)} if (bad := data.description.unreadable) else {}),
        }
        if (beginning := self.work / BEGINNING).exists():
            result["went_on_from"] = read_json(beginning)
        write_json(self.work / "result.json", result | self._setting() | dict(self.noted))

    def price(
        self,
        recipe: Recipe,
        data: Splits,
        loop: Loop,
        progress: Progress,
        per_call: int,
        dense: Callable[[], Loop],
    ) -> None:
        """Add to the result what a step of a sparse network takes against one of the dense network.

        That is ``step_time``, see :func:`lottery.training.timing.against_dense`.
        """
        sparse = recipe.mask is not None or recipe.course is not None
        calls = (progress.step - recipe.first_step) / per_call
        asked, path = recipe.config.trainer.measure_step, self.work / "result.json"
        if not sparse or not timing.worth_it(asked, progress.training_seconds, calls):
            return
        if loop.workers > 1 or self.signals.received is not None:  # others wait
            return
        spe = _steps_per_epoch(recipe, data)
        log.info("timing the step against that of the dense network")
        found = timing.against_dense(
            loop, dense, data.train, per_call=per_call, steps_per_epoch=spe
        )
        if found:
            write_json(path, {**read_json(path), "step_time": found})

    def finish(self, recipe: Recipe) -> None:
        """Remove what only an unfinished training needs."""
        self.checkpoints(recipe).finish()
        (self.work / WEIGHTS).unlink(missing_ok=True)

    @property
    def _validation_file(self) -> Path:
        return self.work / "validation.csv"

    def _trained_on(self, here: Setting, *, continued: bool) -> None:
        """Note what the attempts so far, this one the last, have trained on; each once in a row."""
        before = self._attempts() if continued and self._attempts_file.exists() else []
        attempts = before if before[-1:] == [here] else [*before, here]
        write_json(self._attempts_file, [asdict(attempt) for attempt in attempts])

    def _setting(self) -> dict[str, Any]:
        """What the attempts have trained on, as the result has it."""
        attempts = self._attempts()
        about = setting.result(attempts)
        other = Setting.of(self.compared)
        if other is not None and (mixed := setting.mixture([*attempts, other])):
            about["mixed"] = mixed
        return about

    def _attempts(self) -> list[Setting]:
        return [Setting(**found) for found in read_json(self._attempts_file)]

    @property
    def _attempts_file(self) -> Path:
        return self.work / "trained_on.json"


def _steps_per_epoch(recipe: Recipe, data: Splits) -> int:
    return steps_per_epoch(data.train.size, recipe.config.trainer.batch_size)


def _effective(severance: Severance, mask: masks.Mask) -> dict[str, float]:
    if not mask:
        return {}
    left = sum(int((kept & severance.mask.get(path, kept)).sum()) for path, kept in mask.items())
    return {"effective_density": left / sum(kept.size for kept in mask.values())}


def _energy(joules: float | None) -> dict[str, float]:
    return {} if joules is None else {"gpu_energy_joules": joules}
