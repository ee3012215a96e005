"""Different columns of a table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from recsys.models.distinct import distinct

NUMBERS = st.sampled_from([0.0, -0.0, 1.0, 1e-300, np.inf, np.nan])


@given(arrays(np.float64, st.tuples(st.integers(0, 3), st.integers(0, 12)), elements=NUMBERS))
def test_the_table_is_had_again_from_its_different_columns(table: np.ndarray) -> None:
    columns, of = distinct(table)
    assert columns[:, of].tobytes() == table.tobytes()
    told = [column.tobytes() for column in columns.T]
    assert len(set(told)) == len(told)
    assert told == list(dict.fromkeys(column.tobytes() for column in table.T))


def test_a_part_of_a_table_is_one(rng: np.random.Generator) -> None:
    table = rng.integers(0, 2, (4, 40)).astype(np.float64)
    columns, of = distinct(table[::2, 1::3])
    assert_array_equal(columns[:, of], table[::2, 1::3])
    assert columns.shape == (2, 4)


@pytest.mark.parametrize("n", [1, 40])
def test_single_precision_is_told_apart_too(n: int, rng: np.random.Generator) -> None:
    table = rng.integers(0, 2, (3, n)).astype(np.float32)
    columns, of = distinct(table)
    assert_array_equal(columns[:, of], table)
    assert columns.shape[1] == len(np.unique(table, axis=1).T)


def test_thousands_of_columns_take_no_more_than_a_table(rng: np.random.Generator) -> None:
    """Small whole numbers differ in few bits; both ways would take minutes if each were compared with each."""
    for table in (rng.permutation(200_000).astype(np.float64)[None], np.zeros((3, 200_000))):
        columns, of = distinct(table)
        assert columns[:, of].tobytes() == table.tobytes()
    assert columns.shape == (3, 1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)
