"""The online fold-in against `implicit`'s own solver."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from implicit.cpu.als import AlternatingLeastSquares
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_limits

from recsys.models.collaborative.fold_in import Turned, fold_in, gram


@pytest.mark.parametrize("regularization", [0.01, 3.0])
def test_equals_implicit(regularization: float) -> None:
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((25, 6)).astype(np.float32)
    history = sp.csr_matrix((rng.random((1, 25)) < 0.4) * rng.uniform(1, 9, (1, 25)), dtype=np.float32)
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=6, regularization=regularization, alpha=1.0, num_threads=1)
        model.item_factors = factors
        expected = model.recalculate_user(0, history)
    got = fold_in(factors, gram(factors), history.indices, history.data, regularization)
    assert got.dtype == np.float32
    assert_allclose(got, np.ravel(expected), rtol=2e-4, atol=1e-5)


def test_solves_the_normal_equations() -> None:
    """Written out over all hosts: weight c on those of the history, 1 on the others."""
    rng = np.random.default_rng(1)
    factors = rng.standard_normal((12, 3)).astype(np.float32)
    seen, confidences = np.array([2, 7]), np.array([4.0, 9.0], np.float32)
    weights = np.ones(12)
    weights[seen] = confidences
    liked = np.isin(np.arange(12), seen)
    Y = factors.astype(np.float64)
    expected = np.linalg.solve((Y.T * weights) @ Y + 0.5 * np.eye(3), Y.T @ (weights * liked))
    assert_allclose(fold_in(factors, gram(factors), seen, confidences, 0.5), expected, rtol=1e-4)


def test_no_history_is_zero() -> None:
    factors = np.ones((4, 2), np.float32)
    assert_array_equal(fold_in(factors, gram(factors), np.array([], np.int64), np.array([], np.float32), 1.0), [0, 0])


@pytest.mark.parametrize("n", [1, 2, 7, 30, 48])
@pytest.mark.parametrize("regularization", [0.01, 40.0])
def test_a_short_history_costs_a_system_of_its_own_size_and_says_the_same(n: int, regularization: float) -> None:
    rng = np.random.default_rng(n)
    factors = (rng.standard_normal((500, 64)) * rng.uniform(0.01, 2.0, 64)).astype(np.float32)
    hosts = rng.choice(500, n, replace=False)
    confidences = np.append(rng.uniform(1, 60, n - 1), 1.0).astype(np.float32)  # the last says nothing but that he came
    YtY = gram(factors)
    got = Turned.of(factors, YtY).fold_in(hosts, confidences, regularization)
    assert got is not None and got.dtype == np.float32
    expected = fold_in(factors, YtY, hosts, confidences, regularization)
    assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_what_the_short_way_cannot_do_is_left_to_the_other() -> None:
    factors = np.random.default_rng(1).standard_normal((40, 8)).astype(np.float32)
    turned = Turned.of(factors, gram(factors))
    ones = np.ones(7, np.float32)
    assert turned.fold_in(np.arange(6), ones[:6], 1.0) is not None
    assert turned.fold_in(np.arange(7), ones, 1.0) is None, "as many hosts as three quarters of the factors, or more"
    assert turned.fold_in(np.arange(2), np.array([3.0, 0.9], np.float32), 1.0) is None, "a confidence below 1"
    assert turned.fold_in(np.arange(2), np.array([3.0, np.nan], np.float32), 1.0) is None
    assert turned.fold_in(np.arange(2), ones[:2], -1e9) is None, "no positive system"
