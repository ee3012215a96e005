"""Following a stream: its records go into the event log, and in the same transaction how far they were read.

After any crash the log says what was read; the stream is read on from there, so every record is applied exactly once,
whatever the horizon of the duplicates. Of several workers on one log one follows (a lock that the system frees with its
holder), the others wait to take over; should two ever believe they hold it, the log refuses the slower one
(`PositionMoved`). A record waits in the broker until the one before it is in the log: nothing piles up here.
"""

from __future__ import annotations

import fcntl
import json
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import msgspec
import orjson
from msgspec import Raw, Struct

from recsys.errors import LaotieError
from serving.config import StreamConfig
from serving.engine import Engine, Event
from serving.event_log import EventLog, Moved
from serving.foreign_json import read
from serving.intake import Verdict
from serving.streams import Stream, StreamRecord, connect

log = logging.getLogger("laotie.serving")
UNREADABLE = "unreadable"
"""Table under which records that are no events are logged, and set aside (`unknown_table`)."""


class _Event(Struct):
    table: str
    row: Raw
    event_id: str | None = None


_DECODER = msgspec.json.Decoder(_Event)


class Follower:
    """Follows one stream in a thread of its own, from `start` to `stop`.

    Args:
        engine: applies the events; several threads may use it.
        path: the engine's log.
        config: which stream; connected to anew after every failure.
        count: told every batch of events with its verdicts.
    """

    def __init__(
        self,
        engine: Engine,
        path: Path,
        config: StreamConfig,
        count: Callable[[Sequence[Event], Sequence[Verdict]], None] = lambda *_: None,
    ) -> None:
        self._engine, self._path, self._config, self._count = engine, path, config, count
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self.following = False
        """Whether this worker is the one that reads."""
        self.up = False
        """Whether the broker gave an answer last."""
        self.records = self.failures = self.gaps = 0
        self.position: str | None = None

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the batch in hand; what was read and not logged is read again."""
        self._stopping.set()
        self._thread.join()

    def vitals(self) -> dict[str, Any]:
        """How it goes; `following` false: another worker reads."""
        return {
            "following": self.following,
            "up": self.up,
            "position": self.position,
            "records": self.records,
            "failures": self.failures,
            "gaps": self.gaps,
        }

    def _run(self) -> None:
        with self._path.with_name(self._path.name + ".stream-lock").open("w") as lock:
            while not self._stopping.is_set():
                if _taken(lock):
                    self.following = True
                    self._follow()
                self._stopping.wait(min(1.0, self._config.retry_s))

    def _follow(self) -> None:
        pause = first = self._config.retry_s / 20
        while not self._stopping.is_set():
            before = self.records
            try:
                self._read_on()
            except LaotieError as error:  # StreamFailed, LogFailed, PositionMoved: the log says where to go on
                self._failed(str(error))
            except Exception:
                log.exception(json.dumps({"event": "bug", "where": "stream"}))
                self._failed("a bug")
            pause = first if self.records > before else min(2 * pause, self._config.retry_s)
            self._stopping.wait(pause)

    def _failed(self, why: str) -> None:
        if self.up or not self.failures:
            log.error(json.dumps({"event": "stream lost", "why": why}))
        self.up = False
        self.failures += 1

    def _read_on(self) -> None:
        """Subscribe where the log stands and move events until told to stop."""
        stream = connect(self._config)
        try:
            seen_gaps = 0
            self.position = self._stored(stream.name)
            self._move(stream, [], stream.subscribe(self.position))
            while not self._stopping.is_set():
                self.up = True
                chunk = stream.read(self._config.batch, self._config.wait_s)
                if chunk is not None:
                    self._move(stream, chunk.records, chunk.position)
                if stream.gaps > seen_gaps:
                    self.gaps += stream.gaps - seen_gaps
                    seen_gaps = stream.gaps
                    said = {"event": "stream gap", "stream": stream.name, "position": self.position}
                    log.error(json.dumps(said | {"why": "the broker no longer held what came next"}))
        finally:
            with suppress(LaotieError):
                stream.close()

    def _move(self, stream: Stream, records: list[StreamRecord], position: str) -> None:
        if not records and position == self.position:
            return
        events = [self._event(stream.name, record) for record in records]
        verdicts = self._engine.apply(events, moved=Moved(stream.name, self.position, position))
        self.position = position
        self.records += len(records)
        self._count(events, verdicts)

    def _event(self, name: str, record: StreamRecord) -> Event:
        """A record as an event; one that is none becomes an event that is set aside and counted, and nothing stops.

        Its bytes are not kept, as nobody could find the users named in them; the event id says where it lies.
        """
        place, body = f"{name}@{record.where}", record.body
        if body is not None and len(body) <= self._config.most_record_bytes:
            try:
                event = read(_DECODER, body)
                if len(event.table) <= 64 and len(event.event_id or "") <= 256:
                    return event.event_id or place, event.table, bytes(event.row)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
        return place, UNREADABLE, orjson.dumps({"bytes": len(body or b"")})

    def _stored(self, name: str) -> str | None:
        opened = EventLog(self._path)
        try:
            return opened.position(name)
        finally:
            opened.close()


def _taken(lock: TextIO) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
