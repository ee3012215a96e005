"""`laotie replay` and the running service, fed the same facts and asked the same: every answer compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from recsys.bundle import Bundle, resolve
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine
from serving.replay import replay

from .served_world import AS_OF, Clock, events_after

K = 8


def test_all_answers_are_the_same(market: Path, tmp_path: Path) -> None:
    told = events_after(market / "events", AS_OF)
    rng = np.random.default_rng(3)
    instants = sorted(int(told[i][0]) + 1 for i in rng.integers(0, len(told), 150))
    users = rng.integers(1, 125, len(instants)).tolist()  # ids beyond 120 are nobody's
    asked = pl.DataFrame({"request_id": range(len(instants)), "user_id": users, "at": instants})
    asked.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC"))).write_parquet(tmp_path / "requests.parquet")
    bundle = Bundle.open(resolve(market / "bundles"))
    replay(bundle, market / "events", tmp_path / "requests.parquet", tmp_path / "out.parquet", k=K)
    expected = pl.read_parquet(tmp_path / "out.parquet").partition_by("request_id", as_dict=True)
    clock = Clock()
    sent = compared = 0
    with Engine.open(market / "bundles", tmp_path / "log.db", ServingConfig(lease_s=0.0), clock) as engine:
        for request, (user, at) in enumerate(zip(users, instants, strict=True)):
            due = []
            while sent < len(told) and told[sent][0] < at:
                due.append(told[sent][1])
                sent += 1
            clock.now = at
            assert all(verdict[0] != "quarantined" for verdict in engine.apply(due))
            served = engine.lookup(Asked(user, K, explain=False))
            want = expected.get((request,))
            if want is None:
                assert not served.room_ids
                continue
            assert served.room_ids == want["room_id"].to_list()
            assert served.host_ids == want["host_id"].to_list()
            assert served.answer.score.tolist() == want["score"].to_list()
            assert served.answer.strength.tolist() == want["strength"].to_list()
            compared += len(want)
    assert compared > 300
