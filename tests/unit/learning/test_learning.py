"""Learning from planted choices and from a timeline told by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.bundle import StageResult
from recsys.config import RankerConfig
from recsys.models.additive_training import Choices, fit_ranker
from recsys.pipeline.features import FEATURES
from training.domains import private_weight_metrics, private_weights
from training.labels import next_broadcast
from training.learn import request_ndcg
from training.towers import Trial, nearest_trial

NAMES = ("known", "popular", "liked", "noise", "bid")
QUICK = RankerConfig(teacher_rounds=20, network_share=0.0, rounds=80, pairs=6, bins=31)


def planted(n_requests: int, seed: int) -> tuple[Choices, np.ndarray]:
    """Rooms are chosen with odds exp(3·known + 2·liked); popularity is seen, noise and bids are nothing."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(4, 12, n_requests)
    n = int(groups.sum())
    rows = rng.random((n, len(NAMES))).astype(np.float32)
    rows[:, 0] = rng.random(n) < 0.2
    true = 3.0 * rows[:, 0] + 2.0 * rows[:, 2]
    labels = np.zeros(n, dtype=np.int8)
    start = 0
    for size in groups.tolist():
        part = slice(start, start + size)
        labels[start + np.argmax(true[part] + rng.gumbel(size=size))] = 1
        start += size
    return Choices(rows, groups.astype(np.int64), labels), true


def fitted(seed: int = 1):
    return fit_ranker(NAMES, planted(1500, 0)[0], QUICK, seed, 1, known="known", popular="popular")


def test_the_planted_order_is_found() -> None:
    model = fitted()
    later, true = planted(600, 9)
    score = model.score(later.rows.T.astype(np.float64))
    best, found = (float(request_ndcg(s, later.groups, later.labels).mean()) for s in (true, score))
    blind = float(request_ndcg(later.rows[:, 3], later.groups, later.labels).mean())
    assert blind < best - 0.1
    assert found > best - 0.02
    parts = model.contributions(later.rows.T.astype(np.float64))
    np.testing.assert_allclose(model.bias + parts.sum(axis=0), score, atol=1e-9)


def test_the_seed_decides_everything() -> None:
    later = planted(50, 9)[0].rows.T.astype(np.float64)
    np.testing.assert_array_equal(fitted(1).score(later), fitted(1).score(later))
    assert not np.array_equal(fitted(1).score(later), fitted(2).score(later))


def test_ndcg_of_known_places() -> None:
    groups, labels = np.array([3, 2]), np.array([0, 1, 0, 1, 0], dtype=np.int8)
    assert request_ndcg(np.array([1.0, 3.0, 2.0, 5.0, 4.0]), groups, labels).mean() == 1.0
    assert request_ndcg(np.array([5.0, 3.0, 2.0, 4.0, 5.0]), groups, labels).mean() == pytest.approx(1 / np.log2(3))
    tied = request_ndcg(np.array([1.0, 1.0, 1.0, 5.0, 4.0]), groups, labels).mean()
    assert tied == pytest.approx(((1 + 1 / np.log2(3) + 1 / 2) / 3 + 1) / 2)


def timeline() -> tuple[pl.DataFrame, pl.DataFrame]:
    broadcasts = pl.DataFrame(
        {
            "host": [0, 0, 0, 1],
            "room": [10, 11, 12, 20],
            "started_at": [100, 200, 300, 150],
            "finished": [True] * 4,
        }
    )
    entries = pl.DataFrame({"user": [7, 7, 8, 7], "room": [10, 12, 11, 11]})
    return broadcasts, entries


def logged(*rows: tuple[int, int, int]) -> pl.DataFrame:
    return pl.DataFrame(
        [(*row, True) for row in rows],
        schema={"user": pl.Int64, "host": pl.Int64, "at": pl.Int64, "tied": pl.Boolean},
        orient="row",
    )


