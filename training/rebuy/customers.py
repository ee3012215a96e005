"""The customer's half of the features: how often and how much he orders, and how much of it is repetition."""

from __future__ import annotations

import polars as pl

age = pl.col("age")


def customer_features(baskets: pl.LazyFrame) -> pl.LazyFrame:
    """Order rhythm per customer.

    Args:
        baskets: u, o, age, size (products), value (minor units), gap (days to the order before); latest first.

    Returns:
        One row per u; `u_rate` = (orders + ½) / (tenure + 60 days), `u_due` = recency over the mean gap.
    """
    size = pl.col("size").cast(pl.Float64)
    recent = 0.5 ** (age / 45)
    return (
        baskets.group_by("u", maintain_order=True)
        .agg(
            u_n=pl.len(),
            u_last=age.min(),
            u_first=age.max(),
            u_last2=age.get(1, null_on_oob=True),
            u_last3=age.get(2, null_on_oob=True),
            **{f"u_n{d}": (age < d).sum() for d in (15, 30, 60, 90, 180)},
            **{f"u_decayed_orders{h}": (0.5 ** (age / h)).sum() for h in (20, 60)},
            u_days=age.round().n_unique(),
            u_months=(age / 30.4).floor().n_unique(),
            u_gap_mean=pl.col("gap").mean(),
            u_gap_median=pl.col("gap").median(),
            u_gap_sd=pl.col("gap").std(),
            u_gap_last=pl.col("gap").first(),
            u_gap_max=pl.col("gap").max(),
            u_size=size.mean(),
            u_size_last=size.first(),
            u_size_max=size.max(),
            u_size_recent=(recent * size).sum() / recent.sum(),
            u_value=pl.col("value").mean(),
        )
        .with_columns(
            u_rate=(pl.col("u_n") + 0.5) / (pl.col("u_first") + 60),
            u_due=pl.col("u_last") / (pl.col("u_gap_mean").fill_null(60) + 5),
        )
    )


def customer_repeat_features(lines: pl.LazyFrame, baskets: pl.LazyFrame) -> pl.LazyFrame:
    """Share of a customer's lines that were repeats: after his first order, in 90 days, and in his last three orders.

    Shrunk by additive counts: (repeats + 3) / (lines + 20), and (repeats + 1.5) / (lines + 10) for the last three.
    """
    repeat, recent = pl.col("repeat"), age < 90
    oldest = baskets.group_by("u").agg(oldest=pl.col("back").max())
    later = lines.join(oldest, on="u").filter(pl.col("back") < pl.col("oldest"))
    all_time = later.group_by("u").agg(
        u_repeat=(repeat.sum() + 3) / (pl.len() + 20),
        u_repeat90=((repeat & recent).sum() + 3) / (recent.sum() + 20),
    )
    last_three = (
        lines.filter(pl.col("back") < 3).group_by("u").agg(u_repeat_last3=(repeat.sum() + 1.5) / (pl.len() + 10))
    )
    return last_three.join(all_time, on="u", how="left")
