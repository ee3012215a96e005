"""Opening a folder of event tables: which files belong to which table, and their types brought to those of the schemas.

Nothing is read but the footers; every table becomes one lazy scan. What cannot be used as a whole is refused here; what
is wrong in single rows is for `recsys.events.quarantine`.

Accepted and converted: every integer width, categorical and enum text, instants in any unit and any time zone, columns
that are null throughout. Refused: floats as ids or money (they have lost digits already), instants without a time zone
(nobody knows which instant is meant), text or numbers as times, ids that are integers in one table and text in another.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from recsys.errors import InputRefused
from recsys.events.lake.manifest import LakeManifest, is_lake
from recsys.events.lake.view import Bucket, LakeView
from recsys.events.schemas import TABLES, is_id, required, role
from recsys.id_kinds import IdKind, id_kind

CORE_TABLES = ("watches", "follows", "purchases")
"""At least one of these makes a folder usable for a build."""

_FAR_US = 9 * 10**17  # an instant some 28,000 years away, where every unit can still be converted; refused by its rule
_MOST_INT64 = 2**63 - 1


@dataclass(frozen=True)
class EventTables:
    """Tables as lazy scans, in the columns and types of their schemas; absent optional columns are typed nulls.

    Attributes:
        folder: where they came from.
        scans: table name → lazy frame; absent tables are absent.
        id_kinds: role (`user`, `host`, `room`, `order`) → kind of its ids; a role without any typed column is missing.
        unused_columns: table name → columns that no schema knows; they are not read.
        unknown_files: files and folders that belong to no table, relative to `folder`.
        lake: what is seen of a lake, if the tables are read from one.
    """

    folder: Path
    scans: dict[str, pl.LazyFrame]
    id_kinds: dict[str, IdKind] = field(default_factory=dict)
    unused_columns: dict[str, list[str]] = field(default_factory=dict)
    unknown_files: list[str] = field(default_factory=list)
    lake: LakeView | None = None

    def of_bucket(self, table: str, bucket: Bucket) -> pl.LazyFrame:
        """The scan of one table, of some users only where the lake keeps them apart."""
        if self.lake is None:
            return self.scans[table]
        return self.lake.scan(table, _schema_of(table, self.id_kinds), bucket)


@contextmanager
def reading(where: object) -> Iterator[None]:
    """Turns what Polars and the file system say about a broken file into a refusal.

    Raises:
        InputRefused: whatever was raised inside, named `where`.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise InputRefused(
            "an event table cannot be read", where=where, got=str(error).splitlines()[0],
            expected="complete Parquet files", hint="the file is truncated, damaged, or not Parquet; write it again",
        ) from error  # fmt: skip


def open_events(folder: Path, *, any_table: bool = False) -> EventTables:
    """Find and type the event tables of `folder`: `<table>.parquet`, or `<table>/**/*.parquet` (hive partitions too).

    A lake (`recsys.events.lake`) is read by its own list of files. Names that start with `_` or `.` are passed over.

    Args:
        any_table: also accept a folder without watches, follows and purchases (more events for a bundle that exists).

    Raises:
        InputRefused: the folder or every usable table is absent, a file cannot be read, a required column is missing or
            a type cannot be used.
    """
    if not folder.is_dir():
        raise InputRefused(
            "no such folder of event tables", where=folder, hint="give a folder that holds <table>.parquet"
        )
    wanted = tuple(TABLES) if any_table else CORE_TABLES
    if is_lake(folder):
        view = LakeView(folder, LakeManifest.read(folder))
        _check_wanted(folder, view.tables(), wanted)
        return from_lake(view)
    files, unknown = files_of_tables(folder)
    _check_wanted(folder, files or unknown, wanted)
    schemas = {table: {path: _schema(path) for path in paths} for table, paths in files.items()}
    kinds = _id_kinds(schemas)
    scans = {table: _scan(table, of_files, kinds) for table, of_files in schemas.items()}
    unused: dict[str, list[str]] = {}
    for table, of_files in schemas.items():
        if extra := {name for schema in of_files.values() for name in schema} - set(TABLES[table].columns()):
            unused[table] = sorted(extra)
    return EventTables(folder, scans, kinds, unused, sorted(unknown))


