"""An oracle that knows the generator: the best reading of the planted strength that the events allow.

It may do what no engine can: simulate other worlds of the same laws, look at their planted strengths, and learn how
strength follows from what is seen (simulation-based inference: Cranmer, Brehmer, Louppe, PNAS 2020). It reads every tie
feature, the bond as the world's own laws move it (`training.worlds.laws`), and what host and user did with others. It
sees the events of the judged world only, never its planted truth. So it bounds what any method could reach, up to what
boosted trees miss; the planted order itself (τ = 1) cannot be reached by anybody.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from recsys.config import EngineConfig
from recsys.events.simulator import WorldConfig, simulate
from recsys.models.boosting import boost
from recsys.models.calibration import logit
from training.worlds.pairs import observed

ORACLE_SEEDS = tuple(range(9_001, 9_009))
"""Worlds the oracle learns from; never judged, never used to develop the engine."""


@dataclass(frozen=True)
class Oracle:
    """Fitted for one world's laws and size."""

    trees: Any
    pairs: int

    def score(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Expected log-odds of strength (n,) from `Pairs.all_values` (n, F)."""
        return np.asarray(self.trees.predict(values, num_threads=1))


def fit_oracle(law: WorldConfig, *, users: int, hosts: int, days: int, config: EngineConfig) -> Oracle:
    """Simulate the worlds of `ORACLE_SEEDS` and learn from their planted truth."""
    values, planted = [], []
    for seed in ORACLE_SEEDS:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "world"
            simulate(law, users=users, hosts=hosts, days=days, seed=seed, out=folder)
            pairs = observed(folder, law, config)
        values.append(pairs.all_values)
        planted.append(pairs.frame["planted"].to_numpy())
    target = logit(np.concatenate(planted))
    data = lgb.Dataset(np.concatenate(values), target, params={"verbosity": -1})
    trees = boost(data, 500, objective="regression", leaves=31, rate=0.04, feature_share=0.5, threads=1, seed=1)
    return Oracle(trees, len(target))
