"""Rows of one room that contradict each other: one rule, and one room by batch, by replay and in the service."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.bundle import Bundle, resolve
from recsys.events import Vocabularies, build_vocabularies, clean, fact_stream, from_frames, room_table
from recsys.live.artefact import assemble
from recsys.live.overlay import lay_over, overlay_of
from recsys.live.state import LiveState
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine
from serving.intake import Intake
from serving.memories import memories_of, remember
from serving.replay import replay
from tests.small_world import empty_parts

from .served_world import AS_OF, Clock

S = 1_000_000
LATER = AS_OF + 100 * S
TYPES = {
    "room_id": pl.Int64(), "host_id": pl.Int64(), "started_at": pl.Int64(), "ended_at": pl.Int64(),
    "category": pl.String(), "title": pl.String(), "cohost_ids": pl.List(pl.Int64()),
}  # fmt: skip
Row = dict[str, Any]


@st.composite
def tellings(draw: st.DrawFn, room_ids: tuple[int, ...] = (1, 2), hosts: tuple[int, ...] = (7, 10, 9)) -> list[Row]:
    """Rows of few rooms in the order of their arrival: starts, hosts, ends and attributes that hardly ever agree."""
    rows = []
    for _ in range(draw(st.integers(1, 8))):
        start = draw(st.integers(1, 4))
        end = draw(st.none() | st.integers(start, 6))
        rows.append({
            "room_id": draw(st.sampled_from(room_ids)),
            "host_id": draw(st.sampled_from(hosts)),
            "started_at": AS_OF + start * S,
            "ended_at": None if end is None else AS_OF + end * S,
            "category": draw(st.sampled_from([None, "tea", "jade"])),
            "title": draw(st.sampled_from([None, "a", "b"])),
            "cohost_ids": draw(st.none() | st.lists(st.sampled_from([*hosts, 8]), max_size=2)),
        })  # fmt: skip
    return rows


def frame_of(rows: list[Row]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=TYPES)
    return frame.with_columns(pl.col("started_at", "ended_at").cast(pl.Datetime("us", "UTC")))


def picture(live: LiveState, ids: Vocabularies) -> dict[str, Any]:
    """Rooms, who is live and the schedules, by external ids."""
    world = live.world
    rooms = {}
    for room in range(len(ids.rooms)):
        guests = sorted(ids.hosts.id(one) for one in world.rooms.cohosts.get(room, ()))
        told = (int(world.rooms.started_at[room]), guests, world.rooms.category(room))
        rooms[ids.rooms.id(room)] = (ids.hosts.id(int(world.rooms.host[room])), *told)
    epoch = world.index.publish()
    on_air = {ids.rooms.id(r): ids.hosts.id(h) for r, h in zip(epoch.rooms.tolist(), epoch.hosts.tolist(), strict=True)}
    plans = world.schedule.rows
    schedules = {
        ids.hosts.id(host): (plans.ints[host].tolist(), plans.latest[host].tolist())
        for host in range(len(ids.hosts))
        if host < len(plans) and plans.ints[host, world.blocks.schedule.int_column("n_broadcasts")]
    }
    return {"rooms": rooms, "live": on_air, "schedules": schedules}


def told_to(intake: Intake, rows: list[Row], first: int = 0) -> list[tuple[str, str | None]]:
    return [intake.feed(str(n), "rooms", orjson.dumps(row).decode(), LATER) for n, row in enumerate(rows, first)]


def in_batch(rows: list[Row]) -> tuple[LiveState, Vocabularies, int]:
    events = clean(from_frames({"rooms": frame_of(rows)}))
    ids = build_vocabularies(events, as_of_us=LATER)
    live = assemble(empty_parts(len(ids.hosts)))
    live.register_rooms(room_table(events, ids))
    for fact in fact_stream(events, ids, from_us=None, before_us=None).iter_rows():
        live.apply(*fact)
    return live, ids, events.quality.tables["rooms"].good


@given(tellings())
def test_whatever_comes_first_the_service_knows_the_rooms_of_the_batch(rows: list[Row]) -> None:
    intake = Intake(assemble(empty_parts(1)), Vocabularies())
    told_to(intake, rows)
    live, ids, _ = in_batch(rows)
    assert picture(intake.live, intake.vocabularies) == picture(live, ids)
    ends = clean(from_frames({"rooms": frame_of(rows)})).rooms.select("room_id", "ended_at").rows()
    of_room = intake.vocabularies.rooms.row
    assert {room: intake.rooms.ended.get(of_room(room)) for room, _ in ends} == dict(ends)


@given(tellings(room_ids=(1,)))
def test_told_in_the_order_of_their_starts_as_many_rows_are_set_aside(rows: list[Row]) -> None:
    intake = Intake(assemble(empty_parts(1)), Vocabularies())
    in_order = sorted(rows, key=lambda row: (row["started_at"], row["host_id"], row["ended_at"] is not None))
    accepted = sum(status == "accepted" for status, _ in told_to(intake, in_order))
    assert accepted == in_batch(rows)[2]


@given(tellings(), st.integers(0, 8))
def test_a_restored_intake_goes_on_as_the_one_before(rows: list[Row], cut: int) -> None:
    whole, before = (Intake(assemble(empty_parts(1)), Vocabularies()) for _ in range(2))
    expected = told_to(whole, rows)[cut:]
    told_to(before, rows[:cut])
    after = Intake(assemble(empty_parts(1)), before.vocabularies)
    lay_over(after.live, *overlay_of(before.live))
    remember(after, memories_of(before))
    assert told_to(after, rows[cut:], cut) == expected
    assert picture(after.live, after.vocabularies) == picture(whole.live, whole.vocabularies)


@given(tellings(room_ids=(1,)), st.integers(1, 6))
def test_what_a_bundle_counted_is_not_counted_again(rows: list[Row], as_of: int) -> None:
    """Records below a bundle's offset are told again to be remembered; their facts before its as-of are in it."""
    cut = AS_OF + as_of * S
    live, ids, _ = in_batch(rows)
    events = clean(from_frames({"rooms": frame_of(rows)}))
    ids = build_vocabularies(events, as_of_us=LATER)
    base = assemble(empty_parts(len(ids.hosts)))
    on_air = pl.col("ended_at").is_null() | (pl.col("ended_at") >= cut)
    base.register_rooms(room_table(events, ids).filter((pl.col("started_at") < cut) & on_air))
    for fact in fact_stream(events, ids, from_us=None, before_us=cut).iter_rows():
        base.apply(*fact)
    again = Intake(base, ids)
    for n, row in enumerate(rows):
        again.feed(str(n), "rooms", orjson.dumps(row).decode(), LATER, cut)
    found, expected = picture(again.live, ids), picture(live, ids)
    assert (found["live"], found["schedules"]) == (expected["live"], expected["schedules"])


