"""The durable log: an append-only SQLite table, row number = offset. Acknowledged means: committed and flushed.

SQLite in WAL mode with `synchronous=FULL` flushes the log file at every commit, so a power cut undoes nothing that was
acknowledged. Many events share one commit (group commit). Several processes may append: SQLite lets in one at a time,
and `append` hands over what others wrote since, inside the same transaction, so that duplicates are recognised.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from recsys.errors import ConfigError, LaotieError

FORMAT: Final = 1
_PAGE: Final = 2_000
_INSERTS: Final = [(n, "INSERT INTO events VALUES " + ", ".join(["(?, ?, ?, ?, ?)"] * n)) for n in (128, 32, 8, 1)]


class Record(NamedTuple):
    """One line of the log: `seq` its offset (1 …), `row` JSON text, `received_us` µs since the epoch."""

    seq: int
    event_id: str
    table: str
    row: str
    received_us: int


Entry = tuple[str, str, str]
"""(event_id, table, row as JSON text), not yet in the log."""


def as_text(row: Any) -> str:
    """A row as JSON text: given as text, as bytes, or as plain data."""
    if isinstance(row, str):
        return row
    if isinstance(row, bytes | bytearray | memoryview):
        return str(row, "utf-8")
    return orjson.dumps(row).decode()


def names(row: str, user_id: int | str) -> bool:
    """Whether a JSON object that SQLite takes for a row of this user is one: its functions end a text at U+0000."""
    try:
        told = json.loads(row, object_pairs_hook=list)
    except (ValueError, RecursionError):  # a number of thousands of digits, say; set aside, whosever it was
        return True
    return any(key == "user_id" and value == user_id for key, value in told)


class Moved(NamedTuple):
    """How far a stream has been read, to be stored with the records read: `after`, if `before` is what is stored now.

    Positions are text in the stream's own form; `before` None: nothing was read from it yet.
    """

    source: str
    before: str | None
    after: str


class PositionMoved(LaotieError):
    """Somebody else has read on in the stream; nothing of the batch was logged."""


class LogFailed(LaotieError):
    """The log could not be written or read; nothing of the batch was acknowledged or applied."""


class EventLog:
    """An append-only log in one SQLite file.

    Threading: one connection, used by one thread at a time (any thread). Whatever reads raises LogFailed if it cannot.

    Attributes:
        written: offset of the last record this connection wrote, from before anybody can read it; 0 if the last batch
            wrote none.

    Args:
        path: the file; made if missing. `-wal` and `-shm` files appear beside it.

    Raises:
        ConfigError: it cannot be opened, is not a log, or of a later format.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.written = path, 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA secure_delete=ON")
            self._db.create_function("names", 2, names, deterministic=True)
            found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if found > FORMAT:
                raise ConfigError("event log is of a later format", where=path, got=found, expected=FORMAT)
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, "
                "tab TEXT NOT NULL, row TEXT NOT NULL, received_us INTEGER NOT NULL)"
            )
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS positions (source TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID"
            )
            self._db.execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
            self._db.execute("INSERT OR IGNORE INTO about VALUES ('log_id', ?)", (uuid.uuid4().hex,))
            self._db.execute(f"PRAGMA user_version={FORMAT}")
            self.log_id = str(self._db.execute("SELECT value FROM about WHERE name = 'log_id'").fetchone()[0])
        except (sqlite3.Error, OSError) as error:
            raise ConfigError("event log cannot be opened", where=path, got=error) from error

    def pragma(self, name: str) -> object:
        """The value of a pragma of this connection, e.g. `synchronous` (2 is FULL)."""
        return self._db.execute(f"PRAGMA {name}").fetchone()[0]

    @property
    def last(self) -> int:
        """Offset of the last committed record, by whatever process; 0 in an empty log. Costs microseconds."""
        found = self._ask("SELECT seq FROM events ORDER BY seq DESC LIMIT 1")
        return int(found[0][0]) if found else 0

    def read(self, after: int, upto: int | None = None) -> Iterator[Record]:
        """Records with offset > after (and ≤ upto), ascending, read in pages: appending meanwhile is allowed."""
        while True:
            page = self._ask(
                "SELECT seq, event_id, tab, row, received_us FROM events WHERE seq > ? AND seq <= ? "
                "ORDER BY seq LIMIT ?",
                (after, 2**62 if upto is None else upto, _PAGE),
            )
            yield from map(Record._make, page)
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    def append(
        self,
        entries: Sequence[Entry],
        received_us: int,
        known: Callable[[], int],
        catch_up: Callable[[list[Record]], Callable[[str], bool]],
        moved: Moved | None = None,
    ) -> list[Record]:
        """Write a batch in one transaction and flush it; the records written.

        Args:
            entries: in the order of arrival.
            received_us: µs.
            known: gives the offset of the last record the caller has applied.
            catch_up: takes the records others wrote since, gives the test for event ids seen before; those, and
                repeats within the batch, are not written.
            moved: the position of the stream the entries come from, stored in the same transaction.

        Raises:
            PositionMoved: the stored position is not `moved.before`; nothing was written.
            LogFailed: nothing was written (disk full, lock not had in time); what was caught up stays caught up.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if moved is not None:
                    self._move(moved)
                behind = known()
                seen = catch_up(list(self.read(behind)) if self.last > behind else [])
                once: dict[str, Entry] = {}
                for entry in entries:
                    if not seen(entry[0]):
                        once.setdefault(entry[0], entry)
                told = enumerate(once.values(), self.last + 1)
                rows = [Record._make((seq, *entry, received_us)) for seq, entry in told]
                self._insert(rows)
                self.written = rows[-1].seq if rows else 0
                self._db.execute("COMMIT")
            except BaseException:
                self.written = 0
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LogFailed(
                "event log cannot be written", where=self.path, got=error, hint="nothing was acknowledged"
            ) from error
        return rows

    def _insert(self, rows: list[Record]) -> None:
        """Many rows a statement: cheaper, and the interpreter is given up and had again once instead of at each row."""
        at = 0
        for n, statement in _INSERTS:
            while len(rows) - at >= n:
                self._db.execute(statement, list(chain.from_iterable(rows[at : at + n])))
                at += n

    def position(self, source: str) -> str | None:
        """How far a stream has been read into this log; None: not yet.

        Raises:
            LogFailed: the log cannot be read.
        """
        found = self._ask("SELECT position FROM positions WHERE source = ?", (source,))
        return str(found[0][0]) if found else None

    def _move(self, moved: Moved) -> None:
        held = self.position(moved.source)
        if held != moved.before:
            raise PositionMoved("the stream was read on by others", where=moved.source, got=held, expected=moved.before)
        self._db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (moved.source, moved.after))

    def first_received(self, since_us: int, upto: int) -> int:
        """The first offset ≤ upto + 1 at or above which a record was received at `since_us` or later; it scans."""
        found = self._ask("SELECT MIN(seq) FROM events WHERE received_us >= ? AND seq <= ?", (since_us, upto))
        return upto + 1 if found[0][0] is None else int(found[0][0])

    def of_table(self, table: str, upto: int, after: int = 0) -> list[Record]:
        """All records of one table with offset > after and ≤ upto, ascending; it scans the log."""
        found = self._ask(
            "SELECT seq, event_id, tab, row, received_us FROM events "
            "WHERE tab = ? AND seq > ? AND seq <= ? ORDER BY seq",
            (table, after, upto),
        )
        return [Record._make(one) for one in found]

    @property
    def pruned_upto(self) -> int:
        """Records up to this offset may be gone; 0: none are."""
        found = self._ask("SELECT value FROM about WHERE name = 'pruned_upto'")
        return int(found[0][0]) if found else 0

    def prune(self, upto: int, keep: str) -> int:
        """Remove records with offset ≤ upto except those of table `keep`, and say so in the log; how many.

        The last record always stays: offsets go on from it. Removed a part at a time, so writers wait for milliseconds.

        Raises:
            LogFailed: some, or none, were removed; ask again.
        """
        upto, removed = min(upto, self.last - 1), 0
        if upto <= self.pruned_upto:
            return 0
        try:
            self._db.execute("INSERT OR REPLACE INTO about VALUES ('pruned_upto', ?)", (str(upto),))
            while True:
                gone = self._db.execute(
                    "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE seq <= ? AND tab != ? LIMIT ?)",
                    (upto, keep, 10 * _PAGE),
                ).rowcount
                removed += gone
                if gone < 10 * _PAGE:
                    return removed
        except sqlite3.Error as error:
            raise LogFailed("event log cannot be pruned", where=self.path, got=error) from error

    def forget_user(self, user_id: int | str) -> int:
        """Overwrite the rows of one user and their event ids, keeping offsets; how many rows.

        A row that is no JSON names nobody and stays; of a row that says `user_id` twice either value counts.

        Raises:
            LogFailed: not done; or done, but readers kept the old bytes in the write-ahead log: ask again.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            changed = self._db.execute(
                "UPDATE events SET tab = '_erased', row = '{}', event_id = 'erased-' || seq "
                "WHERE (instr(row, ?) OR instr(row, '\\')) "  # only rows with his id, or an escape, are parsed
                "AND CASE WHEN EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(row) THEN row ELSE '{}' END) "
                "WHERE key = 'user_id' AND atom = ?) THEN names(row, ?) END",
                (str(user_id), user_id if isinstance(user_id, int) else user_id.partition("\0")[0], user_id),
            ).rowcount
            self._db.execute("COMMIT")
            for _ in range(200):
                if not self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                    return int(changed)
                time.sleep(0.025)
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise LogFailed("a user could not be erased from the log", where=self.path, got=error) from error
        raise LogFailed("readers keep the write-ahead log in use", where=self.path, hint="erase again")

    def _ask(self, query: str, given: tuple[int | str, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, given).fetchall()
        except sqlite3.Error as error:
            raise LogFailed("event log cannot be read", where=self.path, got=error) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()
