"""Nothing of the future, and no order of rows, changes a fact of the past.

Small random worlds, full of broken, doubled and contradicting rows, on a grid of a few instants so that rows collide.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from recsys.events import (
    Events,
    Vocabularies,
    build_vocabularies,
    clean,
    fact_stream,
    from_frames,
    last_fact_us,
    room_table,
    tie_facts,
)
from recsys.events.reading import wanted_type
from recsys.events.schemas import TABLES, columns_of, required

START = datetime(2024, 3, 1, tzinfo=UTC)
STEPS = 10
KINDS: dict[str, list[str | None]] = {
    "action": ["follow", "unfollow", "wave", None],
    "kind": ["like", "gift", "block", "unblock", "return", "dispute", "leave", "report", None],
}
World = dict[str, list[dict[str, Any]]]


def instants(first: int = 0, last: int = STEPS) -> st.SearchStrategy[datetime]:
    return st.integers(first, last).map(lambda n: START + timedelta(hours=n))


def cell(table: str, name: str) -> st.SearchStrategy[Any]:
    if name in columns_of(table, "time", "plan"):
        some = instants()
    elif name == "cohost_ids":
        some = st.lists(st.integers(0, 2), max_size=2)
    elif name in columns_of(table, "user", "host", "room", "order", "line"):
        some = st.integers(0, 2)
    elif name in columns_of(table, "number"):
        some = st.sampled_from([-1, 0, 1, 2, 5, 7, 30, 1_000])
    elif name == "propensity":
        some = st.sampled_from([0.5, 0.5, 0.5, 2.0])
    elif name in KINDS:
        some = st.sampled_from(KINDS[name])
    else:
        some = st.sampled_from(["a", "b"])
    rare = st.sampled_from([False] * 12 + [True]) if name in required(table) else st.booleans()
    return st.tuples(rare, some).map(lambda pair: None if pair[0] else pair[1])


def rows_of(table: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    row = st.fixed_dictionaries({name: cell(table, name) for name in TABLES[table].columns()})
    return st.lists(row, max_size=6 if table in ("watches", "purchases", "refunds", "rooms") else 3)


worlds: st.SearchStrategy[World] = st.fixed_dictionaries({table: rows_of(table) for table in TABLES})
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]  # an example takes a tenth of a second, shrinking takes minutes
slow = settings(max_examples=20, suppress_health_check=list(HealthCheck), phases=PHASES)


def read(world: World) -> Events:
    frames = {}
    for table, rows in world.items():
        types = {name: wanted_type(table, name, {}) for name in TABLES[table].columns()}
        frames[table] = pl.DataFrame(rows, schema=types)
    return clean(from_frames(frames))


def micros(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def seen(world: World, before: datetime) -> tuple[list[list[Any]], pl.DataFrame]:
    """What is known of a world before an instant: the ids, and the facts."""
    events = read(world)
    made = build_vocabularies(events, as_of_us=micros(before))
    ids = [list(map(v.id, range(len(v)))) for v in (made.users, made.hosts, made.rooms, made.orders)]
    return ids, fact_stream(events, made, from_us=None, before_us=micros(before))


def past(world: World, before: datetime) -> World:
    """The world as it was before an instant: no later row, and no later instant in an earlier row."""
    cut: World = {}
    for table, rows in world.items():
        first, *later = columns_of(table, "time")
        kept = [row for row in rows if row[first] is None or row[first] < before]
        cut[table] = [
            {k: None if k in later and v is not None and v >= before else v for k, v in row.items()} for row in kept
        ]
    return cut


def same(left: tuple[list[list[Any]], pl.DataFrame], right: tuple[list[list[Any]], pl.DataFrame]) -> None:
    assert left[0] == right[0]
    assert_frame_equal(left[1], right[1])


@slow
@given(worlds, instants(1))
def test_removing_the_future_changes_nothing(world: World, before: datetime) -> None:
    same(seen(world, before), seen(past(world, before), before))


@slow
@given(worlds, worlds, instants(1))
def test_another_future_changes_nothing(world: World, other: World, before: datetime) -> None:
    known = past(world, before)
    mixed: World = {}
    for table, rows in known.items():
        first = columns_of(table, "time")[0]
        mixed[table] = rows + [row for row in other[table] if row[first] is not None and row[first] >= before]
    same(seen(mixed, before), seen(known, before))


@slow
@given(worlds, instants(1), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(world: World, before: datetime, random: Any) -> None:
    shuffled = {table: random.sample(rows, len(rows)) for table, rows in world.items()}
    same(seen(world, before), seen(shuffled, before))
    assert read(world).quality == read(shuffled).quality


@slow
@given(worlds)
def test_every_row_is_good_or_set_aside_once(world: World) -> None:
    events = read(world)
    for table, rows in world.items():
        quality = events.quality.tables[table]
        assert quality.rows == len(rows) == quality.good + sum(quality.quarantined.values())
        if table not in ("rooms", "watches"):  # there a row and its completion are one
            assert events.tables[table].collect().height == quality.good


def whole(world: World) -> tuple[Events, Vocabularies, int]:
    events = read(world)
    end = (last_fact_us(events) or 0) + 1
    return events, build_vocabularies(events, as_of_us=end), end


@slow
@given(worlds, instants())
def test_windows_add_up(world: World, cut: datetime) -> None:
    events, made, end = whole(world)
    everything = fact_stream(events, made, from_us=None, before_us=None)
    assert_frame_equal(everything, fact_stream(events, made, from_us=None, before_us=end))
    early = fact_stream(events, made, from_us=None, before_us=micros(cut))
    late = fact_stream(events, made, from_us=micros(cut), before_us=None)
    assert_frame_equal(everything, pl.concat([early, late]))


@slow
@given(worlds, st.sampled_from([1, 2, 4]))
def test_buckets_add_up(world: World, n: int) -> None:
    events, made, end = whole(world)
    stream = fact_stream(events, made, from_us=None, before_us=end).filter(pl.col("user") >= 0)
    parts = [tie_facts(events, made, before_us=end, bucket=(b, n)) for b in range(n)]
    for bucket, part in enumerate(parts):
        assert (part["user"] % n == bucket).all()
    assert_frame_equal(pl.concat(parts).sort(stream.columns), stream)
    assert_frame_equal(tie_facts(events, made, before_us=end, bucket=None).sort(stream.columns), stream)


@slow
@given(worlds)
def test_refunds_never_say_more_than_they_were_asked(world: World) -> None:
    events = read(world)
    asked = {(row["order_id"], row["at"]): row["amount_minor"] for row in events.tables["refunds"].collect().to_dicts()}
    waiting = events.quality.tables["refunds"].notes.get("waiting", 0)
    assert events.refunds.select(pl.struct("order_id").n_unique()).item() <= len(asked) - waiting
    assert (events.refunds["amount_minor"] >= 0).all()
    if None not in asked.values():
        total = sum(amount for (order, _), amount in asked.items() if order in events.refunds["order_id"].to_list())
        assert events.refunds["amount_minor"].sum() <= total


@slow
@given(worlds)
def test_rooms_have_rows_hosts_and_guests(world: World) -> None:
    events, made, _ = whole(world)
    rooms = room_table(events, made)
    assert rooms["room"].to_list() == list(range(len(made.rooms)))
    assert (rooms["host"] >= 0).all()
    for host, guests in rooms.select("host", "cohosts").iter_rows():
        assert host not in guests
        assert all(0 <= guest < len(made.hosts) for guest in guests)


@pytest.mark.parametrize("table", ["watches", "follows", "purchases"])
def test_one_table_alone_is_enough(table: str) -> None:
    types = {name: wanted_type(table, name, {}) for name in TABLES[table].columns()}
    events = clean(from_frames({table: pl.DataFrame(schema=types)}))
    assert last_fact_us(events) is None
    made = build_vocabularies(events, as_of_us=0)
    assert fact_stream(events, made, from_us=None, before_us=None).is_empty()
    assert room_table(events, made).is_empty()
