"""One small world whose facts are known beforehand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from recsys.errors import InputRefused, LaotieError
from recsys.events import (
    Events,
    FactKind,
    Vocabularies,
    build_vocabularies,
    clean,
    extend_vocabularies,
    fact_stream,
    from_frames,
    host_table,
    last_fact_us,
    room_table,
    user_table,
)
from recsys.events.facts import US_PER_S

T0 = datetime(2024, 3, 1, tzinfo=UTC)
T0_US = int(T0.timestamp()) * US_PER_S


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def us(minutes: float) -> int:
    return T0_US + round(minutes * 60) * US_PER_S


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), infer_schema_length=None)


ROOM = {"room_id": "r", "host_id": "h", "started_at": at(0), "ended_at": at(60), "cohost_ids": ["g", "h"]}
WATCH = {"user_id": "u", "host_id": "h", "room_id": "r", "entered_at": at(5), "left_at": at(25)}
LINE = {"order_id": 1, "line": 1, "user_id": "u", "host_id": "h", "room_id": "r", "at": at(20), "amount_minor": 900}


def cleaned(**tables: pl.DataFrame) -> Events:
    return clean(from_frames(tables))


def facts(events: Events) -> list[tuple[Any, ...]]:
    made = build_vocabularies(events, as_of_us=(last_fact_us(events) or 0) + 1)
    return fact_stream(events, made, from_us=None, before_us=None).rows()


def test_a_watch_is_an_entry_and_a_stay() -> None:
    events = cleaned(rooms=frame(ROOM), watches=frame(WATCH))
    assert facts(events) == [
        (us(0), FactKind.ROOM_START, -1, 1, 0, 0, 0, 0),  # hosts ascending: g, h
        (us(5), FactKind.ENTRY, 0, 1, 0, 1, us(0), 0),
        (us(25), FactKind.STAY, 0, 1, 0, 1, 20 * 60_000, us(5)),
        (us(60), FactKind.ROOM_END, -1, 1, 0, 0, 0, 0),
    ]
    assert last_fact_us(events) == us(60)


def test_without_rooms_the_start_is_unknown() -> None:
    assert facts(cleaned(watches=frame({**WATCH, "left_at": None}))) == [(us(5), FactKind.ENTRY, 0, 0, 0, 1, 0, 0)]


def test_an_entry_before_the_start_or_into_an_unknown_room_is_kept_without_its_room() -> None:
    early, unknown = {**WATCH, "entered_at": at(-1)}, {**WATCH, "room_id": "x"}
    on_time = {**WATCH, "entered_at": at(0)}
    events = cleaned(rooms=frame(ROOM), watches=frame(early, unknown, on_time))
    entries = [fact[4:7] for fact in facts(events) if fact[1] == FactKind.ENTRY]
    assert entries == [(-1, 1, 0), (0, 1, us(0)), (-1, 1, 0)]
    assert events.quality.tables["watches"].notes == {"room_unknown": 1, "before_room_start": 1}


def test_a_later_row_completes_an_earlier_one() -> None:
    open_room, open_watch = {**ROOM, "ended_at": None}, {**WATCH, "left_at": None}
    whole = cleaned(rooms=frame(ROOM), watches=frame(WATCH))
    parts = cleaned(rooms=frame(open_room, ROOM), watches=frame(open_watch, WATCH))
    assert facts(parts) == facts(whole)
    assert parts.quality.tables["watches"].good == 2
    more = cleaned(
        rooms=frame(open_room, ROOM, {**ROOM, "ended_at": at(90)}), watches=frame(open_watch, WATCH, WATCH, open_watch)
    )
    assert facts(more) == facts(whole)
    assert more.quality.tables["rooms"].quarantined == {"duplicate_key": 1}
    assert more.quality.tables["watches"].quarantined == {"duplicate_key": 2}


def test_a_room_ends_though_the_end_has_another_start() -> None:
    """Or it would be on air for ever; the end of another host's room ends nothing."""
    open_room = {**ROOM, "ended_at": None}
    ended = cleaned(rooms=frame(open_room, {**ROOM, "started_at": at(2)}), watches=frame(WATCH))
    assert facts(ended) == facts(cleaned(rooms=frame(ROOM), watches=frame(WATCH)))
    assert ended.quality.tables["rooms"].good == 2
    another = {**ROOM, "started_at": at(2), "host_id": "x"}
    still = cleaned(rooms=frame(open_room, another), watches=frame(WATCH))
    assert facts(still) == facts(cleaned(rooms=frame(open_room), watches=frame(WATCH)))
    assert still.quality.tables["rooms"].quarantined == {"duplicate_key": 1}


