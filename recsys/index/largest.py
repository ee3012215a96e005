"""The largest of many numbers, without sorting them all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SAMPLE_STEP = 16
_SAMPLED_FROM = 32_768


def kth_largest(values: NDArray[np.floating[Any]], k: int) -> Any:
    """The k-th largest value, 1 ≤ k < n. Many values are first cut by a threshold guessed from every 16th of them."""
    pool = values
    if len(values) >= _SAMPLED_FROM:
        sample = values[::_SAMPLE_STEP]
        expected = k / _SAMPLE_STEP
        rank = int(expected + 4 * expected**0.5) + 4
        if rank < len(sample):
            guess = np.partition(sample, len(sample) - rank)[len(sample) - rank]
            above = values[values >= guess]
            if len(above) >= k:
                pool = above
    return np.partition(pool, len(pool) - k)[len(pool) - k]


def among_largest(values: NDArray[np.floating[Any]], k: int) -> NDArray[np.intp]:
    """Positions of the k largest values (all when there are fewer), ascending; of equal values the first."""
    if k <= 0:
        return np.empty(0, dtype=np.intp)
    if k >= len(values):
        return np.arange(len(values))
    least = kth_largest(values, k)
    near: NDArray[np.intp] = np.flatnonzero(values >= least)
    if len(near) == k:
        return near
    above = values.take(near) > least
    equal = (~above).nonzero()[0]
    above[equal[: k - int(above.sum())]] = True
    kept: NDArray[np.intp] = near[above]
    return kept
