"""Rows that share a key: which one counts.

The choice must not depend on the order of rows, nor on anything later than the row itself: if a row of the future
could displace one of the past, the past would change its score when the future arrives. So the earliest wins, then the
smallest content; a completion (`ended_at`, `left_at`) counts beside the row it completes, and of several completions
the earliest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import polars as pl

from recsys.events.schemas import TABLES, columns_of

COMPLETED_BY = {"rooms": "ended_at", "watches": "left_at"}
"""Tables in which a later row of the same key fills this column."""

ROWS_COMPARED = 16_000_000
"""Rows whose keys are compared at once: 8 bytes each and a hash set."""


def has_shared_keys(table: str, parts: Iterable[pl.LazyFrame], n: int) -> bool:
    """Whether two of the `n` rows of all `parts` together may share a key; no two parts share one.

    Compares 64-bit hashes, so 50 million rows need little memory; a collision costs time, never an answer.
    """
    key = list(TABLES[table].KEY)
    if not key or n < 2:
        return False
    for rows in parts:
        hashes = rows.select(pl.struct(key).hash(0).alias("hash")).collect(engine="streaming")["hash"]
        if hashes.n_unique() < len(hashes):
            return True
    return False


def parts_by_key(table: str, rows: pl.LazyFrame, n: int) -> Iterator[pl.LazyFrame]:
    """The `n` rows in parts that can be compared at once and share no key; each reads all rows."""
    parts = -(-n // ROWS_COMPARED)
    for part in range(parts):
        yield rows if parts == 1 else rows.filter(pl.col(TABLES[table].KEY[0]).hash(1) % parts == part)


def one_per_key(table: str, rows: pl.LazyFrame) -> pl.LazyFrame:
    """The rows that count, one per key, with `good_rows`: how many of the rows of this key were used (UInt32).

    Times are int64 µs.
    """
    key = list(TABLES[table].KEY)
    names = rows.collect_schema().names()
    if table in COMPLETED_BY:
        return _completed(table, rows, key, names)
    times = [name for name in columns_of(table, "time") if name not in key]
    order = key + times + [name for name in names if name not in key and name not in times]
    return (
        rows.sort(order)  # nulls first: an attribute without a date was always known
        .unique(subset=key, keep="first", maintain_order=True)
        .with_columns(good_rows=pl.lit(1, pl.UInt32))
        .select(*names, "good_rows")
    )


def _completed(table: str, rows: pl.LazyFrame, key: list[str], names: list[str]) -> pl.LazyFrame:
    """The open row and its earliest completion as one row.

    A row of another host than the winner's is not used, nor an open one of another start, nor an end before it.
    Attributes are those of the open row, known from the start, and else of the earliest completion.
    """
    end = COMPLETED_BY[table]
    agreed = ["started_at", "host_id"] if table == "rooms" else ["host_id"]
    rest = [name for name in names if name not in key and name not in agreed and name != end]
    lists = [
        pl.col(name).list.eval(pl.element().cast(pl.String)).list.join(",") for name in rest if name == "cohost_ids"
    ]
    order = [*agreed, end, *(name for name in rest if name != "cohost_ids")]
    agrees = pl.all_horizontal([pl.col(name) == pl.col(name).first() for name in agreed])
    completes = pl.col(end).is_not_null() & (pl.col("host_id") == pl.col("host_id").first())
    if table == "rooms":  # whoever ends a room may be mistaken about its start: it has ended all the same
        completes &= pl.col(end) >= pl.col("started_at").first()
    return (
        rows.sort([*(pl.col(name) for name in [*key, *order]), *lists])  # nulls first: the open row leads
        .group_by(key, maintain_order=True)
        .agg(
            pl.col(agreed + rest).first(),
            pl.col(end).filter(completes).min(),
            good_rows=completes.any().cast(pl.UInt32) + (agrees & pl.col(end).is_null()).any().cast(pl.UInt32),
        )
        .select(*names, "good_rows")
    )
