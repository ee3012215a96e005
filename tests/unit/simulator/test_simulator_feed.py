"""Draws of the feed come with the frequency their propensity states."""

from __future__ import annotations

import numpy as np

from recsys.events.simulator.arrays import NO_ROOM, draw_from, rank_within, repeat_rows
from recsys.events.simulator.config import WorldConfig
from recsys.events.simulator.feed import day_feed, draw_feed, first_showings
from recsys.events.simulator.population import draw_hosts
from recsys.events.simulator.schedule import Window, draw_schedule


def test_propensities_equal_frequencies() -> None:
    world = WorldConfig()
    rng = np.random.default_rng(4)
    window = Window.over(21.0, 3)
    hosts = draw_hosts(world, 60, window.horizon_s, rng)
    schedule = draw_schedule(world, hosts, window, rng)
    feed = day_feed(world, hosts, schedule, window, 1)
    sessions = 200_000
    time = np.full(sessions, window.day_start(1) + 15.5 * 3_600)
    weights = np.arange(1.0, 9.0)
    interest = np.broadcast_to(weights / weights.sum(), (sessions, 8))
    draws = draw_feed(feed, world.exposure, interest, time, rng)
    checked = 0
    for column in range(draws.room.shape[1]):
        for slot in np.unique(draws.slot[:, column]):
            at = (draws.slot[:, column] == slot) & (draws.room[:, column] != NO_ROOM)
            rooms, first, count = np.unique(draws.room[at, column], return_index=True, return_counts=True)
            stated = draws.propensity[at, column][first]
            spread = np.sqrt(stated * (1 - stated) / sessions)
            assert (np.abs(count / sessions - stated) <= 5 * spread + 1e-5).all()
            checked += len(rooms)
    assert checked > 20
    live = draws.room[draws.room != NO_ROOM]
    assert (schedule.start_s[live] <= time[0]).all()
    assert (schedule.end_s[live] > time[0] - feed.refresh_s).all()


def test_an_hour_without_broadcasts_shows_nothing() -> None:
    world = WorldConfig()
    rng = np.random.default_rng(4)
    window = Window.over(21.0, 2)
    hosts = draw_hosts(world, 5, window.horizon_s, rng)
    schedule = draw_schedule(world, hosts, window, rng)
    feed = day_feed(world, hosts, schedule, window, 1)
    draws = draw_feed(feed, world.exposure, np.full((4, 8), 1 / 8), np.full(4, window.day_start(2)), rng)
    assert (draws.room == NO_ROOM).all()
    assert (draws.propensity == 0).all()


def test_a_room_is_shown_once_on_a_slate() -> None:
    room = np.array([[7, 7, 8, 7], [1, 2, 1, 2]], dtype=np.int32)
    shown = np.array([[True, True, True, True], [False, True, True, True]])
    expected = np.array([[True, False, True, False], [False, True, True, False]])
    np.testing.assert_array_equal(first_showings(room, shown), expected)


def test_vector_operations() -> None:
    np.testing.assert_array_equal(repeat_rows(np.array([2, 0, 1])), [0, 0, 2])
    np.testing.assert_array_equal(rank_within(np.array([3, 3, 5, 9, 9, 9])), [0, 1, 0, 0, 1, 2])
    assert len(rank_within(np.array([], dtype=np.int64))) == 0
    picks = draw_from(np.random.default_rng(1), np.array([1.0, 0.0, 3.0]), 40_000)
    np.testing.assert_allclose(np.bincount(picks, minlength=3) / 40_000, [0.25, 0.0, 0.75], atol=0.01)
