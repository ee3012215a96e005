"""The log behind the state: restarts, several engines on it, torn tails, full disks."""

from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.asked import Asked
from serving.engine import Engine
from serving.event_log import EventLog, LogFailed, Record, as_text

from .served_world import Clock
from .test_serving_events import HOST, at, room, shown

S = 1_000_000


def test_the_state_after_a_restart_is_the_state_before(market: Path, tmp_path: Path, clock: Clock) -> None:
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as first:
        first.apply(
            [
                ("r", "rooms", room()),
                ("f", "follows", {"user_id": 900, "host_id": HOST, "at": at(4), "action": "follow"}),
            ]
        )
        before = first.lookup(Asked(900, 50))
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as second:
        after = second.lookup(Asked(900, 50))
        assert after.room_ids == before.room_ids and after.answer.score.tolist() == before.answer.score.tolist()
        assert second.apply([("r", "rooms", room())]) == [("duplicate", "event_id")]


def test_two_engines_on_one_log_answer_from_what_either_was_told(market: Path, tmp_path: Path, clock: Clock) -> None:
    with (
        Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as one,
        Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as other,
    ):
        for i in range(40):
            teller, asked = (one, other) if i % 2 else (other, one)
            teller.apply([(f"r{i}", "rooms", room(1_000 + i, HOST + i % 9))])
            assert 1_000 + i in shown(asked)
        assert (
            one.apply([("r1", "rooms", room(1_001))])
            == other.apply([("r0", "rooms", room(1_000))])
            == [("duplicate", "event_id")]
        )
        assert shown(one, 4) == shown(other, 4)


def test_a_batch_reaches_the_log_while_a_lookup_has_the_state(market: Path, tmp_path: Path, clock: Clock) -> None:
    """The log is locked for the others while it is written, so a writer must not wait for lookups then."""
    told = [(f"r{i}", "rooms", room(1_000 + i, HOST + i % 9)) for i in range(300)]
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as engine, ThreadPoolExecutor(1) as pool:
        with engine.reading() as loaded:
            done = pool.submit(engine.apply, [*told, told[0]])
            log = EventLog(tmp_path / "log.db")
            until = time.monotonic() + 20
            while log.last < len(told) and time.monotonic() < until:
                time.sleep(0.005)
            assert log.last == len(told) and loaded.applied == 0 and not done.done()
        assert done.result() == [("accepted", None)] * len(told) + [("duplicate", "event_id")]
        assert [record.event_id for record in log.read(0)] == [name for name, _, _ in told]
        log.close()