def from_frames(frames: Mapping[str, pl.DataFrame]) -> EventTables:
    """The same from frames in memory: generated worlds, and events that have just arrived.

    Raises:
        InputRefused: as `open_events`; also a name that is no table.
    """
    if strange := sorted(set(frames) - set(TABLES)):
        raise InputRefused("no such table", got=strange, expected=list(TABLES))
    schemas = {table: {Path(table): dict(frame.schema)} for table, frame in frames.items()}
    kinds = _id_kinds(schemas)
    scans = {table: _scan(table, schemas[table], kinds, frames[table].lazy()) for table in frames}
    return EventTables(Path(), scans, kinds)


def from_lake(view: LakeView, *, only: Container[str] = tuple(TABLES)) -> EventTables:
    """The same from what is seen of a lake, of the tables named in `only`."""
    kinds = dict(view.manifest.id_kinds)
    there = [table for table in TABLES if table in view.tables() and table in only]
    scans = {table: view.scan(table, _schema_of(table, kinds)) for table in there}
    return EventTables(view.folder, scans, kinds, lake=view)


def load_view(view: LakeView, *, only: Container[str] = tuple(TABLES), most_rows: int) -> LakeView:
    """The view with its tables in memory, as `LakeView.loaded`; a damaged file is refused."""
    kinds = dict(view.manifest.id_kinds)
    with reading(view.folder):
        return view.loaded({t: _schema_of(t, kinds) for t in view.tables() if t in only}, most_rows)


def _schema_of(table: str, kinds: dict[str, IdKind]) -> dict[str, pl.DataType]:
    return {name: wanted_type(table, name, kinds) for name in TABLES[table].columns()}


def _check_wanted(folder: Path, found: Iterable[str], wanted: tuple[str, ...]) -> None:
    if not any(table in found for table in wanted):
        raise InputRefused(
            "no usable event table", where=folder, got=sorted(found) or "an empty folder",
            expected=f"at least one of {', '.join(wanted)}", hint="name files <table>.parquet or <table>/…/*.parquet",
        )  # fmt: skip


