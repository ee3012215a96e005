"""Repurchase on order tables: `bench-rebuy` at several instants, judged on the days after each."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.evaluation.bootstrap import user_bootstrap
from recsys.models.calibration import calibration_error, log_loss, log_loss_skill
from training.rebuy.bench import bench_rebuy

CUTS = ("2010-06-01", "2010-07-01", "2010-08-01")
HORIZON_DAYS = 30
REPLICATES = 500
COUNTS = {"constant": pl.lit(1.0), "frequency": pl.col("n"), "memory (decayed, 90 d)": pl.col("decayed")}


def measure(path: Path) -> dict[str, Any]:
    """Every cut of CUTS."""
    return {cut: measure_cut(path, datetime.fromisoformat(cut).replace(tzinfo=UTC)) for cut in CUTS}


def measure_cut(path: Path, cut: datetime) -> dict[str, Any]:
    """One cut: ours with its probabilities, and orders of counting, on the same pairs."""
    with tempfile.TemporaryDirectory() as scratch:
        report = bench_rebuy(path, cut, HORIZON_DAYS, Path(scratch) / "out.parquet", seed=1)
        said = pl.read_parquet(Path(scratch) / "out.parquet")
    bought = pl.scan_parquet(path).filter(
        ~pl.col("order_id").cast(pl.String).str.starts_with("C") & (pl.col("quantity") >= 0)
    )
    until = cut + timedelta(days=HORIZON_DAYS)
    again = bought.filter((pl.col("at") >= cut) & (pl.col("at") < until)).select("user_id", "product").unique()
    days = (pl.lit(cut) - pl.col("at")).dt.total_seconds() / 86_400
    past = (
        bought.filter(pl.col("at") < cut)
        .unique(["user_id", "product", "order_id"])
        .group_by("user_id", "product")
        .agg(n=pl.len().cast(pl.Float64), decayed=(0.5 ** (days / 90.0)).sum())
    )
    pairs = (
        said.join(past.collect(), on=["user_id", "product"], how="left")
        .join(again.with_columns(y=pl.lit(1.0)).collect(), on=["user_id", "product"], how="left")
        .with_columns(pl.col("y").fill_null(0.0))
    )
    methods = {"laotie": _ordered(pairs, pl.col("p"))} | {name: _ordered(pairs, by) for name, by in COUNTS.items()}
    return {
        "pairs": len(pairs),
        "customers": pairs["user_id"].n_unique(),
        "base_rate": float(pairs["y"].to_numpy().mean()),
        "training_s": report.seconds,
        "methods": methods,
        "probabilities": _probabilities(pairs),
    }


def _ordered(pairs: pl.DataFrame, by: pl.Expr, seed: int = 0) -> dict[str, Any]:
    """NDCG@10 over customers who bought something again; equal scores in an order that knows nothing."""
    draw = np.random.default_rng(seed).random(len(pairs))
    ranked = pairs.sort("user_id", "product").with_columns(by.alias("s"), draw=pl.Series(draw))
    ranked = ranked.sort("user_id", "s", "draw", descending=[False, True, False]).with_columns(
        rank=pl.int_range(1, pl.len() + 1).over("user_id")
    )
    hits = ranked.filter((pl.col("y") > 0) & (pl.col("rank") <= 10))
    gain = (1.0 / (pl.col("rank") + 1).cast(pl.Float64).log(2.0)).sum()
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, 12)))])
    users = pairs.group_by("user_id").agg(relevant=pl.col("y").sum().cast(pl.Int64)).filter(pl.col("relevant") > 0)
    joined = users.join(hits.group_by("user_id").agg(gain=gain), on="user_id", how="left").sort("user_id")
    best = ideal[np.minimum(joined["relevant"].to_numpy(), 10)]
    per_user = joined.select("user_id", ndcg=pl.col("gain").fill_null(0.0) / pl.Series(best))
    row: dict[str, Any] = user_bootstrap(per_user, ["ndcg"], seed=seed).row(0, named=True)
    return row


def _probabilities(pairs: pl.DataFrame) -> dict[str, float]:
    """Skill over the base rate and calibration error, the former with an interval over customers."""
    p, y = pairs["p"].to_numpy(), pairs["y"].to_numpy()
    eps = 1e-6
    loss = -(y * np.log(np.clip(p, eps, 1)) + (1 - y) * np.log(np.clip(1 - p, eps, 1)))
    sums = (
        pairs.select("user_id", "y", loss=pl.Series(loss))
        .group_by("user_id")
        .agg(pl.col("loss").sum(), pl.col("y").sum(), n=pl.len())
        .sort("user_id")
        .select("loss", "y", "n")
        .to_numpy()
        .astype(np.float64)
    )
    rng = np.random.default_rng(0)
    drawn = np.array([sums[rng.integers(0, len(sums), len(sums))].sum(axis=0) for _ in range(REPLICATES)])
    rate = drawn[:, 1] / drawn[:, 2]
    base = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    low, high = np.quantile(1 - drawn[:, 0] / drawn[:, 2] / base, [0.025, 0.975])
    return {
        "log_loss": log_loss(p, y),
        "skill": log_loss_skill(p, y),
        "skill_low": float(low),
        "skill_high": float(high),
        "ece": calibration_error(p, y),
    }
