"""Calibration: planted probabilities, hand-made answers, round trips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InputRefused
from recsys.models.calibration import (
    IsotonicMap,
    LogitMap,
    calibration_error,
    log_loss,
    log_loss_skill,
    logit,
    reliability_curve,
    sigmoid,
)


def planted(n: int = 60_000, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities and outcomes drawn from them."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.6, 4.0, n).clip(1e-4, 0.999)
    return p, (rng.random(n) < p).astype(float)


def test_error_of_the_truth_is_small_and_of_a_known_lie_is_the_lie() -> None:
    p, y = planted()
    assert calibration_error(p, y) < 0.005
    assert calibration_error(np.full(1_000, 0.3), np.repeat([1.0, 0.0], [500, 500])) == pytest.approx(
        1 / 15 * (7 * 0.7 + abs(0.3 - 33 / 67) + 7 * 0.3), abs=0.003
    )


def test_bins_are_of_equal_mass_and_ascending() -> None:
    curve = reliability_curve(*planted(1_001))
    assert len(curve.count) == 15
    assert curve.count.sum() == 1_001
    assert curve.count.max() - curve.count.min() <= 1
    assert (np.diff(curve.mean_p) >= 0).all()


def test_fewer_rows_than_bins() -> None:
    assert reliability_curve([0.2, 0.8], [0, 1]).count.tolist() == [1, 1]
    assert calibration_error([0.2, 0.8], [0, 1]) == pytest.approx(0.2)


def test_skill() -> None:
    y = np.array([1.0, 0.0, 0.0, 0.0])
    assert log_loss_skill(np.full(4, 0.25), y) == pytest.approx(0.0)
    assert log_loss_skill(y, y) == pytest.approx(1.0, abs=1e-5)
    assert np.isnan(log_loss_skill(np.full(4, 0.25), np.zeros(4)))
    assert log_loss([0.25, 0.25], [1, 0]) == pytest.approx(-(np.log(0.25) + np.log(0.75)) / 2)


def test_logit_map_finds_planted_coefficients() -> None:
    p, y = planted()
    lie = sigmoid((logit(p) - 0.7) / 1.4)
    found = LogitMap.fit(lie, y, intercept_sd=100, slope_sd=100)
    assert found.intercept == pytest.approx(0.7, abs=0.1)
    assert found.slope == pytest.approx(1.4, abs=0.06)
    assert calibration_error(found.apply(lie), y) < 0.005 < 0.02 < calibration_error(lie, y)


def test_level_alone_matches_the_mean_and_keeps_the_slope() -> None:
    p, y = planted()
    found = LogitMap.fit(sigmoid(logit(p) - 1), y, intercept_sd=1e6)
    assert found.slope == 1.0
    assert found.apply(sigmoid(logit(p) - 1)).mean() == pytest.approx(y.mean(), abs=1e-9)


def test_a_tight_prior_keeps_the_identity() -> None:
    p, y = planted(500)
    found = LogitMap.fit(p / 2, y, intercept_sd=1e-4, slope_sd=1e-4)
    np.testing.assert_allclose(found.apply(p / 2), p / 2, rtol=1e-3)


def test_weights_are_repetitions() -> None:
    p, y = planted(300)
    w = np.random.default_rng(0).integers(0, 4, 300)
    once = LogitMap.fit(p, y, weight=w, slope_sd=0.5)
    repeated = LogitMap.fit(np.repeat(p, w), np.repeat(y, w), slope_sd=0.5)
    assert once.intercept == pytest.approx(repeated.intercept)
    assert once.slope == pytest.approx(repeated.slope)


def test_isotonic_repairs_a_monotone_distortion() -> None:
    p, y = planted()
    lie = p**2
    half = len(p) // 2
    found = IsotonicMap.fit(lie[:half], y[:half])
    assert calibration_error(found.apply(lie[half:]), y[half:]) < 0.008 < calibration_error(lie[half:], y[half:])


def test_isotonic_pools_adjacent_violators() -> None:
    found = IsotonicMap.fit([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], prior_rows=0)
    np.testing.assert_allclose(found.x, [0.1, 0.25, 0.4])
    np.testing.assert_allclose(found.y, [0, 0.5, 1])


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.5, 3.0]),
)
def test_isotonic_never_decreases_nor_leaves_the_unit_interval(rows: list[tuple[float, bool]], prior: float) -> None:
    p, y = np.array([r[0] for r in rows]), np.array([float(r[1]) for r in rows])
    said = IsotonicMap.fit(p, y, prior_rows=prior).apply(np.linspace(0, 1, 200))
    assert (np.diff(said) >= -1e-12).all()
    assert said.min() >= 0
    assert said.max() <= 1


def test_maps_survive_export() -> None:
    p, y = planted(2_000)
    for found in (LogitMap.fit(p, y, slope_sd=1.0), IsotonicMap.fit(p, y)):
        again = type(found).from_arrays(found.to_arrays())
        np.testing.assert_array_equal(again.apply(p), found.apply(p))


@pytest.mark.parametrize(
    ("p", "y", "weight"),
    [([], [], None), ([0.1], [0, 1], None), ([1.2], [1], None), ([np.nan], [1], None), ([0.5], [2], None),
     ([0.5], [1], [-1.0]), ([0.5], [1], [0.0])],
)  # fmt: skip
def test_nonsense_is_refused(p: list[float], y: list[float], weight: list[float] | None) -> None:
    with pytest.raises(InputRefused):
        LogitMap.fit(p, y, weight=weight)
