"""For whom a build's ranker works on the latest requests: planted, so that the right shares are known."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.config import EngineConfig
from recsys.pipeline.features import FEATURES
from training.latest import STRATA, Tiers, judged_latest
from training.log import TrainingLog

USERS, EACH, K = 30, 40, 20
CONFIG = EngineConfig.model_validate({"pipeline": {"k": K}})
TIERS = Tiers(["big"] + ["small"] * (EACH - 1), pl.DataFrame({"user": range(10), "city_tier": ["1"] * 5 + ["2"] * 5}))


def planted() -> TrainingLog:
    """Forty hosts on air at every request. Host 0 is large, of a big city, and known to all; even users enter him, odd
    ones host 39. Users below 10 follow host 39, user 20 has bought from host 1."""
    rows = np.full((USERS, EACH, len(FEATURES)), np.nan, dtype=np.float32)
    labels = np.zeros((USERS, EACH), dtype=np.int8)
    column = FEATURES.index
    rows[:, :, column("host_visitors")], rows[:, 0, column("host_visitors")] = 5, 1_000
    rows[:, :, column("tie_known")] = 0
    rows[:, 0, [column("tie_known"), column("tie_entries")]] = 1
    rows[:, 0, column("tie_hours_since_entry")] = 24 * 30
    rows[:10, 39, column("tie_followed")] = 1
    rows[20, 1, column("tie_order_lines")] = 2
    labels[::2, 0] = labels[1::2, 39] = 1
    requests = pl.DataFrame(
        {"user": range(USERS), "at": range(USERS), "known": [user % 2 == 0 for user in range(USERS)]}
    )
    hosts = np.tile(np.arange(EACH, dtype=np.int32), USERS)
    groups = np.full(USERS, EACH)
    return TrainingLog(
        rows.reshape(-1, len(FEATURES)), groups, labels.ravel(), hosts, requests, np.empty((0, 1)), pl.DataFrame()
    )  # fmt: skip


def test_groups_of_hosts_strata_and_fans() -> None:
    """Scores fall with the host's number: host 0 comes first everywhere, host 39 is never among the first twenty."""
    log, latest = planted(), np.ones(USERS, dtype=bool)
    found = {"ranker": np.where(np.arange(USERS) % 2, 0.0, 1.0), "memory": np.full(USERS, 0.25)}
    said = judged_latest(log, latest, -log.hosts.astype(float), found, TIERS, CONFIG)
    ndcg = {(row["method"], row["stratum"], row["value"]): row["ndcg_at_10"] for row in said["ranking"]}
    assert {stratum for _, stratum, _ in ndcg} == {"all", *STRATA}
    assert ndcg["ranker", "all", "all"] == 0.5 and ndcg["memory", "all", "all"] == 0.25
    assert ndcg["ranker", "host_known", "known"] == 1.0 and ndcg["ranker", "host_known", "new"] == 0.0
    assert ndcg["ranker", "tie_age", "old"] == 1.0 and ndcg["ranker", "tie_age", "none"] == 0.0
    assert ndcg["ranker", "host_size", "large"] == 1.0 and ndcg["ranker", "host_size", "small"] == 0.0
    assert ndcg["ranker", "followed", "followed"] == 0.0  # the five odd ones below ten
    assert ndcg["ranker", "city", "1"] == pytest.approx(3 / 5) and ndcg["ranker", "city", "2"] == pytest.approx(2 / 5)
    assert ("ranker", "city", "unknown") in ndcg
    share = {(row["group"], row["side"]): pytest.approx(row["share"]) for row in said["exposure"]}
    assert share["known hosts", "live"] == 1 / EACH and share["known hosts", "first places"] == 1 / 10
    assert share["known hosts", "entered"] == 0.5 and share["known hosts", "gap"] == -0.4
    assert share["large hosts", "first places"] == 1 / 10 and share["tier big", "first places"] == 1 / 10
    assert said["fan_reach"]["reach"] == pytest.approx(1 / 11)  # of ten followers and a customer, the customer
    assert said["fan_reach"]["k"] == K
    upward = judged_latest(log, latest, log.hosts.astype(float), found, TIERS, CONFIG)
    assert upward["fan_reach"]["reach"] == pytest.approx(10 / 11)


def test_only_the_latest_requests_count_and_what_nobody_knows_is_not_spoken_of() -> None:
    log, latest = planted(), np.arange(USERS) >= 21
    found = {"ranker": np.ones(9)}
    said = judged_latest(log, latest, np.zeros(9 * EACH), found, Tiers(), CONFIG)
    assert {row["requests"] for row in said["ranking"] if row["stratum"] == "all"} == {9}
    assert said["fan_reach"] == {}
    assert {row["question"] for row in said["exposure"]} == {"repeat and explore", "host size"}
    assert {row["value"] for row in said["ranking"] if row["stratum"] == "city"} == {"unknown"}
