"""Snapshots: a state restored is the state replayed, to the last bit; anything doubtful is not used; pruning."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from recsys.bundle.durable import replace_bytes
from recsys.cli import build_app
from recsys.errors import BundleRefused
from recsys.events.log_tables import log_source
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine
from serving.event_log import EventLog
from serving.loaded import Loaded
from serving.memories import memories_of
from serving.snapshots import FORMAT, alone, offset_of, path_of
from serving.snapshotting import keep, make, prune
from tests.transitions_told import chances

from .served_world import AS_OF, Clock, events_after, write_bundle

CONFIG = ServingConfig(lease_s=0.0)


@pytest.fixture(scope="module")
def shelf(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with models that learn online."""
    return write_bundle(market / "events", tmp_path_factory.mktemp("learning") / "bundles", learning=True).parent


@pytest.fixture
def log(shelf: Path, market: Path, tmp_path: Path) -> Path:
    """A log of which a snapshot holds two thirds; guests, leaves, refunds and unheard-of ids are in it."""
    told = events_after(market / "events", AS_OF)
    extra: list[tuple[str, str, dict[str, Any]]] = [
        ("g", "rooms", {"room_id": 9_001, "host_id": 77_001, "started_at": AS_OF + 1, "cohost_ids": [77_002, 3]}),
        ("c", "rooms", {"room_id": 9_002, "host_id": 77_003, "started_at": AS_OF + 2, "category": "tea"}),
        ("n", "notices", {"host_id": 3, "at": AS_OF + 3, "from": AS_OF + 9, "to": AS_OF + 99, "kind": "leave"}),
        ("w", "refunds", {"order_id": 5_555_555, "at": AS_OF + 4}),
        ("v", "watches", {"user_id": 88_001, "host_id": 77_001, "room_id": 9_001, "entered_at": AS_OF + 5}),
    ]
    events = extra + [event for _, event in told]
    path = tmp_path / "log.db"
    with Engine.open(shelf, path, CONFIG, Clock(told[-1][0])) as engine:
        engine.apply(events[: len(events) * 2 // 3])
        assert make(shelf, path, CONFIG)["made"]
        engine.apply(events[len(events) * 2 // 3 :])
        engine.erase(7)
    assert not path_of(path).exists()  # nothing of him stays
    with Engine.open(shelf, path, CONFIG, Clock(told[-1][0])) as engine:
        last = engine.loaded.applied
    assert make(shelf, path, CONFIG) | {"bytes": 0} == {
        "made": True,
        "offset": last,
        "before": 0,
        "bytes": 0,
    }
    with Engine.open(shelf, path, CONFIG, Clock(told[-1][0])) as engine:
        engine.apply([(f"{name}'", table, row) for name, table, row in extra[-1:]])
        engine.apply([("last", "follows", {"user_id": 4, "host_id": 5, "at": AS_OF + 77, "action": "follow"})])
    return path


def told_by(engine: Engine) -> list[Any]:
    """All that can be told of a state: answers, ties, counts, memories."""
    loaded = engine.loaded
    world, ids = loaded.live.world, loaded.vocabularies
    found: list[Any] = [memories_of(loaded.intake), loaded.erased, loaded.applied, loaded.last_received_us]
    found += [world.leaves, world.rooms.cohosts, world.standings.tolist(), world.heat.of_host.tolist()]
    for user in range(len(ids.users)):
        for name in world.ties.blocks:
            ties = world.ties.of(name, user)
            order = np.argsort(ties.hosts, kind="stable")
            rows = ties.rows.take(order)
            found.append((ties.hosts[order].tolist(), rows.ints.tolist(), rows.decayed.tolist(), rows.latest.tolist()))
        served = engine.lookup(Asked(ids.users.id(user), 30))
        answer = served.answer
        found.append((served.room_ids, answer.score.tolist(), answer.strengths(), answer.reasons))
    assert world.models.transition is not None and world.models.audience is not None
    everyone, now = np.arange(len(ids.hosts)), AS_OF + 10**10
    found += [world.models.transition.row(host).counts.tolist() for host in everyone.tolist()]
    found += [chances(world.models.transition, [1, 2], [5.0, 9.0], everyone, at=now).tolist()]
    found += [repr(array.tolist()) for array in world.models.audience.read(everyone, now)]  # as text: NaN is NaN
    found += [repr(world.models.audience.taste(user).tolist()) for user in range(len(ids.users))]
    for user in range(len(ids.users) + 2):
        rows, at = world.users.find(user)
        found.append([rows.ints[at].tolist(), rows.decayed[at].tolist(), rows.latest[at].tolist()])
    for store in (world.hosts, world.schedule, world.arrivals, world.moments):
        found.append([store.rows.ints.tolist(), store.rows.decayed.tolist(), store.rows.latest.tolist()])
    return found


def test_a_restored_state_is_the_replayed_one(shelf: Path, log: Path) -> None:
    clock = Clock(AS_OF + 3 * 10**11)
    with Engine.open(shelf, log, CONFIG, clock) as restored:
        assert restored.loaded.vocabularies.hosts.row(77_002) >= 0
        assert 0 < offset_of(log) < restored.loaded.applied
        from_snapshot = told_by(restored)
    path_of(log).unlink()
    with Engine.open(shelf, log, CONFIG, clock) as replayed:
        assert told_by(replayed) == from_snapshot


@pytest.mark.parametrize("fault", ["torn", "changed", "later format", "other bundle", "other log", "empty"])
def test_a_snapshot_in_doubt_is_not_used(market: Path, shelf: Path, log: Path, tmp_path: Path, fault: str) -> None:
    path = path_of(log)
    raw = path.read_bytes()
    if fault == "torn":
        path.write_bytes(raw[:-1])
    elif fault == "changed":
        path.write_bytes(raw[:5_000] + bytes([raw[5_000] ^ 1]) + raw[5_001:])
    elif fault == "later format":
        path.write_bytes(raw.replace(b"overlay %d" % FORMAT, b"overlay %d" % (FORMAT + 1), 1))
    elif fault == "other bundle":
        write_bundle(market / "events", tmp_path / "other", "b2", created=AS_OF + 1)
        shelf = tmp_path / "other"
    elif fault == "other log":
        other = EventLog(tmp_path / "other.db")
        other.close()
        log = tmp_path / "other.db"
        path_of(log).write_bytes(raw)
    else:
        path.write_bytes(b"")
    taken: list[int] = []
    take = Loaded.take
    try:
        Loaded.take = lambda self, record: (taken.append(record.seq), take(self, record))[1]  # type: ignore[method-assign]
        with Engine.open(shelf, log, CONFIG, Clock()) as engine:
            assert len(taken) == engine.loaded.applied  # all of the log was read
    finally:
        Loaded.take = take  # type: ignore[method-assign]


def ended_at(log: Path, offset: int, where: Path) -> Path:
    """A copy of a log that ends at an offset."""
    where.mkdir()
    with closing(sqlite3.connect(log)) as all_of_it, closing(sqlite3.connect(where / log.name)) as copy:
        all_of_it.backup(copy)
        copy.execute("DELETE FROM events WHERE seq > ?", (offset,))
        copy.commit()
    return where / log.name


@pytest.mark.parametrize("earlier", [False, True], ids=["the first", "after another"])
@pytest.mark.parametrize(
    "seam",
    ["serving.loading.restore", "serving.loaded.Loaded.take", "serving.snapshots.overlay_of",
     "serving.snapshots.identity", "serving.snapshots.memories_of", "serving.snapshots.replace_bytes"],
)  # fmt: skip
def test_a_snapshot_made_while_events_come_is_of_one_offset(
    shelf: Path, market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seam: str, earlier: bool
) -> None:
    told = [event for _, event in events_after(market / "events", AS_OF)]
    log, done = tmp_path / "log.db", 40 if earlier else 0
    with Engine.open(shelf, log, CONFIG, Clock(AS_OF + 10**12)) as engine:
        if earlier:
            engine.apply(told[:done])
            assert make(shelf, log, CONFIG)["made"]
        engine.apply(told[done:90])
        coming = iter(told[90:])
        of, name = seam.rsplit(".", 1)
        owner = Loaded if of.endswith(".Loaded") else import_module(of)
        through = getattr(owner, name)

        def meanwhile(*given: Any) -> Any:
            with monkeypatch.context() as unpatched:  # what serves is not what makes the snapshot
                unpatched.setattr(owner, name, through)
                engine.apply(list(islice(coming, 3)))
                found = through(*given)
                engine.apply(list(islice(coming, 3)))
            return found

        with monkeypatch.context() as patched:
            patched.setattr(owner, name, meanwhile)
            found = make(shelf, log, CONFIG)
    assert found["made"] and found["offset"] == offset_of(log) >= 90
    cut = ended_at(log, found["offset"], tmp_path / "alone")
    assert make(shelf, cut, CONFIG)["made"]
    assert path_of(log).read_bytes() == path_of(cut).read_bytes()


def test_of_a_user_erased_while_a_snapshot_is_made_none_stays(
    shelf: Path, market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [event for _, event in events_after(market / "events", AS_OF)][:60]
    log = tmp_path / "log.db"
    with Engine.open(shelf, log, CONFIG, Clock(AS_OF + 10**12)) as engine:
        engine.apply(told)

        def written(*given: Any) -> None:
            engine.erase(7)
            replace_bytes(*given)

        with monkeypatch.context() as patched:
            patched.setattr("serving.snapshots.replace_bytes", written)
            assert make(shelf, log, CONFIG) == {"made": False, "why": "a user was erased meanwhile"}
        assert not path_of(log).exists()
        assert make(shelf, log, CONFIG)["made"]


def test_a_snapshot_is_made_by_one_at_a_time(shelf: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    with Engine.open(shelf, log, CONFIG, Clock(AS_OF + 10**12)) as engine:
        engine.apply([("one", "users", {"user_id": 424_242})])
        with alone(log):
            assert make(shelf, log, CONFIG) == {"made": False, "why": "another process is making one"}
        assert make(shelf, log, CONFIG)["made"]


def test_the_log_is_pruned_behind_every_bundle(market: Path, tmp_path: Path) -> None:
    log, shelf, config = tmp_path / "log.db", tmp_path / "bundles", ServingConfig(lease_s=0.0, dedup_horizon=10)
    told = [event for _, event in events_after(market / "events", AS_OF)][:100]
    with Engine.open(market / "bundles", log, config, Clock(AS_OF + 10**12)) as engine:
        engine.apply(told)
        engine.erase(99_999)
    opened = EventLog(log)
    source, last = log_source(opened.log_id), opened.last
    opened.close()
    assert last == 101
    write_bundle(market / "events", shelf, "b1", offsets={source: 40})
    write_bundle(market / "events", shelf, "b2", offsets={source: 90})
    assert prune(shelf, log, config) == {"removed": 30, "pruned_upto": 30}
    ran = CliRunner().invoke(build_app(), ["prune", "--bundle", str(shelf), "--log", str(log), "--json"])
    assert ran.exit_code == 0 and '"removed":0' in ran.stdout.replace(" ", "")
    for name in ("b1", "b2"):
        with Engine.open(shelf / name, log, config, Clock(AS_OF + 10**12)) as engine:
            assert engine.loaded.applied == 101
            assert engine.apply([told[95]]) == [("duplicate", "event_id")]
    write_bundle(market / "events", shelf, "b3", offsets={source: 20}, current=False)
    with pytest.raises(BundleRefused, match="does not reach back"):
        Engine.open(shelf / "b3", log, config)
    (shelf / "b3" / "manifest.json").unlink()
    assert prune(shelf, log, ServingConfig(dedup_horizon=1))["pruned_upto"] == 39
    with Engine.open(shelf / "b2", log, config, Clock(AS_OF + 10**12)) as engine:
        assert engine.apply([("new", "users", {"user_id": 424_242})]) == [("accepted", None)]
        assert engine.loaded.applied == 102


def test_a_service_has_snapshots_made(market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.snapshotting._CHECK_S", 0.05)
    config = ServingConfig(lease_s=0.0, snapshot_every=20)
    told = [event for _, event in events_after(market / "events", AS_OF)][:30]

    async def until_made(engine: Engine) -> None:
        keeping = asyncio.create_task(keep(engine, config))
        while not offset_of(tmp_path / "log.db"):
            await asyncio.sleep(0.05)
            assert not keeping.done()
        keeping.cancel()

    with Engine.open(market / "bundles", tmp_path / "log.db", config, Clock(AS_OF + 10**12)) as engine:
        engine.apply(told)
        asyncio.run(asyncio.wait_for(until_made(engine), 60))
    assert offset_of(tmp_path / "log.db") == 30
