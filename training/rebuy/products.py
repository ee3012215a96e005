"""The product's half of the features: popularity, trend, repetition, stock-outs, price; and past label windows."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

age = pl.col("age")
WINDOWS = 3


def product_features(lines: pl.LazyFrame) -> pl.LazyFrame:
    """Sales of each product; `lines`: u, p, age, quantity, amount, pair_gap (days), repeat (bought before)."""
    price = pl.col("amount").sum() / pl.col("quantity").sum()
    month = age < 30
    price30 = pl.col("amount").filter(month).sum() / pl.col("quantity").filter(month).sum()
    return (
        lines.group_by("p", maintain_order=True)
        .agg(
            p_n=pl.len(),
            p_last=age.min(),
            p_first=age.max(),
            p_users=pl.col("u").n_unique(),
            **{f"p_n{d}": (age < d).sum() for d in (7, 14, 30, 60, 90, 180)},
            **{f"p_users{d}": pl.col("u").filter(age < d).n_unique() for d in (30, 90)},
            **{f"p_days{d}": age.filter(age < d).floor().n_unique() for d in (14, 30)},
            p_repeat=pl.col("repeat").mean(),
            p_repeats60=(pl.col("repeat") & (age < 60)).sum(),
            p_price=price,
            p_price30=price30,
            p_quantity=pl.col("quantity").median(),
            p_gap_median=pl.col("pair_gap").median(),
            p_age5=age.bottom_k(5).max(),
            p_age20=age.bottom_k(20).max(),
        )
        .with_columns(
            p_trend=3 * (pl.col("p_n30") + 1) / (pl.col("p_n90") + 3),
            p_trend7=4 * (pl.col("p_n7") + 0.5) / (pl.col("p_n30") + 2),
            p_repeat60=(pl.col("p_repeats60") + 1) / (pl.col("p_n60") + 10),
        )
    )


@dataclass(frozen=True)
class PastWindows:
    """What the label would have been in the last complete windows, shrunk towards its overall mean.

    Attributes:
        by_product: p, w_p_given_order, w_p_given_order_last, w_p_rate.
        by_customer: u, w_u_given_order, w_u_given_order_last, w_u_rate, w_u_ordered, w_u_seen (windows).
    """

    by_product: pl.DataFrame
    by_customer: pl.DataFrame


def past_windows(purchases: pl.LazyFrame, as_of: float, horizon_days: float, active_days: float) -> PastWindows:
    """Rebuy rates in the three windows [as_of - (k+1) h, as_of - k h), k = 0, 1, 2, all of them before `as_of`.

    `given_order` conditions on the customer ordering anything in the window; `_last` is k = 0 alone.
    """
    parts = [_one_window(purchases, as_of - k * horizon_days, horizon_days, active_days, k) for k in range(WINDOWS)]
    pairs = pl.concat(parts).collect()
    ordered, again, latest = pl.col("ordered"), pl.col("again"), pl.col("window") == 0
    given_order = _mean(pairs.filter("ordered")["again"], 0.1)
    overall = _mean(pairs["again"], 0.05)

    def rates(prefix: str, weight: float) -> list[pl.Expr]:
        return [
            ((again.sum() + 20 * given_order) / (ordered.sum() + 20)).alias(f"{prefix}_given_order"),
            (((again & latest).sum() + 20 * given_order) / ((ordered & latest).sum() + 20)).alias(
                f"{prefix}_given_order_last"
            ),
            ((again.sum() + weight * overall) / (pl.len() + weight)).alias(f"{prefix}_rate"),
        ]

    windows = pl.col("window")
    return PastWindows(
        by_product=pairs.group_by("p").agg(rates("w_p", 40.0)),
        by_customer=pairs.group_by("u").agg(
            *rates("w_u", 20.0), w_u_ordered=windows.filter(ordered).n_unique(), w_u_seen=windows.n_unique()
        ),
    )


def _one_window(
    purchases: pl.LazyFrame, end: float, horizon_days: float, active_days: float, number: int
) -> pl.LazyFrame:
    """Pairs that would have been scored at the window's start: u, p, ordered, again (both bool), window."""
    start = end - horizon_days
    day = pl.col("day")
    owned = purchases.filter(day < start).select("u", "p").unique()
    active = purchases.filter((day < start) & (day >= start - active_days)).select("u").unique()
    inside = purchases.filter((day >= start) & (day < end))
    ordered = inside.select("u").unique().with_columns(ordered=pl.lit(True))
    again = inside.select("u", "p").unique().with_columns(again=pl.lit(True))
    return (
        owned.join(active, on="u", how="semi")
        .join(ordered, on="u", how="left")
        .join(again, on=["u", "p"], how="left")
        .with_columns(pl.col("ordered", "again").fill_null(False), window=pl.lit(number))
    )


def _mean(column: pl.Series, default: float) -> float:
    value = column.mean()
    return float(value) if isinstance(value, int | float) else default
