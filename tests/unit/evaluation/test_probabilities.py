"""Judging probabilities: hand-made answers, planted truth, weights as repetitions."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.errors import InputRefused
from recsys.evaluation.probabilities import judge
from recsys.models.calibration import calibration_error, log_loss_skill


def planted(n: int = 20_000, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(0.6, 8.0, n).clip(1e-4, 0.999)
    return p, (rng.random(n) < p).astype(float)


def test_figures_known_beforehand() -> None:
    report = judge([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1])
    assert report.auc == pytest.approx(3.5 / 4)
    assert report.base_rate == 0.5 and report.rows == 4
    assert report.log_loss == pytest.approx(-np.log([0.9, 0.6, 0.4, 0.8]).mean())
    assert report.skill == pytest.approx(1 + np.log([0.9, 0.6, 0.4, 0.8]).mean() / np.log(2))
    assert judge([0.9, 0.1], [0, 1]).auc == 0.0 and judge([0.5, 0.5], [0, 1]).auc == 0.5


def test_the_truth_is_worth_serving_and_its_error_is_chance() -> None:
    p, y = planted()
    report = judge(p, y, users=np.arange(len(p)) // 7)
    assert report.worth_serving and report.ece_excess == 0.0
    assert report.ece == pytest.approx(calibration_error(p, y), abs=1e-3)
    assert report.skill == pytest.approx(log_loss_skill(p, y))
    assert report.skill_low < report.skill < report.skill_high
    assert sum(part["n"] for part in report.curve) == len(p) and len(report.curve) == 15


def test_a_lie_and_the_base_rate_are_not_worth_serving() -> None:
    p, y = planted()
    assert not judge(np.minimum(1.6 * p, 1.0), y).worth_serving
    assert judge(np.minimum(1.6 * p, 1.0), y).ece_excess > 0.1
    assert not judge(np.full(len(y), y.mean()), y).worth_serving


def test_a_weight_counts_like_as_many_rows() -> None:
    p, y = planted(600)
    times = 1 + np.arange(len(p)) % 3
    weighted, repeated = judge(p, y, weight=times), judge(np.repeat(p, times), np.repeat(y, times))
    for name in ("base_rate", "auc", "log_loss", "skill"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name))
    assert weighted.ece == pytest.approx(repeated.ece, abs=0.01)


def test_the_interval_is_wider_when_rows_belong_to_few_users() -> None:
    p, y = planted(3000)
    alone, together = judge(p, y), judge(p, y, users=(y * 5 + 6 * (p > 0.05)).astype(int))
    assert together.skill_high - together.skill_low > 2 * (alone.skill_high - alone.skill_low)


@pytest.mark.parametrize("y", [[1, 1], [0, 0], [0, 1, 1]])
def test_what_cannot_be_judged_is_refused(y: list[int]) -> None:
    with pytest.raises(InputRefused, match="cannot be judged"):
        judge([0.2, 0.3], y)


def test_rows_of_one_outcome_are_no_further_evidence() -> None:
    """Ten copies of every row tell chance as much as one; taken for rows of their own they would seem to tell more."""
    rng = np.random.default_rng(2)
    p = rng.uniform(0.02, 0.3, 1500)
    y = (rng.random(1500) < p).astype(float)
    once = judge(p, y)
    copied, outcomes = np.tile(p, 10), np.tile(np.arange(1500), 10)
    known = judge(copied, np.tile(y, 10), outcomes=outcomes)
    taken_apart = judge(copied, np.tile(y, 10))
    assert known.ece_chance == pytest.approx(once.ece_chance, rel=0.15)
    assert taken_apart.ece_chance < 0.5 * known.ece_chance
