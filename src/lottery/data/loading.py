"""From a data config to a description or to splits."""

from collections.abc import Sequence
from dataclasses import replace

from lottery import choices
from lottery.config import Data
from lottery.data import sources
from lottery.data.interface import Description, Labels, Rows, Shape, Split, Splits
from lottery.data.sources import Part, Source, open_source
from lottery.data.splits import held_out, keep_classes, stratified
from lottery.errors import ConfigError, DataError


def describe(config: Data) -> Description:
    """Check a data set and say what is in it, reading no images and importing no TensorFlow.

    The exception is a class filter on a TensorFlow data set: its labels have to be read. With
    ``config.download``, a missing data set is fetched first.

    Raises :class:`ConfigError` or :class:`DataError`.
    """
    return _describe(config, open_source(config))


def load(config: Data) -> Splits:
    """The three splits, with images in memory if they fit or as ``config.in_memory`` asks.

    Raises :class:`ConfigError` or :class:`DataError`; the latter also for images that cannot be
    decoded, if they are held in memory (else see :meth:`Split.check`).
    """
    source = open_source(config)
    description = _describe(config, source)
    in_memory = config.in_memory
    if in_memory is None:
        height, width, channels = description.image_shape
        pixels = sum(description.sizes.values()) * height * width * channels
        in_memory = pixels <= config.memory_limit * 2**30

    def split(part: Part, rows: Rows, labels: Labels) -> Split:
        if in_memory:
            from lottery.data.arrays import ArraySplit

            try:
                return ArraySplit(source.images(part, rows), labels)
            except DataError:
                # Count what is wrong with the whole part, not with this one of its splits.
                source.stream(part, *keep_classes(source.labels(part), config.classes)).check()
                raise
        return source.stream(part, rows, labels)

    rows, labels = keep_classes(source.labels("train"), config.classes)
    if "test" in source.sizes:
        test = split("test", *keep_classes(source.labels("test"), config.classes))
    else:
        cut = stratified(labels, config.test_fraction, config.split_seed)
        test = split("train", rows[cut], labels[cut])
        rows, labels = rows[~cut], labels[~cut]
    cut = stratified(labels, config.validation, config.split_seed)
    validation = split("train", rows[cut], labels[cut])
    return Splits(description, split("train", rows[~cut], labels[~cut]), validation, test)


def _describe(config: Data, source: Source) -> Description:
    if config.test == "train":
        raise ConfigError("data.test=train would measure the test accuracy on training examples")
    return Description(
        name=source.name,
        image_shape=source.image_shape,
        input_shape=_input_shape(config, source.image_shape),
        classes=_classes(config.classes, source),
        sizes=_sizes(config, source),
        fingerprint=source.fingerprint,
        effective=_effective(config, source),
    )


def _effective(config: Data, source: Source) -> Data:
    default, effective = Data(), config
    if choices.shipped(sources.__name__, config.source):
        # The fingerprint, or the shape of the images, says what these have decided.
        effective = replace(
            effective, name=default.name, test=default.test, stored_size=default.stored_size
        )
    if "test" in source.sizes:
        effective = replace(effective, test_fraction=default.test_fraction)
    if config.classes == list(range(len(source.classes))):
        effective = replace(effective, classes=default.classes)
    if config.image_size == source.image_shape[0]:
        effective = replace(effective, image_size=default.image_size)
    if config.resize == crop_size(config, source.image_shape):
        effective = replace(effective, resize=default.resize)
    mean, std = (v[:1] if len(set(v)) == 1 else v for v in (config.mean, config.std))
    return replace(effective, mean=mean, std=std)


def _input_shape(config: Data, stored: Shape) -> Shape:
    side, _, channels = stored
    for name, values in (("mean", config.mean), ("std", config.std)):
        if len(values) not in (1, channels):
            raise ConfigError(
                f"data.{name}={list(values)} must have 1 or {channels} values: "
                f"the images have {channels} channels"
            )
    if config.image_size is not None and config.image_size > side:
        raise ConfigError(
            f"data.image_size={config.image_size} is larger than the stored images of "
            f"{side}x{side} pixels"
        )
    size = config.resize or crop_size(config, stored)
    return size, size, channels


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
    def count(part: Part) -> int:
        if config.classes is None:
            return source.sizes[part]
        return len(keep_classes(source.labels(part), config.classes)[0])

    train = count("train")
    if "test" in source.sizes:
        test = count("test")
    else:
        test = held_out(train, config.test_fraction)
        train -= test
    validation = held_out(train, config.validation)
    sizes = {"train": train - validation, "validation": validation, "test": test}
    for name, size in sizes.items():
        if size == 0:
            raise ConfigError(
                f"no examples are left for the {name} split of {source.name} "
                f"(sizes: {', '.join(f'{k} {v}' for k, v in sizes.items())})"
            )
    return sizes
