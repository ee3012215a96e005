"""Event tables on disk: from row numbers and seconds inside the simulator to ids, UTC times and parquet parts.

A part of the users buffers its rows and writes them as `<table>/part-<part>-<chunk>.parquet` whenever a table holds
CHUNK_ROWS of them: memory is bounded by that, whatever the size of the world. Facts at or after the end of the window
are dropped here and open ends become null, in one place for all tables.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.events.simulator.arrays import F8
from recsys.events.simulator.feed import SLOTS
from recsys.instants import from_datetime

CHUNK_ROWS = 1_000_000
TRUTH = "_truth"

FIRST_USER_ID = 1
FIRST_HOST_ID = 2_000_000_001
FIRST_ROOM_ID = 5_000_000_000_001
ORDERS_PER_USER = 1 << 20

ACTIONS = ("follow", "unfollow")
SOURCES = ("follow", "recommend", "search")
ENGAGEMENTS = ("like", "comment", "gift", "share")
REFUNDS = ("return", "refund_only", "counterfeit", "dispute")
FEEDBACK = ("not_interested", "block", "report", "unblock")

UTC_US = pl.Datetime("us", "UTC")
Column = NDArray[Any]

FIRST_ID = {"user_id": FIRST_USER_ID, "host_id": FIRST_HOST_ID, "room_id": FIRST_ROOM_ID}
TIMES = {"at", "entered_at", "left_at", "started_at", "ended_at", "registered_at", "from", "to"}
OPEN_ENDS = {"left_at", "ended_at"}
"""Times that are null when they lie beyond the window."""
WORDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("follows", "action"): ACTIONS,
    ("watches", "source"): SOURCES,
    ("engagements", "kind"): ENGAGEMENTS,
    ("refunds", "kind"): REFUNDS,
    ("feedback", "kind"): FEEDBACK,
    ("impressions", "slot"): SLOTS,
    ("notices", "kind"): ("leave",),
}
KEY_TIME = {"watches": "entered_at", "rooms": "started_at", "hosts": "registered_at", "users": "registered_at"}


_ID, _WORD, _NUMBER, _MONEY = pl.Int64(), pl.String(), pl.Int32(), pl.Int64()
SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    "rooms": {
        "room_id": _ID,
        "host_id": _ID,
        "started_at": UTC_US,
        "ended_at": UTC_US,
        "category": _WORD,
        "title": _WORD,
        "cohost_ids": pl.List(_ID),
    },
    "follows": {"user_id": _ID, "host_id": _ID, "at": UTC_US, "action": _WORD},
    "watches": {
        "user_id": _ID,
        "host_id": _ID,
        "room_id": _ID,
        "entered_at": UTC_US,
        "left_at": UTC_US,
        "source": _WORD,
    },
    "engagements": {
        "user_id": _ID,
        "host_id": _ID,
        "room_id": _ID,
        "at": UTC_US,
        "kind": _WORD,
        "count": _NUMBER,
        "value_minor": _MONEY,
    },
    "purchases": {
        "order_id": _ID,
        "line": _NUMBER,
        "user_id": _ID,
        "host_id": _ID,
        "room_id": _ID,
        "at": UTC_US,
        "amount_minor": _MONEY,
        "quantity": _NUMBER,
        "category": _WORD,
    },
    "refunds": {"order_id": _ID, "host_id": _ID, "at": UTC_US, "amount_minor": _MONEY, "kind": _WORD},
    "feedback": {"user_id": _ID, "host_id": _ID, "at": UTC_US, "kind": _WORD},
    "impressions": {
        "user_id": _ID,
        "room_id": _ID,
        "host_id": _ID,
        "at": UTC_US,
        "position": _NUMBER,
        "slot": _WORD,
        "propensity": pl.Float64(),
    },
    "notices": {"host_id": _ID, "at": UTC_US, "from": UTC_US, "to": UTC_US, "kind": _WORD},
    "hosts": {"host_id": _ID, "category": _WORD, "city_tier": _NUMBER, "registered_at": UTC_US},
    "users": {"user_id": _ID, "city_tier": _NUMBER, "registered_at": UTC_US},
}
"""The event tables and the types they are written in."""


@dataclass(frozen=True)
class Clock:
    """Start of the window in UTC microseconds and its length in seconds."""

    start_us: int
    horizon_s: float

    @staticmethod
    def starting(start: datetime, days: int) -> Clock:
        """The clock of `days` × 24 h from `start` (aware)."""
        return Clock(from_datetime(start), days * 86_400.0)

    def series(self, name: str, seconds: F8, *, open_end: bool = False) -> pl.Series:
        """Seconds (n,) as UTC instants; NaN, and with `open_end` what lies beyond the window, is null."""
        known = np.isfinite(seconds)
        if open_end:
            known &= seconds < self.horizon_s
        instants = self.start_us + np.floor(np.where(known, seconds, 0.0) * 1e6).astype(np.int64)
        series = pl.Series(name, instants).cast(UTC_US)
        return series if known.all() else series.set(pl.Series(~known), None)


@dataclass
class PartWriter:
    """Writes the tables of one part below `folder`; counts rows and bytes by table."""

    folder: Path
    part: int
    clock: Clock
    categories: tuple[str, ...]
    rows: Counter[str] = field(default_factory=Counter)
    size_bytes: int = 0
    _buffers: dict[str, dict[str, list[Column]]] = field(default_factory=dict)
    _held: Counter[str] = field(default_factory=Counter)
    _chunks: Counter[str] = field(default_factory=Counter)

    def add(self, table: str, **columns: Column) -> None:
        """Buffer rows: equally long arrays. Ids as row numbers, times as seconds, words as codes."""
        length = len(next(iter(columns.values())))
        if length == 0:
            return
        buffer = self._buffers.setdefault(table, {name: [] for name in columns})
        for name, values in columns.items():
            buffer[name].append(values)
        self._held[table] += length
        if self._held[table] >= CHUNK_ROWS:
            self._flush(table)

    def close(self) -> None:
        """Write what is still buffered."""
        for table in list(self._buffers):
            self._flush(table)

    def write(self, table: str, frame: pl.DataFrame) -> None:
        """Write a finished frame as the next chunk of a table."""
        path = self.folder / table / f"part-{self.part:06d}-{self._chunks[table]:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path, compression="zstd", compression_level=1, statistics=True)
        self._chunks[table] += 1
        self.rows[table] += frame.height
        self.size_bytes += path.stat().st_size

    def _flush(self, table: str) -> None:
        buffer = self._buffers.pop(table)
        self._held[table] = 0
        columns = {name: np.concatenate(pieces) for name, pieces in buffer.items()}
        times: F8 = columns[KEY_TIME.get(table, "at")].astype(np.float64)
        inside = times < self.clock.horizon_s
        if not inside.all():
            columns = {name: values[inside] for name, values in columns.items()}
        if inside.any():
            self.write(table, self.frame(table, columns))

    def frame(self, table: str, columns: dict[str, Column]) -> pl.DataFrame:
        """Columns as they are buffered -> the table as the contract has it."""
        frame = pl.DataFrame([self._series(table, name, values) for name, values in columns.items()])
        return frame.select(list(SCHEMAS[table])).cast(pl.Schema(SCHEMAS[table]))

    def _series(self, table: str, name: str, values: Column) -> pl.Series:
        if name in TIMES:
            return self.clock.series(name, values.astype(np.float64), open_end=name in OPEN_ENDS)
        if name in FIRST_ID:
            return pl.Series(name, values.astype(np.int64) + FIRST_ID[name])
        words = self.categories if name == "category" else WORDS.get((table, name))
        if words is not None:
            return pl.Series(name, words).gather(pl.Series(values.astype(np.uint32)))
        return pl.Series(name, values)
