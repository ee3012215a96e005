"""Fan reach and agreement with a planted order.

Fan reach of a host: of his fans (who follow him or have bought from him) who asked while he was live, the share that
got his room within the first k. A fan who asked several times counts once, with the share of his requests that did.
"""

from __future__ import annotations

import polars as pl

from recsys.errors import InputRefused
from recsys.evaluation.bootstrap import user_bootstrap


def mean_fan_reach(
    fans: pl.DataFrame, answers: pl.DataFrame, k: int, *, replicates: int = 1000, seed: int = 0
) -> pl.DataFrame:
    """Reach over all hosts, each weighted by its fans who asked, with 95 % intervals over users.

    Args:
        fans: `request_id`, `user_id`, `host_id`, `room_id`: requests of fans of a host who was live then, once for each
            of his rooms.
        answers: `request_id`, `rank`, `room_id`.

    Returns:
        As `user_bootstrap`, metrics `reach` and `reached_once`; `requests` counts (host, fan) pairs.
    """
    pairs = _by_fan(fans, answers, k).with_columns((pl.col("reach") > 0).cast(pl.Float64).alias("reached_once"))
    return user_bootstrap(pairs, ["reach", "reached_once"], replicates=replicates, seed=seed)


def kendall_tau_b(frame: pl.DataFrame, *, score: str, planted: str) -> pl.DataFrame:
    """Kendall's τ-b between a score and a planted strength, per user; O(n log n) each.

    Returns:
        `user_id`, `pairs_of` (his rows), `tau_b` in [−1, 1]; null where either side is constant (no order to agree
        with) or he has one row; ordered by user.

    Raises:
        InputRefused: nulls or NaN in either column.
    """
    from scipy.stats import kendalltau  # half a second to import, and offline only

    values = frame.select("user_id", pl.col(score, planted).cast(pl.Float64).fill_nan(None))
    if values.select(pl.col(score, planted).null_count()).sum_horizontal().item():
        raise InputRefused("a score or planted strength is null or NaN", where=f"{score}, {planted}")
    rows = []
    for (name,), part in values.partition_by("user_id", as_dict=True).items():
        ordered = part[score].n_unique() > 1 and part[planted].n_unique() > 1
        tau = float(kendalltau(part[score].to_numpy(), part[planted].to_numpy()).statistic) if ordered else None
        rows.append((name, len(part), tau))
    schema = {"user_id": values.schema["user_id"], "pairs_of": pl.Int64(), "tau_b": pl.Float64()}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("user_id")


def _by_fan(fans: pl.DataFrame, answers: pl.DataFrame, k: int) -> pl.DataFrame:
    """One row per (host, fan): `requests` while he was live and the share `reach` that brought a room of his."""
    shown = answers.filter(pl.col("rank") <= k).select("request_id", "room_id", pl.lit(True).alias("shown"))
    return (
        fans.join(shown.unique(), on=["request_id", "room_id"], how="left")
        .group_by("host_id", "user_id", "request_id")
        .agg(pl.col("shown").any())
        .group_by("host_id", "user_id")
        .agg(pl.len().alias("requests"), pl.col("shown").mean().alias("reach"))
        .sort("host_id", "user_id")
    )
