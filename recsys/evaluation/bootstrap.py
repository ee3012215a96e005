"""Confidence intervals by resampling users, not requests: the requests of one user are not independent.

Cluster bootstrap with percentile intervals (Efron & Tibshirani 1993, ch. 8 and 13): a replicate draws as many users as
there are, with replacement, and takes the mean over all their requests, a ratio of two sums over users. All metrics
share the draws, and so do two systems that are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import InputRefused

_REPLICATES_AT_ONCE = 64


def user_bootstrap(
    per_request: pl.DataFrame,
    metrics: Sequence[str],
    *,
    user: str = "user_id",
    weight: str | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pl.DataFrame:
    """Means over requests with intervals over users.

    Args:
        per_request: one row per request: the user and the metric columns. Rows without a user are refused.
        metrics: columns to average; nulls (metric undefined there) are left out of that metric only.
        weight: column of non-negative request weights; by default each counts one.
        replicates: draws; level: coverage, two-sided; seed: same seed, same interval, whatever the row order.

    Returns:
        Per metric: `metric`, `mean`, `low`, `high`, `requests`, `users`. Null where no request defines it; with a
        single user `low` = `mean` = `high`: such an interval says nothing.

    Raises:
        InputRefused: null users, level or replicates out of range.
    """
    if not 0 < level < 1 or replicates < 1:
        raise InputRefused("level or replicates out of range", got=(level, replicates), expected="0 < level < 1, ≥ 1")
    if per_request[user].null_count():
        raise InputRefused("a request has no user", where=user)
    given = pl.col(weight).cast(pl.Float64) if weight else pl.lit(1.0)
    defined = [given * pl.col(name).cast(pl.Float64).fill_nan(None).is_not_null() for name in metrics]
    by_user = (
        per_request.group_by(user)
        .agg(
            *((given * pl.col(name).cast(pl.Float64).fill_nan(None)).sum().alias(f"sum {name}") for name in metrics),
            *(share.sum().alias(f"weight {name}") for share, name in zip(defined, metrics, strict=True)),
        )
        .sort(user)
    )
    sums_UM = by_user.select(f"sum {name}" for name in metrics).to_numpy().astype(np.float64)
    weights_UM = by_user.select(f"weight {name}" for name in metrics).to_numpy().astype(np.float64)
    drawn_BM = _replicate_means(sums_UM, weights_UM, replicates, seed)
    edges = [(1 - level) / 2, (1 + level) / 2]
    rows = []
    for column, name in enumerate(metrics):
        total = float(weights_UM[:, column].sum())
        usable = drawn_BM[np.isfinite(drawn_BM[:, column]), column]
        low, high = np.quantile(usable, edges).tolist() if len(usable) else (None, None)
        rows.append(
            {
                "metric": name,
                "mean": float(sums_UM[:, column].sum()) / total if total > 0 else None,
                "low": low,
                "high": high,
                "requests": len(per_request) - per_request[name].cast(pl.Float64).fill_nan(None).null_count(),
                "users": int((weights_UM[:, column] > 0).sum()),
            }
        )
    schema = {"metric": pl.String, "mean": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    return pl.DataFrame(rows, schema={**schema, "requests": pl.Int64, "users": pl.Int64})


def paired_difference(
    ours: pl.DataFrame,
    theirs: pl.DataFrame,
    metrics: Sequence[str],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """95 % interval of the mean of ours − theirs on the same requests; as `user_bootstrap`, the users drawn together.

    Args:
        ours, theirs: `request_id` and the metrics; `user_id` is read from `ours`.

    Raises:
        InputRefused: the two do not hold the same requests, each once.
    """
    joined = ours.select("request_id", "user_id", *metrics).join(
        theirs.select("request_id", *metrics), on="request_id", suffix=" of theirs"
    )
    if not len(ours) == len(theirs) == len(joined) == ours["request_id"].n_unique():
        raise InputRefused(
            "the systems were not asked the same requests",
            got=(len(ours), len(theirs), len(joined)),
            expected="equal counts of ours, theirs and both",
        )
    differences = joined.select("user_id", *(pl.col(name) - pl.col(f"{name} of theirs") for name in metrics))
    return user_bootstrap(differences, metrics, replicates=replicates, seed=seed)


def _replicate_means(
    sums_UM: NDArray[np.float64], weights_UM: NDArray[np.float64], replicates: int, seed: int
) -> NDArray[np.float64]:
    """(replicates, metrics) ratios of resampled sums; NaN where a replicate drew no weight."""
    users, metrics = sums_UM.shape
    means = np.full((replicates, metrics), np.nan)
    if users == 0:
        return means
    rng = np.random.default_rng(seed)
    both = np.concatenate((sums_UM, weights_UM), axis=1)
    for start in range(0, replicates, _REPLICATES_AT_ONCE):
        size = min(_REPLICATES_AT_ONCE, replicates - start)
        drawn = rng.integers(0, users, (size, users)) + users * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users).astype(np.float64)
        totals = times @ both
        np.divide(
            totals[:, :metrics], totals[:, metrics:], out=means[start : start + size], where=totals[:, metrics:] > 0
        )
    return means
