"""Which bin every value of a feature table falls into: for all features at once, without searching.

Bin b of a feature holds edges[b − 1] < x ≤ edges[b]; the one after the last holds missing values. A binary search per
value costs tens of nanoseconds, because its branches cannot be foreseen. Here the leading bits of a number, which grow
with it, name a cell, a table says how many edges lie below the cell, and the one or two edges inside it are compared.

The cells are laid where the edges are; values below or above fall into the first or the last.

Shape letters: n columns, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_MOST_CELLS = 1024
_MOST_INSIDE = 3
"""More edges than this in one cell: the feature is searched after all."""
_OUTLIERS = 3
"""So many of the lowest and of the highest edges may lie outside the cells: some are zero or immense."""


class Binning:
    """Bins of F features, numbered end to end: feature j has `len(edges[j]) + 2` of them from `starts[j]` on.

    Immutable; any number of threads may read it.

    Args:
        edges: per feature the ascending, finite thresholds.
    """

    def __init__(self, edges: Sequence[Floats]) -> None:
        sizes = np.array([len(e) + 2 for e in edges], dtype=np.int64)
        self.starts: Ints = np.cumsum(sizes) - sizes
        self._missing: Ints = (self.starts + sizes - 1)[:, None]
        cells = [_Cells(e) for e in edges]
        self._shifts: Ints = np.array([c.shift for c in cells], dtype=np.int64)[:, None]
        self._lowest: Ints = np.array([c.origin for c in cells], dtype=np.int64)[:, None]
        widths = np.array([len(c.below) for c in cells], dtype=np.int64)
        self._highest: Ints = self._lowest + widths[:, None] - 1
        self._offsets: Ints = (np.cumsum(widths) - widths)[:, None] - self._lowest
        self._negative = np.flatnonzero(self._lowest[:, 0] < 0)
        self._below: Ints = np.concatenate(
            [c.below + start for c, start in zip(cells, self.starts, strict=True)] or [np.empty(0, dtype=np.int64)]
        )
        # one edge per bin; bins of the largest and of missing values end at infinity, so counting stops there
        self._edges: Floats = np.concatenate([np.append(e, [np.inf, np.inf]) for e in edges] or [np.empty(0)])
        inside = np.array([c.most_inside for c in cells], dtype=np.int64)
        self._searched = [(j, np.asarray(edges[j])) for j in np.flatnonzero(inside > _MOST_INSIDE).tolist()]
        inside[inside > _MOST_INSIDE] = 0
        self._crowded = [np.flatnonzero(inside > passes) for passes in range(1, int(inside.max(initial=0)))]

    def __call__(self, values: npt.NDArray[np.floating[Any]]) -> Ints:
        """Numbers (F, n) of the bins of feature-major `values`; NaN is missing."""
        wide = np.ascontiguousarray(values, dtype=np.float64)
        keys = wide.view(np.int64)
        cell = keys >> self._shifts  # of negative numbers some negative number: below all cells where none is negative
        if len(self._negative):
            cell[self._negative] = _ordered(wide[self._negative]) >> self._shifts[self._negative]
        np.maximum(cell, self._lowest, out=cell)  # twice as fast as np.clip with bounds per row
        np.minimum(cell, self._highest, out=cell)
        cell += self._offsets
        bins = self._below.take(cell, mode="clip")
        bins += self._edges.take(bins, mode="clip") < wide
        for rows in self._crowded:
            some = bins[rows]
            bins[rows] = some + (self._edges.take(some, mode="clip") < wide[rows])
        for j, edges in self._searched:
            bins[j] = edges.searchsorted(wide[j]) + self.starts[j]
        missing = np.isnan(wide)
        if missing.any():
            np.copyto(bins, self._missing, where=missing)
        return bins


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
