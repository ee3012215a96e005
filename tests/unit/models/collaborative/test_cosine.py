"""The cosine softmax: gradients against differences of its loss, and what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recsys.models.collaborative.adam import Adam
from recsys.models.collaborative.cosine import Cosine, CosineConfig, _asked, _gradient
from recsys.models.collaborative.interactions import Interactions

CONFIG = CosineConfig(factors=5, temperature=0.4, user_exponent=0.3, negatives=1000)


def loss(histories: np.ndarray, asked: np.ndarray, vectors: np.ndarray, shares: np.ndarray) -> float:
    """Written down user by user, in double precision, with every host among the negatives."""
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    total, weights = 0.0, 0.0
    for row, targets in zip(histories, asked, strict=True):
        summed = ((row - targets) * shares) @ vectors
        scores = np.exp((directions @ (summed / np.linalg.norm(summed)) - 1) / CONFIG.temperature)
        rest = scores[row == 0].sum()
        weight = targets.sum() ** -CONFIG.user_exponent
        for host in np.flatnonzero(targets):
            total -= weight * np.log(scores[host] / (scores[host] + rest))
            weights += weight
    return total / weights


def test_the_gradient_is_that_of_the_loss() -> None:
    rng = np.random.default_rng(4)
    users, hosts = np.nonzero(rng.random((9, 14)) < 0.5)
    histories = Interactions.from_rows(users, hosts, n_users=9, n_hosts=14).matrix
    vectors, shares = rng.standard_normal((14, 5)), rng.random(14)
    places = _asked(histories, CONFIG.asked_share, np.random.default_rng(8))
    flags = histories.copy()
    flags.data[:] = 0
    flags.data[places] = 1
    dense, asked = histories.toarray().astype(np.float64), flags.toarray().astype(np.float64)
    given = np.float32(vectors), np.float32(shares)
    gradient = _gradient(histories, *given, CONFIG, np.random.default_rng(8))
    expected = np.empty_like(vectors)
    for place in np.ndindex(vectors.shape):
        moved = np.zeros_like(vectors)
        moved[place] = 1e-6
        ends = [loss(dense, asked, vectors + sign * moved, shares) for sign in (1, -1)]
        expected[place] = (ends[0] - ends[1]) / 2e-6
    assert np.abs(expected).max() > 0.05
    assert_allclose(gradient, expected, atol=2e-5)


def test_some_of_each_history_is_asked_never_all(noisy) -> None:
    many = noisy.matrix[np.flatnonzero(np.diff(noisy.matrix.indptr) > 1)]
    places = _asked(many, 0.3, np.random.default_rng(0))
    counts = np.diff(many.indptr)
    asked = np.bincount(np.repeat(np.arange(len(counts)), counts)[places], minlength=len(counts))
    assert_array_equal(asked, np.clip(np.maximum(np.rint(counts * 0.3), 1), 0, counts - 1))


def test_work_is_bounded_by_steps(noisy) -> None:
    free, bounded = Cosine(CosineConfig(factors=8)), Cosine(CosineConfig(factors=8, max_steps=3))
    assert bounded.work(noisy) == pytest.approx(
        free.work(noisy) * 3 / 160
    )  # 50 users: four batches an epoch, 40 epochs


def test_nobody_to_learn_from_leaves_vectors_as_drawn() -> None:
    lonely = Interactions.from_rows(np.array([0, 1]), np.array([0, 2]), n_users=2, n_hosts=3)
    first, second = (Cosine(CosineConfig(factors=4)).fit(lonely, seed).targets for seed in (0, 0))
    assert_array_equal(first, second)
    assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-6)


def test_adam_takes_the_first_step_at_the_full_rate_and_finds_a_minimum() -> None:
    values = np.float32([[4.0, -2.0]])
    learner = Adam(values)
    learner.step(values * 3, 0.1)
    assert_allclose(values, [[3.9, -1.9]], rtol=1e-5)
    for step in range(400):
        learner.step(values * 3, 0.1 * (1 - step / 400))
    assert_allclose(values, [[0, 0]], atol=1e-2)
