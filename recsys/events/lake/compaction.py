"""Few files again: partitions that many small ingestions have touched are written as one file each."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from recsys.bundle.durable import exclusive
from recsys.events.lake.ingest import listed_file, sweep, write_part
from recsys.events.lake.manifest import SEQ, LakeFile, LakeManifest
from recsys.events.lake.partition import TIME_OF_TABLE
from recsys.events.reading import reading, wanted_type
from recsys.events.schemas import TABLES


def compact(lake: Path, *, most_files: int = 1) -> dict[str, int]:
    """Rewrite every partition that has more than `most_files` files as one. Rows stay as they are.

    The files replaced stay on disk, unlisted, until the next ingestion or compaction: readers that began before may
    still be reading them.

    Returns:
        partitions rewritten, files before and after.

    Raises:
        InputRefused: not a lake, or a file of it is damaged.
    """
    with exclusive(lake):
        old = LakeManifest.read(lake)
        sweep(lake, old.model_copy(update={"retired": ()}))
        partitions: dict[tuple[str, str, int], list[LakeFile]] = {}
        for file in old.files:
            partitions.setdefault(file.partition, []).append(file)
        generation, made, gone = old.generation + 1, [], set()
        for (table, date, bucket), files in partitions.items():
            if len(files) <= most_files:
                continue
            path = lake / table / f"date={date}" / f"bucket={bucket:02d}" / f"{generation:06d}.parquet"
            rows = _rows(lake, table, files, old)
            write_part(path, rows)
            made.append(listed_file(lake, path, table, date, bucket, rows))
            gone |= {file.path for file in files}
        if made:
            os.sync()
            kept = tuple(file for file in old.files if file.path not in gone)
            update = {"generation": generation, "files": (*kept, *made), "retired": tuple(sorted(gone))}
            old.model_copy(update=update).write(lake)
        after = len(old.files) - len(gone) + len(made)
        return {"partitions": len(made), "files_before": len(old.files), "files_after": after}


def _rows(lake: Path, table: str, files: list[LakeFile], manifest: LakeManifest) -> pl.DataFrame:
    kinds = dict(manifest.id_kinds)
    schema = {name: wanted_type(table, name, kinds) for name in TABLES[table].columns()}
    with reading(f"{lake}, table {table}"):
        rows = pl.scan_parquet(
            [lake / file.path for file in files], schema={**schema, SEQ: pl.Int32()}, hive_partitioning=False,
            glob=False, missing_columns="insert", extra_columns="ignore",
        ).collect()  # fmt: skip
    order = [name for name in ("user_id", TIME_OF_TABLE.get(table), SEQ) if name in rows.columns and name is not None]
    return rows.sort(order, maintain_order=True)
