"""A modest private-domain world comes within the stated tolerance of every published figure."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.events.simulator.calibration import TARGETS, compare, gini
from tests.unit.simulator.simulated_world import World


@pytest.fixture(scope="module")
def measured(calibrated: World) -> dict[str, tuple[float, bool]]:
    return {figure.target.name: (figure.measured, figure.met) for figure in compare(calibrated.report.out, 8.0)}


@pytest.mark.parametrize("name", [target.name for target in TARGETS])
def test_figure_is_met(name: str, measured: dict[str, tuple[float, bool]]) -> None:
    value, met = measured[name]
    assert met, f"{name}: {value}"


def test_another_world_does_not_meet_them(traffic: World) -> None:
    missed = {figure.target.name for figure in compare(traffic.report.out, 8.0) if not figure.met}
    assert {"loyal_stay_minutes", "periodic_user_share", "loyal_taps_per_comment"} <= missed


def test_gini_of_known_values() -> None:
    assert gini(np.full(10, 3.0)) == pytest.approx(0.0)
    assert gini(np.r_[np.zeros(99), 1.0]) == pytest.approx(0.99)
    assert np.isnan(gini(np.zeros(3)))
