"""Networks with the weights of a run or a ticket. Imports TensorFlow when called."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lottery.errors import ConfigError

if TYPE_CHECKING:
    import keras

Array = np.ndarray[Any, Any]


def with_weights(
    choose: Callable[[], Any],
    input_shape: tuple[int, ...],
    classes: int,
    weights: Mapping[str, Array],
    check: Callable[["keras.Model"], None],
) -> "keras.Model":
    """The network that ``choose`` gives the choice of, with all its variables from ``weights``.

    ``check`` looks at the network before there are weights, which a file could ask for more of
    than there is memory; it raises if they do not fit (:func:`misfit`).

    Raises :class:`ConfigError` for one that cannot be built.
    """
    from lottery.quiet import import_tensorflow

    import_tensorflow()
    import keras

    from lottery.models import build_choice

    try:
        chosen = choose()
        with keras.StatelessScope(initialize_variables=False):
            shapes = build_choice(chosen, input_shape, classes)
    except ConfigError:
        raise
    except Exception as error:  # whatever a builder makes of another's options
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"{type(error).__name__}: {reason}") from error
    check(shapes)
    network = build_choice(chosen, input_shape, classes)
    for variable in network.variables:
        variable.assign(weights[variable.path])
    return network


def misfit(
    network: "keras.Model",
    arrays: Mapping[str, Array],
    *,
    but: Collection[str] = (),
    all_variables: bool = False,
) -> str | None:
    """The path of the first array that is not of a variable of the network; None if all are.

    Paths in ``but`` may differ; with ``all_variables`` no variable may be without an array, and
    each must be of its type.
    """

    def kind(shape: Iterable[int], dtype: Any) -> tuple[Any, ...]:
        return (*shape, str(dtype)) if all_variables else tuple(shape)

    shapes = {v.path: kind(v.shape, v.dtype) for v in network.variables if v.path not in but}
    own = {p: kind(array.shape, array.dtype) for p, array in arrays.items() if p not in but}
    wrong = [path for path, shape in own.items() if shapes.get(path) != shape]
    if all_variables:
        wrong += sorted(set(shapes) - set(own))
    return wrong[0] if wrong else None