@pytest.mark.parametrize("turned", [False, True])
def test_of_rows_with_one_key_the_earliest_counts(turned: bool) -> None:
    """Or else a broken row of the future would displace one of the past."""
    lines = [LINE, {**LINE, "at": at(40), "amount_minor": 1}, {**LINE, "at": at(20), "amount_minor": 950}]
    users = [{"user_id": "u", "registered_at": None, "city_tier": "2"}, {"user_id": "u", "registered_at": at(1)}]
    events = cleaned(purchases=frame(*lines[:: -1 if turned else 1]), users=frame(*users[:: -1 if turned else 1]))
    assert facts(events) == [(us(20), FactKind.ORDER_LINE, 0, 0, 0, 1, 900, 0)]
    assert events.tables["users"].collect()["city_tier"].to_list() == ["2"]
    assert events.quality.tables["purchases"].quarantined == {"duplicate_key": 2}


def test_every_other_table() -> None:
    who = {"user_id": "u", "host_id": "h"}
    events = cleaned(
        rooms=frame(ROOM),
        follows=frame({**who, "at": at(1), "action": "follow"}, {**who, "at": at(2), "action": "unfollow"}),
        engagements=frame(
            {**who, "room_id": "r", "at": at(3), "kind": "gift", "count": 2, "value_minor": 50},
            {**who, "room_id": "r", "at": at(4), "kind": "wave", "count": None, "value_minor": None},
        ),
        feedback=frame({**who, "at": at(5), "kind": "block"}, {**who, "at": at(6), "kind": "not_interested"}),
        impressions=frame({**who, "room_id": "r", "at": at(7), "position": 3}),
        notices=frame({"host_id": "h", "at": at(8), "from": at(100), "to": at(200), "kind": "leave"}),
        purchases=frame({**LINE, "quantity": 2}),
    )
    assert [fact for fact in facts(events) if fact[1] not in (FactKind.ROOM_START, FactKind.ROOM_END)] == [
        (us(1), FactKind.FOLLOW, 0, 1, -1, 1, 0, 0),
        (us(2), FactKind.UNFOLLOW, 0, 1, -1, 1, 0, 0),
        (us(3), FactKind.GIFT, 0, 1, 0, 2, 50, 0),
        (us(4), FactKind.OTHER_ENGAGEMENT, 0, 1, 0, 1, 0, 0),
        (us(5), FactKind.BLOCK, 0, 1, -1, 1, 0, 0),
        (us(6), FactKind.NOT_INTERESTED, 0, 1, -1, 1, 0, 0),
        (us(7), FactKind.IMPRESSION, 0, 1, 0, 1, 3, 0),
        (us(8), FactKind.LEAVE_NOTICE, -1, 1, -1, 0, us(100), us(200)),
        (us(20), FactKind.ORDER_LINE, 0, 1, 0, 2, 900, 0),
    ]


def refund_facts(lines: list[dict[str, Any]], *refunds: dict[str, Any]) -> list[tuple[Any, ...]]:
    types = {"order_id": pl.Int64, "host_id": pl.String, "amount_minor": pl.Int64, "kind": pl.String}
    asked = pl.DataFrame(list(refunds), schema_overrides=types)
    events = cleaned(purchases=frame(*lines), refunds=asked)
    found = [fact for fact in facts(events) if fact[1] in (FactKind.REFUND, FactKind.DISPUTE)]
    return [(fact[0], FactKind(fact[1]), fact[3], fact[6]) for fact in found]


