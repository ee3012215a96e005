"""Candidates of several requests side by side: what is summed or ranked, is so within each request's own columns.

The numbers of a request do not depend on what stands beside it, to the last bit: a request alone and the same one in a
batch get the same answer.

Shape letters: R rows, N columns, U requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def taken(table: npt.NDArray[Any], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """(C, n) the cells of some rows (n,) of a table, a column after the other; `columns` (C, 1)."""
    found: npt.NDArray[Any] = table.reshape(-1).take(rows * table.shape[1] + columns)
    return found


class Spans:
    """Request i has the columns from `bounds[i]` to `bounds[i + 1]`: at least one, unless it stands alone."""

    __slots__ = ("_sizes", "_starts", "bounds")

    def __init__(self, sizes: Sequence[int]) -> None:
        bounds = [0]
        for size in sizes:
            bounds.append(bounds[-1] + size)
        self.bounds = tuple(bounds)
        self._starts = np.array(bounds[:-1], dtype=np.intp)
        self._sizes = np.array(sizes, dtype=np.intp)

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def sizes(self) -> npt.NDArray[np.intp]:
        """(U,) columns of each request."""
        return self._sizes

    def parts(self) -> list[slice]:
        """The columns of each request."""
        return [slice(start, stop) for start, stop in zip(self.bounds, self.bounds[1:], strict=False)]

    def sums(self, values: Floats) -> Floats:
        """(R, U) sums of `values` (R, N) over each request."""
        if not values.shape[1]:
            return np.zeros((len(values), len(self)))
        return np.asarray(np.add.reduceat(values, self._starts, axis=1))

    def spread(self, numbers: Floats) -> Floats:
        """`numbers` (R, U), one a request, for all its columns: (R, N), or (R, 1) for a single request."""
        return numbers if len(self._sizes) == 1 else np.repeat(numbers, self._sizes, axis=1)

    def shares(self, values: Floats) -> Floats:
        """`values` (R, N) ≥ 0 as shares of their sum within the request, (v + ε)/(Σ v + n ε) with ε = 0.001."""
        total = self.sums(values)
        total += 1e-3 * self._sizes
        return np.asarray((values + 1e-3) / self.spread(total))

    def ranks(self, values: Floats) -> Floats:
        """Places (R, N) within the request: 0 for the smallest, 1 for the next …; equal values in the order given, NaN
        last."""
        found = np.empty(values.shape)
        rows = np.arange(len(values))[:, None]
        for part in self.parts():
            own = values[:, part]
            order = own.argsort(axis=1)  # not stable, but five times as fast; rows with equal values are sorted again
            ascending = own[rows, order]
            clear = (ascending[:, 1:] > ascending[:, :-1]).all(axis=1)
            if not clear.all():
                order[~clear] = own[~clear].argsort(axis=1, kind="stable")
            found[:, part][rows, order] = np.arange(own.shape[1], dtype=np.float64)
        return found
