"""Part of a lake as lazy frames: all of it, one bucket of users, what had come by some offset, some partitions."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from recsys.events.lake.manifest import SEQ, LakeFile, LakeManifest

Bucket = tuple[int, int]


@dataclass(frozen=True)
class LakeView:
    """What a reader sees of a lake.

    Args:
        folder: the lake.
        manifest: its list of files.
        seq: rows of ingestions up to this one; None: all.
        partitions: only these (table, date, bucket), in the tables that have an entry in `narrowed`.
        narrowed: tables to which `partitions` applies; the others are read whole.
    """

    folder: Path
    manifest: LakeManifest
    seq: int | None = None
    partitions: AbstractSet[tuple[str, str, int]] = frozenset()
    narrowed: AbstractSet[str] = field(default_factory=frozenset)

    @property
    def buckets(self) -> int:
        """How many buckets of users the lake has."""
        return self.manifest.buckets

    def tables(self) -> list[str]:
        """Tables that have a file in the lake, seen or not, so that a view has the tables of the whole."""
        return sorted({file.table for file in self.manifest.files})

    def files(self, table: str, bucket: Bucket | None = None) -> list[LakeFile]:
        """The files of a table that may hold rows of this view."""
        return [
            file for file in self.manifest.files
            if file.table == table
            and (bucket is None or file.bucket % bucket[1] == bucket[0])
            and (self.seq is None or file.first_seq <= self.seq)
            and (table not in self.narrowed or file.partition in self.partitions)
        ]  # fmt: skip

    def scan(self, table: str, schema: dict[str, pl.DataType], bucket: Bucket | None = None) -> pl.LazyFrame:
        """Rows of a table with the columns of `schema`; columns that old files lack are null."""
        files = self.files(table, bucket)
        if not files:
            return pl.LazyFrame(schema=schema)
        rows = pl.scan_parquet(
            [self.folder / file.path for file in files], schema={**schema, SEQ: pl.Int32()}, hive_partitioning=False,
            glob=False, missing_columns="insert", extra_columns="ignore",
        )  # fmt: skip
        if self.seq is not None and any(file.last_seq > self.seq for file in files):
            rows = rows.filter(pl.col(SEQ) <= self.seq)
        return rows.select(*schema)
