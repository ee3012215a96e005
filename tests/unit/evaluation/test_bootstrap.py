"""Intervals over users: coverage, clusters, pairs, seeds."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.errors import InputRefused
from recsys.evaluation.bootstrap import paired_difference, user_bootstrap


def world(rng: np.random.Generator, users: int = 80) -> pl.DataFrame:
    """Users differ in level (σ = .2) and in how often they ask; the mean of means is .5."""
    asked = rng.integers(1, 9, users)
    user = np.repeat(np.arange(users), asked)
    value = np.repeat(rng.normal(0.5, 0.2, users), asked) + rng.normal(0, 0.02, len(user))
    return pl.DataFrame({"request_id": np.arange(len(user)), "user_id": user, "ndcg": value, "one": 1.0})


def test_covers_the_truth_as_often_as_it_says_where_requests_of_a_user_hang_together() -> None:
    covered = 0
    for seed in range(200):
        row = user_bootstrap(world(np.random.default_rng(seed)), ["ndcg"], replicates=200, seed=seed).row(0, named=True)
        covered += row["low"] <= 0.5 <= row["high"]
    assert 0.88 <= covered / 200 <= 0.99  # resampling requests instead of users covers some 70 %


def test_mean_is_over_requests_constants_have_no_width_nulls_are_left_out() -> None:
    frame = world(np.random.default_rng(0)).with_columns(
        pl.when(pl.col("request_id") > 5).then(None).otherwise(1.0).alias("rare"),
        pl.lit(None, pl.Float64).alias("never"),
    )
    table = user_bootstrap(frame, ["ndcg", "one", "rare", "never"], replicates=100)
    assert table["mean"].to_list()[:3] == pytest.approx([frame["ndcg"].mean(), 1.0, 1.0])
    assert table.row(1, named=True) | {"users": 80} == {
        "metric": "one", "mean": 1.0, "low": 1.0, "high": 1.0, "requests": len(frame), "users": 80,
    }  # fmt: skip
    assert table["requests"].to_list()[2:] == [6, 0]
    assert table.row(3)[1:4] == (None, None, None)


def test_weights() -> None:
    frame = pl.DataFrame({"user_id": [1, 2], "hit": [1.0, 0.0], "w": [3.0, 1.0]})
    assert user_bootstrap(frame, ["hit"], weight="w", replicates=5)["mean"].item() == pytest.approx(0.75)


def test_same_seed_same_interval_in_any_row_order() -> None:
    frame = world(np.random.default_rng(1))
    once = user_bootstrap(frame, ["ndcg"], replicates=99, seed=3)
    again = user_bootstrap(frame.reverse(), ["ndcg"], replicates=99, seed=3)
    assert once["low"].item() == pytest.approx(again["low"].item(), rel=1e-12)
    assert once["low"].item() != user_bootstrap(frame, ["ndcg"], replicates=99, seed=4)["low"].item()


def test_a_small_steady_gain_shows_in_pairs_though_the_intervals_overlap() -> None:
    theirs = world(np.random.default_rng(2))
    ours = theirs.with_columns(pl.col("ndcg") + 0.01).reverse()
    a, b = (user_bootstrap(frame, ["ndcg"], replicates=200) for frame in (ours, theirs))
    assert a["low"].item() < b["high"].item()
    gain = paired_difference(ours, theirs, ["ndcg"], replicates=200).row(0, named=True)
    assert gain["mean"] == pytest.approx(0.01) and gain["low"] > 0.009 and gain["high"] < 0.011


def test_refusals() -> None:
    frame = world(np.random.default_rng(3))
    with pytest.raises(InputRefused, match="same requests"):
        paired_difference(frame, frame.head(5), ["ndcg"])
    with pytest.raises(InputRefused, match="no user"):
        user_bootstrap(pl.DataFrame({"user_id": [None], "hit": [1.0]}), ["hit"])
    with pytest.raises(InputRefused, match="level"):
        user_bootstrap(frame, ["ndcg"], level=95)
