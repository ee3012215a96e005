"""The live timeline against the definition: live at t ⇔ started < t and not (ended < t)."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.events import LiveTimeline
from recsys.events.facts import FOREVER

spans = st.lists(st.tuples(st.integers(0, 30), st.one_of(st.integers(0, 30), st.none())), max_size=200)


def arrays(rooms: list[tuple[int, int | None]]) -> tuple[np.ndarray, np.ndarray]:
    started = np.array([start for start, _ in rooms], np.int64)
    ended = np.array([FOREVER if stay is None else start + stay for start, stay in rooms], np.int64)
    return started, ended


@given(spans, st.integers(-1, 62))
def test_live_at_is_the_definition(rooms: list[tuple[int, int | None]], t: int) -> None:
    started, ended = arrays(rooms)
    expected = np.flatnonzero((started < t) & ~(ended < t))
    assert LiveTimeline(started, ended).live_at(t).tolist() == expected.tolist()


@given(spans)
def test_count_at_counts_live_at(rooms: list[tuple[int, int | None]]) -> None:
    timeline = LiveTimeline(*arrays(rooms))
    instants = np.arange(-1, 62)
    assert timeline.count_at(instants).tolist() == [len(timeline.live_at(int(t))) for t in instants]


@given(spans, st.integers(-1, 62), st.integers(0, 20))
def test_live_between_is_the_union(rooms: list[tuple[int, int | None]], first: int, length: int) -> None:
    timeline = LiveTimeline(*arrays(rooms))
    union = sorted({int(p) for t in range(first, first + length + 1) for p in timeline.live_at(t)})
    assert timeline.live_between(first, first + length).tolist() == union


def test_a_room_without_an_end_stays_live() -> None:
    rooms = pl.DataFrame({"started_at": [5, 7], "ended_at": [None, 9]}, schema_overrides={"ended_at": pl.Int64})
    timeline = LiveTimeline.of_rooms(rooms)
    assert timeline.live_at(5).tolist() == []
    assert timeline.live_at(9).tolist() == [0, 1]
    assert timeline.live_at(10**15).tolist() == [0]
    assert timeline.live_between(4, 3).tolist() == []


def test_what_cannot_be_a_room_is_refused() -> None:
    with pytest.raises(ValueError, match="ends before it starts"):
        LiveTimeline(np.array([5]), np.array([4]))
    with pytest.raises(ValueError, match="one-dimensional"):
        LiveTimeline(np.array([5, 6]), np.array([7]))