def live_room(market: Path) -> tuple[int, int]:
    """A room of the bundle that is on air when the test begins, and its host."""
    with Engine.open(market / "bundles", None, ServingConfig(lease_s=0.0), Clock()) as engine:
        loaded = engine.loaded
        room = int(loaded.live.world.index.publish().rooms[0])
        return loaded.vocabularies.rooms.id(room), loaded.vocabularies.hosts.id(int(loaded.live.world.rooms.host[room]))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_replay_answers_as_the_service_that_was_told_in_any_order(market: Path, data: st.DataObject) -> None:
    """Rooms nobody knew and one that the bundle has, of hosts it knows; afterwards viewers enter and buy in them."""
    known, host = live_room(market)
    hosts = (host, 3, 70_000)
    rows = data.draw(tellings(room_ids=(700_001, 700_002, known), hosts=hosts))
    room_ids = sorted({row["room_id"] for row in rows})
    times = {"entered_at": pl.Datetime("us", "UTC"), "at": pl.Datetime("us", "UTC")}
    pairs = [(room, of) for room in room_ids for of in hosts]
    watches = [
        {"user_id": 5, "host_id": of, "room_id": room, "entered_at": AS_OF + (10 + n) * S}
        for n, (room, of) in enumerate(pairs)
    ]
    orders = [
        {"order_id": 800_000 + n, "user_id": 6, "host_id": of, "room_id": room, "at": AS_OF + (40 + n) * S,
         "amount_minor": 900}
        for n, (room, of) in enumerate(pairs)
    ]  # fmt: skip
    viewers = [5, 6, 900_001]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "more").mkdir()
        for table, frame in (
            ("rooms", frame_of(rows)),
            ("watches", pl.DataFrame(watches).cast({"entered_at": times["entered_at"]})),
            ("purchases", pl.DataFrame(orders).cast({"at": times["at"]})),
        ):
            frame.write_parquet(root / "more" / f"{table}.parquet")
        asked = pl.DataFrame({"request_id": range(len(viewers)), "user_id": viewers, "at": [LATER] * len(viewers)})
        asked.cast({"at": times["at"]}).write_parquet(root / "requests.parquet")
        bundle = Bundle.open(resolve(market / "bundles"))
        replay(bundle, root / "more", root / "requests.parquet", root / "out.parquet", k=500)
        out = pl.read_parquet(root / "out.parquet").partition_by("request_id", as_dict=True)
    told = [("rooms", row) for row in rows] + [("watches", row) for row in watches]
    told += [("purchases", row) for row in orders]
    with Engine.open(market / "bundles", None, ServingConfig(lease_s=0.0), Clock(LATER)) as engine:
        engine.apply([(str(n), table, row) for n, (table, row) in enumerate(told)])
        for request, viewer in enumerate(viewers):
            served = engine.lookup(Asked(viewer, 500, explain=False))
            want = out[(request,)]
            got = dict(zip(served.room_ids, zip(served.host_ids, served.answer.score, strict=True), strict=True))
            assert got == {room: (of, score) for room, of, score in want.select("room_id", "host_id", "score").rows()}


