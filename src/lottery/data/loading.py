"""From a data config to a description or to splits."""

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from lottery.choices import code
from lottery.config import Data
from lottery.data.interface import Description, Labels, Rows, Shape, Split, Splits
from lottery.data.sources import Part, Source
from lottery.data.splits import (
    Keys,
    held_out,
    keep_classes,
    mislabelled,
    small,
    stratified,
)
from lottery.data.summary import Summary, summarised
from lottery.errors import ConfigError, DataError

log = logging.getLogger(__name__)

HELD_OUT: tuple[Part, ...] = ("test", "validation")
"""The parts that a source may have besides ``train``; of the others a share of it is cut off."""


@dataclass(frozen=True)
class Members:
    """The examples of one split."""

    part: Part
    """The part of the source that they are in."""
    rows: Rows
    """Their increasing positions there, [N]."""
    labels: Labels
    """[N], renumbered by the class filter."""


def describe(config: Data) -> Description:
    """Check a data set and say what is in it, reading no images and importing no TensorFlow.

    With ``config.download``, a missing data set is fetched first.

    Raises :class:`ConfigError` or :class:`DataError`.
    """
    return _describe(config, config.open())


def load(config: Data) -> Splits:
    """The three splits, with images in memory if they fit or as ``config.in_memory`` asks.

    Raises :class:`ConfigError` or :class:`DataError`; the latter also for images that cannot be
    decoded, if they are held in memory (else see :meth:`Split.check`).
    """
    source = config.open()
    description = _describe(config, source)
    in_memory = config.in_memory
    if in_memory is None:
        pixels = sum(description.sizes.values()) * math.prod(description.image_shape)
        in_memory = pixels <= config.memory_limit * 2**30

    def split(members: Members) -> Split:
        part, rows, labels = members.part, members.rows, members.labels
        if in_memory:
            from lottery.data.arrays import ArraySplit

            try:
                return ArraySplit(source.images(part, rows), labels)
            except DataError:
                # Count what is wrong with the whole part, not with this one of its splits.
                source.images(part, keep_classes(source.labels(part), config.classes)[0])
                raise
        return source.stream(part, rows, labels)

    found = split_members(config, source)
    if config.label_noise:
        clean = split_members(replace(config, label_noise=0.0), source)["train"].labels
        log.info(
            "%d of %d training labels are those of another class (data.label_noise=%g)",
            np.count_nonzero(found["train"].labels != clean), len(clean), config.label_noise,
        )  # fmt: skip
    for name, members in found.items():
        _warn_of_absent(name, members.labels, description)
    train, validation, test = (split(found[name]) for name in ("train", "validation", "test"))
    return Splits(
        description,
        train,
        validation,
        test,
        validation_images=_identified(config, source, found["validation"]),
        test_images=_identified(config, source, found["test"]),
        summary=summarised(config, source, description, found["train"].labels),
    )


def summarise(config: Data) -> Summary:
    """What to know of a data set before training, reading labels and at most some headers.

    Raises :class:`ConfigError` or :class:`DataError`.
    """
    source = config.open()
    labels = split_members(config, source)["train"].labels
    return summarised(config, source, _describe(config, source), labels)


def _warn_of_absent(name: str, labels: Labels, description: Description) -> None:
    absent = sorted({*range(len(description.classes))} - {*labels.tolist()})
    if absent:
        named = ", ".join(description.classes[i] for i in absent[:5])
        more = ", ..." if len(absent) > 5 else ""
        log.warning("classes with no %s example: %d (%s%s)", name, len(absent), named, more)


def split_members(config: Data, source: Source) -> dict[str, Members]:
    """Who is in ``train``, ``validation`` and ``test``; reads labels, and no images.

    Test is cut before validation, and both before the class filter: which split an example is in
    depends on the example, on its class, on ``split_seed`` and on the shares alone. Which training
    examples have a wrong label does, too; which one depends on the classes that are kept.
    """
    labels, keys = source.labels("train"), source.keys("train")
    left = np.arange(len(labels))
    rows: dict[str, Rows] = {}
    for name, share in (("test", config.test_fraction), ("validation", config.validation)):
        if name in source.sizes:
            continue
        cut = stratified(labels[left], keys[left], share, f"{config.split_seed} {name}")
        rows[name], left = left[cut], left[~cut]
    found = {
        name: _filtered("train", rows, labels, config.classes)
        for name, rows in (rows | {"train": left}).items()
    }
    if config.label_noise:
        wrong = stratified(labels[left], keys[left], config.label_noise, _noise(config))
        found["train"] = _noisy(config, found["train"], left[wrong], keys, len(source.classes))
    for part in HELD_OUT:
        if part in source.sizes:
            labels = source.labels(part)
            found[part] = _filtered(part, np.arange(len(labels)), labels, config.classes)
    return found


def _noise(config: Data) -> str:
    return f"{config.split_seed} label noise"


def _noisy(config: Data, members: Members, wrong: Rows, keys: Keys, classes: int) -> Members:
    """The members with another label for those at the rows ``wrong`` of their part."""
    kept = classes if config.classes is None else len(config.classes)
    here, labels = np.isin(members.rows, wrong), members.labels.copy()
    others = mislabelled(labels[here], keys[members.rows[here]], kept, f"{_noise(config)}, which")
    labels[here] = others
    return replace(members, labels=labels)


