"""Events that continue others give the facts they would have given in one history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.errors import BundleRefused, InputRefused
from recsys.events import Events, Known, build_vocabularies, clean, fact_stream, from_frames, known_before
from recsys.events.facts import US_PER_S

T0 = datetime(2024, 3, 1, tzinfo=UTC)
CUT_US = int((T0 + timedelta(minutes=30)).timestamp()) * US_PER_S


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def frames(early: bool, late: bool) -> dict[str, pl.DataFrame]:
    """One history cut at minute 30: the room, an order and two refunds reach across the cut."""
    room = {"room_id": 7, "host_id": 2, "started_at": at(0), "ended_at": None}
    who = {"user_id": 1, "host_id": 2, "room_id": 7}
    line = {"order_id": 5, "line": 1, "user_id": 1, "host_id": 2, "at": at(20), "amount_minor": 900}
    asked = {"order_id": 5, "host_id": None, "at": at(25), "amount_minor": 50}
    tables: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
        "rooms": ([room], [{**room, "ended_at": at(60)}]),
        "watches": (
            [{**who, "entered_at": at(10), "left_at": None}],
            [
                {**who, "entered_at": at(10), "left_at": at(40)},
                {**who, "entered_at": at(45), "left_at": at(50)},
                {**who, "host_id": 3, "entered_at": at(46), "left_at": at(50)},
                {**who, "entered_at": at(61), "left_at": None},
            ],
        ),
        "purchases": ([line], [{**line, "order_id": 6, "at": at(35)}]),
        "refunds": (
            [asked, {**asked, "order_id": 6}],
            [{**asked, "at": at(70), "amount_minor": None}, {**asked, "order_id": 8, "at": at(70)}],
        ),
    }
    return {t: pl.DataFrame(a * early + b * late, infer_schema_length=None) for t, (a, b) in tables.items()}


def test_events_after_a_cut_with_what_was_known_are_the_rest_of_the_history(tmp_path: Path) -> None:
    whole, base = clean(from_frames(frames(True, True))), clean(from_frames(frames(True, False)))
    known_before(base, before_us=CUT_US).save(tmp_path)
    known = Known.load(tmp_path)
    more = clean(from_frames(frames(False, True)), known=known)
    made = build_vocabularies(whole, as_of_us=2 * CUT_US)

    def rest(events: Events) -> pl.DataFrame:
        return fact_stream(events, made, from_us=CUT_US, before_us=None)

    assert_frame_equal(rest(more), rest(whole))
    assert more.quality.tables["watches"].quarantined == {"host_differs_from_room": 1, "entered_after_end": 1}
    assert more.quality.tables["refunds"].notes == {"waiting": 1}
    assert known_before(whole, before_us=CUT_US).rooms.equals(known.rooms)
    assert rest(clean(from_frames(frames(False, True)))).height < rest(whole).height


def test_single_tables_may_continue_a_history() -> None:
    whole = clean(from_frames(frames(True, True)))
    made = build_vocabularies(whole, as_of_us=2 * CUT_US)
    known = known_before(clean(from_frames(frames(True, False))), before_us=CUT_US)
    for table in ("rooms", "watches", "purchases", "refunds"):
        alone = clean(from_frames({table: frames(False, True)[table]}), known=known)
        assert not fact_stream(alone, made, from_us=CUT_US, before_us=None).is_empty(), table
    nothing = known_before(clean(from_frames({})), before_us=CUT_US)
    assert nothing.id_kinds() == {}
    assert clean(from_frames(frames(False, True)), known=nothing).quality.tables["refunds"].notes == {"waiting": 2}


def test_other_kinds_of_ids_and_damaged_files_are_refused(tmp_path: Path) -> None:
    known = known_before(clean(from_frames(frames(True, False))), before_us=CUT_US)
    text = frames(False, True)["watches"].with_columns(pl.col("user_id", "host_id", "room_id").cast(pl.String))
    with pytest.raises(InputRefused, match="two kinds"):
        clean(from_frames({"watches": text}), known=known)
    with pytest.raises(BundleRefused, match="known"):
        Known.load(tmp_path)
    with pytest.raises(InputRefused, match="no such table"):
        from_frames({"strangers": text})


def test_a_room_that_is_known_holds_against_rows_that_contradict_it() -> None:
    """Its start is no fact again, another host neither takes nor ends it; who ends it may mistake it."""
    base = frames(True, False)
    known = known_before(clean(from_frames(base)), before_us=CUT_US)
    room = base["rooms"].row(0, named=True)
    more = [
        {**room, "started_at": at(35), "ended_at": None},
        {**room, "host_id": 3, "started_at": at(35), "ended_at": at(40)},
        {**room, "host_id": 1, "started_at": at(-5), "ended_at": None},
        {**room, "started_at": at(35), "ended_at": at(50)},
        room,
    ]
    rooms = pl.DataFrame(more, infer_schema_length=None)
    later = clean(from_frames({"rooms": rooms, "watches": frames(False, True)["watches"]}), known=known)
    assert later.quality.tables["rooms"].quarantined == {"duplicate_key": 3}
    assert later.rooms.select("host_id", "started_at", "ended_at").rows() == [
        (2, known.rooms["started_at"][0], int(at(50).timestamp()) * US_PER_S)
    ]
    assert later.quality.tables["watches"].quarantined == {"host_differs_from_room": 1, "entered_after_end": 1}
