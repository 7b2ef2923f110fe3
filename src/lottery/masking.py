"""The mask of one round, as a node of the store: evidence -> scores -> mask; and its shuffle."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lottery import files, tensors
from lottery.config import Config
from lottery.errors import ConfigError
from lottery.lineage import Round, mask_identity, score_identity, shuffled_identity
from lottery.points import START, Point
from lottery.pruning import masks
from lottery.pruning.evidence import Evidence, Passes
from lottery.pruning.scores import needs, scored
from lottery.pruning.units import Ties, needs_ties, prunes_channels
from lottery.runs import Run
from lottery.store import Node, Store

log = logging.getLogger(__name__)

Arrays = Mapping[str, np.ndarray[Any, Any]]
MASK = "mask.safetensors"


@dataclass(frozen=True)
class Sources:
    """What a mask may be made from besides trained weights; each is made when it is asked for."""

    weights: Callable[[Point], tuple[Arrays, str | None]]
    """Those of the dense network at a point in its training; and, if that was trained once more,
    ``exactly`` or why it is not the one that the network had."""
    passes: Callable[[Path], Passes]
    """Passes through the network; files that other processes need may lie in the folder."""
    ties: Callable[[], Ties]
    """Which channels of the network stand or fall together."""
    computed_share: Callable[[masks.Mask], float]
    """Of the network's multiply-adds, those that are left without the channels that a mask
    prunes."""


def make_mask(
    config: Config, store: Store, dense: Run, ranked: Run, step: Round, sources: Sources
) -> Node:
    """The mask of one round, by the weights of the run ``ranked``, or those of ``mask.at``.

    What the mask of ``ranked`` removed stays removed. Shuffled for that control. Raises
    :class:`ConfigError` if nothing is left to prune, and what score, allocation and pattern raise.
    """
    about = mask_identity(config, dense.key, ranked.key, step.percentile)
    produce = partial(_produce, config, store, dense, ranked, step, sources)
    mask = store.compute("mask", about, produce)
    return shuffled(config, store, mask, dense.whole, sources.ties) if step.shuffled else mask


def taken_mask(
    store: Store, about: Mapping[str, Any], mask: masks.Mask, pattern: Any, dense: Run
) -> Node:
    """A mask that was made elsewhere, for a network that has such kernels."""

    def produce(work: Path) -> None:
        found = _in_order(mask, dense)
        removed = 1 - masks.summary(found, dense.whole)["density"]
        _write(work, found, {"percentile": 100 * removed}, pattern, dense.whole)

    return store.compute("mask", about, produce)


def prunable(config: Config, dense: Run) -> list[str]:
    """Paths of the kernels to prune. Raises :class:`ConfigError` if the options leave none."""
    options = config.mask
    paths = masks.prunable(
        dense.kernels,
        depthwise=options.depthwise,
        skip_first=options.skip_first,
        skip_last=options.skip_last,
    )
    if not paths:
        raise ConfigError("the mask options leave no layer to prune")
    odd = [k.path for k in dense.kernels if k.path in paths and not k.matrix]
    if odd and getattr(options.pattern, "of_matrices", False):
        raise ConfigError(
            f"mask.pattern={options.pattern.name} takes kernels whose last axes are inputs and "
            f"outputs, and those of {', '.join(odd)} are not: choose another mask.pattern"
        )
    return paths


def _produce(
    config: Config,
    store: Store,
    dense: Run,
    ranked: Run,
    step: Round,
    sources: Sources,
    work: Path,
) -> None:
    options, paths = config.mask, prunable(config, dense)
    at = options.scored
    weights, replayed = (ranked.weights(), None) if at is None else sources.weights(at)
    within = ranked.mask or None
    made = partial(
        masks.make,
        allocation=options.scope,
        pattern=options.pattern,
        within=within,
        before=step.before,
        ties=sources.ties() if needs_ties(options.pattern) else None,
    )
    asked = needs(options.score)

    def scores(work: Path) -> Arrays:
        evidence = Evidence(
            weights,
            tuple(paths),
            step.percentile,
            config.seed,
            within,
            lambda: sources.weights(START)[0],
            sources.passes(work) if asked & {"labels", "network"} else None,
            made,
        )
        return scored(options.score, evidence)

    if step.percentile == 0:
        found: Arrays = {path: np.ones(weights[path].shape, bool) for path in paths}
    elif asked & {"labels", "network"}:
        found = made(_stored_scores(config, store, ranked, step, scores), step.percentile)
    else:  # as quick as reading them
        found = made(scores(work), step.percentile)
    found = _in_order(found, dense)
    noted: dict[str, Any] = {"replayed": replayed} if replayed else {}
    if prunes_channels(options.pattern):
        noted["computed_share"] = sources.computed_share(found)
    _write(work, found, {"percentile": step.percentile, **noted}, options.pattern, dense.whole)


def _stored_scores(
    config: Config,
    store: Store,
    ranked: Run,
    step: Round,
    scores: Callable[[Path], Arrays],
) -> Arrays:
    """Scores that cost passes through the network: computed once, for all that ask for them."""

    def produce(work: Path) -> None:
        tensors.write(work / "scores.safetensors", scores(work))

    about = score_identity(config, ranked.key, step.percentile)
    node = store.compute("score", about, produce)
    return tensors.read(node.path / "scores.safetensors")[0]


def _in_order(mask: Arrays, dense: Run) -> dict[str, np.ndarray[Any, Any]]:
    """The mask as one reads the network, input first."""
    place = {kernel.path: n for n, kernel in enumerate(dense.kernels)}
    return {path: mask[path] for path in sorted(mask, key=place.__getitem__)}


def shuffled(
    config: Config, store: Store, mask: Node, whole: masks.Whole, tied: Callable[[], Ties]
) -> Node:
    """The control: the same layer-wise counts at random places, in the config's pattern."""
    pattern = config.mask.pattern

    def produce(work: Path) -> None:
        about = files.read_json(mask.path / "result.json")
        ties = tied() if needs_ties(pattern) else None
        found = masks.read(mask.path / MASK)
        permuted = masks.shuffle(found, config.seed, pattern=pattern, ties=ties)
        permuted = {path: permuted[path] for path in about["layers"]}
        noted = {k: about[k] for k in ("percentile", "replayed") if k in about}
        _write(work, permuted, noted, pattern, whole)

    return store.compute("mask", shuffled_identity(config, mask.key), produce)


def _write(
    work: Path, mask: masks.Mask, noted: dict[str, Any], pattern: Any, whole: masks.Whole
) -> None:
    masks.write(mask, work / MASK)
    summary = {**noted, "pattern": asdict(pattern), **masks.summary(mask, whole)}
    files.write_json(work / "result.json", summary)
    emptied = [path for path, count in summary["layers"].items() if count["kept"] == 0]
    if emptied:  # layer collapse: Tanaka et al. 2020, arXiv:2006.05467
        log.warning(
            "the mask leaves no weight in %d layers (%s): if the ticket stays at chance, try "
            "mask.scope=layer, mask.rate=20 or mask.skip_last=true",
            len(emptied), ", ".join(emptied[:3]),
        )  # fmt: skip
