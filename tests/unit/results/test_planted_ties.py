"""Planted ties: the laws read off events, τ per user, and how much of the gap to the oracle is closed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.config import EngineConfig
from recsys.events.simulator import WorldConfig, simulate
from training.worlds.judging import METHODS, closed_gap, taus_of
from training.worlds.laws import followed_bond
from training.worlds.pairs import LEAST_PAIRS, ORACLE_FEATURES, observed

START = datetime(2024, 6, 1, tzinfo=UTC)


def test_laws_move_the_bond_as_the_world_does(tmp_path: Path) -> None:
    """One host followed long before, visited once for 20 minutes, one good order, one broadcast missed."""
    law = WorldConfig()
    hours = [timedelta(hours=h) for h in (0, 24)]
    tables = {
        "rooms": pl.DataFrame({"room_id": [1, 2], "host_id": [9, 9], "started_at": [START + h for h in hours]}),
        "watches": pl.DataFrame({
            "user_id": [5], "host_id": [9], "room_id": [1], "entered_at": [START + timedelta(minutes=1)],
            "left_at": [START + timedelta(minutes=21)],
        }),
        "follows": pl.DataFrame(
            {"user_id": [5], "host_id": [9], "at": [START - timedelta(days=50)], "action": ["follow"]}
        ),
        "purchases": pl.DataFrame(
            {"order_id": [3], "user_id": [5], "host_id": [9], "at": [START + timedelta(minutes=10)]}
        ),
        "refunds": pl.DataFrame(schema={"order_id": pl.Int64}),
    }  # fmt: skip
    for name, table in tables.items():
        (tmp_path / name).mkdir()
        table.write_parquet(tmp_path / name / "part.parquet")
    bond = law.relations.initial_bond_mean
    bond += law.relations.growth * 0.5 * 1.0 * (1 - bond)
    bond += law.relations.good_order_growth * (1 - bond)
    bond *= 1 - law.relations.cooling
    pairs = pl.DataFrame({"user_id": [5, 5], "host_id": [9, 8]})
    assert followed_bond(tmp_path, law, pairs) == pytest.approx([bond, 0.0])


def test_taus_count_a_blind_method_as_nothing() -> None:
    said = pl.DataFrame({"user_id": [1] * 4 + [2] * 2, "planted": [0.1, 0.2, 0.3, 0.4, 0.1, 0.2]})
    right, wrong = pl.col("planted"), -pl.col("planted")
    said = said.with_columns(entries=right, memory=wrong, strength=pl.lit(0.5), score=right, oracle=right)
    taus = taus_of(said, "live")
    assert taus["user_id"].to_list() == [1]  # two hosts are no order
    assert taus.select(METHODS).row(0) == (1.0, -1.0, 0.0, 1.0, 1.0)


def test_the_gap_closed_is_a_share_of_what_the_oracle_gains() -> None:
    frames = [pl.DataFrame({"memory": [0.2] * 9, "strength": [0.3] * 9, "oracle": [0.6] * 9}) for _ in range(2)]
    found = closed_gap(frames, "strength", replicates=50)
    assert found["closed"] == pytest.approx(0.25) and found["gain"] == pytest.approx(0.1)
    assert found["closed_low"] == pytest.approx(0.25) and found["users"] == 18


def test_every_planted_pair_is_observed(tmp_path: Path) -> None:
    law = WorldConfig()
    simulate(law, users=60, hosts=25, days=8, seed=5, out=tmp_path / "w")
    pairs = observed(tmp_path / "w", law, EngineConfig())
    assert pairs.all_values.shape == (len(pairs.frame), len(ORACLE_FEATURES))
    assert pairs.frame.group_by("user_id").len()["len"].to_numpy().min() >= LEAST_PAIRS
    visited = np.nan_to_num(pairs.values[:, 0])
    watched = pl.read_parquet(tmp_path / "w" / "watches" / "*.parquet").group_by("user_id", "host_id").len()
    counted = pairs.frame.join(watched, on=["user_id", "host_id"], how="left", maintain_order="left")
    np.testing.assert_array_equal(visited, counted["len"].fill_null(0).to_numpy())