REFUND = {"order_id": 1, "host_id": None, "at": at(30), "amount_minor": None, "kind": None}


def test_a_refund_joins_its_order() -> None:
    two = [LINE, {**LINE, "line": 2, "amount_minor": 100}]
    assert refund_facts(two, REFUND) == [(us(30), FactKind.REFUND, 0, 1_000)]
    assert refund_facts(two, {**REFUND, "amount_minor": 70, "kind": "dispute"}) == [(us(30), FactKind.DISPUTE, 0, 70)]
    assert refund_facts(two, {**REFUND, "kind": "counterfeit"}) == [(us(30), FactKind.DISPUTE, 0, 1_000)]


def test_a_refund_earlier_than_its_order_takes_effect_with_it_and_ignores_later_lines() -> None:
    later = {**LINE, "line": 2, "at": at(40), "amount_minor": 100}
    assert refund_facts([LINE, later], {**REFUND, "at": at(10)}) == [(us(20), FactKind.REFUND, 0, 900)]


def test_a_refund_without_a_host_is_divided_by_gross_amounts() -> None:
    lines = [{**LINE, "host_id": host, "amount_minor": gross} for host, gross in (("a", 100), ("b", 100), ("c", 300))]
    assert refund_facts(lines, {**REFUND, "amount_minor": 101}) == [
        (us(30), FactKind.REFUND, 0, 20),
        (us(30), FactKind.REFUND, 1, 20),
        (us(30), FactKind.REFUND, 2, 61),
    ]
    assert refund_facts(lines, {**REFUND, "host_id": "b"}) == [(us(30), FactKind.REFUND, 1, 100)]
    free = [{**LINE, "host_id": host, "amount_minor": 0} for host in ("a", "b")]
    assert sum(fact[3] for fact in refund_facts(free, {**REFUND, "amount_minor": 7})) == 7


def test_a_refund_without_its_order_waits_and_is_counted() -> None:
    asked = frame({"order_id": 2, "at": at(30)}, {"order_id": 1, "at": at(30)})
    quality = cleaned(purchases=frame(LINE), refunds=asked).quality.tables["refunds"]
    assert (quality.good, quality.quarantined, quality.notes) == (2, {}, {"waiting": 1})
    alone = cleaned(watches=frame(WATCH), refunds=asked)
    assert alone.quality.tables["refunds"].notes == {"waiting": 2}
    assert len(facts(alone)) == 2


def test_attributes_in_rows() -> None:
    events = cleaned(
        rooms=frame({**ROOM, "category": "tea", "title": "spring"}),
        watches=frame(WATCH),
        hosts=frame({"host_id": "h", "category": "tea", "city_tier": 3, "registered_at": at(-9)}),
        users=frame({"user_id": "u", "city_tier": "1"}, {"user_id": "late", "city_tier": None}),
    )
    made = build_vocabularies(events, as_of_us=us(10))
    assert room_table(events, made).rows() == [(0, 1, [0], us(0), us(60), "tea", "spring")]
    assert host_table(events, made).rows() == [(1, "tea", "3", us(-9))]
    assert user_table(events, made).rows() == [(0, None, None), (1, "1", None)]


def test_vocabularies_end_at_the_as_of_and_grow_without_renumbering() -> None:
    events = cleaned(watches=frame(WATCH, {**WATCH, "user_id": "a", "entered_at": at(50), "left_at": None}))
    made = build_vocabularies(events, as_of_us=us(50))
    assert made.users.id(0) == "u" and len(made.users) == 1
    with pytest.raises(LaotieError, match="user has no row"):
        fact_stream(events, made, from_us=None, before_us=None)
    extend_vocabularies(made, events)
    assert [made.users.id(0), made.users.id(1)] == ["u", "a"]
    assert fact_stream(events, made, from_us=us(50), before_us=None).rows() == [(us(50), 1, 1, 0, 0, 1, 0, 0)]
    other = Vocabularies()
    other.users.add(5)
    with pytest.raises(InputRefused, match="other kind"):
        fact_stream(events, other, from_us=None, before_us=None)
