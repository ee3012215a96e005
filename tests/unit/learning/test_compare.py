"""Rivals of the served ranker find what is planted in the part of the features they see."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.config import BuildConfig, EngineConfig, RankerConfig
from recsys.pipeline.features import FEATURES
from recsys.ties.features import TIE_FEATURES
from training.compare import fit_rivals
from training.learn import request_ndcg
from training.log import TrainingLog

CONFIG = EngineConfig(ranker=RankerConfig(teacher_rounds=20, rounds=60, pairs=6, bins=31), build=BuildConfig(threads=1))


def planted(n: int, seed: int) -> TrainingLog:
    """Six rooms each; odds exp(3·[known] + 3·transition): half of it in the ties, half among hosts."""
    rng = np.random.default_rng(seed)
    rows = np.full((6 * n, len(FEATURES)), np.nan, dtype=np.float32)
    column = {
        name: FEATURES.index(name) for name in ("tie_known", "host_entries_30m", "transition_last", "tie_entries")
    }
    known = rng.random(6 * n) < 0.3
    rows[:, column["tie_known"]], rows[known, column["tie_entries"]] = known, 1.0
    rows[:, column["transition_last"]] = rng.random(6 * n)
    rows[:, column["host_entries_30m"]] = rng.random(6 * n)
    odds = 3.0 * known + 3.0 * rows[:, column["transition_last"]] + rng.gumbel(size=6 * n)
    labels = np.zeros(6 * n, dtype=np.int8)
    labels[6 * np.arange(n) + odds.reshape(n, 6).argmax(axis=1)] = 1
    requests = pl.DataFrame({"user": np.arange(n), "at": np.arange(n) * 10**6, "known": [False] * n})
    tie_rows = rng.random((50, len(TIE_FEATURES))).astype(np.float32)
    hosts = np.zeros(6 * n, dtype=np.int32)
    return TrainingLog(rows, np.full(n, 6, dtype=np.int64), labels, hosts, requests, tie_rows, pl.DataFrame())


def test_every_rival_learns_what_it_can_see() -> None:
    log, later = planted(1_500, 0), planted(600, 1)
    came = pl.DataFrame({"row": np.arange(50), "came": np.arange(50) % 2})
    rivals = fit_rivals(log, came, CONFIG)
    found = {name: request_ndcg(score(later.rows), later.groups, later.labels).mean() for name, score in rivals.items()}
    blind = request_ndcg(np.zeros(len(later.rows)), later.groups, later.labels).mean()
    assert found["room and host alone"] == pytest.approx(blind, abs=0.04), "nothing is planted there"
    assert min(found["ties alone"], found["collaborative alone"]) > blind + 0.05
    whole = [found[name] for name in ("LambdaMART", "network", "linear")]
    assert min(whole) > max(found["ties alone"], found["collaborative alone"]) + 0.03
