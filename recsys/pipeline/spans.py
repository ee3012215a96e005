"""Candidates of several requests side by side: what is summed or ranked, is so within each request's own columns.

The numbers of a request do not depend on what stands beside it, to the last bit: a request alone and the same one in a
batch get the same answer.

Shape letters: R rows, N columns, U requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled

Floats = npt.NDArray[np.float64]
_INFINITY, _NAN = 0x7FF00000, 0x7FFFFFFF
"""The upper half of the bits of the one, and a larger one for the other."""


class Ranking(NamedTuple):
    """What rows of a table are ranked by: rows `of` (r,), the largest first where `down`, and their places stand in the
    rows `into`. Missing values stand behind the others where `last`, and have no place, NaN, elsewhere."""

    of: npt.NDArray[np.intp]
    down: npt.NDArray[np.bool_]
    last: npt.NDArray[np.bool_]
    into: npt.NDArray[np.intp]


class Spans:
    """Request i has the columns from `bounds[i]` to `bounds[i + 1]`: at least one, unless it stands alone."""

    __slots__ = ("_ends", "_sizes", "bounds")

    def __init__(self, sizes: Sequence[int]) -> None:
        bounds = [0]
        for size in sizes:
            bounds.append(bounds[-1] + size)
        self.bounds = tuple(bounds)
        self._ends = np.array(bounds[1:], dtype=np.intp)
        self._sizes = np.array(sizes, dtype=np.intp)

    def __len__(self) -> int:
        return len(self._sizes)

    def parts(self) -> list[slice]:
        """The columns of each request."""
        return [slice(start, stop) for start, stop in zip(self.bounds, self.bounds[1:], strict=False)]

    def spread(self, numbers: Floats) -> Floats:
        """`numbers` (R, U), one a request, for all its columns: (R, N), or (R, 1) for a single request."""
        return numbers if len(self._sizes) == 1 else np.repeat(numbers, self._sizes, axis=1)

    def shares(self, values: Floats, out: Floats) -> None:
        """Into `out` (R, N) `values` (R, N) ≥ 0 as shares of their sum within the request, (v + ε)/(Σ v + n ε) with
        ε = 0.001; both may be one."""
        _share(values, self._ends, out)

    def rank(self, table: Floats, by: Ranking) -> None:
        """Write into a C-contiguous `table` (R, N) the places of some of its rows within the request: 0 for the first,
        1 for the next …; values that agree to a millionth in the order given."""
        keys = np.empty((len(by.of), table.shape[1]), dtype=np.int64)
        _key(table.view(np.int64), by.of, by.down, keys)
        for part in self.parts():
            keys[:, part].sort(axis=1)
        _place(keys, self._ends, by.into, by.last, table)


@compiled
def _key(
    bits: npt.NDArray[np.int64], of: npt.NDArray[np.intp], down: npt.NDArray[np.bool_], keys: npt.NDArray[np.int64]
) -> None:
    """Integers that sort as the numbers with these bits do, in rows `of`, or the other way round: their upper halves,
    which hold sign, exponent and twenty binary digits, above the columns they stand in."""
    for row in range(len(keys)):
        bit, key, negative = bits[of[row]], keys[row], down[row]
        for i in range(len(key)):
            upper = bit[i] >> 32
            size = upper & 0x7FFFFFFF
            if size > _INFINITY or (size == _INFINITY and bit[i] & 0xFFFFFFFF):
                upper = _NAN
            elif (upper < 0) != negative:
                upper = -size
            else:
                upper = size
            key[i] = upper << 32 | i


@compiled
def _place(
    keys: npt.NDArray[np.int64], ends: npt.NDArray[np.intp], into: npt.NDArray[np.intp], last: npt.NDArray[np.bool_],
    table: Floats,
) -> None:  # fmt: skip
    for row in range(len(keys)):
        start, places = 0, table[into[row]]
        for end in ends:
            for place in range(end - start):
                key = keys[row, start + place]
                places[key & 0xFFFFFFFF] = place if key >> 32 < _NAN or last[row] else np.nan
            start = end


@compiled
def _share(values: Floats, ends: npt.NDArray[np.intp], out: Floats) -> None:
    for row in range(len(values)):
        start = 0
        for end in ends:
            total = 1e-3 * (end - start)
            for i in range(start, end):
                total += values[row, i]
            for i in range(start, end):
                out[row, i] = (values[row, i] + 1e-3) / total
            start = end
