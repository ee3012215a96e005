"""What an event does to the next answer; order, repeats, leases, refunds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.events import clean, open_events
from recsys.instants import format_instant
from recsys.pipeline.request import SOURCES
from serving.answers import explanation, live_rooms
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine
from serving.refund_shares import Line, Orders

from .served_world import AS_OF, Clock

S = 1_000_000
ROOM, HOST = 91, 2_000_000_001


def at(seconds: float) -> str:
    return format_instant(AS_OF + round(seconds * S))


def room(
    room_id: int = ROOM, host: int = HOST, start: float = 1, end: float | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "room_id": room_id,
        "host_id": host,
        "started_at": at(start),
        "ended_at": None if end is None else at(end),
    } | more


@pytest.fixture
def engine(market: Path, tmp_path: Path, clock: Clock) -> Any:
    with Engine.open(market / "bundles", tmp_path / "log.db", ServingConfig(lease_s=600.0), clock) as made:
        yield made


def shown(engine: Engine, user: int | None = 1) -> list[Any]:
    return engine.lookup(Asked(user, 500)).room_ids


def test_a_started_room_is_in_the_next_answer_and_an_ended_one_in_none(engine: Engine) -> None:
    assert ROOM not in shown(engine)
    assert engine.apply([("a", "rooms", room())]) == [("accepted", None)]
    assert ROOM in shown(engine) and ROOM in shown(engine, None)
    assert engine.apply([("b", "rooms", room(end=50))]) == [("accepted", None)]
    assert ROOM not in shown(engine)
    assert explanation(engine, 1, ROOM, 10)["why"].startswith("ended at")


def test_a_clock_set_back_makes_no_event_one_of_the_future(engine: Engine, clock: Clock) -> None:
    clock.now = AS_OF + 20_000 * S
    assert engine.apply([("a", "rooms", room())]) == [("accepted", None)]
    clock.now = AS_OF
    follow = {"user_id": 1, "host_id": HOST, "action": "follow"}
    verdicts = engine.apply([(f"f{s}", "follows", follow | {"at": at(s)}) for s in (20_000, 20_000 + 3_601)])
    assert verdicts == [("accepted", None), ("quarantined", "later_than_now")]


def test_an_end_that_overtakes_its_start_keeps_the_room_off_the_air(engine: Engine) -> None:
    engine.apply([("b", "rooms", room(end=50))])
    assert engine.apply([("a", "rooms", room())]) == [("accepted", None)]
    assert ROOM not in shown(engine)
    assert engine.apply([("c", "rooms", room())]) == [("quarantined", "duplicate_key")]
    assert engine.apply([("d", "rooms", room(end=40))]) == [("quarantined", "duplicate_key")]
    assert ROOM not in shown(engine)


def test_a_room_ends_though_the_end_has_another_start(engine: Engine) -> None:
    engine.apply([("a", "rooms", room())])
    for name, other in (
        ("host", room(host=HOST + 1, end=50)),
        ("start", room(start=2)),
    ):
        assert engine.apply([(name, "rooms", other)]) == [("quarantined", "duplicate_key")]
    assert ROOM in shown(engine)
    assert engine.apply([("b", "rooms", room(start=2, end=50))]) == [("accepted", None)]
    assert ROOM not in shown(engine)


def test_repeats_are_known_by_id_and_by_key(engine: Engine) -> None:
    row = {"user_id": 1, "host_id": HOST, "at": at(5), "action": "follow"}
    assert engine.apply([("x", "follows", row), ("x", "follows", row)]) == [
        ("accepted", None),
        ("duplicate", "event_id"),
    ]
    assert engine.apply([("x", "follows", row), ("y", "follows", row)]) == [
        ("duplicate", "event_id"),
        ("quarantined", "duplicate_key"),
    ]


def test_an_entry_and_its_completion_count_once_each(engine: Engine) -> None:
    engine.apply([("r", "rooms", room())])
    entry = {"user_id": 7, "host_id": HOST, "room_id": ROOM, "entered_at": at(5)}
    whole = entry | {"left_at": at(65)}
    verdicts = engine.apply(
        [("1", "watches", entry), ("2", "watches", whole), ("3", "watches", whole), ("4", "watches", entry)]
    )
    assert [v[0] for v in verdicts] == ["accepted", "accepted", "quarantined", "quarantined"]
    alone = {"user_id": 7, "host_id": HOST, "room_id": ROOM, "entered_at": at(70), "left_at": at(80)}
    assert engine.apply([("5", "watches", alone)]) == [("accepted", None)]
    world = engine.loaded.live.world
    user, host = engine.loaded.vocabularies.users.row(7), engine.loaded.vocabularies.hosts.row(HOST)
    tie = world.ties.row("visits", user, host)
    assert tie is not None
    block = world.blocks.visits
    before = Engine.open(engine.loaded.bundle.path, None).loaded.live.world.ties.row("visits", user, host)
    entries = int(tie.ints[0, block.int_column("n_entries")])
    stays = int(tie.ints[0, block.int_column("n_stays")])
    assert entries - (0 if before is None else int(before.ints[0, block.int_column("n_entries")])) == 2
    assert stays - (0 if before is None else int(before.ints[0, block.int_column("n_stays")])) == 2


def test_a_block_holds_in_the_next_answer_and_an_unblock_lifts_it(engine: Engine) -> None:
    engine.apply([("r", "rooms", room())])
    engine.apply([("b", "feedback", {"user_id": 1, "host_id": HOST, "at": at(9), "kind": "block"})])
    assert ROOM not in shown(engine) and ROOM in shown(engine, 2)
    assert explanation(engine, 1, ROOM, 10)["why"] == "filtered: viewer blocked the host"
    engine.apply([("u", "feedback", {"user_id": 1, "host_id": HOST, "at": at(10), "kind": "unblock"})])
    assert ROOM in shown(engine)


def test_a_late_fact_does_not_undo_a_later_one(engine: Engine) -> None:
    engine.apply([("r", "rooms", room())])
    engine.apply([("b", "feedback", {"user_id": 1, "host_id": HOST, "at": at(20), "kind": "block"})])
    engine.apply([("u", "feedback", {"user_id": 1, "host_id": HOST, "at": at(10), "kind": "unblock"})])
    assert ROOM not in shown(engine)


def test_rules_that_need_the_room_or_the_clock(engine: Engine) -> None:
    engine.apply([("r", "rooms", room(end=50))])
    late = {"user_id": 1, "host_id": HOST, "room_id": ROOM, "entered_at": at(60)}
    wrong = {"user_id": 1, "host_id": HOST + 1, "room_id": ROOM, "entered_at": at(40)}
    future = {"user_id": 1, "host_id": HOST, "room_id": ROOM, "entered_at": at(100 + 3_601)}
    early = {"user_id": 1, "host_id": HOST + 1, "room_id": ROOM, "entered_at": at(0)}
    verdicts = engine.apply([(str(i), "watches", row) for i, row in enumerate((late, wrong, future, early))])
    reasons = ["entered_after_end", "host_differs_from_room", "later_than_now", None]
    assert [reason for _, reason in verdicts] == reasons


def test_a_room_without_a_sign_of_life_vanishes_and_returns_with_the_next(engine: Engine, clock: Clock) -> None:
    engine.apply([("r", "rooms", room())])
    clock.now += 599 * S
    assert ROOM in shown(engine)
    assert engine.apply([("h", "rooms", room())]) == [("duplicate", "lease_renewed")]
    clock.now += 599 * S
    assert ROOM in shown(engine)
    clock.now += 2 * S
    assert ROOM not in shown(engine)
    assert explanation(engine, 1, ROOM, 10)["why"].startswith("its lease ran out")
    entry = {"user_id": 1, "host_id": HOST, "room_id": ROOM, "entered_at": format_instant(clock.now - S)}
    engine.apply([("w", "watches", entry)])
    assert ROOM in shown(engine)


def test_every_live_room_is_listed(engine: Engine) -> None:
    engine.apply([("r", "rooms", room(category="tea", cohost_ids=[HOST, HOST + 2]))])
    listed = live_rooms(engine, 1_000)
    assert len(listed["rooms"]) == listed["live"] == len(shown(engine))
    mine = next(one for one in listed["rooms"] if one["room_id"] == ROOM)
    assert mine["cohost_ids"] == [HOST + 2] and mine["category"] == "tea"


def test_k_rooms_come_back_while_k_are_eligible(engine: Engine) -> None:
    engine.apply(
        [(f"r{i}", "rooms", room(1_000 + i, HOST + i % 9, category="tea" if i % 4 else "jade")) for i in range(400)]
    )
    for category, wanted in ((None, 400), ("tea", 300), ("jade", 100)):
        served = engine.lookup(Asked(3, wanted, category=category))
        assert len(served.room_ids) == wanted == len(set(served.room_ids))
    excluded = [1_000 + i for i in range(200)]
    assert not set(engine.lookup(Asked(3, 500, exclude=excluded)).room_ids) & set(excluded)


def test_only_the_sources_asked_for_beside_the_private_domain(engine: Engine) -> None:
    engine.apply([(f"r{i}", "rooms", room(1_000 + i, 5_000 + i)) for i in range(300)])
    engine.apply([("f", "follows", {"user_id": 3, "host_id": 5_007, "at": at(9), "action": "follow"})])
    served = engine.lookup(Asked(3, 400, sources=frozenset({"newcomer"})))
    names = {str(SOURCES[source]) for source in served.answer.sources}
    assert names <= {"private_domain", "private_domain_cohost", "visited_before", "newcomer"}
    assert 1_007 in served.room_ids and served.answer.short_why


def test_his_own_domain_alone_is_complete_though_other_rooms_rank_higher(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.apply([(f"r{i}", "rooms", room(1_000 + i, 5_000 + i)) for i in range(300)])
    engine.apply([("f", "follows", {"user_id": 987, "host_id": 5_007, "at": at(9), "action": "follow"})])
    ranker = engine.loaded.live.world.models.ranker
    monkeypatch.setattr(type(ranker), "_TERMS", [(name, -weight, scale) for name, weight, scale in ranker._TERMS])
    assert 1_007 not in engine.lookup(Asked(987, 20)).room_ids
    served = engine.lookup(Asked(987, 20, sources=frozenset()))
    assert (served.room_ids, served.answer.short_why) == ([1_007], "the sources asked for have 1")


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_the_private_domain_is_complete_on_every_step_of_the_ladder(engine: Engine, step: int) -> None:
    engine.apply([(f"r{i}", "rooms", room(1_000 + i, 5_000 + i)) for i in range(300)])
    mine = list(range(0, 300, 7))
    engine.apply(
        [(f"f{i}", "follows", {"user_id": 3, "host_id": 5_000 + i, "at": at(9), "action": "follow"}) for i in mine]
    )
    served = engine.lookup(Asked(3, 250, step=step))
    assert {1_000 + i for i in mine} <= set(served.answer.candidates.tolist() and served.room_ids)
    assert bool(served.answer.degraded) == bool(step)


def test_a_refund_is_shared_by_the_lines_of_its_order() -> None:
    orders = Orders(10)
    assert orders.refund(1, -1, 5, None, "return") == []
    assert orders.waiting == 1
    (waited,) = orders.line(1, 7, 3, 9, 300, (3, 7))
    assert waited[0] == 9 and waited[6] == 300
    assert orders.waiting == 0
    orders.line(1, 7, 4, 9, 100, (4, 7))
    shares = orders.refund(1, -1, 20, 101, "dispute")
    assert [(fact[3], fact[6]) for fact in shares] == [(3, 76), (4, 25)]
    assert [fact[6] for fact in orders.refund(1, 4, 21, 50, None)] == [50]


def test_a_refund_is_shared_by_the_lines_in_the_bundle_and_those_told_since() -> None:
    orders = Orders(10)
    in_bundle, in_both = Line(7, 3, 9, 300, (3, 7)), Line(7, 5, 9, 200, (5, 7))
    orders.older = lambda _: [in_bundle, in_both]
    orders.line(1, *in_both)  # the log was read again from before the bundle
    orders.line(1, 7, 4, 10, 100, (4, 7))
    shares = orders.refund(1, -1, 20, None, "return")
    assert {fact[3]: fact[6] for fact in shares} == {3: 300, 4: 100, 5: 200}


def test_hosts_nobody_heard_of_are_entered_and_shown_one_after_the_other(engine: Engine) -> None:
    """What is kept per host grows together: one part that lags behind is an index out of bounds sooner or later."""
    for i in range(120):
        entry = {"user_id": 3, "host_id": 10**6 + i, "room_id": 5_000 + i, "entered_at": at(5)}
        told = [(f"r{i}", "rooms", room(5_000 + i, 10**6 + i)), (f"w{i}", "watches", entry)]
        assert engine.apply(told) == [("accepted", None)] * 2
        assert 5_000 + i in shown(engine, 3)


def test_a_refund_finds_an_order_that_only_the_bundle_knows(market: Path, engine: Engine) -> None:
    bought = clean(open_events(market / "events")).tables["purchases"].filter(pl.col("at") < AS_OF).collect()
    order = bought.group_by("order_id").agg(pl.col("host_id", "user_id", "amount_minor").first(), pl.len()).filter(
        pl.col("len") == 1
    ).sort("order_id").row(0, named=True)  # fmt: skip
    ids, world = engine.loaded.vocabularies, engine.loaded.live.world
    pair = ids.users.row(order["user_id"]), ids.hosts.row(order["host_id"])
    columns = [world.blocks.commerce.int_column(name) for name in ("n_refunds", "refunded_minor")]

    def refunded() -> list[int]:
        tie = world.ties.row("commerce", *pair)
        assert tie is not None
        return [int(tie.ints[0, column]) for column in columns]

    before = refunded()
    assert engine.apply([("back", "refunds", {"order_id": order["order_id"], "at": at(50)})]) == [("accepted", None)]
    assert refunded() == [before[0] + 1, before[1] + order["amount_minor"]]
    assert engine.loaded.intake.orders.waiting == 0
