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
    precision: npt.DTypeLike = np.float64,
) -> Numbers:
    """Features (F, n) on the common scale, less their reference.

    Args:
        values: feature-major table; NaN is missing.
        centre, scale, reference: (F,) of each feature; no reference is 0.
        rows: (F,) rows of the table that are the features, all by default.
        columns: (n,) columns to read, all by default.
        precision: of the result, and of the logarithms.
    """
    rows = np.arange(values.shape[0]) if rows is None else rows
    if columns is not None:
        some = np.empty((len(rows), len(columns)), dtype=values.dtype)
        _take(values, rows, columns, some)
        values, rows = some, np.arange(len(rows))
    moved = np.empty((len(rows), values.shape[1]), dtype=precision)
    _sizes(values, rows, moved)
    np.log1p(moved, out=moved)  # several at a time, which a compiled loop would not do
    _place(values, rows, centre, scale, np.zeros(len(rows)) if reference is None else reference, moved)
    return moved


@compiled
def _take(values: Numbers, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], out: Numbers) -> None:
    for j in range(len(rows)):
        value, some = values[rows[j]], out[j]
        for i in range(len(columns)):
            some[i] = value[columns[i]]


@compiled
def _sizes(values: Numbers, rows: npt.NDArray[np.intp], out: Numbers) -> None:
    for j in range(len(rows)):
        value, size = values[rows[j]], out[j]
        for i in range(len(size)):
            size[i] = 0.0 if np.isnan(value[i]) else abs(value[i])  # logarithms of NaN take four times as long


@compiled
def _place(
    values: Numbers, rows: npt.NDArray[np.intp], centre: Numbers, scale: Numbers, reference: Numbers, out: Numbers
) -> None:
    """Give the logarithms `out` their signs, and put them where a network expects them."""
    for j in range(len(rows)):
        value, place = values[rows[j]], out[j]
        middle, spread, silent = centre[j], scale[j], reference[j]
        for i in range(len(place)):
            moved = ((-place[i] if value[i] < 0 else place[i]) - middle) / spread
            unknown = np.isnan(value[i]) or np.isnan(moved)
            moved = _CUT if moved > _CUT else -_CUT if moved < -_CUT else moved
            place[i] = (0.0 if unknown else moved) - silent
