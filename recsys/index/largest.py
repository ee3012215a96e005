"""The largest of many numbers, without sorting them all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.compiled import compiled

_SAMPLE_STEP = 16
_SAMPLED_FROM = 8_192


def near_largest(values: NDArray[np.floating[Any]], k: int) -> NDArray[np.intp]:
    """Positions, ascending, of the values not below the k-th largest, 1 ≤ k < n: k and more, if some equal the last.
    None may be NaN.

    Many values are first cut by a threshold guessed from every 16th of them.
    """
    if len(values) >= _SAMPLED_FROM:
        sample = values[::_SAMPLE_STEP].copy()
        expected = k / _SAMPLE_STEP
        rank = int(expected + 4 * expected**0.5) + 4
        if rank < len(sample):
            guess = _kth_largest(sample, rank)
            above: NDArray[np.intp] = (values >= guess).nonzero()[0]
            if len(above) >= k:
                pool = values.take(above)
                return above if len(above) == k else above[pool >= _kth_largest(pool, k)]
    found: NDArray[np.intp] = (values >= _kth_largest(values, k)).nonzero()[0]
    return found


def _kth_largest(values: NDArray[np.floating[Any]], k: int) -> Any:
    """The k-th largest of n values, 1 ≤ k ≤ n. `numpy.partition` takes a hundred times as long where most are equal,
    as rooms are that nobody has entered; sorting does not."""
    return np.sort(values)[-k] if len(values) < 8 * k else _least_of_largest(values, k)


@compiled
def _least_of_largest(values: NDArray[np.floating[Any]], k: int) -> float:
    """The k-th largest, by a heap of the k largest so far with the least of them on top: few of many enter it."""
    heap = np.full(k, -np.inf, values.dtype)
    for value in values:
        if value > heap[0]:
            at, child = 0, 1
            while child < k:
                if child + 1 < k and heap[child + 1] < heap[child]:
                    child += 1
                if heap[child] >= value:
                    break
                heap[at] = heap[child]
                at, child = child, 2 * child + 1
            heap[at] = value
    return heap[0]  # type: ignore[no-any-return]


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
