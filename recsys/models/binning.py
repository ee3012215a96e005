"""Which bin every value of a feature table falls into: for all features at once, without searching.

Bin b of a feature holds edges[b − 1] < x ≤ edges[b]; the one after the last holds missing values. A binary search per
value costs tens of nanoseconds, because its branches cannot be foreseen. Here the leading bits of a number, which grow
with it, name a cell, a table says how many edges lie below the cell, and the one or two edges inside it are compared.

The cells are laid where the edges are; values below or above fall into the first or the last.

Shape letters: n columns, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_MOST_CELLS = 1024
_OUTLIERS = 3
"""So many of the lowest and of the highest edges may lie outside the cells: some are zero or immense."""


class _Layout(NamedTuple):
    """Where the cells and edges of F features lie, end to end; all but the last two are (F,)."""

    shifts: Ints
    lowest: Ints
    highest: Ints
    offsets: Ints
    missing: Ints
    below: Ints
    edges: Floats


class Binning:
    """Bins of F features, numbered end to end: feature j has `len(edges[j]) + 2` of them from `starts[j]` on.

    Immutable; any number of threads may read it.

    Args:
        edges: per feature the ascending, finite thresholds.
    """

    def __init__(self, edges: Sequence[Floats]) -> None:
        sizes = np.array([len(e) + 2 for e in edges], dtype=np.int64)
        self.starts: Ints = np.cumsum(sizes) - sizes
        cells = [_Cells(e) for e in edges]
        lowest = np.array([c.origin for c in cells], dtype=np.int64)
        widths = np.array([len(c.below) for c in cells], dtype=np.int64)
        self._layout = _Layout(
            shifts=np.array([c.shift for c in cells], dtype=np.int64),
            lowest=lowest,
            highest=lowest + widths - 1,
            offsets=np.cumsum(widths) - widths - lowest,
            missing=self.starts + sizes - 1,
            below=np.concatenate(
                [c.below + start for c, start in zip(cells, self.starts, strict=True)] or [np.empty(0, dtype=np.int64)]
            ),
            # one edge per bin; bins of the largest and of missing values end at infinity, so counting stops there
            edges=np.concatenate([np.append(e, [np.inf, np.inf]) for e in edges] or [np.empty(0)]),
        )

    def __call__(self, values: npt.NDArray[np.floating[Any]], rows: npt.NDArray[np.intp] | None = None) -> Ints:
        """Numbers (F, n) of the bins of feature-major `values`; NaN is missing.

        Args:
            values: (F, n), or a table whose `rows` (F,) are the features.
        """
        wide = np.ascontiguousarray(values, dtype=np.float64)
        bins = np.empty((len(self.starts), wide.shape[1]), dtype=np.int64)
        every = np.arange(len(self.starts)) if rows is None else rows
        _bin(wide, wide.view(np.int64), every, *self._layout, bins)
        return bins


@compiled
def _bin(
    values: Floats, keys: Ints, rows: npt.NDArray[np.intp], shifts: Ints, lowest: Ints, highest: Ints, offsets: Ints,
    missing: Ints, below: Ints, edges: Floats, bins: Ints,
) -> None:  # fmt: skip
    """`keys` (R, n) are the bits of `values`, which grow with positive numbers and fall with negative ones; the others
    are a `_Layout`. Positions are unsigned, for then nobody looks whether they are negative."""
    for j in range(len(rows)):
        value, key, bin_of = values[rows[j]], keys[rows[j]], bins[j]
        shift, first, last, offset = shifts[j], lowest[j], highest[j], offsets[j]
        for i in range(len(bin_of)):
            if np.isnan(value[i]):
                bin_of[i] = missing[j]
                continue
            ordered = key[i] if key[i] >= 0 else key[i] ^ 0x7FFFFFFFFFFFFFFF  # `_ordered`, for one number
            number = below[np.uint64(min(max(ordered >> shift, first), last) + offset)]
            while edges[np.uint64(number)] < value[i]:
                number += 1
            bin_of[i] = number


class _Cells:
    """The cells of one feature; `below` says how many edges lie in earlier ones."""

    def __init__(self, edges: Floats) -> None:
        keys = _ordered(np.asarray(edges, dtype=np.float64) + 0.0)  # −0.0 is 0.0
        self.shift, self.origin, self.most_inside, reach = 62, 0, len(keys), 0
        for low in range(min(_OUTLIERS, len(keys))):
            for high in range(len(keys) - 1, max(len(keys) - 1 - _OUTLIERS, low - 1), -1):
                span = int(keys[high]) - int(keys[low])
                shift = max(0, span.bit_length() - _MOST_CELLS.bit_length() + 1)
                crowd = _crowd(keys, low, high, shift)
                while shift < 62 and _crowd(keys, low, high, shift + 1) == crowd:  # as few cells as will do
                    shift += 1
                if crowd < self.most_inside:
                    self.shift, self.most_inside = shift, crowd
                    self.origin, reach = int(keys[low]) >> shift, (int(keys[high]) >> shift) - (int(keys[low]) >> shift)
        cells = np.clip((keys >> self.shift) - self.origin, 0, reach)
        self.below: Ints = cells.searchsorted(np.arange(reach + 1)).astype(np.int64)


def _crowd(keys: Ints, low: int, high: int, shift: int) -> int:
    """Most edges in one cell, when cells reach from edge `low` to edge `high`."""
    cells = keys >> shift
    return int(np.bincount(np.clip(cells, cells[low], cells[high]) - cells[low]).max())


def _ordered(values: Floats) -> Ints:
    """Integers in the order of the numbers: the bits, those of negative numbers turned round."""
    bits = values.view(np.int64)
    keys: Ints = bits >> 63
    keys &= 0x7FFFFFFFFFFFFFFF
    keys ^= bits
    return keys
