"""What is known about a (customer, product) pair at an instant: one function for training cuts and for prediction.

`pair_features(history, as_of, …)` drops every fact at or after `as_of` first and computes everything from the rest;
ages are days before `as_of`. One row per customer active within `active_days` and product he ever bought.
Column prefixes: `u_` customer, `p_` product, `w_` past label windows, none: the pair. Meaning: docs/formulas/rebuy.md.
"""

from __future__ import annotations

import polars as pl

from training.rebuy.customers import customer_features, customer_repeat_features
from training.rebuy.orders import Orders
from training.rebuy.products import past_windows, product_features

age = pl.col("age")
MONTH_DAYS = 30.4
KEYS = ("u", "p")
ASSUMED_PRODUCT_GAP_DAYS = 60.0
ASSUMED_CUSTOMER_GAP_DAYS = 40.0


def decayed(half_life_days: float) -> pl.Expr:
    """Sum of 0.5^(age / half life): an exponentially decayed count."""
    return (0.5 ** (age / half_life_days)).sum()


def pair_features(orders: Orders, as_of: float, horizon_days: float, active_days: float) -> pl.DataFrame:
    """Features of every pair to be scored at `as_of` (days since 1970), sorted by u, p; missing values are null."""
    before = pl.col("day") < as_of
    purchases = orders.purchases.lazy().filter(before).with_columns(age=as_of - pl.col("day"))
    cancelled = orders.cancellations.lazy().filter(before).with_columns(age=as_of - pl.col("day"))
    baskets = (
        purchases.group_by("u", "o")
        .agg(age.max(), size=pl.len(), value=pl.col("amount").sum())
        .sort("u", "age", "o")
        .with_columns(back=pl.int_range(pl.len()).over("u"), gap=(age.shift(-1) - age).over("u"))
        .collect()
        .lazy()
    )
    lines = (
        purchases.join(baskets.select("u", "o", "back", "size"), on=["u", "o"])
        .sort("u", "p", "age", "o")
        .with_columns(
            pair_gap=(age.shift(-1) - age).over("u", "p"),
            repeat=(pl.int_range(pl.len()) < pl.len() - 1).over("u", "p"),
        )
        .collect()
        .lazy()
    )
    pairs = _pairs(lines).collect().lazy()
    windows = past_windows(purchases, as_of, horizon_days, active_days)
    table = (
        pairs.join(customer_features(baskets).filter(pl.col("u_last") <= active_days), on="u")
        .join(customer_repeat_features(lines, baskets), on="u", how="left")
        .join(_share_of_customer(pairs), on="u", how="left")
        .join(product_features(lines), on="p", how="left")
        .join(windows.by_product.lazy(), on="p", how="left")
        .join(windows.by_customer.lazy(), on="u", how="left")
        .join(cancelled.group_by("u", "p").agg(cancelled=pl.len(), cancelled_age=age.min()), on=["u", "p"], how="left")
        .join(cancelled.group_by("u").agg(u_cancelled=pl.len(), u_cancelled_age=age.min()), on="u", how="left")
        .sort("u", "p")
    )
    return _derived(table, horizon_days).collect()


def _pairs(lines: pl.LazyFrame) -> pl.LazyFrame:
    """Counts, recency, cadence, amounts and basket positions of each pair; `lines` come latest first within a pair."""
    back = pl.col("back").cast(pl.Float64)
    return lines.group_by("u", "p", maintain_order=True).agg(
        n=pl.len(),
        last=age.min(),
        first=age.max(),
        last2=age.get(1, null_on_oob=True),
        last3=age.get(2, null_on_oob=True),
        **{f"decayed{h}": decayed(h) for h in (7, 20, 45, 90, 180)},
        **{f"n{d}": (age < d).sum() for d in (30, 60, 90, 180)},
        months=(age / MONTH_DAYS).floor().n_unique(),
        days=age.round().n_unique(),
        quantity=pl.col("quantity").sum(),
        quantity_last=pl.col("quantity").first(),
        amount=pl.col("amount").sum(),
        amount_last=pl.col("amount").first(),
        gap_mean=pl.col("pair_gap").mean(),
        gap_sd=pl.col("pair_gap").std(),
        gap_last=pl.col("pair_gap").first(),
        gap_min=pl.col("pair_gap").min(),
        gap_max=pl.col("pair_gap").max(),
        baskets_since=pl.col("back").min(),
        baskets_first=pl.col("back").max(),
        **{f"in_last{k}": (pl.col("back") < k).sum() for k in (3, 5, 10)},
        basket_decayed7=(0.7**back).sum(),
        basket_decayed9=(0.9**back).sum(),
        size_last=pl.col("size").first(),
    )


