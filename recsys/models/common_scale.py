"""Features as networks read them: sign(x)·log(1 + |x|), centred, divided by the spread, cut; missing at the centre."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled

Numbers = npt.NDArray[np.floating[Any]]
Floats = npt.NDArray[np.float64]

_CUT = 4.0
"""Values are cut at so many standard deviations."""


def scaled(
    values: Numbers,
    centre: Numbers,
    scale: Numbers,
    reference: Numbers | None = None,
    rows: npt.NDArray[np.intp] | None = None,
    columns: npt.NDArray[np.intp] | None = None,
) -> Floats:
    """Features (F, n) on the common scale, less their reference.

    Args:
        values: feature-major table; NaN is missing.
        centre, scale, reference: (F,) of each feature; no reference is 0.
        rows: (F,) rows of the table that are the features, all by default.
        columns: (n,) columns to read, all by default.
    """
    rows = np.arange(values.shape[0]) if rows is None else rows
    columns = np.arange(values.shape[1]) if columns is None else columns
    moved = np.empty((len(rows), len(columns)))
    _sizes(values, rows, columns, moved)
    np.log1p(moved, out=moved)  # several at a time, which a compiled loop would not do
    _place(values, rows, columns, centre, scale, np.zeros(len(rows)) if reference is None else reference, moved)
    return moved


@compiled
def _sizes(values: Numbers, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], out: Floats) -> None:
    for j in range(len(rows)):
        for i in range(len(columns)):
            value = values[rows[j], columns[i]]
            out[j, i] = 0.0 if np.isnan(value) else abs(value)  # logarithms of NaN take four times as long


@compiled
def _place(
    values: Numbers,
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
    centre: Numbers,
    scale: Numbers,
    reference: Numbers,
    out: Floats,
) -> None:
    """Give the logarithms `out` their signs, and put them where a network expects them."""
    for j in range(len(rows)):
        for i in range(len(columns)):
            value, size = values[rows[j], columns[i]], out[j, i]
            place = ((-size if value < 0 else size) - centre[j]) / scale[j]
            out[j, i] = (0.0 if np.isnan(value) else min(max(place, -_CUT), _CUT)) - reference[j]
