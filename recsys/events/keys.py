"""Rows that share a key: which one counts.

The choice must not depend on the order of rows, nor on anything later than the row itself: if a row of the future
could displace one of the past, the past would change its score when the future arrives. So the earliest wins, then the
smallest content; a completion (`ended_at`, `left_at`) counts beside the row it completes, and of several completions
the earliest. Of rooms the same is decided row by row where rows arrive one at a time: `lead` orders them as
`one_per_key` does, and a test holds both equal whatever the order of arrival.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

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


def lead(
    started_at: int, host_id: int | str, ended: bool, category: str | None, guests: Sequence[int | str]
) -> tuple[Any, ...]:
    """What orders the rows of one room: the smallest says when it began, whose it is and what it is about.

    Args:
        started_at: µs.
        ended: whether the row tells an end too; an open row is the one that was known from the start.
        guests: co-hosts other than the host, each once, ascending. Their text is compared, as in the batch.
    """
    return (started_at, host_id, ended, category is None, category or "", not guests, ",".join(map(str, guests)))


def _completed(table: str, rows: pl.LazyFrame, key: list[str], names: list[str]) -> pl.LazyFrame:
    """The open row and its earliest completion as one row.

    A row of another host than the winner's is not used, nor an open one of another start. Whoever ends a room may be
    mistaken about its start (no end is before the winner's, which is the earliest of all): it has ended all the same.
    Attributes are those of the open row, known from the start, and else of a completion; a told one before none.
    """
    end = COMPLETED_BY[table]
    agreed = ["started_at", "host_id"] if table == "rooms" else ["host_id"]
    rest = [name for name in names if name not in key and name not in agreed and name != end]
    order = [pl.col(name) for name in rest if name not in ("cohost_ids", "title")]
    if "cohost_ids" in rest:
        guests = pl.col("cohost_ids").list.eval(pl.element().cast(pl.String)).list.join(",")
        order.append(pl.when(guests != "").then(guests))
    if "title" in rest:  # last: nothing but a page shows it, so what arrives row by row does without
        order.append(pl.col("title"))
    agrees = pl.all_horizontal([pl.col(name) == pl.col(name).first() for name in agreed])
    completes = pl.col(end).is_not_null() & (pl.col("host_id") == pl.col("host_id").first())
    return (
        rows.sort([*(pl.col(name) for name in [*key, *agreed]), pl.col(end).is_not_null(), *order], nulls_last=True)
        .group_by(key, maintain_order=True)
        .agg(
            pl.col(agreed + rest).first(),
            pl.col(end).filter(completes).min(),
            good_rows=completes.any().cast(pl.UInt32) + (agrees & pl.col(end).is_null()).any().cast(pl.UInt32),
        )
        .select(*names, "good_rows")
    )
