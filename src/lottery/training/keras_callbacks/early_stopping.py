"""Early stopping (Prechelt 1998), by the callback of Keras."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from lottery import choices
from lottery.options import option

NAMES = {"accuracy": "top1", "val_accuracy": "val_top1"}
"""What Keras calls a metric that has another name here."""
MONITORED = ("val_loss", "val_top1", "val_top5", "loss", "top1", "top5", *NAMES)


@choices.callback("early_stopping")
@dataclass(frozen=True)
class EarlyStopping:
    """Stop when a metric has stopped improving (keras.callbacks.EarlyStopping)."""

    remembers: ClassVar[tuple[str, ...]] = (
        "wait", "stopped_epoch", "best", "best_epoch", "best_weights",
    )  # fmt: skip
    may_stop: ClassVar[bool] = True

    monitor: str = option("val_loss", "metric of an epoch", choices=MONITORED)
    min_delta: float = option(0.0, "least change that counts as an improvement", ge=0)
    patience: int = option(0, "epochs without improvement before it stops", ge=0)
    mode: str = option(
        "auto", "which way is better; auto: as the metric has it", choices=("auto", "min", "max")
    )
    baseline: float | None = option(None, "what must be passed for patience to begin anew")
    restore_best_weights: bool = option(False, "end with the weights of the best epoch")
    start_from_epoch: int = option(0, "epochs before which it does not look", ge=0)

    def build(self) -> Any:
        """The callback of Keras; imports TensorFlow."""
        import keras

        options = {name: value for name, value in asdict(self).items() if name != "name"}
        monitor = NAMES.get(self.monitor, self.monitor)
        if self.mode == "auto":  # Keras would look for it in a model that was compiled
            options["mode"] = "min" if monitor.endswith("loss") else "max"
        return keras.callbacks.EarlyStopping(**options | {"monitor": monitor})

    def told(self, callback: Any, last_epoch: int | None) -> dict[str, int]:
        """Where it stopped, and after which epoch the weights are that it went back to."""
        restored = self.restore_best_weights and callback.best_weights is not None
        stopped = {"stopped_epoch": last_epoch} if callback.model.stop_training else {}
        return {**stopped, **({"restored_epoch": callback.best_epoch + 1} if restored else {})}
