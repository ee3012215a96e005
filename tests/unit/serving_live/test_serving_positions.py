"""The position of a stream lives in the log, in one transaction with the records read up to it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from serving.config import ServingConfig
from serving.engine import Engine
from serving.event_log import EventLog, LogFailed, Moved, PositionMoved

from .served_world import AS_OF

EVENT = ("e1", "follows", {"user_id": 70_001, "host_id": 1, "at": AS_OF + 5, "action": "follow"})


def stored(log: Path) -> tuple[str | None, int]:
    opened = EventLog(log)
    try:
        return opened.position("s"), opened.last
    finally:
        opened.close()


def test_records_and_position_are_stored_together_and_only_from_where_the_reader_stood(
    market: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log.db"
    with Engine.open(market / "bundles", log, ServingConfig()) as engine:
        assert stored(log) == (None, 0)
        assert engine.apply([EVENT], moved=Moved("s", None, "1")) == [("accepted", None)]
        assert stored(log) == ("1", 1)
        with pytest.raises(PositionMoved):
            engine.apply([("e2", *EVENT[1:])], moved=Moved("s", None, "1"))
        assert stored(log) == ("1", 1) and engine.loaded.applied == 1
        engine.apply([], moved=Moved("s", "1", "7"))
        assert stored(log) == ("7", 1)


def test_a_commit_that_fails_moves_no_position(market: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    with Engine.open(market / "bundles", log, ServingConfig()) as engine:
        holder = sqlite3.connect(log)
        holder.execute("CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        holder.commit()
        with pytest.raises(LogFailed):
            engine.apply([EVENT], moved=Moved("s", None, "1"))
        assert stored(log) == (None, 0) and engine.loaded.applied == 0
        holder.execute("DROP TRIGGER full")
        holder.commit()
        holder.close()
        assert engine.apply([EVENT], moved=Moved("s", None, "1")) == [("accepted", None)]
