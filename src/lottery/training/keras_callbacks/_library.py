"""The callbacks of Keras that cannot be chosen, and what there is in their place."""

_OWN = "write one of your own, @choices.{kind} (CONTRIBUTING.md)"
_REASONS = {
    "BackupAndRestore": "every training is saved, and the same command goes on where it was killed",
    "CSVLogger": "metrics.csv beside every result has a row an epoch",
    "History": "metrics.csv beside every result has a row an epoch, and lottery.load_run reads it",
    "LambdaCallback": "a function is not known by its name, and keys must hold what it does: "
    + _OWN.format(kind="callback"),
    "LearningRateScheduler": "a function is not known by its name, and keys must hold the rates: "
    "take a schedule, or " + _OWN.format(kind="schedule"),
    "ModelCheckpoint": "the store keeps the states of a training: rewind.keep=[5,10] says which, "
    "and callback=[early_stopping] ends with the best weights",
    "OrbaxCheckpoint": "the store keeps the states of a training: rewind.keep=[5,10] says which",
    "ProgbarLogger": "a terminal shows one anyway",
    "ReduceLROnPlateau": "the learning rate must follow from the step, so that a rewound training "
    "has the rate that it had there: take schedule=step",
    "RemoteMonitor": "logger=wandb logger.mode=online sends metrics",
    "SwapEMAWeights": "the weights that it trains are not those that are measured, and a mask is "
    "made of only one of them",
    "TensorBoard": "logger=wandb draws curves, and profile=true leaves a trace for TensorBoard",
    "TerminateOnNaN": "a training whose loss is not finite ends anyway, and says so",
}


def _in_words(name: str) -> str:
    """``early_stopping`` of ``EarlyStopping``, as the names of choices are."""
    ends = {"CSV": "Csv", "LROn": "LrOn", "EMA": "Ema", "NaN": "Nan", "TensorBoard": "Tensorboard"}
    for old, new in ends.items():
        name = name.replace(old, new)
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).removeprefix("_")


EXCLUDED = {form: why for name, why in _REASONS.items() for form in (name, _in_words(name))}
"""By name, as Keras writes it and as choices are written, why a callback cannot be chosen."""


def names() -> tuple[str, ...]:
    """None: those that can be chosen have modules of their own."""
    return ()


def find(name: str) -> type | None:
    """The options of another callback of Keras: there is none."""
    return None
