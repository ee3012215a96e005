"""Array types and the few vector operations every part of the simulator shares.

Shape letters used in this package: U users of a part, K circle slots of a user, H hosts, R rooms, S sessions under
way, J positions of a slate, E entries, C categories, D taste dimensions.
Times inside the simulator are float64 seconds since the start of the window; they become UTC only when written.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F8 = NDArray[np.float64]
F4 = NDArray[np.float32]
I8 = NDArray[np.int64]
I4 = NDArray[np.int32]
Bools = NDArray[np.bool_]

DAY_S = 86_400.0
MINUTE_S = 60.0
HOUR_S = 3_600.0
NO_ROOM = -1
NO_HOST = -1
NO_SLOT = -1


def logistic(x: F8) -> F8:
    """1 / (1 + e^-x), elementwise; any shape."""
    result: F8 = 1.0 / (1.0 + np.exp(-x))
    return result


def repeat_rows(counts: NDArray[np.integer]) -> I8:
    """Row number of each repetition: counts (n,) -> (counts.sum(),), e.g. [2, 0, 1] -> [0, 0, 2]."""
    return np.repeat(np.arange(len(counts), dtype=np.int64), counts)


def rank_within(groups: NDArray[np.integer]) -> I8:
    """Zero-based rank of each element inside its run of equal values; `groups` (n,) must be sorted."""
    if len(groups) == 0:
        return np.zeros(0, dtype=np.int64)
    first = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    lengths = np.diff(np.r_[first, len(groups)])
    ranks: I8 = np.arange(len(groups), dtype=np.int64) - np.repeat(first, lengths)
    return ranks


def draw_from(rng: np.random.Generator, weights: NDArray[np.floating], size: int) -> I8:
    """Indices (size,) drawn with replacement in proportion to `weights` (n,)."""
    edges = np.cumsum(weights, dtype=np.float64)
    picks: I8 = np.searchsorted(edges, rng.random(size) * edges[-1], side="right").astype(np.int64)
    return np.minimum(picks, len(weights) - 1)
