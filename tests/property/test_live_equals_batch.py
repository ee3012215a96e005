"""Facts applied one by one give the state the batch gives, at any instant of a generated market."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.config import EngineConfig
from recsys.events import (
    Events,
    Vocabularies,
    build_vocabularies,
    clean,
    fact_stream,
    last_fact_us,
    open_events,
    room_table,
)
from recsys.live.artefact import WorldParts, assemble
from recsys.live.state import LiveState
from recsys.pipeline.world import Priors
from recsys.ties.algebra import BlockState, Rows, identity
from recsys.ties.row_store import RowStore, UserRows
from tests.conftest import NOW
from tests.small_world import empty_parts
from tests.transitions_told import told
from training.collaborative import fit_transitions
from training.states import Snapshot, snapshot

CONFIG = EngineConfig()
SHARES = (0.3, 0.55, 0.8, 1.0)


@pytest.fixture(scope="module")
def events(market: Path) -> Events:
    return clean(open_events(market), now=NOW)


@pytest.fixture(scope="module")
def vocabularies(events: Events) -> Vocabularies:
    last = last_fact_us(events)
    assert last is not None
    return build_vocabularies(events, as_of_us=last + 1)


@pytest.fixture(scope="module")
def instants(events: Events) -> list[int]:
    last = last_fact_us(events)
    first = int(events.rooms["started_at"].min())  # type: ignore[arg-type]
    assert last is not None
    return [first + int((last + 1 - first) * share) for share in SHARES]


@pytest.fixture(scope="module")
def snapshots(events: Events, vocabularies: Vocabularies, instants: list[int]) -> list[Snapshot]:
    return [snapshot(events, vocabularies, CONFIG, at) for at in instants]


def moved(live: LiveState, events: Events, vocabularies: Vocabularies, since: int | None, until: int) -> LiveState:
    live.register_rooms(room_table(events, vocabularies))
    for fact in fact_stream(events, vocabularies, from_us=since, before_us=until).iter_rows():
        live.apply(*fact)
    return live


def same_rows(a: Rows, b: Rows, what: str) -> None:
    np.testing.assert_array_equal(a.ints, b.ints, err_msg=what)
    np.testing.assert_array_equal(a.latest, b.latest, err_msg=what)
    np.testing.assert_allclose(a.decayed, b.decayed, rtol=1e-7, atol=1e-9, err_msg=what)


def rows_of(state: BlockState, n: int) -> Rows:
    """Row by row, as a `RowStore` lays them out."""
    rows = identity(state.block, n)
    rows.ints[state.keys], rows.decayed[state.keys] = state.rows.ints, state.rows.decayed
    rows.latest[state.keys] = state.rows.latest
    return rows


def every(store: RowStore | UserRows) -> Rows:
    if isinstance(store, RowStore):
        return store.rows
    found = [store.find(row) for row in range(len(store))]
    parts = ([getattr(rows, name)[row] for rows, row in found] for name in ("ints", "decayed", "latest"))
    none = identity(store.block, 0)
    return Rows(*(np.array(part).reshape(len(found), -1) if found else none.ints for part in parts))


def assert_same(live: LiveState, shot: Snapshot) -> None:
    world = live.world
    for name, state in shot.states.items():
        if state.block.level == "tie":
            users, hosts = state.keys >> 32, (state.keys & 0xFFFFFFFF).astype(np.int64)
            for user in np.unique(users).tolist():
                ties = world.ties.of(name, user)
                order = np.argsort(ties.hosts, kind="stable")
                here = users == user
                np.testing.assert_array_equal(ties.hosts[order], hosts[here], err_msg=f"{name} of user {user}")
                same_rows(ties.rows.take(order), state.rows.take(here), f"{name} of user {user}")
        elif state.block.level == "room":
            rooms = state.keys
            same_rows(world.moments.rows.take(rooms), state.rows, name)
        else:
            store: RowStore | UserRows = {
                "host": world.hosts, "schedule": world.schedule, "arrivals": world.arrivals, "user": world.users,
            }[name]  # fmt: skip
            n = len(store)
            same_rows(every(store), rows_of(state, n), name)
    np.testing.assert_array_equal(world.standings[: len(shot.standings)], shot.standings)
    assert not world.standings[len(shot.standings) :].any()
    epoch = world.index.publish()
    assert sorted(epoch.rooms.tolist()) == shot.rooms["room"].to_list()
    assert dict(zip(epoch.rooms.tolist(), epoch.hosts.tolist(), strict=True)) == dict(
        zip(shot.rooms["room"], shot.rooms["host"], strict=True)
    )
    announced = {(host, *leave) for host, leaves in world.leaves.items() for leave in leaves}
    assert announced == set(shot.leaves.iter_rows())


def test_the_market_has_what_is_compared(snapshots: list[Snapshot]) -> None:
    last = snapshots[-1]
    assert all(len(state) for state in last.states.values())
    assert len(last.leaves) and last.rooms["cohosts"].list.len().sum() + len(last.rooms)
    assert last.standings.any(axis=0).all()


def test_event_by_event_equals_the_batch(
    events: Events, vocabularies: Vocabularies, instants: list[int], snapshots: list[Snapshot]
) -> None:
    live = assemble(empty_parts(len(vocabularies.hosts), CONFIG))
    since = None
    for at, shot in zip(instants, snapshots, strict=True):
        assert_same(moved(live, events, vocabularies, since, at), shot)
        since = at


def parts_of(shot: Snapshot, n_hosts: int) -> WorldParts:
    parts = empty_parts(n_hosts, CONFIG)
    parts.states, parts.standings, parts.priors = shot.states, shot.standings, Priors()
    parts.rooms, parts.leaves = shot.rooms, shot.leaves
    return parts


def test_transitions_learnt_event_by_event_equal_a_later_fit(
    events: Events, vocabularies: Vocabularies, instants: list[int], snapshots: list[Snapshot]
) -> None:
    """From the user's last distinct hosts, in the batch as online."""
    n_hosts = len(vocabularies.hosts)
    begin, end = instants[1], instants[3]
    parts = parts_of(snapshots[1], n_hosts)
    parts.models.transition, _ = fit_transitions(events, vocabularies, CONFIG, begin)
    live = moved(assemble(parts), events, vocabularies, begin, end)
    later, _ = fit_transitions(events, vocabularies, CONFIG, end)
    online = live.world.models.transition
    assert online is not None and later is not None and online is parts.models.transition
    everyone = np.arange(n_hosts)
    for host in range(n_hosts):
        there, again = (told(model, [host], [0.0], everyone, at=end) for model in (online, later))
        for name, rtol, atol in (("transition_evidence", 1e-5, 1e-7), ("transition_recent", 1e-4, 1e-8)):
            np.testing.assert_allclose(there[name], again[name], rtol=rtol, atol=atol)
    np.testing.assert_allclose(online.self_share(everyone), later.self_share(everyone), rtol=1e-5)


