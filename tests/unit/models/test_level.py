"""The level of probabilities now: found where it walks, left alone where it stands."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.models.calibration import logit, sigmoid
from recsys.models.level import level_now

DAYS, PER_DAY = 30, 400


def told(offsets: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    day = np.repeat(np.arange(len(offsets)), PER_DAY)
    p = rng.beta(1.0, 12.0, len(day))
    y = (rng.random(len(day)) < sigmoid(logit(p) + offsets[day])).astype(np.int8)
    return p, y, np.ones(len(day)), day


def test_a_level_that_fell_is_followed_and_beats_the_mean_of_the_stretch() -> None:
    offsets = np.linspace(0.5, -0.9, DAYS)
    found = np.array([level_now(*told(offsets, seed)) for seed in range(8)])
    assert found.mean() == pytest.approx(-0.9, abs=0.15) and np.abs(found + 0.9).max() < 0.4


def test_where_nothing_drifts_the_whole_stretch_says_the_level() -> None:
    found = np.array([level_now(*told(np.zeros(DAYS), seed)) for seed in range(20)])
    within = 1.0 / np.sqrt(DAYS * PER_DAY * 0.065)  # of the offset from all days together
    assert np.sqrt((found**2).mean()) < 2 * within
    moved = level_now(*told(np.full(DAYS, 0.6), 1))
    assert moved == pytest.approx(0.6, abs=4 * within)


def test_rows_worth_less_move_it_less() -> None:
    p, y, weight, day = told(np.full(3, 0.8), 2)
    assert 0.0 < level_now(p, y, weight / 100, day) < level_now(p, y, weight, day)
