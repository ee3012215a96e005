"""The order table: reading, refusing, and the two tidy frames everything else works on.

`purchases`: one row per (customer, product, order) that was not cancelled: u, p, o (dense rows, u32), day (f64),
quantity, amount (f64, minor units). `cancellations`: u, p, day. Days are days since 1970-01-01 UTC, fractional.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from recsys.errors import InputRefused

DAY_US = 86_400_000_000
REQUIRED = ("order_id", "user_id", "product", "at")


@dataclass(frozen=True)
class Orders:
    """Facts before an instant.

    Attributes:
        purchases: see module docstring; sorted by u, p, day, o.
        cancellations: u, p, day.
        users: `user_id` as given, row number = u.
        products: `product` as given, row number = p.
        dropped: rows without order, customer, product or time, by the column that lacks.
        missing: optional columns that were absent.
    """

    purchases: pl.DataFrame
    cancellations: pl.DataFrame
    users: pl.Series
    products: pl.Series
    dropped: dict[str, int]
    missing: tuple[str, ...]


def day_of(at: datetime) -> float:
    """Days since 1970-01-01 UTC; a time without zone is taken as UTC."""
    moment = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(days=1)


def read_orders(path: Path, before: float) -> Orders:
    """Read the order lines with day < `before`; later lines never leave this function.

    Raises:
        InputRefused: unreadable, a required column missing, `at` no time.
    """
    try:
        scan = pl.scan_parquet(path)
        schema = scan.collect_schema()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputRefused(
            "the order table cannot be read", where=path, got=str(error).splitlines()[0],
            expected="a parquet file", hint="check the path and that the file is complete",
        ) from error  # fmt: skip
    absent = [c for c in REQUIRED if c not in schema]
    if absent:
        raise InputRefused(
            "the order table lacks required columns", where=path, got=f"columns {', '.join(schema)}",
            expected=f"at least {', '.join(REQUIRED)}", hint=f"add {', '.join(absent)}",
        )  # fmt: skip
    if not isinstance(schema["at"], pl.Datetime | pl.Date):
        raise InputRefused(
            "`at` is not a time", where=f"{path}, column at", got=schema["at"], expected="a UTC datetime",
            hint="convert it, for instance with str.to_datetime",
        )  # fmt: skip
    for column in ("quantity", "amount_minor"):
        if column in schema and not schema[column].is_numeric():
            raise InputRefused(
                f"`{column}` is not a number", where=f"{path}, column {column}", got=schema[column],
                expected="a number", hint="drop the column, which is optional, or convert it",
            )  # fmt: skip
    lines = (
        scan.with_columns(day=pl.col("at").cast(pl.Datetime("us")).dt.epoch("us") / DAY_US)
        .filter(pl.col("day").is_null() | (pl.col("day") < before))
        .select(
            "order_id", "user_id", "product", "day",
            quantity=_number("quantity", schema, 1.0),
            amount=_number("amount_minor", schema, 0.0),
        )
        .with_columns(cancelled=pl.col("order_id").cast(pl.String).str.starts_with("C") | (pl.col("quantity") < 0))
        .collect()
    )  # fmt: skip
    dropped = {c: lines[c].null_count() for c in ("order_id", "user_id", "product", "day") if lines[c].null_count()}
    lines = lines.drop_nulls(["order_id", "user_id", "product", "day"])
    return _tidy(lines, dropped, tuple(c for c in ("quantity", "amount_minor") if c not in schema))


def _number(column: str, schema: pl.Schema, default: float) -> pl.Expr:
    """The column as f64; `default` where it is null or the whole column is absent."""
    return (pl.col(column).cast(pl.Float64).fill_null(default) if column in schema else pl.lit(default)).alias(column)


def _tidy(lines: pl.DataFrame, dropped: dict[str, int], missing: tuple[str, ...]) -> Orders:
    users = lines["user_id"].unique().sort()
    products = lines["product"].unique().sort()
    order_ids = lines["order_id"].unique().sort()
    for name, values, row in (("user_id", users, "u"), ("product", products, "p"), ("order_id", order_ids, "o")):
        vocabulary = values.to_frame(name).with_row_index(row)
        lines = lines.join(vocabulary, on=name, how="left")
    purchases = (
        lines.filter(~pl.col("cancelled"))
        .group_by("u", "p", "o")
        .agg(pl.col("day").min(), pl.col("quantity").sum(), pl.col("amount").sum())
        .sort("u", "p", "day", "o")
    )
    cancellations = lines.filter("cancelled").select("u", "p", "day").sort("u", "p", "day")
    return Orders(purchases, cancellations, users, products, dropped, missing)
