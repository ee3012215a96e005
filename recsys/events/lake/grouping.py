"""The rows of an export in groups of days that fit into memory.

A large export, in whatever order, is read once: it is sorted by day in runs on the disk, of which each group
reads its own rows only. So time grows with the rows, not with rows × groups; meanwhile the runs take the room of the
largest table beside the lake.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from recsys.events.facts import US_PER_DAY
from recsys.events.lake.partition import TIME_OF_TABLE

GROUP_ROWS = 4_000_000
"""Rows held at once, if days and buckets allow; of one day up to twice as many."""
RUNS = ".arriving-"
"""Beginning of the names of folders of rows on their way, in the lake; one there while nobody writes is a leftover."""
_ROW_GROUP = 50_000
"""Rows of a run that are passed over or read together."""
_UNSORTED_GROUPS = 3
"""So few groups are rather picked from the export itself."""


def in_groups(table: str, placed: pl.LazyFrame, buckets: int, lake: Path) -> Iterator[pl.DataFrame]:
    """All rows, group by group, days ascending.

    Args:
        placed: the rows with `__day` (days since the epoch, null for none) and `__bucket`.
        buckets: of the lake; 1 for a table without.
        lake: runs are written there, and removed.
    """
    groups = list(_groups(table, placed, buckets))
    with tempfile.TemporaryDirectory(dir=lake, prefix=RUNS) as folder:
        if len(groups) > _UNSORTED_GROUPS:
            placed = _sorted_runs(placed, Path(folder))
        for part in groups:
            yield placed.filter(part).collect(engine="streaming")


def _sorted_runs(placed: pl.LazyFrame, folder: Path) -> pl.LazyFrame:
    """The same rows in runs sorted by day: an external sort without the merge, which row groups' statistics replace."""
    for i, run in enumerate(placed.collect_batches(chunk_size=GROUP_ROWS, engine="streaming")):
        by_day = run.sort("__day", maintain_order=True)
        by_day.write_parquet(folder / f"{i:06d}.parquet", compression="lz4", row_group_size=_ROW_GROUP)
    return pl.scan_parquet(folder / "*.parquet")


def _groups(table: str, placed: pl.LazyFrame, buckets: int) -> Iterator[pl.Expr]:
    """Filters that cut the rows into groups of days (and, of a day that is too large, of buckets)."""
    days = dict(placed.group_by("__day").agg(pl.len()).collect(engine="streaming").sort("__day").iter_rows())
    group: list[int | None] = []
    held = 0
    for day, n in days.items():
        if group and held + n > GROUP_ROWS:
            yield _of_days(table, group)
            group, held = [], 0
        if n > 2 * GROUP_ROWS and buckets > 1:  # every part reads the day again
            parts = min(buckets, 1 << (-(-n // GROUP_ROWS) - 1).bit_length())
            for part in range(parts):
                yield _of_days(table, [day]) & (pl.col("__bucket") % parts == part)
            continue
        group.append(day)
        held += n
    if group:
        yield _of_days(table, group)


def _of_days(table: str, days: list[int | None]) -> pl.Expr:
    """Rows of these days, ascending; without a day come first."""
    mine = pl.col("__day").is_in(days, nulls_equal=True)
    first, last = days[0], days[-1]
    if first is None or last is None:
        return mine
    time = pl.col(TIME_OF_TABLE[table])  # the span first: whole row groups are passed over by it
    begin, end = (pl.lit(day * US_PER_DAY).cast(pl.Datetime("us", "UTC")) for day in (first, last + 1))
    return (time >= begin) & (time < end) & mine
