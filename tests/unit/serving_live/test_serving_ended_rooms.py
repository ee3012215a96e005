"""What stays of rooms that ended: what late events need of them, in few bytes."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serving.config import ServingConfig
from serving.engine import Engine
from serving.seen import ByRow

from .served_world import AS_OF, Clock

S = 1_000_000
FIRST, HOST = 100_000, 2_000_000_001


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(-(2**63) + 1, 2**63 - 1))))
def test_numbers_by_row_are_a_dictionary(told: list[tuple[int, int]]) -> None:
    held, expected = ByRow("q", -(2**63)), dict[int, int]()
    for row, number in told:
        held[row] = expected[row] = number
    again = ByRow("q", -(2**63))
    again.update(held.items())
    for one in (held, again):
        assert dict(one.items()) == expected
        assert [one.get(row) for row in range(50)] == [expected.get(row) for row in range(50)]
        assert [row in one for row in range(50)] == [row in expected for row in range(50)]


def started_and_ended(first: int, n: int) -> list[tuple[str, str, Any]]:
    rows = [{"room_id": first + i, "host_id": HOST, "started_at": AS_OF + S + i} for i in range(n)]
    told = [(f"s{row['room_id']}", "rooms", row) for row in rows]
    return told + [(f"e{row['room_id']}", "rooms", row | {"ended_at": AS_OF + 9 * S}) for row in rows]


def test_an_ended_room_costs_less_than_three_hundred_bytes(market: Path, clock: Clock) -> None:
    """Its id, host, start, end and counts (docs/serving.md, Memory); 400 before ends stood in an array."""
    config = ServingConfig(lease_s=0.0, dedup_horizon=100)  # leases are kept till they would have run out
    with Engine.open(market / "bundles", None, config, clock) as engine:
        engine.apply(started_and_ended(FIRST, 1_000))
        gc.collect()
        tracemalloc.start()
        try:
            before, n = tracemalloc.get_traced_memory()[0], 12_000
            for first in range(2 * FIRST, 2 * FIRST + n, 500):
                engine.apply(started_and_ended(first, 500))
            gc.collect()
            took = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
    assert 100 < took / n < 360  # with what arrays hold in advance


def test_late_facts_of_ended_rooms_mean_what_they_did(market: Path, clock: Clock) -> None:
    """Thousands of rooms later: who was in time counts, who came after the end or names another host is set aside."""
    with Engine.open(market / "bundles", None, ServingConfig(lease_s=600.0), clock) as engine:
        engine.apply(started_and_ended(FIRST, 2_000))
        pair = {"room_id": FIRST + 7, "host_id": HOST, "user_id": 1}
        started = {"room_id": FIRST + 7, "host_id": HOST, "started_at": AS_OF + S + 7}
        late: list[tuple[str, str, Any]] = [
            ("in time", "watches", pair | {"entered_at": AS_OF + 5 * S}),
            ("too late", "watches", pair | {"entered_at": AS_OF + 10 * S}),
            ("bought afterwards", "purchases", pair | {"order_id": 8_001, "at": AS_OF + 11 * S, "amount_minor": 5}),
            ("of another", "engagements", pair | {"host_id": HOST + 1, "at": AS_OF + 5 * S, "kind": "like"}),
            ("started again", "rooms", started),
            ("ended again", "rooms", started | {"ended_at": AS_OF + 4 * S}),
            ("too late by the second end", "watches", pair | {"user_id": 2, "entered_at": AS_OF + 6 * S}),
        ]
        assert engine.apply(late) == [
            ("accepted", None),
            ("quarantined", "entered_after_end"),
            ("accepted", None),
            ("quarantined", "host_differs_from_room"),
            ("quarantined", "duplicate_key"),
            ("quarantined", "duplicate_key"),
            ("quarantined", "entered_after_end"),
        ]
        room = engine.loaded.vocabularies.rooms.row(FIRST + 7)
        assert room not in engine.loaded.live.world.index
        state = engine.loaded.live.world.moments
        assert state.rows.ints[room, state.block.int_column("n_entries")] == 1