def test_the_next_broadcast_is_the_first_that_starts_later() -> None:
    broadcasts, entries = timeline()
    ties = logged((7, 0, 50), (7, 0, 100), (8, 0, 150), (8, 0, 199), (8, 0, 200), (7, 1, 149))
    found = next_broadcast(ties, broadcasts, entries)
    assert found.select("row", "room", "came").rows() == [
        (0, 10, 1),
        (1, 11, 1),  # asked at the start of room 10: that one is not «next» any more
        (2, 11, 1),
        (3, 11, 1),
        (4, 12, 0),
        (5, 20, 0),
    ]


def test_a_tie_without_a_later_broadcast_is_left_out() -> None:
    broadcasts, entries = timeline()
    found = next_broadcast(logged((7, 0, 300), (7, 1, 150), (7, 2, 0), (7, 0, 299)), broadcasts, entries)
    assert found["row"].to_list() == [3]


def test_nobody_knows_yet_of_a_broadcast_that_has_not_ended() -> None:
    """Room 11 is still on air at the as-of: whoever was asked before it is left out, not judged by room 12."""
    broadcasts, entries = timeline()
    known = broadcasts.with_columns(finished=pl.col("room") != 11)
    found = next_broadcast(logged((8, 0, 50), (8, 0, 150), (8, 0, 250)), known, entries)
    assert found.select("row", "room").rows() == [(0, 10), (2, 12)]


def test_private_weights_are_shares_of_the_softmax_and_sum_with_the_rest_to_one() -> None:
    groups = np.array([3, 2], dtype=np.int64)
    scores = np.log([1.0, 2.0, 1.0, 5.0, 5.0]) + np.array([7.0, 7.0, 7.0, -3.0, -3.0])
    tied = np.array([True, False, True, False, False])
    assert private_weights(scores, tied, groups).tolist() == pytest.approx([0.5, 0.0])
    assert (private_weights(scores, tied, groups) + private_weights(scores, ~tied, groups)).tolist() == [1.0, 1.0]


def test_planted_choices_between_domains_are_weighted_as_they_were_made() -> None:
    """Viewers choose by softmax over a score of which a part hangs on the tie: the weight is that probability."""
    rng = np.random.default_rng(2)
    n, size = 4000, 6
    values = np.full((len(FEATURES), n * size), np.nan)
    tied = rng.random(n * size) < 0.4
    values[FEATURES.index("tie_followed"), tied] = 1.0
    score = rng.normal(size=n * size) + 1.5 * tied
    chosen = np.argmax(score.reshape(n, size) + rng.gumbel(size=(n, size)), axis=1)
    labels = np.zeros(n * size, dtype=np.int8)
    labels[np.arange(n) * size + chosen] = 1
    found = private_weight_metrics(score, values, np.full(n, size), labels)
    assert found["private_weight_ece"] < 0.03 and found["private_weight_skill"] > 0.2
    wrong = private_weight_metrics(score + 2.0 * tied, values, np.full(n, size), labels)
    assert wrong["private_weight_ece"] > 0.1


def test_the_tower_replaces_the_factors_only_when_it_is_better_with_its_interval() -> None:
    rng = np.random.default_rng(1)
    users, places = np.repeat(np.arange(100), 4), rng.integers(0, 20, 400)

    fitted = StageResult(name="tower", status="passed")

    def tried(tower: np.ndarray) -> Trial:
        ranks = {"user": users, "factors": places, "tower": np.maximum(tower, 0)}
        return nearest_trial(pl.DataFrame(ranks), fitted, seed=0)

    good = tried(places // 2)
    assert good.better and good.stage == fitted
    assert good.metrics["nearest_tower_ndcg"] > good.metrics["nearest_factors_ndcg"]
    same = tried(rng.permutation(places))
    assert not same.better and same.stage.status == "failed" and "factors" in same.stage.why
    assert same.metrics["nearest_gain_low"] < 0 < same.metrics["nearest_gain_high"]
    few = nearest_trial(pl.DataFrame({"user": [1], "factors": [1], "tower": [0]}), fitted, seed=0)
    assert not few.better and not few.metrics and few.stage.status == "skipped" and "needed" in few.stage.why
    absent = StageResult(name="tower", status="skipped", why="needs watches and rooms")
    assert nearest_trial(pl.DataFrame(), absent, seed=0) == (False, {}, absent)
