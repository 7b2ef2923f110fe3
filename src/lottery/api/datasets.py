"""What a study is given as data: arrays, a ``tf.data.Dataset``, a file, or a choice by name."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lottery.api import session
from lottery.data.sources import Part
from lottery.data.sources.arrays import checked, read, remember
from lottery.errors import ConfigError, DataError

Shape = tuple[int, ...]


def chosen(
    data: Any, validation: Any, test: Any, classes: Sequence[str] | None
) -> tuple[list[str], Shape | None, int | None]:
    """The overrides that choose it, the shape of an example, and the number of classes.

    Shape and number are None of a choice by name. Raises :class:`DataError` or
    :class:`ConfigError` for what is no data, or cannot be known again.
    """
    shares = {"data.validation": validation, "data.test_fraction": test}
    typed = [session.value(o, share) for o, share in shares.items() if _is_share(share)]
    given: dict[Part, Any] = {"validation": validation, "test": test}
    own = {part: v for part, v in given.items() if v is not None and not _is_share(v)}
    if isinstance(data, str | Path) and not str(data).endswith(".npz"):
        if own:
            raise ConfigError(f"data={data} has splits of its own: give shares, not examples")
        return [f"data={data}", *typed], None, None
    if isinstance(data, str | Path):
        if own:
            raise ConfigError(
                f"{data} holds all splits: put the examples into it, as x_test and y_test"
            )
        parts = read(Path(data).expanduser())
    else:
        parts = {"train": _pair(data, "data")}
        parts |= {part: _pair(pair, part) for part, pair in own.items()}
    arrays = checked(parts, classes=tuple(map(str, classes)) if classes is not None else None)
    overrides = ["data=arrays", f"data.digest={remember(arrays)}", *typed]
    return overrides, arrays.image_shape, len(arrays.classes)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _pair(given: Any, what: str) -> tuple[Any, Any]:
    """Examples and labels."""
    if isinstance(given, tuple | list) and len(given) == 2:
        return given[0], given[1]
    kind = type(given)
    if any(base.__name__ == "DatasetV2" for base in kind.__mro__):
        return _of_dataset(given, what)
    if hasattr(given, "__next__") or _makes_generators(given):
        raise ConfigError(
            f"{what} is a {kind.__name__}, which gives its examples once, so no key could hold "
            "what they are: collect them in arrays (x, y)"
        )
    raise ConfigError(
        f"{what} is {kind.__name__}: give examples and labels (x, y), a tf.data.Dataset of such "
        "pairs, or a file of numpy.savez"
    )


def _makes_generators(given: Any) -> bool:
    """Whether it is a function that makes a generator, or Keras's PyDataset."""
    bases = {base.__name__ for base in type(given).__mro__}
    return inspect.isgeneratorfunction(given) or "PyDataset" in bases


def _of_dataset(dataset: Any, what: str) -> tuple[Any, Any]:
    """All of a ``tf.data.Dataset``: of examples or of batches of them, in one order."""
    if int(dataset.cardinality()) == -1:
        raise DataError(f"{what} repeats for ever: leave out .repeat()")
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise DataError(f"{what} must give pairs of an example and its label, not {spec}")
    if _is_batched(*spec):
        dataset = dataset.unbatch()
    first, again = (_collected(dataset) for _ in range(2))
    if not all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True)):
        raise DataError(
            f"{what} gives other examples, or another order, each time: leave out .shuffle() and "
            "augmentation; the study shuffles, and data.flip, data.crop_padding and augmentation=… "
            "augment"
        )
    return first


def _is_batched(example: Any, label: Any) -> bool:
    """Whether elements are batches: examples and labels have a first axis in common.

    Of one-hot labels, which are of floats, that axis is the classes.
    """
    if not label.shape.rank or not example.shape.rank or example.shape[0] != label.shape[0]:
        return False
    return label.shape[0] is None or not label.dtype.is_floating


def _collected(dataset: Any) -> tuple[Any, Any]:
    pairs = list(dataset.as_numpy_iterator())
    if not pairs:
        raise DataError("the tf.data.Dataset is empty")
    return np.stack([x for x, _ in pairs]), np.array([y for _, y in pairs])
