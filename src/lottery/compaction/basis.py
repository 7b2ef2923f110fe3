"""Constant channels in terms of few of them.

A channel may be removed if its map is a combination of maps that stay: the weights that read it are
then moved, times the coefficients, to the channels of the combination, whatever the kernel. A 3x3
convolution with zero padding leaves at most nine different values in a constant channel (four
corners, four edges, the interior), so at most nine channels of any number have to stay.
"""

import numpy as np

from lottery.compaction.graph import Array

_TOLERANCE = 1e-7  # of the largest value: what float32 resolves


def basis(maps: Array, candidates: Array, present: Array, *, with_ones: bool) -> list[int]:
    """Columns of ``maps`` that span its columns ``candidates``; the all-ones map may help.

    ``maps`` is (positions, channels), ``candidates`` and ``present`` are booleans over channels;
    present ones are preferred, as they stay anyhow, unless they are so small that coefficients
    would be large.
    """
    used = candidates | present
    columns = np.flatnonzero(used)
    rest = maps[:, used].copy()
    target, free = candidates[used], present[used]
    if with_ones:
        rest -= rest.mean(axis=0)
    chosen: list[int] = []
    tolerance = _TOLERANCE * np.abs(maps[:, candidates]).max(initial=0)
    while (sizes := np.abs(rest).max(axis=0, initial=0))[target].max(initial=0) > tolerance:
        best = int(np.argmax(np.where(target, sizes, 0)))
        if free.any():
            known = int(np.argmax(np.where(free, sizes, 0)))
            if sizes[known] > 0.1 * sizes[best]:
                best = known
        chosen.append(int(columns[best]))
        direction = rest[:, best] / np.linalg.norm(rest[:, best])
        rest -= np.outer(direction, direction @ rest)
        rest[:, best] = 0
    return chosen


def coefficients(
    maps: Array, candidates: Array, chosen: list[int], *, with_ones: bool
) -> tuple[Array, Array]:
    """Candidates as combinations: (candidates, chosen), and (candidates,) of all-ones."""
    spanning = maps[:, chosen]
    if with_ones:
        spanning = np.column_stack([spanning, np.ones(len(maps))])
    solution = np.linalg.lstsq(spanning, maps[:, candidates], rcond=None)[0].T
    if with_ones:
        return solution[:, :-1], solution[:, -1]
    return solution, np.zeros(len(solution))
