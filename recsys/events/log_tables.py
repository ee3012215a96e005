"""The log of the service as event tables, so that the nightly build sees what the service was told and what it showed.

The log is an SQLite file that `serving` appends to (table `events`: seq, event_id, tab, row as JSON, received_us; table
`about`: its identity). It is read here and never written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import polars as pl

from recsys.erasure import Erasure
from recsys.errors import InputRefused
from recsys.events.schemas import TABLES, columns_of
from recsys.events.single_rows import CLOCK_TOLERANCE_US, Refused, RowRules
from recsys.id_kinds import IdKind

ANSWER: Final = "_answer"
"""Pseudo table of served answers: user_id, at (µs), room_ids, host_ids, slots, propensities; one impression per
room."""
ERASE: Final = "_erase"
"""Pseudo table of erasures: `user` (pseudonym), `at` (µs); `bundle` and `row`: where he stood in the bundle served."""
_ROWS_AT_ONCE = 200_000


@dataclass
class LogExport:
    """What was written. `offset`: of the last record; `rows` per table; `left_out`: broke a rule of their own."""

    log: str
    offset: int
    rows: dict[str, int] = field(default_factory=dict)
    left_out: int = 0

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def log_source(log_id: str) -> str:
    """How bundles name a log among their offsets."""
    return f"log-{log_id}"


def identity_of(log: Path) -> str:
    """Which log a file is, whatever it is called.

    Raises:
        InputRefused: it is no log.
    """
    with closing(_opened(log)) as database:
        return _identity(log, database)


def export_log(log: Path, out: Path, after: int = 0, kinds: dict[str, IdKind] | None = None) -> LogExport:
    """Write records above an offset as `<table>/log-<first>-<last>.parquet` below `out`.

    Rows that break a rule of their own, or told of a time too far ahead of their receipt, are left out (they were set
    aside on arrival, and stay so when that time has come) and counted; repeats are left to the quarantine of the build.
    Served answers become impressions. Older answers did not record their propensities: organic places of those have 1,
    reserved places none.

    Args:
        kinds: role → kind of ids known already; a missing role takes the kind of the first id it sees.

    Raises:
        InputRefused: the log cannot be read, or the files exist already.
    """
    rules = RowRules(dict(kinds or {}))
    with closing(_opened(log)) as database:
        done = LogExport(_identity(log, database), after)
        for first, page in _pages(log, database, after):
            tables: dict[str, list[dict[str, Any]]] = {}
            for seq, table, row, received_us in page:
                done.offset = seq
                if table == ANSWER:
                    shown = _impressions(orjson.loads(row))
                    if not _usable(shown, rules):
                        done.left_out += len(shown)
                        continue
                    tables.setdefault("impressions", []).extend(shown)
                elif not table.startswith("_"):
                    try:
                        values = rules.check(table, orjson.loads(row), received_us + CLOCK_TOLERANCE_US)
                    except (Refused, orjson.JSONDecodeError):
                        done.left_out += 1
                        continue
                    rules.adopt(table, values)
                    tables.setdefault(table, []).append(values.columns())
            for table, rows in tables.items():
                _write(out / table / f"log-{first}-{done.offset}.parquet", table, rows)
                done.rows[table] = done.rows.get(table, 0) + len(rows)
    return done


def erasures_in(log: Path) -> list[Erasure]:
    """The users whom the service was told to forget, each with his latest erasure.

    Raises:
        InputRefused: the log cannot be read.
    """
    with closing(_opened(log)) as database:
        try:
            rows = database.execute("SELECT row FROM events WHERE tab = ? ORDER BY seq", (ERASE,)).fetchall()
        except sqlite3.Error as error:
            raise InputRefused("event log cannot be read", where=log, got=error) from error
    told = [orjson.loads(row) for (row,) in rows]
    return [Erasure(user, at) for user, at in {one["user"]: one["at"] for one in told}.items()]


def _opened(log: Path) -> sqlite3.Connection:
    if not log.is_file():
        raise InputRefused("there is no event log", where=log, expected="the file given to laotie serve --log")
    database = sqlite3.connect(log, timeout=10.0)
    database.execute("PRAGMA query_only=ON")
    return database


def _identity(log: Path, database: sqlite3.Connection) -> str:
    try:
        return str(database.execute("SELECT value FROM about WHERE name = 'log_id'").fetchone()[0])
    except (sqlite3.Error, TypeError) as error:
        raise InputRefused(
            "not an event log", where=log, got=error, hint="a log of an earlier version has to be served once"
        ) from error


def _pages(
    log: Path, database: sqlite3.Connection, after: int
) -> Iterator[tuple[int, list[tuple[int, str, str, int]]]]:
    while True:
        try:
            page = database.execute(
                "SELECT seq, tab, row, received_us FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
                (after, _ROWS_AT_ONCE),
            ).fetchall()
        except sqlite3.Error as error:
            raise InputRefused("event log cannot be read", where=log, got=error) from error
        if not page:
            return
        yield after + 1, page
        after = page[-1][0]


def _write(file: Path, table: str, rows: list[dict[str, Any]]) -> None:
    if file.exists():
        raise InputRefused("exported already", where=file, hint="give --after the offset exported last")
    file.parent.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame(rows, infer_schema_length=None).select(list(TABLES[table].columns()))
    instants = columns_of(table, "time", "plan")
    frame.with_columns(pl.col(instants).cast(pl.Int64).cast(pl.Datetime("us", "UTC"))).write_parquet(file)


def _usable(shown: list[dict[str, Any]], rules: RowRules) -> bool:
    """Whether the impressions of an answer keep the rules of a row; their ids are of one viewer and one bundle."""
    for row in shown[:1]:
        try:
            rules.adopt("impressions", rules.check("impressions", row))
        except Refused:
            return False
    return True


def _impressions(answer: dict[str, Any]) -> list[dict[str, Any]]:
    if answer["user_id"] is None:
        return []
    slots = answer["slots"]
    chances = answer.get("propensities") or [1.0 if slot == "organic" else None for slot in slots]
    shown = zip(answer["room_ids"], answer["host_ids"], slots, chances, strict=True)
    return [
        {
            "user_id": answer["user_id"],
            "room_id": room,
            "host_id": host,
            "at": answer["at"],
            "position": position,
            "slot": slot,
            "propensity": chance,
        }
        for position, (room, host, slot, chance) in enumerate(shown, start=1)
    ]
