"""Keras callbacks that every run has: metrics.csv, one line an epoch, a word on slow input.

And what becomes of those that a study chooses.
"""

import csv
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from lottery.files import naming, read_csv, replacing
from lottery.training.telemetry import cores, input_bound

if TYPE_CHECKING:
    from lottery.training.loop import Loop

log = logging.getLogger(__name__)

COLUMNS = (
    "epoch", "loss", "top1", "top5", "val_loss", "val_top1", "val_top5", "learning_rate",
    "density", "images_per_second", "step_seconds", "input_wait",
    "gpu_utilisation", "gpu_memory_gib", "gpu_power_watts", "gpu_energy_joules",
)  # fmt: skip
VALIDATED = ("step", "val_loss", "val_top1", "val_top5")
GPU = {"gpu_utilisation": "%.0f %%", "gpu_memory_gib": "%.1f GiB", "gpu_power_watts": "%.0f W"}


class MetricsFile(keras.callbacks.Callback):  # type: ignore[misc]
    """Appends a row an epoch; rows after ``complete_epochs``, left by a killed attempt, go."""

    def __init__(self, path: Path, complete_epochs: int) -> None:
        super().__init__()
        self._path = path
        rows = [r for r in read_csv(path) if int(r["epoch"]) <= complete_epochs]
        with replacing(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Append the epoch's row; what was not measured (GPUs, a changing density) stays empty."""
        with naming(self._path), self._path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow({"epoch": epoch + 1, **(logs or {})})
            file.flush()
            os.fsync(file.fileno())  # a checkpoint of this epoch says that its row is there


class ValidationFile(keras.callbacks.Callback):  # type: ignore[misc]
    """Appends a row whenever validation is measured within an epoch or at a multiple of its steps.

    Rows after ``step``, left by a killed attempt, go.
    """

    def __init__(self, path: Path, step: int) -> None:
        super().__init__()
        self._path = path
        rows = [row for row in read_csv(path) if int(row["step"]) <= step]
        with replacing(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, VALIDATED)
            writer.writeheader()
            writer.writerows(rows)

    def on_validation(self, step: int, logs: dict[str, float]) -> None:
        """Append a row."""
        with naming(self._path), self._path.open("a", newline="") as file:
            csv.DictWriter(file, VALIDATED).writerow({"step": step, **logs})
            file.flush()


def early_stop(path: Path) -> dict[str, float]:
    """The step of the lowest validation loss in such a file, and what was measured there.

    Early stopping as in Frankle & Carbin 2019, section 2. Empty if nothing was measured.
    """
    rows = [{k: float(v) for k, v in row.items()} for row in read_csv(path)]
    if not rows:
        return {}
    best = min(rows, key=lambda row: row["val_loss"])
    named = {f"early_stop_{name}": value for name, value in best.items()}
    return {**named, "early_stop_step": int(best["step"])}


class EpochLines(keras.callbacks.Callback):  # type: ignore[misc]
    """One log line an epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Log the epoch's metrics."""
        logs = logs or {}
        gpu = ", ".join(text % logs[name] for name, text in GPU.items() if name in logs)
        log.info(
            "epoch %*d/%d  loss %.4f  top-1 %.4f  val loss %.4f  val top-1 %.4f  "
            "lr %.2e  %.0f images/s  input wait %.0f %%%s",
            len(str(self.params["epochs"])), epoch + 1, self.params["epochs"],
            logs["loss"], logs["top1"], logs["val_loss"], logs["val_top1"],
            logs["learning_rate"], logs["images_per_second"], 100 * logs["input_wait"],
            f"  GPU {gpu}" if gpu else "",
        )  # fmt: skip


class ProgressBar(keras.callbacks.ProgbarLogger):  # type: ignore[misc]
    """Keras's own bar, with the few figures that fit on a line."""

    SHOWN = ("loss", "top1", "val_loss", "val_top1", "images_per_second", "gpu_utilisation")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Advance the bar."""
        super().on_train_batch_end(batch, self._few(logs))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Finish the bar with the validation metrics."""
        super().on_epoch_end(epoch, self._few(logs))

    def _few(self, logs: dict[str, Any] | None) -> dict[str, Any]:
        return {k: v for k, v in (logs or {}).items() if k in self.SHOWN}


class InputBound(keras.callbacks.Callback):  # type: ignore[misc]
    """Says that the network waits for its input: in the first epoch that shows it, at the end."""

    def __init__(self, decodes: bool) -> None:
        super().__init__()
        self._decodes = decodes
        self._waited = self._trained = 0.0  # seconds
        self._epochs, self._said = 0, False

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Log a sentence, once."""
        logs = logs or {}
        trained = logs["step_seconds"] * self.params["steps"]
        waited = logs["input_wait"] * trained
        self._waited, self._trained = self._waited + waited, self._trained + trained
        self._epochs += 1
        if not self._said:
            self._said = self._say(waited, trained)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Log a sentence about all epochs, unless the only one had its own."""
        if not (self._said and self._epochs == 1):
            self._say(self._waited, self._trained)

    def _say(self, waited: float, trained: float) -> bool:
        sentence = input_bound(waited, trained, decodes=self._decodes, cores=cores())
        if sentence:
            log.warning("%s", sentence)
        return sentence is not None


class Together(keras.callbacks.Callback):  # type: ignore[misc]
    """Several callbacks, each of whose hooks :meth:`_call` calls in turn."""

    def set_model(self, model: Any) -> None:
        """Tell all of them."""
        super().set_model(model)
        self._call("set_model", model)

    def set_params(self, params: Any) -> None:
        """Tell all of them."""
        super().set_params(params)
        self._call("set_params", params)

    def _call(self, hook: str, *arguments: Any) -> None:
        raise NotImplementedError


class Acting(Together):
    """Callbacks that may change weights, so that a training still goes on exactly from any state.

    They act in ``on_train_begin`` where the training begins at step 0, and in ``on_epoch_begin``,
    ``on_train_batch_begin``, ``on_train_batch_end``, ``on_validation`` and ``on_epoch_end``. There
    is one step a call for them, whatever ``trainer.steps_per_call`` says, and batches have no logs,
    which the clock decides on. Each state is saved after they have acted on its step; that of step
    0, which scores and rewindings see, before: it is the initialisation. So where a training goes
    on from another state, resumed or rewound, that state has what ``on_train_begin`` did, and
    ``on_epoch_begin`` if it lies within an epoch: both are called, and what they change is undone.
    The same holds of ``on_epoch_end`` where a training ends within an epoch, and of
    ``on_train_end``. Pruned weights become zero again after each call. What a callback remembers by
    itself is in no state, so nothing that it does may depend on that.

    ``step`` is that of the state which ``loop`` begins with.
    """

    def __init__(self, callbacks: Mapping[str, Any], loop: "Loop", step: int) -> None:
        super().__init__()
        self._callbacks, self._loop, self._step = callbacks, loop, step
        self._warned = False

    def on_train_begin(self, logs: Any = None) -> None:
        """Acts at step 0 alone."""
        with self._undoing(self._step > 0):
            self._call("on_train_begin", logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Acts at the first step of an epoch alone."""
        with self._undoing(self._within_epoch):
            self._call("on_epoch_begin", epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Acts."""
        self._call("on_train_batch_begin", batch, {})

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Acts."""
        self._step = batch + 1  # of the epoch, which is all that is asked for from now on
        self._call("on_train_batch_end", batch, {})

    def on_validation(self, step: int, logs: Any) -> None:
        """Acts, if it is known."""
        self._call("on_validation", step, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Acts after the last step of an epoch alone."""
        with self._undoing(self._within_epoch):
            self._call("on_epoch_end", epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Changes nothing."""
        with self._undoing(True):
            self._call("on_train_end", logs)

    @property
    def _within_epoch(self) -> bool:
        return bool(self._step % self.params["steps"])

    def _call(self, hook: str, *arguments: Any) -> None:
        for callback in self._callbacks.values():
            if hasattr(callback, hook):  # on_validation is none of Keras
                getattr(callback, hook)(*arguments)
        at_first = hook == "on_train_batch_end" and self._step == 1
        if (at_first or hook == "on_epoch_end") and not self._warned:
            self._warn_of_moved()
        with self._loop.strategy.scope():
            self._loop.masking.zero_pruned(self._loop.strategy)

    def _warn_of_moved(self) -> None:
        """Say, once in a training, that weights which stay zero were given other values."""
        if moved := self._loop.masking.moved():
            self._warned = True
            log.warning(
                "callback=%s has changed %d weights that the mask prunes; they are zero again "
                "after each of its calls", ", ".join(self._callbacks), moved,
            )  # fmt: skip

    @contextmanager
    def _undoing(self, undo: bool) -> Iterator[None]:
        state = self._loop.state() if undo else None
        yield
        if state is not None:
            self._loop.load(state)
