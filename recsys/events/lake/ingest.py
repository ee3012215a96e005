"""Event tables into the lake: hive partitions `<table>/date=YYYY-MM-DD/bucket=B/<n>.parquet`.

- **No row twice.** A row is told by all its columns; equal rows of one export are told apart by their number. The lake
  holds the larger of what it held and what the export holds of each, so an export may be ingested again, or overlap
  another, and nothing doubles. A table that was ingested whole before, byte by byte, is not even read.
- **Late rows** go into the partition of their own day.
- Every row is kept as it came (typed, judged by nobody): rules look at other rows, and those may come later.

Memory: rows of one group of days at a time (`recsys/events/lake/grouping.py`), and what the lake holds already of those
very partitions.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from recsys.bundle.durable import exclusive, sha256_of
from recsys.erasure import erased_until
from recsys.errors import ConfigError, InputRefused
from recsys.events.known import check_kinds
from recsys.events.lake.grouping import RUNS, in_groups
from recsys.events.lake.manifest import SEQ, LakeFile, LakeManifest, is_lake
from recsys.events.lake.partition import TIME_OF_TABLE, bucket_of, date_name, days_of, has_buckets
from recsys.events.lake.view import LakeView
from recsys.events.reading import EventTables, files_of_tables, open_events, reading, wanted_type
from recsys.events.schemas import TABLES, columns_of
from recsys.progress import Progress, silent

BUCKET_ROWS_A_DAY = 40_000
"""A new lake gets as many buckets as keep about so many rows of a day in one file."""
MOST_BUCKETS = 64


@dataclass
class IngestReport:
    """What an ingestion did: per table, rows `read`, `new`, `known` (in the lake already) and, if there are any,
    `erased` (refused, as their users were erased); `skipped` tables were ingested before, byte by
    byte. `offset`: the lake's number of ingestions now. Of a log: its identity, the offset up to which the lake has it
    now, how many records were `left_out` as they break a rule of their own, and rows `erased` with its users."""

    lake: str
    offset: int
    buckets: int
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    files: int = 0
    log: str | None = None
    log_offset: int | None = None
    left_out: int = 0
    erased: dict[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)


def ingest(source: Path, lake: Path, *, buckets: int | None = None, progress: Progress = silent) -> IngestReport:
    """Bring the event tables of a folder into a lake, which is made if it is not there.

    Args:
        source: folder of event tables.
        lake: folder of the lake.
        buckets: of users, a power of two, for a new lake; None: by the size of this export.

    Raises:
        InputRefused: a table cannot be read, ids are of another kind than in the lake, or `lake` holds other things.
        ConfigError: `buckets` is no power of two, or another number than the lake has.
    """
    if is_lake(source):
        raise InputRefused("a lake is not ingested into a lake", where=source, expected="a folder of event tables")
    tables = open_events(source, any_table=True)
    with open_lake(lake, buckets, lambda: _fitting_buckets(tables)) as old:
        digests = {table: _digest(table, paths) for table, paths in files_of_tables(source)[0].items()}
        known = {table for table, digest in digests.items() if digest in old.sources}
        scans = {table: scan for table, scan in tables.scans.items() if table not in known}
        sources = (*old.sources, *(digests[table] for table in scans))
        report = add(lake, old, str(source), tables, scans, {"sources": sources} if scans else {}, progress)
        report.skipped = sorted(known)
    return report


@contextmanager
def open_lake(lake: Path, buckets: int | None, fitting: Callable[[], int]) -> Iterator[LakeManifest]:
    """The list of a lake, which is made if it is not there, nobody else writing; leftovers are removed.

    Raises:
        InputRefused: the folder holds other things. ConfigError: `buckets` does not fit.
    """
    if buckets is not None and (buckets < 1 or buckets & (buckets - 1)):
        raise ConfigError("not a power of two", where="--buckets", got=buckets)
    lake.mkdir(parents=True, exist_ok=True)
    if not is_lake(lake) and any(not entry.name.startswith((".", "_")) for entry in lake.iterdir()):
        raise InputRefused("the folder is no lake and not empty", where=lake, expected="a lake, or a new folder")
    with exclusive(lake):
        old = LakeManifest.read(lake) if is_lake(lake) else None
        if old is None or not old.generation:  # before any row: a first ingestion that is killed leaves an empty lake
            old = LakeManifest.new(buckets or fitting())
            old.write(lake)
        if buckets not in (None, old.buckets):
            raise ConfigError("the lake has another number of buckets", where="--buckets", got=buckets,
                              expected=old.buckets)  # fmt: skip
        sweep(lake, old)
        yield old


def add(
    lake: Path,
    old: LakeManifest,
    source: str,
    tables: EventTables,
    scans: Mapping[str, pl.LazyFrame],
    more: Mapping[str, object],
    progress: Progress,
    once: AbstractSet[str] = frozenset(),
) -> IngestReport:
    """Write rows beside what the lake holds and swap its list.

    Args:
        more: other fields of the list that change with it.
        once: tables of which every row is new if they have no key.
    """
    check_kinds(dict(old.id_kinds), tables.id_kinds)
    report = IngestReport(str(lake), old.seq, old.buckets)
    if not scans:
        return report
    kinds = {**old.id_kinds, **tables.id_kinds}
    writer = _Writer(lake, old, {**tables.id_kinds, **kinds})
    for i, (table, scan) in enumerate(scans.items()):
        with reading(f"{source}, table {table}"):
            report.tables[table] = writer.table(table, scan, compare=table not in once or bool(TABLES[table].KEY))
        progress("ingest", (i + 1) / len(scans))
    os.sync()  # thousands of files: one flush of all is faster than one of each
    report.offset, report.files = writer.seq if writer.files else old.seq, len(writer.files)
    changed = {
        "seq": report.offset, "generation": writer.generation, "id_kinds": kinds,
        "files": (*old.files, *writer.files), "retired": (), **more,
    }  # fmt: skip
    old.model_copy(update=changed).write(lake)
    return report


def erased_rows(table: str, rows: pl.DataFrame, erased: Mapping[str, int]) -> pl.Series:
    """Which rows are of an erased user and not later than his erasure; rows without a time are (Boolean)."""
    if not erased or "user_id" not in rows.columns:
        return pl.repeat(False, rows.height, dtype=pl.Boolean, eager=True)
    until = erased_until(rows["user_id"], erased)
    time = TIME_OF_TABLE.get(table, "registered_at")
    at = rows[time].dt.epoch("us") if time in rows.columns else pl.repeat(None, rows.height, dtype=pl.Int64, eager=True)
    frame = pl.DataFrame({"at": at, "until": until})
    gone = pl.col("until").is_not_null() & (pl.col("at").is_null() | (pl.col("at") <= pl.col("until")))
    return frame.select(gone).to_series()


def sweep(lake: Path, manifest: LakeManifest) -> None:
    """Remove files that nobody lists: those of interrupted ingestions, and those retired before the last swap."""
    listed = {file.path for file in manifest.files} | set(manifest.retired)
    for table in TABLES:
        for path in (lake / table).rglob("*.parquet*"):
            if str(path.relative_to(lake)) not in listed:
                path.unlink()
    for runs in lake.glob(f"{RUNS}*"):
        shutil.rmtree(runs)


def write_part(path: Path, rows: pl.DataFrame) -> None:
    """Write one file; columns that say nothing are left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    empty = [name for name in rows.columns if name != SEQ and rows[name].null_count() == rows.height]
    rows.drop(empty).write_parquet(path, compression="zstd", compression_level=1)


