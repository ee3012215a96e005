"""Kendall's τ of planted ties, a part per world and seed; the oracle of a world is fitted once and kept."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import lightgbm as lgb
import orjson
import polars as pl

from recsys.config import EngineConfig
from recsys.events.simulator import load_world
from training.worlds.judging import METHODS, WorldSize, closed_gap, judge_world
from training.worlds.oracle import ORACLE_SEEDS, Oracle, fit_oracle
from training.worlds.pairs import ORACLE_FEATURES

WORLDS = ("private_domain", "traffic", "counts_suffice")
SEEDS = (11, 12, 13, 14, 15)
"""Reported, never developed on: development used 101 and above."""


def measure(
    world: str, seed: int, users: int, hosts: int, days: int, config: dict[str, Any], cache: Path
) -> dict[str, Any]:
    """One world and seed: its document, and τ per user as columns under `taus`."""
    resolved = EngineConfig.model_validate(config)
    oracle = _oracle(world, users, hosts, days, resolved, cache)
    judged = judge_world(load_world(world), seed, WorldSize(users, hosts, days), oracle, resolved)
    return judged.document() | {"taus": judged.taus.to_dict(as_series=False)}


def summary(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per world, set of pairs and method: mean τ, its gain over memory and the share of the gap closed."""
    rows = []
    for world in dict.fromkeys(document["world"] for document in documents):
        own = [document for document in documents if document["world"] == world]
        frames = [pl.DataFrame(d["taus"], schema_overrides=dict.fromkeys(METHODS, pl.Float64)) for d in own]
        for part, methods in (("all", ("entries", "strength")), ("live", ("entries", "strength", "score"))):
            tables = [frame.filter(pl.col("pairs") == part) for frame in frames]
            for method in methods:
                found = closed_gap(tables, method)
                below = sum(d["tau"][part][method] < d["tau"][part]["memory"] for d in own)
                rows.append(
                    {"world": world, "pairs": part, "method": method, **found, "seeds": len(own), "below": below}
                )
    return rows


def _oracle(world: str, users: int, hosts: int, days: int, config: EngineConfig, cache: Path) -> Oracle:
    law = load_world(world)
    key = orjson.dumps([law.model_dump(mode="json"), users, hosts, days, ORACLE_SEEDS, ORACLE_FEATURES])
    path = cache / f"oracle-{law.name}-{hashlib.sha256(key).hexdigest()[:12]}.txt"
    if path.is_file():
        return Oracle(lgb.Booster(model_file=str(path)), 0)
    fitted = fit_oracle(law, users=users, hosts=hosts, days=days, config=config)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    fitted.trees.save_model(str(partial))
    partial.replace(path)
    return fitted
