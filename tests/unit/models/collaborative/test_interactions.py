"""Ties as a matrix, and what is kept back from them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recsys.models.collaborative.interactions import Interactions, power, scaled


def test_a_pair_given_twice_counts_once_with_its_largest_confidence() -> None:
    made = Interactions.from_rows(
        np.array([1, 0, 1, 1]), np.array([2, 1, 2, 0]), np.array([1.0, 2.0, 5.0, 3.0]), n_users=3, n_hosts=4
    )
    assert made.n_pairs == 3
    assert made.matrix.has_sorted_indices
    assert_array_equal(made.matrix.toarray(), [[0, 2, 0, 0], [3, 0, 5, 0], [0, 0, 0, 0]])
    assert_array_equal(made.user_degrees(), [2, 8, 0])
    assert_array_equal(made.host_degrees(), [3, 2, 5, 0])


@pytest.mark.parametrize(
    ("users", "hosts", "confidences"),
    [([3], [0], [1.0]), ([0], [4], [1.0]), ([-1], [0], [1.0]), ([0], [0], [0.0]), ([0], [0], [np.nan])],
)
def test_refuses_what_is_no_tie(users, hosts, confidences) -> None:
    with pytest.raises(ValueError, match="outside|positive"):
        Interactions.from_rows(np.array(users), np.array(hosts), np.array(confidences), n_users=3, n_hosts=4)


def test_hold_out_splits_every_user(noisy) -> None:
    rest, held = noisy.hold_out(0.2, seed=4)
    assert_array_equal((rest.matrix + held).toarray(), noisy.matrix.toarray())
    counts, kept_back = np.diff(noisy.matrix.indptr), np.diff(held.indptr)
    many = counts >= 2
    assert_array_equal(kept_back[~many], 0)
    assert_array_equal(kept_back[many], np.maximum(1, np.rint(counts[many] * 0.2)))
    again, other = noisy.hold_out(0.2, seed=4)[1], noisy.hold_out(0.2, seed=5)[1]
    assert (held != again).nnz == 0
    assert (held != other).nnz > 0


def test_every_host_of_a_user_is_kept_back_equally_often() -> None:
    one = Interactions.from_rows(np.zeros(5, int), np.arange(5), n_users=1, n_hosts=5)
    times = sum(one.hold_out(0.2, seed)[1].toarray()[0] for seed in range(1000))
    assert times.sum() == 1000
    assert times.min() > 150


def test_power_of_nothing_is_nothing() -> None:
    assert_allclose(power(np.array([0, 4, 9], np.float32), -0.5), [0, 1 / 2, 1 / 3])


def test_scaled_is_a_product_of_diagonals(noisy) -> None:
    rows, columns = np.arange(1, 51, dtype=np.float32), np.arange(30, dtype=np.float32)
    expected = rows[:, None] * noisy.matrix.toarray() * columns
    assert_array_equal(scaled(noisy.matrix, rows, columns).toarray(), expected)
