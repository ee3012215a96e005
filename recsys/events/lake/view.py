"""Part of a lake as lazy frames: all of it, one bucket of users, what had come by some offset, some partitions."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from recsys.events.lake.manifest import SEQ, LakeFile, LakeManifest
from recsys.events.lake.partition import bucket_of, has_buckets

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
        held: tables whose files were read already (`loaded`), with the column `_seq`.
    """

    folder: Path
    manifest: LakeManifest
    seq: int | None = None
    partitions: AbstractSet[tuple[str, str, int]] = frozenset()
    narrowed: AbstractSet[str] = field(default_factory=frozenset)
    held: Mapping[str, pl.DataFrame] = field(default_factory=dict, repr=False)

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
            and (bucket is None or file.bucket % bucket[1] == bucket[0] % self.buckets)
            and (self.seq is None or file.first_seq <= self.seq)
            and (table not in self.narrowed or file.partition in self.partitions)
        ]  # fmt: skip

    def scan(self, table: str, schema: dict[str, pl.DataType], bucket: Bucket | None = None) -> pl.LazyFrame:
        """Rows of a table with the columns of `schema`; columns that old files lack are null.

        Args:
            bucket: (b, B): only users of bucket b of B, a power of two; more than the lake has are cut while reading.
        """
        if table in self.held:
            rows = _users_of(self.held[table].lazy(), table, schema, bucket)
            return (rows if self.seq is None else rows.filter(pl.col(SEQ) <= self.seq)).select(*schema)
        files = self.files(table, bucket)
        if not files:
            return pl.LazyFrame(schema=schema)
        rows = self._of_files(files, schema)
        if bucket is not None and bucket[1] > self.buckets:
            rows = _users_of(rows, table, schema, bucket)
        if self.seq is not None and any(file.last_seq > self.seq for file in files):
            rows = rows.filter(pl.col(SEQ) <= self.seq)
        return rows.select(*schema)

    def loaded(self, schemas: Mapping[str, dict[str, pl.DataType]], most_rows: int) -> LakeView:
        """The same view with these tables in memory, those with at most `most_rows` rows each: of thousands of small
        files, opening them takes longer than reading, and a view is read several times over.

        Raises:
            polars.exceptions.PolarsError: a file is damaged.
        """
        held = dict(self.held)
        for table, schema in schemas.items():
            files = self.files(table)
            if table not in held and files and sum(file.rows for file in files) <= most_rows:
                held[table] = self._of_files(files, schema).collect(engine="streaming")
        return replace(self, held=held)

    def _of_files(self, files: list[LakeFile], schema: dict[str, pl.DataType]) -> pl.LazyFrame:
        return pl.scan_parquet(
            [f"{self.folder}/{file.path}" for file in files], schema={**schema, SEQ: pl.Int32()},
            hive_partitioning=False, glob=False, missing_columns="insert", extra_columns="ignore",
        )  # fmt: skip


def _users_of(rows: pl.LazyFrame, table: str, schema: dict[str, pl.DataType], bucket: Bucket | None) -> pl.LazyFrame:
    if bucket is None or not has_buckets(table):
        return rows
    return rows.filter(bucket_of("user_id", schema["user_id"], bucket[1]) == bucket[0])
