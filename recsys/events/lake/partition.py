"""Where a row lies: its day, and the bucket of its user.

The bucket must be the same for ever, on every machine and with every version of every library, so it is computed here:
`h(id) mod B`, with h(id) = (id mod p)·a mod p, p = 2³¹ − 1, for integers, and CRC-32 of the UTF-8 bytes for strings.
B is a power of two, so the users of bucket b of B are those of buckets b and b + B of 2B.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime

import polars as pl

from recsys.events.facts import US_PER_DAY
from recsys.events.lake.manifest import ALL_DATES
from recsys.events.schemas import EARLIEST, LATEST, TABLES
from recsys.id_kinds import id_kind

TIME_OF_TABLE = {
    "rooms": "started_at", "watches": "entered_at", "engagements": "at", "purchases": "at", "refunds": "at",
    "follows": "at", "feedback": "at", "impressions": "at", "notices": "at",
}  # fmt: skip
"""The time that gives a row its day; tables without one lie in a single partition."""

_PRIME, _FACTOR = 2**31 - 1, 1_103_515_245


def has_buckets(table: str) -> bool:
    """Whether the rows of a table are spread over buckets of users."""
    return "user_id" in TABLES[table].columns() and table != "users"


def bucket_of(column: str, dtype: pl.DataType, n_buckets: int) -> pl.Expr:
    """The bucket (Int64) of a column of user ids; 0 where there is none."""
    if id_kind(dtype) == "str":
        return pl.col(column).map_batches(_crc32, return_dtype=pl.Int64, is_elementwise=True) % n_buckets
    return ((pl.col(column).cast(pl.Int64) % _PRIME) * _FACTOR % _PRIME % n_buckets).fill_null(0)


def days_of(table: str) -> pl.Expr:
    """The day a row lies in, as days since the epoch (Int32, UTC); null: `ALL_DATES`."""
    if table not in TIME_OF_TABLE:
        return pl.lit(None, pl.Int32)
    time = pl.col(TIME_OF_TABLE[table])
    days = time.dt.epoch("us") // US_PER_DAY
    return pl.when(time.is_between(EARLIEST, LATEST)).then(days).cast(pl.Int32)


def date_name(day: int | None) -> str:
    """The name of a day's partition (text, UTC), from `days_of`."""
    return ALL_DATES if day is None else day_of(day * US_PER_DAY)


def day_of(us: int) -> str:
    """The day (text, UTC) of an instant in µs; instants outside the years of events belong to the nearest of them."""
    low, high = (int(edge.timestamp()) * 1_000_000 for edge in (EARLIEST, LATEST))
    at = min(max(us, low), high) // US_PER_DAY * US_PER_DAY
    return datetime.fromtimestamp(at / 1e6, UTC).strftime("%Y-%m-%d")


def _crc32(ids: pl.Series) -> pl.Series:
    distinct = ids.unique()
    hashes = [0 if text is None else zlib.crc32(text.encode()) for text in distinct.to_list()]
    return ids.replace_strict(distinct, pl.Series(hashes, dtype=pl.Int64), default=0, return_dtype=pl.Int64)