def test_a_lookup_amid_a_batch_does_not_apply_the_rest_of_it(
    market: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would wait for thousands of events nobody was told of; but for those of others it does wait."""
    told = [(f"r{i}", "rooms", room(1_000 + i, HOST + i % 9)) for i in range(300)]
    with (
        Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as engine,
        Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as other,
    ):
        amid: list[int] = []
        fetch = engine.loaded.fetch_entrants

        def look(records: list[Record]) -> None:  # a slice is about to be applied
            if len(amid) == 3:
                other.apply([("theirs", "rooms", room(2_000))])
            with engine.reading() as loaded:
                amid.append(loaded.applied)
            fetch(records)

        monkeypatch.setattr(engine.loaded, "fetch_entrants", look)
        engine.apply(told)
        assert amid[0] == 0 < amid[1] < amid[2] < len(told) and amid[3] == len(told) + 1
        assert {2_000, 1_299} <= set(shown(engine))


def test_what_a_writer_leaves_undone_is_applied_by_the_next_lookup(
    market: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as engine:

        def torn(records: list[Record]) -> None:
            raise MemoryError

        with monkeypatch.context() as broken:
            broken.setattr(engine.loaded, "fetch_entrants", torn)
            with pytest.raises(MemoryError):
                engine.apply([("r", "rooms", room(1_000))])
        assert 1_000 in shown(engine)


def test_an_erased_user_is_a_stranger_at_once_and_after_a_restart(market: Path, tmp_path: Path, clock: Clock) -> None:
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as engine:
        engine.apply([("r", "rooms", room())])
        engine.apply([("f", "follows", {"user_id": 5, "host_id": HOST, "at": at(4), "action": "follow"})])
        assert engine.lookup(Asked(5, 50)).answer.sources[0] == 1
        receipt = engine.erase(5)
        assert receipt["log_rows"] == 1
        assert not any("followed" in " ".join(why) for why in engine.lookup(Asked(5, 50)).answer.reasons)
    raw = (tmp_path / "log.db").read_bytes()
    assert b'"action":"follow"' not in raw
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as engine:
        world, user = engine.loaded.live.world, engine.loaded.vocabularies.users.row(5)
        assert all(not len(world.ties.of(name, user)) for name in world.ties.blocks)


def test_a_row_that_is_no_json_or_names_two_users_keeps_nobody_from_being_erased(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.db")
    rows = ["no row", '{"user_id": 6, "user_id": 5}', '{"user_id": 6}', '["user_id", 5]', '{"user_id": "5"}']
    rows.append(f'{{"user_id": 5, "count": {"9" * 5_000}}}')
    log.append([(f"e{i}", "follows", row) for i, row in enumerate(rows)], 1, lambda: 0, lambda _: lambda _: False)
    assert log.forget_user(5) == 2
    assert [record.row for record in log.read(0)] == [rows[0], "{}", *rows[2:5], "{}"]
    escaped = ['{"user_id": "\\u00e9\\/"}', '{"user_id": "é/"}']
    log.append([(f"s{i}", "follows", row) for i, row in enumerate(escaped)], 1, lambda: 0, lambda _: lambda _: False)
    assert log.forget_user("é/") == 2
    log.close()


def test_users_whose_ids_differ_after_a_nul_are_erased_one_by_one(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.db")
    ids: list[str] = ["a", "a\0b", "", "\0"]
    rows = [as_text({"user_id": user, "title": '"'}) for user in ids]
    log.append([(f"e{i}", "follows", row) for i, row in enumerate(rows)], 1, lambda: 0, lambda _: lambda _: False)
    for i, user in enumerate(ids):
        assert log.forget_user(user) == 1
        assert [record.row for record in log.read(0)] == ["{}"] * (i + 1) + rows[i + 1 :]
    log.close()


@pytest.mark.parametrize("torn", [1, 24, 4_000, 9_000])
def test_a_half_written_tail_of_the_log_is_ignored(market: Path, tmp_path: Path, clock: Clock, torn: int) -> None:
    """What a crash in the middle of a write leaves: some bytes of a commit that never was."""
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as engine:
        engine.apply([(f"r{i}", "rooms", room(1_000 + i, HOST + i % 9)) for i in range(50)])
        engine.apply([(f"e{i}", "rooms", room(1_000 + i, HOST + i % 9, end=50)) for i in range(10)])
        for name in ("log.db", "log.db-wal"):
            (tmp_path / f"crashed-{name}").write_bytes((tmp_path / name).read_bytes())
    with (tmp_path / "crashed-log.db-wal").open("ab") as tail:
        tail.write(b"\x37" * torn)
    with Engine.open(market / "bundles", tmp_path / "crashed-log.db", clock=clock) as engine:
        assert engine.loaded.applied == 60
        assert set(shown(engine)) & set(range(1_000, 1_050)) == set(range(1_010, 1_050))


def test_the_log_flushes_every_commit(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.db")
    assert (log.pragma("journal_mode"), log.pragma("synchronous")) == ("wal", 2)
    log.close()


def test_a_log_that_cannot_be_written_acknowledges_nothing(market: Path, tmp_path: Path, clock: Clock) -> None:
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as engine:
        engine.apply([("a", "rooms", room())])
        limit = sqlite3.connect(tmp_path / "log.db")
        pages = limit.execute("PRAGMA page_count").fetchone()[0]
        limit.close()
        assert engine._log is not None
        engine._log._db.execute(f"PRAGMA max_page_count={pages}")  # a full disk
        many = [(f"m{i}", "rooms", room(2_000 + i, title="x" * 900)) for i in range(200)]
        with pytest.raises(LogFailed):
            engine.apply(many)
        assert set(shown(engine)).isdisjoint(range(2_000, 2_200))
        engine._log._db.execute("PRAGMA max_page_count=1000000")
        assert {v[0] for v in engine.apply(many)} == {"accepted"}
        assert set(range(2_000, 2_200)) <= set(shown(engine))
