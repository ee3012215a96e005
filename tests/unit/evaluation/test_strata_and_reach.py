"""Strata, fan reach and rank agreement on a handful of rows."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.errors import InputRefused
from recsys.evaluation import reach, strata


def test_strata_label_every_request() -> None:
    requests = pl.DataFrame(
        {
            "known": [False, True, None],
            "follows": [True, False, None],
            "last_seen_days": [1.0, 30.0, float("nan")],
            "host_visitors": [5, 500, None],
            "city_tier": [1, None, 3],
        }
    )
    for add in (strata.by_known_host, strata.by_follow, strata.by_tie_age, strata.by_city_tier):
        requests = add(requests)
    requests = strata.by_host_size(requests, (100, 10_000))
    assert requests["host_known"].to_list() == ["new", "known", "unknown"]
    assert requests["followed"].to_list() == ["followed", "not followed", "unknown"]
    assert requests["tie_age"].to_list() == ["recent", "old", "none"]
    assert requests["host_size"].to_list() == ["small", "medium", "unknown"]
    assert requests["city"].to_list() == ["1", "unknown", "3"]


def test_the_metric_table_splits_and_its_shares_sum_to_one() -> None:
    frame = pl.DataFrame(
        {"user_id": [1, 1, 2, 3], "hit": [1.0, 0.0, 1.0, 1.0], "tie_age": ["old", "recent", "old", None]}
    )
    table = strata.metric_table(frame, ["tie_age"], ["hit"], replicates=50)
    assert table.select("stratum", "value", "mean", "requests").rows() == [
        ("all", "all", 0.75, 4),
        ("tie_age", "old", 1.0, 2),
        ("tie_age", "recent", 0.0, 1),
        ("tie_age", "unknown", 1.0, 1),
    ]
    assert table.filter(pl.col("stratum") == "tie_age")["share"].sum() == pytest.approx(1.0)


def test_fan_reach_counts_each_follower_once_by_the_share_of_his_requests() -> None:
    fans = pl.DataFrame(
        {"request_id": [1, 1, 2, 3], "user_id": [1, 1, 1, 2], "host_id": [50] * 4, "room_id": [7, 8, 7, 7]}
    )
    answers = pl.DataFrame({"request_id": [1, 2, 2, 3, 4], "rank": [1, 1, 6, 1, 1], "room_id": [8, 3, 7, 7, 7]})
    # user 1 asked twice and got a room once within 5, user 2 asked once and got it; request 4 is no follower's
    overall = reach.mean_fan_reach(fans, answers, 5, replicates=50)
    assert overall["mean"].to_list() == pytest.approx([0.75, 1.0]) and overall["users"].to_list() == [2, 2]
    assert reach.mean_fan_reach(fans, answers, 10, replicates=50)["mean"].to_list() == pytest.approx([1.0, 1.0])


def test_kendall_tau_b_per_user() -> None:
    frame = pl.DataFrame(
        {
            "user_id": [1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 5, 5],
            "score": [1.0, 2, 3, 3, 2, 1, 5, 5, 1, 1, 1, 2, 3],
            "strength": [0.1, 0.2, 0.3, 1, 2, 3, 1, 2, 1, 1, 2, 3, 4],
        }
    )
    found = reach.kendall_tau_b(frame, score="score", planted="strength")
    assert found["tau_b"].to_list()[:4] == [pytest.approx(1.0), pytest.approx(-1.0), None, None]
    assert found["tau_b"].to_list()[4] == pytest.approx(5 / np.sqrt(5 * 6))
    with pytest.raises(InputRefused):
        reach.kendall_tau_b(frame.with_columns(pl.lit(None).alias("score")), score="score", planted="strength")
