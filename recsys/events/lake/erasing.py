"""Taking a user out of a lake: the files that hold him are written again without him, and he is refused from then on.

The list of files is swapped once, when all are written, and the old files are removed at once (not at the next
ingestion, as after a compaction): a build that is reading them ends with an error and is started again. Interrupted
before the swap the lake is as it was; interrupted after it he is out of the lake, and the next erasure, ingestion or
compaction removes the old files: do it again, and the receipt says that nothing was left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from recsys.bundle.durable import exclusive, sync_path
from recsys.erasure import Erasure
from recsys.events.lake.ingest import erased_rows, listed_file, sweep, write_part
from recsys.events.lake.manifest import SCHEMA_VERSION, SEQ, LakeFile, LakeManifest
from recsys.events.lake.partition import bucket_of, has_buckets
from recsys.events.reading import reading, wanted_type
from recsys.events.schemas import TABLES


def erase_from_lake(lake: Path, erasures: list[Erasure], user_id: int | str | None = None) -> dict[str, Any]:
    """Remove every row of erased users up to their erasure, and the refunds of the orders removed, for good.

    Args:
        lake: folder of the lake.
        erasures: whom; a user erased before is erased up to the later instant.
        user_id: if there is one erasure and its user's id is known, only the files of his bucket are read.

    Returns:
        A receipt: `rows` removed per table, `files` rewritten, `erased`: how many users the lake refuses now.

    Raises:
        InputRefused: not a lake, or a file of it is damaged; nothing was changed.
    """
    wanted = dict(erasures)
    with exclusive(lake):
        old = LakeManifest.read(lake)
        sweep(lake, old)
        erased = old.erased | {user: max(at, old.erased.get(user, at)) for user, at in wanted.items()}
        generation, rows = old.generation + 1, dict[str, int]()
        made: dict[str, LakeFile | None] = {}
        orders: list[pl.Series] = []
        for file in _of_users(old, user_id):
            held = _read(lake, file, old)
            his = erased_rows(file.table, held, wanted)
            if his.any():
                if file.table == "purchases":
                    orders.append(held.filter(his)["order_id"])
                made[file.path] = _rewritten(lake, file, held.filter(~his), generation)
                rows[file.table] = rows.get(file.table, 0) + int(his.sum())
        if orders:
            gone = pl.concat(orders).unique()
            for file in old.files:
                if file.table == "refunds":
                    held = _read(lake, file, old)
                    his = held["order_id"].is_in(gone.implode())
                    if his.any():
                        made[file.path] = _rewritten(lake, file, held.filter(~his), generation)
                        rows["refunds"] = rows.get("refunds", 0) + int(his.sum())
        os.sync()
        files = [made.get(file.path, file) for file in old.files]
        update = {"schema_version": SCHEMA_VERSION, "generation": generation, "erased": erased, "retired": (),
                  "files": tuple(file for file in files if file is not None)}  # fmt: skip
        new = old.model_copy(update=update)
        new.write(lake)
        sweep(lake, new)
        for table in {file.table for file in old.files}:
            sync_path(lake / table)
        return {"lake": str(lake), "rows": rows, "files": len(made), "erased": len(erased)}


def _of_users(manifest: LakeManifest, user_id: int | str | None) -> Iterator[LakeFile]:
    """The files in which the user, or any user, may be."""
    bucket = None
    if user_id is not None:
        dtype = pl.String() if isinstance(user_id, str) else pl.Int64()
        frame = pl.DataFrame({"user_id": pl.Series([user_id], dtype=dtype)})
        bucket = int(frame.select(bucket_of("user_id", dtype, manifest.buckets)).item())
    for file in manifest.files:
        if "user_id" in TABLES[file.table].columns() and (
            bucket is None or not has_buckets(file.table) or file.bucket == bucket
        ):
            yield file


def _read(lake: Path, file: LakeFile, manifest: LakeManifest) -> pl.DataFrame:
    kinds = dict(manifest.id_kinds)
    schema = {name: wanted_type(file.table, name, kinds) for name in TABLES[file.table].columns()}
    with reading(lake / file.path):
        return pl.read_parquet(
            lake / file.path, schema={**schema, SEQ: pl.Int32()}, hive_partitioning=False, glob=False,
            missing_columns="insert",
        )  # fmt: skip


def _rewritten(lake: Path, file: LakeFile, rows: pl.DataFrame, generation: int) -> LakeFile | None:
    """The file with these rows only, beside the old one; None: no row is left."""
    if not rows.height:
        return None
    folder = (lake / file.path).parent
    path, nth = folder / f"{generation:06d}.parquet", 1
    while path.exists():  # a partition may hold several files
        path, nth = folder / f"{generation:06d}-{nth}.parquet", nth + 1
    write_part(path, rows)
    return listed_file(lake, path, file.table, file.date, file.bucket, rows)
