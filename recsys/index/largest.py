"""The largest of many numbers, without sorting them all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SAMPLE_STEP = 16
_SAMPLED_FROM = 8_192


def near_largest(values: NDArray[np.floating[Any]], k: int) -> NDArray[np.intp]:
    """Positions, ascending, of the values not below the k-th largest, 1 ≤ k < n: k and more, if some equal the last.

    Many values are first cut by a threshold guessed from every 16th of them.
    """
    if len(values) >= _SAMPLED_FROM:
        sample = values[::_SAMPLE_STEP]
        expected = k / _SAMPLE_STEP
        rank = int(expected + 4 * expected**0.5) + 4
        if rank < len(sample):
            guess = np.partition(sample, len(sample) - rank)[len(sample) - rank]
            above: NDArray[np.intp] = (values >= guess).nonzero()[0]
            if len(above) >= k:
                pool = values.take(above)
                return above if len(above) == k else above[pool >= _kth_largest(pool, k)]
    found: NDArray[np.intp] = (values >= _kth_largest(values, k)).nonzero()[0]
    return found


def _kth_largest(values: NDArray[np.floating[Any]], k: int) -> Any:
    part = values.copy()
    part.partition(len(part) - k)
    return part[len(part) - k]


def among_largest(values: NDArray[np.floating[Any]], k: int) -> NDArray[np.intp]:
    """Positions of the k largest values (all when there are fewer), ascending; of equal values the first."""
    if k <= 0:
        return np.empty(0, dtype=np.intp)
    if k >= len(values):
        return np.arange(len(values))
    near = near_largest(values, k)
    if len(near) == k:
        return near
    found = values.take(near)
    above = found > found.min()
    equal = (~above).nonzero()[0]
    above[equal[: k - int(above.sum())]] = True
    kept: NDArray[np.intp] = near[above]
    return kept