def _share_of_customer(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Totals over a customer's products, the denominators of the shares in `_derived`."""
    return pairs.group_by("u", maintain_order=True).agg(
        u_products=pl.len(),
        u_products_twice=(pl.col("n") > 1).sum(),
        u_decayed45=pl.col("decayed45").sum(),
        u_basket_decayed=pl.col("basket_decayed7").sum(),
        u_decayed180=pl.col("decayed180").sum(),
    )


def _derived(table: pl.LazyFrame, horizon_days: float) -> pl.LazyFrame:
    """Ratios, dueness and ranks within the customer.

    `gap_shrunk` is the mean gap of the pair shrunk towards the product's median gap and the customer's mean gap
    between orders, each worth 1.5 observations; `due` is the age of the last purchase in such gaps.
    """
    n = pl.col("n")
    product_gap = pl.col("p_gap_median").fill_null(ASSUMED_PRODUCT_GAP_DAYS)
    customer_gap = pl.col("u_gap_mean").fill_null(ASSUMED_CUSTOMER_GAP_DAYS)
    own = pl.col("gap_mean").fill_null(0) * (n - 1)
    return table.with_columns(
        gap_shrunk=(own + 1.5 * product_gap + 1.5 * customer_gap) / (n + 2),
    ).with_columns(
        due=pl.col("last") / pl.col("gap_shrunk"),
        overdue_days=pl.col("last") - pl.col("gap_shrunk"),
        due_own=pl.col("last") / (pl.col("gap_mean") + 1),
        basket_share=n / pl.col("u_n"),
        basket_share_since=n / (pl.col("baskets_first") + 1),
        repeat_rate=(n - 1 + 0.2) / (pl.col("first") + 30),
        repeat_share_since=(n - 1) / pl.col("baskets_first").clip(lower_bound=0.5),
        decayed_share=pl.col("decayed45") / pl.col("u_decayed45"),
        basket_decayed_share=pl.col("basket_decayed7") / pl.col("u_basket_decayed"),
        rank_decayed=pl.col("decayed45").rank("average", descending=True).over("u"),
        rank_basket=pl.col("basket_decayed9").rank("average", descending=True).over("u"),
        rank_product=pl.col("w_p_given_order").rank("average", descending=True).over("u") / pl.len().over("u"),
        rank_popular=pl.col("p_n30").rank("average", descending=True).over("u") / pl.len().over("u"),
        price_ratio=_ratio(pl.col("p_price30"), _ratio(pl.col("amount"), pl.col("quantity"))),
        quantity_ratio=_ratio(pl.col("quantity_last"), pl.col("p_quantity")),
        u_expected_orders=pl.col("u_rate") * horizon_days,
        p_owner_rate=pl.col("p_n30") / pl.col("p_users"),
        last_behind_customer=pl.col("last") - pl.col("u_last"),
        p_stale=pl.col("p_last") * pl.col("p_n") / (pl.col("p_first") + 1),
    )


def _ratio(a: pl.Expr, b: pl.Expr) -> pl.Expr:
    """a / b, null where b is 0."""
    return pl.when(b != 0).then(a / b)


def rebought(orders: Orders, as_of: float, horizon_days: float) -> pl.DataFrame:
    """Labels: the distinct (u, p) with a purchase in [as_of, as_of + horizon_days), a column `y` of ones."""
    inside = (pl.col("day") >= as_of) & (pl.col("day") < as_of + horizon_days)
    return orders.purchases.filter(inside).select("u", "p").unique().with_columns(y=pl.lit(1, dtype=pl.Int8))
