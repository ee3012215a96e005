"""Vectors in outline: one byte a value, and how far off that may be, so that most rooms are ruled out at a glance.

A search reads every vector; of a hundred thousand rooms they are larger than the caches, and reading them is what it
costs. Their outlines are a quarter as large. With v ≈ s·c, c whole numbers up to 127 and each value off by s/2, and a
query q ≈ t·p, p whole numbers up to P,

    |q·v − s·t·p·c| ≤ ‖q‖ · s · r,   r = √w · (½ + 127½ · (√w / 2P + w · 2⁻²³))

by Cauchy and Schwarz: what the vector lost, what the query lost, and what single precision rounds in an inner product
of w values. A thousandth and 10⁻³⁶ are added for rounding in the making of codes and bounds. A room whose upper bound
is below the k-th largest lower bound is not among the k nearest; the others are few, and they are compared by their
vectors. So the answer is the exact one.

Outlines of `SIDE` rooms stand together, value by value, as the loop over them reads them.

Shape letters: n slots, w width (a multiple of 16), b blocks of slots.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.compiled import compiled
from recsys.index.largest import near_largest

SIDE = 128
_LARGEST_CODE = 127
_LARGEST_SUM = 2**31 - 1
_TO_NEAREST = np.float32(1_000.5)
"""Added before digits are cut off: rounds numbers above −1,000 to the nearest whole number."""
_ROUNDING = 1e-3
"""Share added to a reach for what single precision rounds when codes and bounds are worked out."""
_LEAST, _MOST = 1e-36, float(np.finfo(np.float32).max)
"""Smaller numbers lose digits in single precision, larger ones do not fit it."""


class Outlines(NamedTuple):
    """Room for the outlines of a multiple of `SIDE` slots; what stands in unused ones means nothing."""

    codes: NDArray[np.int8]
    """(b, w, SIDE) c"""
    scales: NDArray[np.float32]
    """(b · SIDE,) s"""

    @classmethod
    def of_size(cls, slots: int, width: int) -> Outlines:
        """For at least so many slots."""
        blocks = -(-slots // SIDE)
        return cls(np.empty((blocks, width, SIDE), dtype=np.int8), np.zeros(blocks * SIDE, dtype=np.float32))

    def grown(self, slots: int) -> Outlines:
        """A copy with place for at least so many slots."""
        larger = Outlines.of_size(slots, self.codes.shape[1])
        larger.codes[: len(self.codes)] = self.codes
        larger.scales[: len(self.scales)] = self.scales
        return larger

    def draw(self, vectors: NDArray[np.float32], start: int) -> None:
        """Write the outlines of vectors (m, w) to the slots from `start` on."""
        _draw(vectors, start, self.codes, self.scales)

    def bounds(self, query: NDArray[np.float32], n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Between what the inner products of the first n slots with a query (w,), finite, lie: (n,) and (n,)."""
        width, precise = len(query), query.astype(np.float64)
        largest = min(32_767, _LARGEST_SUM // (_LARGEST_CODE * width))  # as fine as sums in 32 bits allow
        step = float(np.abs(precise).max()) / largest or 1.0
        lost = math.sqrt(width) / (2 * largest) + width * 2.0**-23
        reach = math.sqrt(width * precise.dot(precise)) * (0.5 + (_LARGEST_CODE + 0.5) * lost) * (1.0 + _ROUNDING)
        low, high = np.empty((2, -(-n // SIDE) * SIDE), dtype=np.float32)
        _bounds(self.codes, self.scales, np.rint(precise / step).astype(np.int32), step, reach, low, high)
        return low[:n], high[:n]

    def within_reach(self, query: NDArray[np.float32], n: int, dead: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """Slots, ascending, of which it cannot be ruled out that they are among the k largest inner products, or equal
        to the last of these.

        Args:
            query: (w,) finite.
            n: the first n slots are asked.
            dead: (m,) slots that do not count.
            k: 1 ≤ k < n − m.
        """
        low, high = self.bounds(query, n)
        if len(dead):
            low[dead] = high[dead] = -np.inf
        found: NDArray[np.int64] = (high >= low.take(near_largest(low, k)).min()).nonzero()[0]
        return found


@compiled
def _draw(vectors: NDArray[np.float32], start: int, codes: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
    """`Outlines.draw`."""
    row = np.empty(vectors.shape[1], np.int32)
    for i in range(len(vectors)):
        vector, slot = vectors[i], start + i
        scale = max(np.abs(vector).max() / np.float32(_LARGEST_CODE), np.float32(_LEAST))
        per_code = np.float32(1.0) / scale
        for j in range(len(vector)):
            row[j] = np.int32(vector[j] * per_code + _TO_NEAREST) - 1_000
        block, place = codes[slot // SIDE], slot % SIDE
        for j in range(len(vector)):
            block[j, place] = row[j]
        scales[slot] = scale


@compiled
def _bounds(
    codes: NDArray[np.int8], scales: NDArray[np.float32], query: NDArray[np.int32], step: float, reach: float,
    low: NDArray[np.float32], high: NDArray[np.float32],
) -> None:  # fmt: skip
    """`Outlines.bounds` of as many slots as `low` and `high` hold."""
    sums = np.empty(SIDE, dtype=np.int32)
    for b in range(len(high) // SIDE):
        block, first = codes[b], b * SIDE
        sums[:] = 0
        for j in range(0, len(query), 4):
            q0, q1, q2, q3 = query[j], query[j + 1], query[j + 2], query[j + 3]
            c0, c1, c2, c3 = block[j], block[j + 1], block[j + 2], block[j + 3]
            for i in range(SIDE):
                sums[i] += np.int32(c0[i]) * q0 + np.int32(c1[i]) * q1 + np.int32(c2[i]) * q2 + np.int32(c3[i]) * q3
        for i in range(SIDE):
            middle, scale = float(sums[i]) * step, float(scales[first + i])
            low[first + i] = max((middle - reach) * scale - _LEAST, -_MOST)  # −∞ is for those that do not count
            high[first + i] = (middle + reach) * scale + _LEAST
