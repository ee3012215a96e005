"""A regression on logarithms of counts: a planted one is found, signs hold, what is served is what was fitted."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.models.calibration import sigmoid
from recsys.models.log_linear import fit_log_linear

NAMES = ("visits", "noise", "missed", "constant")
SIGNS = {"visits": 1, "missed": -1, "constant": 1}


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    """Log-odds −2 + 1.2 · log(1 + visits) − 0.8 · log(1 + missed)."""
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 30, (20_000, 4)).astype(np.float32)
    rows[:, 3] = 1.0
    odds = -2.0 + 1.2 * np.log1p(rows[:, 0]) - 0.8 * np.log1p(rows[:, 2])
    return rows, (rng.random(len(rows)) < sigmoid(odds)).astype(np.int8)


def test_planted_coefficients_are_found(planted: tuple[np.ndarray, np.ndarray]) -> None:
    rows, happened = planted
    model = fit_log_linear(NAMES, rows, happened, SIGNS, shrinkage=1.0, bins=63)
    assert model.features == ("visits", "missed")
    asked = rows[:300].T.astype(np.float64)
    expected = -2.0 + 1.2 * np.log1p(asked[0]) - 0.8 * np.log1p(asked[2])
    assert np.abs(model.score(asked) - expected).max() < 0.25
    np.testing.assert_allclose(model.contributions(asked).sum(axis=0) + model.bias, model.score(asked))


def test_a_sign_is_never_broken_and_nothing_known_counts_as_none(planted: tuple[np.ndarray, np.ndarray]) -> None:
    rows, happened = planted
    wrong = fit_log_linear(NAMES, rows, happened, {"visits": -1, "missed": -1}, shrinkage=1.0, bins=63)
    assert wrong.features == ("missed",)  # more visits make it likelier: the sign allows nothing but zero
    model = fit_log_linear(NAMES, rows, happened, SIGNS, shrinkage=1.0, bins=8)
    ladder = np.zeros((4, 50))
    ladder[0] = np.arange(50)
    assert (np.diff(model.score(ladder)) >= 0).all() and len(np.unique(model.score(ladder))) <= 9
    unknown = np.full((4, 1), np.nan)
    assert model.score(unknown) == pytest.approx(model.score(np.zeros((4, 1))))


def test_shrinkage_draws_to_the_base_rate_and_weights_count(planted: tuple[np.ndarray, np.ndarray]) -> None:
    rows, happened = planted
    held = fit_log_linear(NAMES, rows, happened, SIGNS, shrinkage=1e9, bins=63)
    assert sigmoid(held.score(rows[:50].T.astype(np.float64))) == pytest.approx(happened.mean(), abs=0.01)
    nine = np.where(happened > 0, 1.0, 9.0)
    rare = fit_log_linear(NAMES, rows, happened, {"constant": 1}, shrinkage=1.0, bins=63, weights=nine)
    share = happened.sum() / (happened.sum() + 9 * (happened == 0).sum())
    assert rare.features == () and sigmoid(rare.bias) == pytest.approx(share)