def test_the_earlier_start_takes_the_place_of_the_one_told_first(market: Path) -> None:
    """And when the room passes to another host its end by the first one does not count, nor the reverse."""
    open_row = {"room_id": 700_001, "host_id": 3, "started_at": AS_OF + 20 * S}
    other = {"room_id": 700_001, "host_id": 4, "started_at": AS_OF + 10 * S}
    with Engine.open(market / "bundles", None, ServingConfig(lease_s=600.0), Clock(LATER)) as engine:
        loaded = engine.loaded

        def host() -> int | None:
            served = engine.lookup(Asked(1, 500))
            return dict(zip(served.room_ids, served.host_ids, strict=True)).get(700_001)

        def tell(name: str, row: Row) -> tuple[str, str | None]:
            return engine.apply([(name, "rooms", row)])[0]

        assert tell("a", open_row) == ("accepted", None) and host() == 3
        assert tell("b", {**open_row, "ended_at": AS_OF + 50 * S}) == ("accepted", None) and host() is None
        assert tell("c", other) == ("accepted", None) and host() == 4
        assert tell("d", open_row) == ("quarantined", "duplicate_key") and host() == 4
        again = {**open_row, "started_at": AS_OF + 5 * S}
        assert tell("e", again) == ("accepted", None) and host() is None
        room = loaded.vocabularies.rooms.row(700_001)
        assert loaded.intake.rooms.ended[room] == AS_OF + 50 * S
        assert loaded.live.world.rooms.started_at[room] == AS_OF + 5 * S


def test_ends_by_hosts_whose_room_it_is_not_are_forgotten_one_day() -> None:
    """The latest `dedup_horizon` of them at least are known when their host turns out to be the room's."""
    intake = Intake(assemble(empty_parts(1)), Vocabularies(), dedup_horizon=10)
    row = {"room_id": 1, "host_id": 0, "started_at": AS_OF + 20 * S}
    told_to(intake, [row])
    ends = [{**row, "host_id": host, "ended_at": AS_OF + 50 * S} for host in range(1, 101)]
    assert told_to(intake, ends, 1) == [("quarantined", "duplicate_key")] * 100
    assert 10 <= len(intake.rooms.ends_of_others) <= 20
    room = intake.vocabularies.rooms.row(1)
    for host, start, end in ((100, 10, AS_OF + 50 * S), (1, 5, None)):
        told_to(intake, [{**row, "host_id": host, "started_at": AS_OF + start * S}], 1_000 - start)
        assert intake.rooms.ended.get(room) == end


@pytest.mark.parametrize("told_first", ["early", "late"])
def test_a_corrected_room_keeps_its_lease(market: Path, told_first: str) -> None:
    clock = Clock(LATER)
    rows = [{"room_id": 700_001, "host_id": 3, "started_at": AS_OF + start * S} for start in (10, 20)]
    with Engine.open(market / "bundles", None, ServingConfig(lease_s=600.0), clock) as engine:
        engine.apply([("a", "rooms", rows[told_first == "late"])])
        clock.now += 500 * S
        engine.apply([("b", "rooms", rows[told_first == "early"])])
        clock.now += 200 * S
        on_air = 700_001 in engine.lookup(Asked(1, 500)).room_ids
        assert on_air == (told_first == "late")  # a row that is set aside is no sign of life
