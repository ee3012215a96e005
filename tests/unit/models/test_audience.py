"""Numbers of the audience on sequences short enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.errors import BundleRefused
from recsys.events.facts import NEVER, US_PER_DAY
from recsys.models.audience import Audience, segment
from recsys.pipeline.choice import CHOICE_FEATURES, choice_features
from recsys.pipeline.spans import Spans

MINUTE = 60_000_000
T0 = 19_800 * US_PER_DAY


def told(*entries: tuple[int, int, float], audience: Audience | None = None) -> Audience:
    """(user, host, minutes); every room started at T0."""
    audience = audience or Audience()
    for user, host, minutes in entries:
        audience.update(user, host, T0, T0 + int(minutes * MINUTE))
    return audience


def conversion(audience: Audience, host: int, minutes: float) -> float:
    """The one of a half-life of 7 days, in which minutes hardly matter."""
    return float(audience.read(np.array([host]), T0 + int(minutes * MINUTE))[0][1, 0])


def test_exposure_counts_the_entries_while_a_host_was_on_air() -> None:
    audience = told((0, 0, 0), (1, 1, 1), (2, 1, 2), (3, 0, 3), (4, 1, 4))
    # host 0 was chosen at 0 and 3, and on air for all five entries; host 1 from the second on
    assert conversion(audience, 0, 5) == pytest.approx((2 + 0.175) / (5 + 5), rel=1e-3)
    assert conversion(audience, 1, 5) == pytest.approx((3 + 0.175) / (4 + 5), rel=1e-3)
    assert conversion(audience, 7, 5) == pytest.approx(0.175 / 5)


def test_a_host_off_air_is_exposed_to_half_an_hour_at_most() -> None:
    """Host 0 is entered once and is back a day later; in between host 1 has a thousand entries."""
    crowd = [(1, 1, 60 + i) for i in range(1_000)]
    audience = told((0, 1, -1), (0, 0, 0), *crowd, (0, 0, 1_440))
    # at minute 0 two entries in two hours of half-life: 2 · ln 2 · 30 / 120 of them in half an hour
    assert conversion(audience, 0, 1_440) == pytest.approx((1 + 1 + 0.175) / (2 * np.log(2) / 4 + 1 + 5), rel=0.1)


def test_a_choice_counts_half_after_its_half_life() -> None:
    audience = told((0, 0, 0))
    chosen = [
        audience.read(np.array([0]), T0 + half)[0][i, 0] for i, half in enumerate((US_PER_DAY // 2, 7 * US_PER_DAY))
    ]
    assert chosen == pytest.approx([(0.5 + 0.175) / (5 + np.log(2) / 4)] * 2, rel=0.06)


def test_segments_count_users_by_their_entries_before() -> None:
    assert [segment(n) for n in (0, 1, 2, 3, 9, 10, 99)] == [0, 1, 1, 2, 2, 3, 3]
    audience = told(*((0, 0, i / 600) for i in range(12)), (1, 0, 0.1))
    segments = audience.read(np.array([0]), T0 + MINUTE // 10)[1]
    assert segments[:, 0] == pytest.approx([2, 2, 7, 2], rel=0.01)
    assert (audience.segment_of(0), audience.segment_of(1), audience.segment_of(5), audience.segment_of(-1)) == (
        3,
        1,
        0,
        0,
    )


def test_taste_is_the_mean_of_what_was_chosen_as_it_was_seen_before() -> None:
    """The first visitor of a host finds nothing to describe; the second one, a minute later, sees one entry."""
    audience = told((0, 0, 10))
    assert np.isnan(audience.taste(0)).all()
    audience = told((1, 0, 11), audience=audience)
    rate, age, idle, chance = audience.taste(1)
    assert age == pytest.approx(np.log(11 * 60 + 30)) and idle == pytest.approx(np.log(61))
    assert rate == pytest.approx(np.log(1.05) - np.log(2), abs=0.01)
    assert chance == pytest.approx(np.log(1.175 / 6), abs=0.01)
    features = np.empty((len(CHOICE_FEATURES), 2))
    ages, lifts = np.array([11.0, 1.0]), np.full((2, 2), np.nan)
    choice_features(audience, [1], np.array([0, 3]), ages, lifts, T0 + 11 * MINUTE, Spans([2]), features)
    row = dict(zip(CHOICE_FEATURES, features, strict=True))
    assert row["taste_age_gap"][0] == pytest.approx(0.0)
    assert row["taste_age_gap"][1] < 0 and np.isnan(row["taste_idle_gap"][1])
    np.testing.assert_allclose(row["transition_chance"], row["host_conversion_7d"])
    audience.forget(1)
    assert np.isnan(audience.taste(1)).all() and audience.segment_of(1) == 0


def test_saved_and_read_back_it_moves_on_alike() -> None:
    rng = np.random.default_rng(0)
    entries = [(int(u), int(h), i * 3.0) for i, (u, h) in enumerate(rng.integers(0, [9, 5], (300, 2)))]
    whole = told(*entries)
    half = Audience.from_arrays({name: array.copy() for name, array in told(*entries[:150]).to_arrays().items()})
    again = told(*entries[150:], audience=half)
    hosts, at = np.arange(6), T0 + 901 * MINUTE
    for one, other in zip(whole.read(hosts, at), again.read(hosts, at), strict=True):
        np.testing.assert_array_equal(one, other)
    for user in range(9):
        np.testing.assert_array_equal(whole.taste(user), again.taste(user))


def test_numbers_of_fewer_hosts_or_users_than_there_are_are_refused() -> None:
    arrays = told((0, 0, 0.0), (1, 1, 1.0)).to_arrays()
    for name in ("hosts", "last_at", "seen", "tastes", "entries"):
        with pytest.raises(BundleRefused, match="does not fit the others"):
            Audience.from_arrays(arrays | {name: arrays[name][:-1]})


def test_a_late_entry_counts_as_if_at_the_latest() -> None:
    audience = told((0, 0, 10), (1, 0, 5))
    assert np.isfinite(audience.taste(1)).all()
    assert audience.read(np.array([0]), T0 + 10 * MINUTE)[1].sum() == pytest.approx(2.0)


def test_without_an_audience_or_a_known_room_nothing_is_said() -> None:
    nothing = np.zeros((len(CHOICE_FEATURES), 2))
    choice_features(None, [0], np.array([0, 1]), np.zeros(2), np.zeros((2, 2)), T0, Spans([2]), nothing)
    assert np.isnan(nothing).all()
    audience = told((0, 0, 0))
    audience.update(0, 0, NEVER, T0 + MINUTE)
    assert np.isnan(audience.taste(0)[1]) and np.isfinite(audience.taste(0)[[0, 2, 3]]).all()
