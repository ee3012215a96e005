"""Text files of public data sets, read as lazy frames of text, and the numbers in them.

Every column is read as text first: a cell that is no number then spoils its own row, which is set aside and counted,
and not the file. Only the columns a format names are read; a file that lacks one of them is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recsys.errors import InputRefused
from recsys.events.reading import reading


def files_of(src: Path, pattern: str, *, required: bool = True) -> list[Path]:
    """Files below `src` whose name matches `pattern`, in order of their paths; `src` itself may be the file.

    Raises:
        InputRefused: there is none and one is required.
    """
    found = [src] if src.is_file() else sorted(path for path in src.rglob(pattern) if path.is_file())
    if not found and required:
        raise InputRefused(
            "a file of the data set is missing", where=src, got=_listing(src), expected=pattern,
            hint="give the folder as it was downloaded and unpacked",
        )  # fmt: skip
    return found


def one_file(src: Path, name: str, *, required: bool = True) -> Path | None:
    """The file of this name below `src`.

    Raises:
        InputRefused: there are several, or none and one is required.
    """
    found = files_of(src, name, required=required)
    if len(found) > 1:
        raise InputRefused("a file of the data set is there twice", where=src, got=[str(path) for path in found],
                           expected=f"one {name}")  # fmt: skip
    return found[0] if found else None


def text_rows(path: Path, columns: Sequence[str], *, header: bool = True) -> pl.LazyFrame:
    """The named columns of a CSV file as text, lazily; empty cells are null, surplus cells of a row are dropped.

    Args:
        columns: names in the header, or, without a header, the names of all columns in order.

    Raises:
        InputRefused: the file cannot be read, is empty, or lacks a column.
    """
    with reading(path):
        if header:
            scan = pl.scan_csv(path, infer_schema=False, truncate_ragged_lines=True, encoding="utf8-lossy")
        else:
            scan = pl.scan_csv(
                path, has_header=False, schema={name: pl.String() for name in columns}, truncate_ragged_lines=True,
                encoding="utf8-lossy",
            )  # fmt: skip
        names = {name.strip().removeprefix("\ufeff"): name for name in scan.collect_schema().names()}
    if missing := [name for name in columns if name not in names]:
        raise InputRefused("a column of the data set is missing", where=path, got=list(names), expected=missing)
    return scan.select(pl.col(names[name]).str.strip_chars().replace("", None).alias(name) for name in columns)


def whole(name: str) -> pl.Expr:
    """A column of text as Int64; null where it is no whole number (`17` and `17.0` are)."""
    return pl.col(name).str.replace(r"\.0+$", "").cast(pl.Int64, strict=False)


def real(name: str) -> pl.Expr:
    """A column of text as Float64; null where it is no finite number."""
    number = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def yes(name: str) -> pl.Expr:
    """Whether a column of text says 1; null where it says neither 0 nor 1."""
    return whole(name).replace_strict({0: False, 1: True}, default=None, return_dtype=pl.Boolean)


def instant_ms(of: pl.Expr) -> pl.Expr:
    """Int64 ms since the epoch as an instant; null beyond what every unit can hold."""
    return pl.when(of.is_between(-(10**14), 10**14)).then(of).cast(pl.Datetime("ms")).cast(pl.Datetime("us", "UTC"))


def _listing(src: Path) -> list[str]:
    return sorted(path.name for path in src.iterdir())[:20] if src.is_dir() else []
