"""Metrics by stratum: a mean over all requests hides for whom the ranking works.

Strata are columns of a request frame; each `by_*` function adds one. A request with nothing known about it is its own
stratum, `unknown`, never dropped: the counts of the strata of one column sum to all requests.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from recsys.evaluation.bootstrap import user_bootstrap

ALL = "all"
UNKNOWN = "unknown"


def by_known_host(requests: pl.DataFrame) -> pl.DataFrame:
    """Adds `host_known`: had the user been with the relevant host before? From `known`."""
    return _flag(requests, pl.col("known"), "host_known", "known", "new")


def by_follow(requests: pl.DataFrame) -> pl.DataFrame:
    """Adds `followed`: did he follow the relevant host at the request? From `follows`."""
    return _flag(requests, pl.col("follows"), "followed", "followed", "not followed")


def by_tie_age(requests: pl.DataFrame) -> pl.DataFrame:
    """Adds `tie_age`: was he with the host in the last 7 days? From `last_seen_days`; null or NaN (never) is `none`."""
    days = pl.col("last_seen_days").cast(pl.Float64).fill_nan(None)
    label = pl.when(days.is_null()).then(pl.lit("none")).when(days <= 7.0).then(pl.lit("recent"))
    return requests.with_columns(label.otherwise(pl.lit("old")).alias("tie_age"))


def by_host_size(requests: pl.DataFrame, bounds: tuple[float, float]) -> pl.DataFrame:
    """Adds `host_size`: of `host_visitors`, small below the first bound, large from the second one on, else medium."""
    size = pl.col("host_visitors")
    label = pl.when(size.is_null()).then(pl.lit(UNKNOWN)).when(size < bounds[0]).then(pl.lit("small"))
    return requests.with_columns(
        label.when(size < bounds[1]).then(pl.lit("medium")).otherwise(pl.lit("large")).alias("host_size")
    )


def by_city_tier(requests: pl.DataFrame) -> pl.DataFrame:
    """Adds `city`: the user's `city_tier` as text."""
    return requests.with_columns(pl.col("city_tier").cast(pl.String).fill_null(UNKNOWN).alias("city"))


def metric_table(
    per_request: pl.DataFrame,
    by: Sequence[str],
    metrics: Sequence[str],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """Metrics of all requests and of every value of every stratum column, with 95 % intervals over users.

    Args:
        per_request: `user_id`, metrics and stratum columns, one row per request.
        by: stratum columns, each taken for itself; cross two by concatenating them beforehand.

    Returns:
        `stratum` (column name or `all`), `value`, `share` (of the requests), then as `user_bootstrap`; in the order
        of `by`, values ascending.
    """
    parts = [(ALL, ALL, per_request)]
    for column in by:
        named = per_request.with_columns(pl.col(column).cast(pl.String).fill_null(UNKNOWN))
        parts += [(column, str(key[0]), part) for key, part in sorted(named.partition_by(column, as_dict=True).items())]
    tables = [
        user_bootstrap(part, metrics, replicates=replicates, seed=seed).select(
            pl.lit(stratum).alias("stratum"),
            pl.lit(value).alias("value"),
            pl.lit(len(part) / max(1, len(per_request))).alias("share"),
            pl.all(),
        )
        for stratum, value, part in parts
    ]
    return pl.concat(tables)


def wide(table: pl.DataFrame) -> pl.DataFrame:
    """One row per stratum and value: every metric with its interval as columns."""
    keys = ["stratum", "value", "share"]
    joined = table.select(*keys, "requests").unique(maintain_order=True)
    for metric in table["metric"].unique(maintain_order=True).to_list():
        part = table.filter(pl.col("metric") == metric).select(
            "stratum",
            "value",
            pl.col("mean").alias(metric),
            pl.col("low").alias(f"{metric}_low"),
            pl.col("high").alias(f"{metric}_high"),
        )
        joined = joined.join(part, on=["stratum", "value"], how="left", maintain_order="left")
    return joined


def _flag(requests: pl.DataFrame, condition: pl.Expr, name: str, yes: str, no: str) -> pl.DataFrame:
    label = pl.when(condition.is_null()).then(pl.lit(UNKNOWN)).when(condition).then(pl.lit(yes)).otherwise(pl.lit(no))
    return requests.with_columns(label.alias(name))
