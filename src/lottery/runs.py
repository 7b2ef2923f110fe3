"""Finished runs, for people and programs: their config, metrics, weights and mask as plain values.

>>> run = load_run("outputs/prune/2026-01-01_12-00-00-000000")
>>> run.weights()["classifier/kernel"], run.mask, run.parent.weights(5)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lottery import choices, files, tensors
from lottery.errors import CheckpointError, ConfigError, DamagedError, LotteryError, StoreError
from lottery.models.loading import misfit, with_weights
from lottery.points import Point
from lottery.pruning import masks
from lottery.training.checkpoints import CheckpointFolder, State
from lottery.training.recipe import CORRECT
from lottery.verdict.images import ANSWERS

if TYPE_CHECKING:
    import keras
    import pandas as pd

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Run:
    """One finished training, of a dense network, a ticket or a transfer, in the run store."""

    path: Path

    @property
    def key(self) -> str:
        """Name of the run in the store: a hash of what determines it."""
        return str(self._about["key"])

    @property
    def kind(self) -> str:
        """What kind of node it is: ``dense``, ``ticket``, ``transfer``, or what a study adds."""
        return str(self._about["kind"])

    @property
    def config(self) -> dict[str, Any]:
        """The configuration it was computed with, resolved."""
        config: dict[str, Any] = files.read_json(self.path / "config.json")
        return config

    @property
    def result(self) -> dict[str, Any]:
        """Final metrics: ``val_top1``, ``test_top1``, ``seconds`` and so on."""
        result: dict[str, Any] = files.read_json(self.path / "result.json")
        return result

    @property
    def summary(self) -> dict[str, Any]:
        """Final metrics and, for a ticket, the counts of its mask: one flat dictionary.

        ``density/<variable path>`` is the share of the weights that a layer keeps.
        """
        mask = files.read_json(self.path / "mask.json") if self.mask else {}
        counts = {f"mask_{k}": v for k, v in mask.items() if not isinstance(v, dict | list)}
        layers = mask.get("layers", {}).items()
        densities = {f"density/{path}": of["kept"] / of["size"] for path, of in layers}
        return {**_flat(self.result), **counts, **densities}

    @property
    def metrics(self) -> list[dict[str, float]]:
        """One dictionary an epoch: ``epoch`` (complete epochs), ``loss``, ``val_top1``, …"""
        rows = files.read_csv(self.path / "metrics.csv")
        return [{k: float(v) for k, v in row.items() if v != ""} for row in rows]

    @property
    def history(self) -> "pd.DataFrame":
        """The same as a DataFrame, one row an epoch."""
        import pandas as pd

        return pd.DataFrame(self.metrics)

    @property
    def points(self) -> list[Point]:
        """Points whose complete state was kept; the first is where it began."""
        return [Point.at(step, self.steps_per_epoch) for step in self.checkpoints.steps()]

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return int(self._network["steps_per_epoch"])

    def weights(self, at: Point | int | str | None = None) -> dict[str, Array]:
        """All variables of the network by path: after so many epochs, at ``2000it``, or at the end.

        Raises :class:`CheckpointError` if that point was not kept or is damaged.
        """
        state = self.state(at)
        return {
            name.removeprefix("model/"): array
            for name, array in state.items()
            if name.startswith("model/")
        }

    def state(self, at: Point | int | str | None = None) -> State:
        """Everything that training changes at a point, optimizer included."""
        steps = self.checkpoints.steps()
        step = steps[-1] if at is None else Point.of(at).step(self.steps_per_epoch)
        if step not in steps:
            kept = ", ".join(map(str, self.points))
            raise CheckpointError(f"run {self.key} kept no {Point.of(at)}, only {kept}")
        try:
            return self.checkpoints.load(step)[0]
        except CheckpointError as error:
            raise CheckpointError(f"{error}; remove {self.path} to compute it again") from error

    def model(self, at: Point | int | str | None = None) -> "keras.Model":
        """The network in Keras, at a point as in :meth:`weights`.

        It takes images (batch, height, width, channels), which are ``(pixels / 255 - mean) / std``
        with ``mean`` and ``std`` of ``config["data"]``, and gives logits. Pruned weights are
        exactly zero; nothing keeps them so in further training.

        Raises :class:`CheckpointError` if that point was not kept or is damaged, and
        :class:`StoreError` if this version of the program builds another network.
        """
        arrays, about = self.weights(at), self.config

        def check(network: "keras.Model") -> None:
            if path := misfit(network, arrays, all_variables=True):
                raise StoreError(
                    f"run {self.key} does not fit {about['model']['name']} as this version of "
                    f"lottery builds it, beginning with {path}"
                )

        def choose() -> Any:
            choices.load_plugins(about.get("plugins") or ())
            return choices.model.of(about["model"])

        try:
            return with_weights(choose, self.input_shape, len(self.classes), arrays, check)
        except ConfigError as error:
            raise StoreError(f"the network of run {self.key} cannot be built: {error}") from error

    @property
    def mask(self) -> dict[str, Array]:
        """Boolean survivors by variable path; empty for a dense run."""
        path = self.path / "mask.safetensors"
        return masks.read(path) if path.exists() else {}

    def correct(self, split: str) -> Array | None:
        """Which images of ``validation`` or ``test`` its final network gets right: bool [images].

        The mean is the result's ``val_top1`` or ``test_top1``. Image by image, two runs can be
        compared only if their results have the same ``val_images`` (``test_images``), for those say
        which images these are, in which order. None of a run that is older than this record.

        Raises :class:`LotteryError` for another split, and :class:`StoreError` for a damaged file.
        """
        path = self.path / CORRECT
        if split not in ("validation", "test"):
            raise LotteryError(f"runs are measured on validation and test, not on {split}")
        try:
            return tensors.read_booleans(path)[split] if path.exists() else None
        except DamagedError as error:
            raise StoreError(
                f"{path} is damaged: {error}; remove {path.parent} to compute it again"
            ) from error

    @property
    def parent(self) -> "Run | None":
        """The dense run a ticket comes from; None for a dense run."""
        dense = self._about["identity"].get("dense")
        return Run(self.path.parent.parent / "dense" / dense) if dense else None

    @property
    def ancestors(self) -> "list[Run]":
        """The runs a ticket descends from: its dense network, then the rounds before its own."""
        dense, mask = self.parent, self._about["identity"].get("mask")
        chain: list[Run] = []
        if dense is None:
            return []
        store = self.path.parent.parent
        while mask is not None:
            about = files.read_json(store / "mask" / mask / "done.json")["identity"]
            if "shuffled" in about:
                mask = about["shuffled"]
                continue
            if about.get("ranked", dense.key) == dense.key:  # made at the start: of no run
                break
            chain.append(Run(store / "ticket" / about["ranked"]))
            mask = chain[-1]._about["identity"]["mask"]
        return [dense, *reversed(chain)]

    @property
    def checkpoints(self) -> CheckpointFolder:
        """The kept states on disk."""
        return CheckpointFolder(self.path / "checkpoints")

    @property
    def kernels(self) -> list["StoredKernel"]:
        """The network's kernels in order, those that may be pruned among them."""
        return [StoredKernel(**k) for k in self._network["kernels"]]

    @property
    def whole(self) -> masks.Whole:
        """How many weights the network has, and which matrices no pruning looks at."""
        about = self._network["whole"]
        return masks.Whole(about["parameters"], about["kernels"], tuple(about["left_out"]))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of the images that the network takes; or what else it takes."""
        return tuple(self._network.get("input_shape") or self._described.input_shape)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by output of the network."""
        return tuple(self._network.get("classes") or self._described.classes)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What tells its data set from others, see :class:`lottery.data.Description`."""
        fingerprint: dict[str, Any] = self._network["data"]
        return fingerprint

    @property
    def _described(self) -> Any:
        """What the data set says, of a run that did not record it."""
        from lottery.data import describe

        return describe(choices.source.of(self.config["data"]))

    @property
    def _about(self) -> dict[str, Any]:
        about: dict[str, Any] = files.read_json(self.path / "done.json")
        return about

    @property
    def _network(self) -> dict[str, Any]:
        network: dict[str, Any] = files.read_json(self.path / "network.json")
        return network


def _flat(result: Mapping[str, Any]) -> dict[str, Any]:
    """With the values of dictionaries in it by both names: ``multiply_adds_computed``."""
    parts = ({f"{k}_{n}": v for n, v in value.items()} if isinstance(value, dict) else {k: value}
             for k, value in result.items())  # fmt: skip
    return {name: value for part in parts for name, value in part.items()}


@dataclass(frozen=True)
class StoredKernel:
    """A kernel as a run recorded it, readable without TensorFlow."""

    path: str
    shape: tuple[int, ...]
    kind: str
    matrix: bool


def load_run(path: str | Path, store: str | Path | None = None) -> Run:
    """The run of an output folder or of a folder of the store.

    That of prune.py is the ticket, of train.py the dense run, of transfer.py the moved ticket, of
    stability.py the first child. ``store`` says where the run store is, if it is not any more where
    an output folder says. Without it that is looked for beside the output folder, as ``store``: a
    run's name is its content, so that it cannot be another.

    Raises :class:`LotteryError` if there is no finished run.
    """
    from lottery import studies  # which builds on this module

    path = Path(path)
    if (path / "done.json").exists():
        return Run(path)
    try:
        result = studies.read_file(path / "result.json")
    except FileNotFoundError as error:
        raise LotteryError(
            f"{path} holds no finished run (no result.json, no done.json)"
        ) from error
    if store is not None:
        run = replace(result, store=str(Path(store).resolve())).main
    else:
        run = result.main
        beside = (folder / "store" for folder in path.resolve().parents[1:3])
        for root in beside if not (run.path / "done.json").exists() else ():
            moved = replace(result, store=str(root)).main
            run = moved if (moved.path / "done.json").exists() else run
    if not (run.path / "done.json").exists():
        hint = "" if store else f"; load_run({str(path)!r}, store=…) takes it from where it is now"
        raise LotteryError(f"{path} refers to {run.path}, which is not there any more{hint}")
    return run


def runs_of(result: Mapping[str, Any]) -> dict[str, Run]:
    """The runs that a ``result.json`` tells of, by name.

    Raises :class:`ResultError` if it is damaged, or of another version.
    """
    from lottery import studies  # which builds on this module

    return studies.read(result).trainings


def with_answers(about: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """The result of a run with which validation images it got right, as a verdict reads it.

    Without, if the run in ``folder`` is not there any more, is damaged, or has not kept that.
    """
    try:
        correct = Run(folder).correct("validation")
    except (OSError, ValueError, LotteryError):
        correct = None
    return about if correct is None else {**about, ANSWERS: correct}
