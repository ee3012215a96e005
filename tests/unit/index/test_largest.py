"""The largest of many numbers against sorting them all."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from recsys.index.largest import among_largest, near_largest

KINDS = ("different", "many equal", "all equal", "mostly the least")


def numbers(kind: str, n: int, dtype: DTypeLike) -> NDArray[np.floating]:
    rng = np.random.default_rng(n)
    if kind == "different":
        found = rng.permutation(n).astype(np.float64)
    elif kind == "many equal":
        found = rng.integers(0, 20, n).astype(np.float64)
    elif kind == "all equal":
        found = np.ones(n)
    else:
        found = np.where(rng.random(n) < 0.01, rng.random(n), -np.inf)
    return found.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 7, 500, 8_191, 8_192, 30_000])
def test_they_are_those_that_sorting_finds(kind: str, n: int, dtype: DTypeLike) -> None:
    values = numbers(kind, n, dtype)
    for k in sorted({1, 2, min(100, n - 1), n // 9, n // 7, n // 2, n - 1} - {0, n}):
        near = near_largest(values, k)
        assert near.tolist() == np.flatnonzero(values >= np.sort(values)[-k]).tolist()
        first = np.lexsort((np.arange(n), -values))[:k]  # of equal ones the first
        assert among_largest(values, k).tolist() == np.sort(first).tolist()


def test_as_many_as_there_are_and_none() -> None:
    values = np.array([2.0, 3.0, 1.0])
    assert among_largest(values, 3).tolist() == among_largest(values, 9).tolist() == [0, 1, 2]
    assert among_largest(values, 0).tolist() == []