def listed_file(lake: Path, path: Path, table: str, date: str, bucket: int, rows: pl.DataFrame) -> LakeFile:
    """The entry of a file in the list."""
    spans = [rows[name].to_physical() for name in columns_of(table, "time") if rows[name].null_count() < rows.height]
    return LakeFile(
        path=str(path.relative_to(lake)), table=table, date=date, bucket=bucket, rows=rows.height,
        first_seq=int(rows[SEQ].min()), last_seq=int(rows[SEQ].max()),  # type: ignore[arg-type]
        first_us=min((int(span.min()) for span in spans), default=None),  # type: ignore[arg-type]
        last_us=max((int(span.max()) for span in spans), default=None),  # type: ignore[arg-type]
    )  # fmt: skip


class _Writer:
    """Writes the new rows of an export beside what the lake holds."""

    def __init__(self, lake: Path, manifest: LakeManifest, kinds: dict[str, Any]) -> None:
        self.lake, self.manifest, self.kinds = lake, manifest, kinds
        self.seq, self.generation = manifest.seq + 1, manifest.generation + 1
        self.files: list[LakeFile] = []

    def table(self, table: str, scan: pl.LazyFrame, *, compare: bool) -> dict[str, int]:
        """Write one table; rows read, new and known. Without `compare` all are new."""
        schema = {name: wanted_type(table, name, self.kinds) for name in TABLES[table].columns()}
        typed = scan.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
        bucket = bucket_of("user_id", schema["user_id"], self.manifest.buckets) if has_buckets(table) else pl.lit(0)
        placed = typed.with_columns(__day=days_of(table), __bucket=bucket.cast(pl.Int32))
        counts = {"read": 0, "new": 0, "known": 0}
        for rows in in_groups(table, placed, self.manifest.buckets if has_buckets(table) else 1, self.lake):
            counts["read"] += rows.height
            refused = erased_rows(table, rows, self.manifest.erased)
            if refused.any():
                counts["erased"] = counts.get("erased", 0) + int(refused.sum())
                rows = rows.filter(~refused)
            fresh = self._unknown(table, rows, schema) if compare else rows
            counts["new"] += fresh.height
            counts["known"] += rows.height - fresh.height
            self._write(table, fresh)
        return counts

    def _unknown(self, table: str, rows: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
        """Rows the lake does not hold yet."""
        parts = rows.select("__day", "__bucket").unique().iter_rows()
        touched = {(table, date_name(day), bucket) for day, bucket in parts}
        view = LakeView(self.lake, self.manifest, partitions=touched, narrowed={table})
        if not view.files(table):
            return rows
        held = _numbered(view.scan(table, schema).collect(engine="streaming"), schema)
        names = [*(name for name in schema if name != "cohost_ids"), "__guests", "__nth"]
        fresh = _numbered(rows, schema).join(held.select(names), on=names, how="anti", nulls_equal=True)
        return fresh.drop("__guests", "__nth")

    def _write(self, table: str, rows: pl.DataFrame) -> None:
        order = [name for name in ("user_id", TIME_OF_TABLE.get(table)) if name in rows.columns and name is not None]
        numbered = rows.with_columns(pl.lit(self.seq, pl.Int32).alias(SEQ))
        numbered = numbered.sort("__day", "__bucket", *order) if order else numbered
        parts = numbered.partition_by("__day", "__bucket", maintain_order=True, as_dict=True, include_key=False)
        for (day, bucket), part in parts.items():
            date = date_name(day)
            path = self.lake / table / f"date={date}" / f"bucket={bucket:02d}" / f"{self.generation:06d}.parquet"
            write_part(path, part)
            self.files.append(listed_file(self.lake, path, table, date, int(bucket), part))


def _numbered(rows: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """`rows` with the number of each among its equals."""
    guests = pl.col("cohost_ids").cast(pl.List(pl.String)).list.join(",") if "cohost_ids" in schema else pl.lit("")
    same = [*(name for name in schema if name != "cohost_ids"), "__guests"]
    return rows.with_columns(__guests=guests).with_columns(__nth=pl.int_range(pl.len()).over(same))


def _fitting_buckets(tables: EventTables) -> int:
    """Buckets for a new lake."""
    rows, days = 0, 1
    for table, scan in tables.scans.items():
        if has_buckets(table):
            found = scan.select(pl.len(), days_of(table).n_unique().alias("days")).collect(engine="streaming").row(0)
            rows, days = rows + int(found[0]), max(days, int(found[1]))
    wanted = rows // days // BUCKET_ROWS_A_DAY
    return min(MOST_BUCKETS, 1 << max(0, (wanted - 1).bit_length())) if wanted > 1 else 1


def _digest(table: str, paths: list[Path]) -> str:
    """Digest of a table's files, whatever their names."""
    whole = hashlib.sha256(table.encode())
    for content in sorted(sha256_of(path) for path in paths):
        whole.update(content.encode())
    return whole.hexdigest()
