"""Refunds joined to their orders.

A refund takes effect at the later of the refund and the first line of its order (of that host, when it names one). It
is measured against the lines known by then, so a line that comes later never changes it:

- with an amount: that amount; without: the whole gross amount
- without a host on an order of several hosts: divided in proportion to gross amounts, rounded down, the remainder to
  the largest

A refund whose order has not been seen waits: it is good, it is counted, it has no effect yet.
"""

from __future__ import annotations

import polars as pl

_SHARES = ["refund", "user_id", "host_id"]


def effective_refunds(refunds: pl.DataFrame, lines: pl.LazyFrame) -> tuple[pl.DataFrame, int]:
    """Refunds that have an order, one row per refund and (user, host), and how many still wait.

    Args:
        refunds: order_id, host_id (null: not named), at (µs), amount_minor (null: all), kind.
        lines: good order lines: order_id, user_id, host_id, at (µs), amount_minor.

    Returns:
        order_id, user_id, host_id, at (µs, when it takes effect), amount_minor, kind.
    """
    refunds = refunds.with_row_index("refund")
    mine = lines.select("order_id", "user_id", "host_id", "at", "amount_minor")
    mine = mine.join(refunds.lazy().select("order_id").unique(), on="order_id", how="semi")
    joined = (
        refunds.lazy()
        .select("refund", "order_id", "kind", named="host_id", refund_at="at", asked="amount_minor")
        .join(mine, on="order_id", how="inner")
        .filter(pl.col("named").is_null() | (pl.col("named") == pl.col("host_id")))
        .with_columns(effect=pl.max_horizontal("refund_at", pl.col("at").min().over("refund")))
        .filter(pl.col("at") <= pl.col("effect"))
        .group_by(_SHARES)
        .agg(
            pl.col("order_id", "kind", "asked").first(), at=pl.col("effect").first(), gross=pl.col("amount_minor").sum()
        )
        .sort("refund", "gross", "host_id", "user_id", descending=[False, True, False, False])
        .collect(engine="streaming")
    )
    wide = (
        pl.col("asked").cast(pl.Int128) * pl.col("gross") // pl.max_horizontal(pl.col("gross").sum(), 1).over("refund")
    )
    share = wide.cast(pl.Int64)
    first = pl.int_range(pl.len()).over("refund") == 0
    effective = (
        joined.with_columns(share=share)
        .with_columns(left=pl.when(first).then(pl.col("asked") - pl.col("share").sum().over("refund")).otherwise(0))
        .with_columns(amount_minor=pl.coalesce(pl.col("share") + pl.col("left"), "gross"))
    )
    waiting = refunds.height - joined["refund"].n_unique()
    return effective.select("order_id", "user_id", "host_id", "at", "amount_minor", "kind"), waiting
