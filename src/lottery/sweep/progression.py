"""The ellipsis in a sweep: ``65,70,...,99`` is 65, 70, 75, …, 95, 99."""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from lottery.errors import ConfigError

ELLIPSIS = "..."


def expand(name: str, values: Sequence[str]) -> list[str]:
    """Replace every ellipsis by the arithmetic progression it stands for.

    ``a,b,...,z`` continues the step ``b - a`` while below ``z`` (above it, when descending) and
    ends with ``z`` itself. Decimals are exact and keep the places they were typed with.

    Raises :class:`ConfigError`, naming the option, if an ellipsis has not two numbers before it
    and one after it, if the step is zero or leads away from the end, or would give over 10,000
    values.
    """
    expanded: list[str] = []
    typed = f"{name}={','.join(values)}"
    for i, value in enumerate(values):
        if value != ELLIPSIS:
            expanded.append(value)
            continue
        if i < 2 or i + 1 >= len(values) or ELLIPSIS in (values[i - 2], values[i - 1]):
            raise ConfigError(f"{typed}: an ellipsis needs two values before it and one after it")
        first, second, end = (
            _number(typed, v) for v in (values[i - 2], values[i - 1], values[i + 1])
        )
        step = second - first
        if (end - second) * step <= 0:
            raise ConfigError(f"{typed}: steps of {step} from {second} do not lead to {end}")
        if (end - second) / step > 10_000:
            raise ConfigError(f"{typed} gives more than 10,000 values")
        at = second + step
        while (end - at) * step > 0:
            expanded.append(f"{at:f}")
            at += step
    return expanded


def _number(typed: str, text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise ConfigError(f"{typed}: {text!r} beside the ellipsis is not a number")
    return number
