"""Which columns of a feature table are the same, so that each is judged once.

Most ties of a viewer who was shown many rooms know nothing but that, and look alike. Whatever judges columns one by one
gives the same for the same column, to the last bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]

_ODD = np.uint64(0x9E3779B97F4A7C15)


class Distinct(NamedTuple):
    """The `columns` (F, u) of a table that differ, in the order of their first place, and which of them each column of
    the table is, `of` (n,): `columns[:, of]` is the table."""

    columns: Floats
    of: Positions


def distinct(table: npt.NDArray[np.floating[Any]]) -> Distinct:
    """The different columns of a table (F, n), by their bits: missing values are the same, −0 and 0 are not."""
    values = np.ascontiguousarray(table, dtype=np.float64)
    keys = values.view(np.uint64)
    first, of = np.empty(values.shape[1], dtype=np.intp), np.empty(values.shape[1], dtype=np.intp)
    bits = max(1, (2 * len(of)).bit_length())
    hashes, places = np.zeros(len(of), dtype=np.uint64), np.full(1 << bits, -1, dtype=np.intp)
    n = _tell_apart(keys, hashes, places, 64 - bits, first, of)
    return Distinct(values if n == len(of) else values[:, first[:n]], of)


@compiled
def _tell_apart(
    keys: npt.NDArray[np.uint64], hashes: npt.NDArray[np.uint64], places: Positions, shift: int, first: Positions,
    of: Positions,
) -> int:  # fmt: skip
    """Into `of` (n,) which different column each is, into `first` where the different ones stand first; how many.

    `places`, a power of two and more than n of them, −1 each, is a table of those found, by the bits of their hash
    above `shift`: those depend on all bits of the column.
    """
    for f in range(len(keys)):
        row = keys[f]
        for i in range(len(row)):
            hashes[i] = (hashes[i] ^ row[i] ^ (row[i] >> np.uint64(32))) * _ODD
    found = 0
    for i in range(len(of)):
        at = np.intp(hashes[i] >> np.uint64(shift))
        while places[at] >= 0 and not (hashes[first[places[at]]] == hashes[i] and _same(keys, first[places[at]], i)):
            at = (at + 1) % len(places)
        if places[at] < 0:
            places[at], first[found] = found, i
            found += 1
        of[i] = places[at]
    return found


@compiled
def _same(keys: npt.NDArray[np.uint64], i: int, j: int) -> bool:
    f = 0
    while f < len(keys) and keys[f, i] == keys[f, j]:
        f += 1
    return f == len(keys)