@pytest.mark.parametrize("begin", [0, 1])
def test_events_after_a_snapshot_equal_a_later_one(
    events: Events, vocabularies: Vocabularies, instants: list[int], snapshots: list[Snapshot], begin: int
) -> None:
    live = assemble(parts_of(snapshots[begin], len(vocabularies.hosts)))
    assert_same(live, snapshots[begin])
    assert_same(moved(live, events, vocabularies, instants[begin], instants[begin + 2]), snapshots[begin + 2])


def test_a_state_grows_with_hosts_users_and_rooms_it_never_heard_of(
    events: Events, vocabularies: Vocabularies, instants: list[int], snapshots: list[Snapshot]
) -> None:
    """Started with one host row, everything later has to grow."""
    live = moved(assemble(empty_parts(1, CONFIG)), events, vocabularies, None, instants[1])
    assert_same(live, snapshots[1])


def test_buckets_change_nothing(
    events: Events, vocabularies: Vocabularies, instants: list[int], snapshots: list[Snapshot],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import training.states

    monkeypatch.setattr(training.states, "user_parts", lambda *_: 4)
    again = snapshot(events, vocabularies, CONFIG, instants[1])
    for name, state in snapshots[1].states.items():
        np.testing.assert_array_equal(again.states[name].keys, state.keys)
        same_rows(again.states[name].rows, state.rows, name)


def test_facts_later_than_the_instant_change_no_snapshot(
    events: Events, instants: list[int], snapshots: list[Snapshot], vocabularies: Vocabularies
) -> None:
    """Every row that speaks of the instant or later only is removed: nothing moves."""
    at = instants[1]
    first_time = {"rooms": "started_at", "watches": "entered_at", "hosts": None, "users": None}
    kept = {}
    for name, frame in events.tables.items():
        column = first_time.get(name, "at")
        kept[name] = frame if column is None else frame.filter(pl.col(column) < at)
    import dataclasses

    past = dataclasses.replace(events, tables=kept)
    again = snapshot(past, vocabularies, CONFIG, at)
    for name, state in snapshots[1].states.items():
        np.testing.assert_array_equal(again.states[name].keys, state.keys, err_msg=name)
        same_rows(again.states[name].rows, state.rows, name)
    np.testing.assert_array_equal(again.standings, snapshots[1].standings)
