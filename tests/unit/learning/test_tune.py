"""Tuning: the config itself is the first trial, and a study goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.config import EngineConfig
from recsys.events.facts import US_PER_DAY
from recsys.pipeline.features import FEATURES
from training.learn import learn_ranker
from training.log import TrainingLog
from training.tune import search, space_of

N, EACH = 400, 5
QUICK = {"teacher_rounds": 0, "network_share": 0.0}


def a_log() -> TrainingLog:
    """Requests where the room with the highest first feature is entered."""
    rng = np.random.default_rng(0)
    rows = rng.random((N * EACH, len(FEATURES)), dtype=np.float32)
    best = rows[:, 0].reshape(N, EACH).argmax(axis=1)
    labels = np.zeros((N, EACH), dtype=np.int8)
    labels[np.arange(N), best] = 1
    requests = pl.DataFrame({"user": np.arange(N), "at": np.arange(N), "known": np.zeros(N, dtype=bool)})
    nobody = pl.DataFrame(schema={"user": pl.Int64, "host": pl.Int64, "at": pl.Int64, "tied": pl.Boolean})
    none = np.empty((0, 1), dtype=np.float32)
    hosts = np.zeros(N * EACH, dtype=np.int32)
    return TrainingLog(rows, np.full(N, EACH), labels.ravel(), hosts, requests, none, nobody)


def test_a_study_goes_on(tmp_path: Path) -> None:
    settings = {"network_epochs": 0, "rounds": 150, "pairs": 0}
    config = EngineConfig.model_validate({"build": {"threads": 1}, "ranker": settings})
    found = [search(a_log(), 300, config, tmp_path / "s.db", "s", 1, 5.0) for _ in range(2)]
    assert [one.trials for one in found] == [1, 2]
    assert found[0].best["rounds"] == 150 and found[0].ndcg_at_10 == found[0].default
    assert found[1].ndcg_at_10 >= found[1].default > 0.9


@pytest.mark.parametrize(("form", "epochs"), [("tables", 0), ("network", 2)])
def test_the_first_trial_is_the_trial_of_a_build(tmp_path: Path, form: str, epochs: int) -> None:
    """Also where the judged requests are days younger, so that those trained on weigh less."""
    log = a_log()
    log.requests = log.requests.with_columns(pl.col("at") * US_PER_DAY // 20)
    settings = {"network_epochs": epochs, "rounds": 150, "pairs": 0}
    config = EngineConfig.model_validate({"build": {"threads": 1}, "ranker": settings})
    later = 300 * US_PER_DAY // 20
    built = learn_ranker(log, later, config.model_copy(update={"ranker": config.ranker.model_copy(update=QUICK)}))
    tuned = search(log, later, config, tmp_path / "s.db", "s", 1, 5.0)
    assert tuned.default == built.metrics[f"{form}_ndcg_at_10"]
    assert set(tuned.best) == set(space_of(config.ranker))
