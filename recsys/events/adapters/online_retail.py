"""UCI Online Retail II: `online_retail_II.xlsx` (its sheets are put together) or the same columns as CSV.

There are no hosts in a shop. A *product line* stands in for one: the five digits a stock code begins with (its letters
name a colour or a pattern), so buying again from a line is coming back to it.

- sales → purchases: order = `Invoice`, host = product line, line = number of the row, amount = `Quantity` × `Price` in
  pence. `InvoiceDate` names no time zone and is read as UTC
- cancellations (`Invoice` begins with `C`, negative quantity) → refunds of kind `return`. They do not name the order
  they cancel: it is taken to be the customer's latest earlier order of the same stock code; without one the refund
  keeps the cancelling invoice as its order, and so waits. Refunds of one order in the same instant are told apart by
  1 µs each

Set aside: rows without a customer, stock codes that are no goods (postage, fees, tests), amounts that cannot be read.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import polars as pl

from recsys.errors import InputRefused
from recsys.events.adapters.source import files_of, real, text_rows, whole
from recsys.events.adapters.writing import Output, TableWriter
from recsys.events.adapters.xlsx import from_serial, sheet_rows
from recsys.events.reading import reading

_COLUMNS = ("Invoice", "StockCode", "Quantity", "InvoiceDate", "Price", "Customer ID")
_GOODS = r"^(\d{5})[A-Za-z]*$"
_BATCH = 100_000
_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%d/%m/%Y %H:%M")


def online_retail(src: Path, writer: TableWriter) -> None:
    """Write the event tables of Online Retail II.

    Raises:
        InputRefused: there is neither a workbook nor a CSV file, or a column is missing.
    """
    books = files_of(src, "*.xlsx", required=False) if not src.is_file() or src.suffix == ".xlsx" else []
    path = books[0] if books else files_of(src, "*.csv")[0]
    rows = _from_book(path, writer.folder) if path.suffix == ".xlsx" else text_rows(path, _COLUMNS)
    typed = rows.with_row_index("line").select(
        pl.col("line").cast(pl.Int64),
        order=pl.col("Invoice"),
        code=pl.col("StockCode").str.to_uppercase(),
        product_line=pl.col("StockCode").str.extract(_GOODS),
        quantity=whole("Quantity"),
        price=real("Price"),
        customer=whole("Customer ID"),
        at=pl.coalesce(pl.col("InvoiceDate").str.to_datetime(form, strict=False) for form in _FORMATS)
        .cast(pl.Datetime("us"))
        .dt.replace_time_zone("UTC"),
    )
    cancelled = pl.col("order").str.starts_with("C")
    amount = (pl.col("quantity") * pl.col("price") * 100).round(0)
    broken = {
        "no_customer": pl.col("customer").is_null(),
        "unreadable_id": pl.col("order").is_null() | pl.col("code").is_null(),
        "not_goods": pl.col("product_line").is_null(),
        "unreadable_time": pl.col("at").is_null(),
        "unreadable_amount": pl.col("quantity").is_null() | pl.col("price").is_null() | (amount.abs() > 1e15),
        "negative_price": pl.col("price") < 0,
        "negative_quantity": (pl.col("quantity") < 0) & ~cancelled,
        "cancelled_without_quantity": (pl.col("quantity") >= 0) & cancelled,
    }
    lines = {
        "order_id": pl.col("order"), "line": pl.col("line"), "user_id": pl.col("customer"),
        "host_id": pl.col("product_line"), "at": pl.col("at"), "amount_minor": amount.cast(pl.Int64),
        "quantity": pl.col("quantity"),
    }  # fmt: skip
    gone = {name: pl.col(name) for name in ("order", "code", "product_line", "customer", "at")}
    bought = {name: pl.col(name) for name in ("order", "code", "customer", "at")}
    writer.write(path.name, typed, broken, [
        Output("purchases", lines, ~cancelled),
        Output("_cancelled", gone | {"amount_minor": -amount.cast(pl.Int64)}, cancelled),
        Output("_bought", bought, ~cancelled),
    ])  # fmt: skip
    refunds, waiting = _refunds(_read(writer.folder / "_cancelled"), _read(writer.folder / "_bought"))
    writer.write(f"{path.name} (cancellations)", refunds.lazy(), {"unreadable_id": pl.col("order_id").is_null()},
                 [Output("refunds", {name: pl.col(name) for name in refunds.columns})])  # fmt: skip
    writer.report.notes["cancellations_without_order"] = waiting
    writer.discard("_cancelled", "_bought", "_rows")


def _read(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "*.parquet")


def _refunds(cancelled: pl.DataFrame, bought: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """One row per order, product line and instant, and how many cancelled rows found no order."""
    by = ["customer", "code"]
    met = cancelled.sort("at").join_asof(
        bought.rename({"order": "cancels"}).sort("at", "cancels"), on="at", by=by, check_sortedness=False
    )
    table = (
        met.group_by(pl.coalesce("cancels", "order").alias("order_id"), pl.col("product_line").alias("host_id"), "at")
        .agg(pl.col("amount_minor").sum())
        .sort("order_id", "at", "host_id")
        .with_columns(at=pl.col("at") + pl.duration(microseconds=pl.int_range(pl.len()).over("order_id", "at")))
        .with_columns(kind=pl.lit("return"))
    )
    return table, met["cancels"].null_count()


def _from_book(path: Path, folder: Path) -> pl.LazyFrame:
    """The rows of all sheets as text, by way of Parquet files, so that memory holds one batch."""
    rows, batches, order = sheet_rows(path), 0, None
    scratch = folder / "_rows"
    scratch.mkdir()
    while batch := list(islice(rows, _BATCH)):
        columns: dict[str, list[str | None]] = {name: [] for name in _COLUMNS}
        for cells in batch:
            if "StockCode" in cells:  # a header, at the top of every sheet
                order = [name.strip() if name else "" for name in cells]
                if missing := [name for name in _COLUMNS if name not in order]:
                    raise InputRefused(
                        "a column of the data set is missing", where=path, got=order, expected=missing,
                    )  # fmt: skip
                continue
            if order is None:
                raise InputRefused("a sheet without a header", where=path, expected=list(_COLUMNS))
            padded = dict(zip(order, cells + [None] * (len(order) - len(cells)), strict=False))
            day = from_serial(padded["InvoiceDate"] or "")
            padded["InvoiceDate"] = day.strftime(_FORMATS[0]) if day is not None else padded["InvoiceDate"]
            for name, values in columns.items():
                values.append(padded[name])
        frame = pl.DataFrame(columns, schema=dict.fromkeys(_COLUMNS, pl.String))
        frame.with_columns(pl.all().str.strip_chars()).write_parquet(scratch / f"{batches:05d}.parquet")
        batches += 1
    if not batches:
        raise InputRefused("a workbook without rows", where=path)
    with reading(path):
        return pl.scan_parquet(scratch / "*.parquet")
