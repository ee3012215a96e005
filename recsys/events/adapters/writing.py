"""From rows of a source file to event tables: what can be read is written, what cannot is counted by its reason.

A source file is read once, streaming: all tables it feeds and the counts come out of one pass. The folder of event
tables appears at the end, whole, or not at all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import InputRefused
from recsys.events.reading import reading


@dataclass(frozen=True)
class Output:
    """What one source file gives to one table.

    Args:
        table: event table.
        columns: column name → expression over the good rows.
        where: which good rows say something to this table; None: all.
        part: names the file within the table, when several sources feed it.
    """

    table: str
    columns: Mapping[str, pl.Expr]
    where: pl.Expr | None = None
    part: str = "part"


@dataclass
class SourceCount:
    """One source file: `used` + the sum of `quarantined` (reason → rows) is `rows`."""

    rows: int
    used: int
    quarantined: dict[str, int] = field(default_factory=dict)


@dataclass
class ImportReport:
    """What was read and written: `files` by name within the source, `tables` with the rows written."""

    format: str
    files: dict[str, SourceCount] = field(default_factory=dict)
    tables: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)


class TableWriter:
    """Writes event tables into a folder that is not there yet."""

    def __init__(self, folder: Path, report: ImportReport) -> None:
        self.folder, self.report = folder, report
        self._parts = 0

    def write(
        self, source: str, rows: pl.LazyFrame, broken: Mapping[str, pl.Expr], outputs: list[Output]
    ) -> SourceCount:
        """Write what one source gives.

        Args:
            source: name of the source in the report.
            rows: its rows.
            broken: reason → rows that have it; a row with several is counted under the first.
            outputs: the tables it feeds.

        Raises:
            InputRefused: the source turns out to be damaged.
        """
        reason = pl.coalesce(*(pl.when(rule.fill_null(True)).then(pl.lit(name)) for name, rule in broken.items()))
        judged = rows.with_columns(__reason=reason)
        good = judged.filter(pl.col("__reason").is_null()).drop("__reason")
        work = [judged.group_by("__reason").agg(pl.len())]
        paths: list[tuple[str, Path]] = []
        for output in outputs:
            self._parts += 1
            path = self.folder / output.table / f"{output.part}-{self._parts:04d}.parquet"
            said = good if output.where is None else good.filter(output.where.fill_null(False))
            made = said.select(expression.alias(name) for name, expression in output.columns.items())
            work.append(made.sink_parquet(path, mkdir=True, lazy=True))
            paths.append((output.table, path))
        with reading(source):
            counts = dict(pl.collect_all(work, engine="streaming")[0].iter_rows())
        used = int(counts.pop(None, 0))
        quarantined = {name: int(counts[name]) for name in broken if counts.get(name)}
        count = SourceCount(used + sum(quarantined.values()), used, quarantined)
        self.report.files[source] = count
        for table, path in paths:
            if table.startswith("_"):
                continue
            n = int(pl.scan_parquet(path).select(pl.len()).collect().item())
            self.report.tables[table] = self.report.tables.get(table, 0) + n
        return count

    def discard(self, *tables: str) -> None:
        """Remove scratch tables; their names begin with `_` and are not in the report."""
        for table in tables:
            shutil.rmtree(self.folder / table, ignore_errors=True)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends well, and disappears when it does not.

    Raises:
        InputRefused: `out` is there already and not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputRefused("the folder for event tables is not empty", where=out, expected="a new or empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.parent / f".{out.name}.tmp-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        if out.exists():
            out.rmdir()
        folder.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
