"""Unsampled ranking metrics: every room live at the request was a candidate, every relevant room counts.

Conventions, the same everywhere (docs/formulas/metrics.md): relevance is binary; the ideal ranking of NDCG@k has
min(k, relevant) hits; a relevant room the answer lacks, or a request without an answer, counts 0; requests without a
relevant room are not part of the truth and not counted. Nothing is sampled: sampled candidates reverse the order of
methods (Krichene & Rendle, KDD 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from recsys.errors import InputRefused

KEY = ["request_id", "room_id"]


def request_metrics(
    answers: pl.DataFrame,
    truth: pl.DataFrame,
    *,
    ndcg_at: Sequence[int] = (10,),
    hit_at: Sequence[int] = (1, 10),
    recall_at: Sequence[int] = (10,),
) -> pl.DataFrame:
    """Metrics of every request of the truth.

    Args:
        answers: `request_id`, `rank` (1 is best), `room_id`; other columns are ignored. Requests that are not in the
            truth are ignored. Ranks are taken as they are: what was not shown leaves a gap or an end.
        truth: `request_id`, `room_id`: the relevant rooms, each once.
        ndcg_at, hit_at, recall_at: cut-offs.

    Returns:
        One row per request of the truth, ordered by it: `request_id`, `relevant` (how many), `ndcg_at_k`, `hit_at_k`,
        `recall_at_k` for each cut-off, `mrr`; floats in [0, 1].

    Raises:
        InputRefused: a column is missing, a null, a rank below 1, the same rank or room twice in one request (order
            ties first, with `ranked_by_score`), or a cut-off below 1.
    """
    cutoffs = [*ndcg_at, *hit_at, *recall_at]
    if any(k < 1 for k in cutoffs):
        raise InputRefused("a cut-off is below 1", got=cutoffs)
    _check(truth, "truth", KEY, unique=[KEY])
    _check(answers, "answers", ["request_id", "rank", "room_id"], unique=[KEY, ["request_id", "rank"]])
    if len(answers) and int(answers["rank"].cast(pl.Int64).min() or 0) < 1:  # type: ignore[arg-type]
        raise InputRefused("a rank is below 1", where="answers")
    ranked = truth.select(KEY).join(answers.select(*KEY, pl.col("rank").cast(pl.Int64)), on=KEY, how="left")
    rank = pl.col("rank")
    gain = 1.0 / (rank + 1).cast(pl.Float64).log(2.0)
    found = ranked.group_by("request_id").agg(
        pl.len().cast(pl.Int64).alias("relevant"),
        *(gain.filter(rank <= k).sum().alias(f"ndcg_at_{k}") for k in ndcg_at),
        *((rank <= k).any().cast(pl.Float64).alias(f"hit_at_{k}") for k in hit_at),
        *((rank <= k).sum().cast(pl.Float64).alias(f"recall_at_{k}") for k in recall_at),
        (1.0 / rank.min()).fill_null(0.0).alias("mrr"),
    )
    return (
        found.with_columns(
            *(pl.col(f"ndcg_at_{k}") / _ideal_gain(k, found["relevant"]) for k in ndcg_at),
            *(pl.col(f"recall_at_{k}") / pl.col("relevant") for k in recall_at),
        )
        .sort("request_id")
        .select("request_id", "relevant", *metric_names(found))
    )


def metric_names(per_request: pl.DataFrame) -> list[str]:
    """The metric columns of a per-request frame, in its order."""
    return [name for name in per_request.columns if name == "mrr" or name.split("_at_")[0] in ("ndcg", "hit", "recall")]


def ranked_by_score(scores: pl.DataFrame, *, seed: int = 0) -> pl.DataFrame:
    """Ranks rooms by score for systems that give scores only; ties in an order that knows nothing of the truth.

    Ties are broken by a seeded shuffle, so a constant score earns what chance earns. It depends neither on the order
    of the rows nor on which room was entered. Scores that are null, NaN or −∞ sink to the end.

    Args:
        scores: `request_id`, `room_id`, `score`.

    Returns:
        `request_id`, `rank` (1…), `room_id`, `score`.
    """
    _check(scores, "scores", KEY, unique=[KEY])
    if "score" not in scores.columns:
        raise InputRefused("a column is missing", where="scores", expected="score")
    ordered = scores.select(*KEY, pl.col("score").cast(pl.Float64)).sort(KEY)
    draw = np.random.default_rng(seed).random(len(ordered))
    sunk = pl.col("score").fill_nan(None).fill_null(-np.inf)
    return (
        ordered.with_columns(pl.Series("draw", draw), sunk.alias("order"))
        .sort("request_id", "order", "draw", descending=[False, True, False])
        .with_columns(pl.int_range(1, pl.len() + 1).over("request_id").alias("rank"))
        .select("request_id", "rank", "room_id", "score")
    )


def _ideal_gain(k: int, relevant: pl.Series) -> pl.Series:
    """DCG of a ranking that puts the min(k, relevant) hits first."""
    gains = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))
    return pl.Series(gains[np.minimum(relevant.to_numpy(), k) - 1])


def _check(frame: pl.DataFrame, what: str, columns: list[str], *, unique: list[list[str]]) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputRefused("a column is missing", where=what, got=frame.columns, expected=missing)
    empty = [name for name in columns if frame[name].null_count()]
    if empty:
        raise InputRefused("a column holds nulls", where=f"{what}.{empty[0]}")
    for key in unique:
        twice = frame.select(key).is_duplicated()
        if twice.any():
            raise InputRefused(
                f"{' and '.join(key)} are not unique", where=what, got=frame.filter(twice).row(0), expected="each once"
            )
