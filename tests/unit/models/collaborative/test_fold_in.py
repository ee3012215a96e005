"""The online fold-in against `implicit`'s own solver."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from implicit.cpu.als import AlternatingLeastSquares
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_limits

from recsys.models.collaborative.fold_in import fold_in, gram


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
