"""Exposure: a ranking that favours a group of hosts has a gap there, and groups nobody is in are not spoken of."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.pipeline.features import FEATURES
from training.exposure import PLACES, ExposureLog

TIERS = ["1", "1", "2", "2", None]
"""Of hosts 0 to 4; host 5 came later."""


def shown(favoured: int, entered: int, hosts: np.ndarray, users: int = 40) -> dict[tuple[str, str], dict[str, float]]:
    """Thirty rooms a request; those of the favoured host come first, one of the host `entered` is entered."""
    log = ExposureLog(TIERS)
    for user in range(users):
        values = np.zeros((len(FEATURES), len(hosts)))
        values[FEATURES.index("host_visitors")] = np.where(hosts < 2, 1_000, 5)
        log.log(user, values, (hosts == favoured).astype(float), int(np.flatnonzero(hosts == entered)[0]), hosts)
    return {(row["group"], row["side"]): row for row in log.document(1)}


def test_a_planted_gap_is_found() -> None:
    hosts = np.repeat([0, 2, 4], PLACES)
    found = shown(0, 2, hosts)
    assert found["tier 1", "live"]["share"] == pytest.approx(1 / 3)
    assert found["tier 1", "first places"]["share"] == 1.0
    assert found["tier 1", "gap"]["share"] == 1.0 and found["tier 2", "gap"]["share"] == -1.0
    assert found["large hosts", "gap"]["share"] == 1.0 and found["small hosts", "gap"]["share"] == -1.0
    assert found["tier unknown", "live"]["share"] == pytest.approx(1 / 3)


def test_what_is_shown_as_often_as_it_is_entered_has_no_gap() -> None:
    fair = shown(2, 2, np.repeat([0, 2], PLACES))
    assert {row["share"] for (_, side), row in fair.items() if side == "gap"} == {0.0}
    assert ("tier unknown", "live") not in fair  # no such host was ever live


def test_a_host_who_came_later_is_of_no_known_tier() -> None:
    found = shown(5, 0, np.repeat([0, 5], PLACES))
    assert found["tier unknown", "first places"]["share"] == 1.0


def test_without_two_tiers_there_is_no_gap_between_them() -> None:
    log = ExposureLog(["1", "1", None])
    log.log(0, np.zeros((len(FEATURES), 3)), np.zeros(3), 0, np.arange(3))
    assert {row["question"] for row in log.document(1)} == {"repeat and explore", "host size"}