def files_of_tables(folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """Sorted files of each table, and what belongs to none."""
    files: dict[str, list[Path]] = {}
    unknown: list[str] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(("_", ".")):
            continue
        table = entry.name.removesuffix(".parquet") if not entry.is_dir() else entry.name
        if table not in TABLES or (not entry.is_dir() and entry.suffix != ".parquet"):
            unknown.append(entry.name)
            continue
        found = [entry] if not entry.is_dir() else _parquet_below(entry, folder, unknown)
        if found and table in files:
            raise InputRefused("a table is there twice", where=entry, expected=f"either {table}.parquet or {table}/",
                               hint="keep one of the two")  # fmt: skip
        if found:
            files[table] = found
    return files, unknown


def _parquet_below(table: Path, folder: Path, unknown: list[str]) -> list[Path]:
    found = []
    for directory, folders, names in os.walk(table):
        folders[:] = sorted(name for name in folders if not name.startswith(("_", ".")))
        for name in sorted(names):
            path = Path(directory) / name
            if name.startswith(("_", ".")):
                continue
            if path.suffix == ".parquet":
                found.append(path)
            else:
                unknown.append(str(path.relative_to(folder)))
    return found


def _schema(path: Path) -> dict[str, pl.DataType]:
    with reading(path):
        return dict(pl.read_parquet_schema(path))


def _id_kinds(schemas: dict[str, dict[Path, dict[str, pl.DataType]]]) -> dict[str, IdKind]:
    """The kind of every role's ids, one over all tables, since tables are joined on them."""
    kinds: dict[str, IdKind] = {}
    seen: dict[str, str] = {}
    for table, of_files in schemas.items():
        ids = {name: column for name, column in TABLES[table].columns().items() if is_id(column)}
        for path, schema in of_files.items():
            for name in ids.keys() & schema.keys():
                where, dtype = f"{path}, column {name}", schema[name]
                if name == "cohost_ids":
                    if not isinstance(dtype, pl.List | pl.Array | pl.Null):
                        raise InputRefused(
                            "a column has an unusable type", where=where, got=dtype, expected="a list of ids"
                        )
                    dtype = dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype  # type: ignore[assignment]
                try:
                    kind = id_kind(dtype)
                except InputRefused as refused:
                    hint = "ids as floats have lost digits: write them as Int64" if dtype.is_float() else None
                    raise InputRefused("a column has an unusable type", where=where, got=dtype,
                                       expected="integers or strings", hint=hint) from refused  # fmt: skip
                of = role(ids[name])
                if kind is not None and kinds.setdefault(of, kind) != kind:
                    raise InputRefused("ids of two kinds", where=where, got=dtype,
                                       expected=f"{kinds[of]} as in {seen[of]}",
                                       hint=f"write every {of} id in one type")  # fmt: skip
                if kind is not None:
                    seen.setdefault(of, where)
    return kinds


def _scan(
    table: str,
    of_files: dict[Path, dict[str, pl.DataType]],
    kinds: dict[str, IdKind],
    frame: pl.LazyFrame | None = None,
) -> pl.LazyFrame:
    """One typed lazy frame over all files of a table (or over `frame`); files of equal schema share a scan."""
    groups: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for path, schema in of_files.items():
        if missing := [name for name in required(table) if name not in schema]:
            raise InputRefused("a required column is missing", where=path, got=sorted(schema), expected=missing,
                               hint=f"{table} needs {', '.join(required(table))}")  # fmt: skip
        groups.setdefault(tuple((name, str(dtype)) for name, dtype in schema.items()), []).append(path)
    scans = []
    for paths in groups.values():
        schema = of_files[paths[0]]
        columns = [_typed(table, name, schema.get(name), kinds, paths[0]) for name in TABLES[table].columns()]
        raw = pl.scan_parquet(paths, hive_partitioning=False, glob=False) if frame is None else frame
        scans.append(raw.select(columns))
    return pl.concat(scans) if len(scans) > 1 else scans[0]


def _typed(table: str, name: str, got: pl.DataType | None, kinds: dict[str, IdKind], path: Path) -> pl.Expr:
    """The expression that brings one column into the type of its schema."""
    column = TABLES[table].columns()[name]
    to = wanted_type(table, name, kinds)
    if got is None or isinstance(got, pl.Null):
        return pl.lit(None, to).alias(name) if got is None else pl.col(name).cast(to)
    refused = InputRefused("a column has an unusable type", where=f"{path}, column {name}", got=got,
                           expected=to, hint=_hint(role(column), got))  # fmt: skip
    match role(column):
        case "time" | "plan":
            if not isinstance(got, pl.Datetime) or got.time_zone is None:
                raise refused
            return _instant(name, got).cast(to)
        case "number":
            if not got.is_integer():
                raise refused
            return pl.col(name).clip(upper_bound=_MOST_INT64).cast(to) if _is_wide(got) else pl.col(name).cast(to)
        case "real":
            if not got.is_numeric():
                raise refused
            return pl.col(name).cast(to)
        case "text":
            if id_kind(got) != "str" and not (name == "city_tier" and got.is_integer()):
                raise refused
            return pl.col(name).cast(to)
        case _:  # an id: its kind was checked; what does not fit into int64 becomes null and breaks `null_key`
            return pl.col(name).cast(to, strict=False)


def wanted_type(table: str, name: str, kinds: dict[str, IdKind]) -> pl.DataType:
    """The type of one column after reading, given the kinds of ids in these tables."""
    column = TABLES[table].columns()[name]
    if not is_id(column):
        return column.dtype
    of: pl.DataType = pl.String() if kinds.get(role(column)) == "str" else pl.Int64()
    return pl.List(of) if name == "cohost_ids" else of


def _instant(name: str, got: pl.Datetime) -> pl.Expr:
    """µs since the epoch. Far-off instants are clipped before the change of unit, so that it cannot overflow."""
    ticks = pl.col(name).to_physical()
    if got.time_unit == "ms":
        return ticks.clip(-_FAR_US // 1_000, _FAR_US // 1_000) * 1_000
    return ticks // 1_000 if got.time_unit == "ns" else ticks


def _is_wide(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.UInt64 | pl.Int128 | pl.UInt128)


def _hint(of: str, got: pl.DataType) -> str | None:
    if isinstance(got, pl.Datetime):
        return "a time without a time zone names no instant: write it as UTC"
    if of in ("time", "plan"):
        return "write instants as timestamps with time zone UTC"
    return "amounts are whole minor units (cents, fen): write them as Int64" if of == "number" else None