def _identified(config: Data, source: Source, members: Members) -> str:
    """Which images these are, and in which order they are evaluated, as a hash.

    It is made of what the source holds, in which order (:attr:`Source.fingerprint`), of the code
    that reads it if keys hold that, and of the images' places there, one after the other. A split
    is evaluated in that order however its images are held, so equal hashes mean equal lists. Images
    of a folder and records made of them have different hashes, even if they are in the same order.
    """
    code = [] if config.code is None else [config.code]
    about = json.dumps([source.fingerprint, members.part, *code], sort_keys=True)
    digest = hashlib.sha256(about.encode())
    digest.update(members.rows.astype("<i8").tobytes())
    return digest.hexdigest()[:20]


def _filtered(part: Part, rows: Rows, labels: Labels, classes: Sequence[int] | None) -> Members:
    kept, renumbered = keep_classes(labels[rows], classes)
    return Members(part, rows[kept], renumbered)


def _describe(config: Data, source: Source) -> Description:
    if getattr(config, "test", None) == "train":
        raise ConfigError("data.test=train would measure the test accuracy on training examples")
    return Description(
        name=source.name,
        image_shape=source.image_shape,
        input_shape=_input_shape(config, source.image_shape),
        classes=_classes(config.classes, source),
        sizes=_sizes(config, source),
        fingerprint=source.fingerprint,
        effective=_effective(config, source),
        unreadable=getattr(source, "unreadable", ()),
    )


def _effective(config: Data, source: Source) -> Data:
    default, effective = type(config)(), config
    if code.shipped("data", config.source):
        # The fingerprint, or the shape of the images, says what these have decided.
        decided = {"test", "stored_size"} & {f.name for f in fields(config)}
        effective = replace(effective, **{name: getattr(default, name) for name in decided})
    for part, share in zip(HELD_OUT, ("test_fraction", "validation"), strict=True):
        if part in source.sizes:
            effective = replace(effective, **{share: getattr(default, share)})
    if config.classes == list(range(len(source.classes))):
        effective = replace(effective, classes=default.classes)
    if config.image_size == source.image_shape[0]:
        effective = replace(effective, image_size=default.image_size)
    if config.resize == crop_size(config, source.image_shape):
        effective = replace(effective, resize=default.resize)
    mean, std = (v[:1] if len(set(v)) == 1 else v for v in (config.mean, config.std))
    return replace(effective, mean=mean, std=std)


def _input_shape(config: Data, stored: Shape) -> Shape:
    channels = stored[-1]
    for name, values in (("mean", config.mean), ("std", config.std)):
        if len(values) not in (1, channels):
            raise ConfigError(
                f"data.{name}={list(values)} must have 1 or {channels} values: "
                f"the images have {channels} channels"
            )
    if not is_square_image(stored):
        for f in _of_images(config):
            raise ConfigError(f"data.{f} is for square images, and these are {stored}")
        return stored
    side = stored[0]
    if config.image_size is not None and config.image_size > side:
        raise ConfigError(
            f"data.image_size={config.image_size} is larger than the stored images of "
            f"{side}x{side} pixels"
        )
    size = config.resize or crop_size(config, stored)
    return size, size, channels


def is_square_image(shape: Shape) -> bool:
    """Whether examples of that shape can be cropped and resized."""
    return len(shape) == 3 and shape[0] == shape[1]


def _of_images(config: Data) -> list[str]:
    """The options that say something and mean nothing but for square images."""
    default = type(config)()
    names = ("stored_size", "image_size", "resize", "crop", "crop_padding", "flip")
    return [name for name in names if getattr(config, name) != getattr(default, name)]


def crop_size(config: Data, stored: Shape) -> int:
    """Side in pixels of what is cut out of a stored image."""
    return config.image_size or stored[0]


def _classes(kept: Sequence[int] | None, source: Source) -> tuple[str, ...]:
    known = source.classes
    if kept is None:
        return known
    shown = f"data.classes={list(kept)}"
    outside = [c for c in kept if not 0 <= c < len(known)]
    if outside:
        raise ConfigError(
            f"{shown}: {source.name} has classes 0 to {len(known) - 1}, not {outside[0]}"
        )
    if len(set(kept)) != len(kept):
        raise ConfigError(f"{shown} names a class twice")
    if len(kept) < 2:
        raise ConfigError(f"{shown} leaves fewer than two classes")
    return tuple(known[c] for c in kept)


def _sizes(config: Data, source: Source) -> dict[str, int]:
    count = len(source.classes)
    train = np.bincount(source.labels("train"), minlength=count)
    held: dict[str, Any] = {}  # examples of each class
    lots = False  # which are drawn for small classes
    for part, share in zip(HELD_OUT, (config.test_fraction, config.validation), strict=True):
        if part in source.sizes:
            held[part] = np.bincount(source.labels(part), minlength=count)
            continue
        lots = lots or any(small(n, share) for n in train.tolist())
        held[part] = np.array([held_out(n, share) for n in train.tolist()])
        train = train - held[part]
    if lots:
        found = split_members(config, source)
        sizes = {name: len(found[name].rows) for name in ("train", "validation", "test")}
    else:  # a sweep asks for each of its cells
        kept = slice(None) if config.classes is None else config.classes
        of_class = {"train": train, "validation": held["validation"], "test": held["test"]}
        sizes = {name: int(counts[kept].sum()) for name, counts in of_class.items()}
    for name, size in sizes.items():
        if size == 0:
            raise ConfigError(
                f"no examples are left for the {name} split of {source.name} "
                f"(sizes: {', '.join(f'{k} {v}' for k, v in sizes.items())}); a share of each "
                "class is held out, and one example stays: small classes need larger shares "
                "(data.validation, data.test_fraction)"
            )
    return sizes
