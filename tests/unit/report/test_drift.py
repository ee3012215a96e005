"""Drift: nothing moves, nothing is said; what moves is found and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.bundle import Bundle
from training.drift import STRENGTH, base_profile, drift_metrics, drift_of, profile_of, stability_index

RNG = np.random.default_rng(0)
THEN = {"stays": RNG.normal(size=20_000), STRENGTH: RNG.beta(1, 5, 20_000)}


def test_the_formula() -> None:
    then, now = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    assert stability_index(then, now) == pytest.approx(0.25 * np.log(2) + 0.25 * np.log(1.5))
    assert stability_index(then, then) == 0.0


def test_the_same_law_does_not_drift_and_another_does() -> None:
    base = profile_of(THEN)
    same = drift_of(base, {"stays": RNG.normal(size=20_000), STRENGTH: RNG.beta(1, 5, 20_000)})
    assert max(same.values()) < 0.01
    moved = drift_of(base, {"stays": RNG.normal(1.0, 1.0, 20_000), STRENGTH: RNG.beta(1, 5, 20_000)})
    assert moved["stays"] > 0.5 and moved[STRENGTH] < 0.01
    assert drift_metrics(moved) == {"drift_psi_features_max": moved["stays"], "drift_psi_strength": moved[STRENGTH]}


def test_values_that_go_missing_are_drift() -> None:
    base = profile_of(THEN)
    gone = THEN["stays"].copy()
    gone[:10_000] = np.nan
    assert drift_of(base, {"stays": gone})["stays"] > 0.5


def test_odd_columns() -> None:
    base = profile_of({"constant": np.ones(100), "empty": np.empty(0), "unknown": np.full(100, np.nan)})
    assert set(base) == {"constant", "unknown"}
    assert drift_of(base, {"constant": np.ones(50), "unknown": np.full(9, np.nan), "new": np.ones(3)}) == {
        "constant": 0.0, "unknown": 0.0,
    }  # fmt: skip
    assert drift_metrics({}) == {}


def test_strength_of_a_base_without_that_head_is_another_quantity() -> None:
    frozen = Bundle.open(Path(__file__).parents[2] / "fixtures" / "bundles" / "world-v1")
    assert STRENGTH in frozen.json("profile") and STRENGTH not in base_profile(frozen)
    assert base_profile(frozen).keys() == frozen.json("profile").keys() - {STRENGTH}
    assert base_profile(None) == {}
