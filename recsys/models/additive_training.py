"""Training of additive models with LightGBM (offline only).

Two stages. First, trees of depth two find which pairs of features are worth a joint term (by total gain). Then trees
that may combine only those pairs are boosted and converted to tables (`recsys.models.additive.from_boosted_trees`).

Shape letters: N rows, F features.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from pydantic import Field

from recsys.config import Section
from recsys.models.additive import AdditiveModel, from_boosted_trees


class BoostConfig(Section):
    """How additive models are boosted."""

    rounds: int = Field(default=400, ge=1)
    """Trees of the final model."""
    learning_rate: float = Field(default=0.06, gt=0, le=1)
    leaves: int = Field(default=8, ge=2)
    """Leaves of a tree; any path still looks at two features at most."""
    pairs: int = Field(default=40, ge=0)
    """Joint terms kept."""
    pair_rounds: int = Field(default=150, ge=1)
    """Trees of depth two that look for pairs."""
    bins: int = Field(default=63, ge=3, le=255)
    """Thresholds per feature at most."""
    min_rows: int = Field(default=100, ge=1)
    """Rows in a leaf at least."""
    feature_share: float = Field(default=0.4, gt=0, le=1)
    """Share of features a tree may look at."""
    ridge: float = Field(default=5.0, ge=0)
    """L2 penalty on leaf values."""
    threads: int = Field(default=2, ge=1)
    """Threads; the result is the same for any number."""


def fit_ranker(
    features: Sequence[str],
    rows: npt.NDArray[np.float32],
    groups: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int8],
    config: BoostConfig,
    seed: int,
    weights: npt.NDArray[np.float32] | None = None,
) -> AdditiveModel:
    """A ranker by LambdaMART (Burges, MSR-TR-2010-82) in additive form.

    Args:
        features: F names.
        rows: (N, F), NaN for missing; the candidates of one request stand together.
        groups: candidates per request, summing to N.
        labels: (N,) 1 for the room entered, 0 for the others.
        config: boosting settings.
        seed: of bagging and feature sampling.
        weights: (N,) or None.
    """
    objective = {"objective": "lambdarank", "lambdarank_truncation_level": 15}
    return _fit(features, rows, labels, objective, config, seed, groups, weights)


def fit_probability(
    features: Sequence[str],
    rows: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int8],
    config: BoostConfig,
    seed: int,
) -> AdditiveModel:
    """A model of the log-odds of `labels` (N,) in additive form, from rows (N, F)."""
    return _fit(features, rows, labels, {"objective": "binary"}, config, seed, None, None)


def _fit(
    features: Sequence[str],
    rows: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int8],
    objective: Mapping[str, Any],
    config: BoostConfig,
    seed: int,
    groups: npt.NDArray[np.int64] | None,
    weights: npt.NDArray[np.float32] | None,
) -> AdditiveModel:
    settings = {
        **objective,
        "learning_rate": config.learning_rate,
        "min_data_in_leaf": min(config.min_rows, max(1, len(rows) // 50)),
        "feature_fraction": config.feature_share,
        "lambda_l2": config.ridge,
        "num_threads": config.threads,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    data = lgb.Dataset(
        rows,
        labels,
        group=groups,
        weight=weights,
        params={"max_bin": config.bins, "verbosity": -1},
        free_raw_data=False,
    )
    pairs: list[list[int]] = []
    if config.pairs:
        scout = lgb.train({**settings, "num_leaves": 4, "max_depth": 2}, data, num_boost_round=config.pair_rounds)
        pairs = _best_pairs(scout.dump_model(), config.pairs)
    alone = [[j] for j in range(len(features))]
    booster = lgb.train(
        {**settings, "num_leaves": config.leaves, "interaction_constraints": alone + pairs},
        data,
        num_boost_round=config.rounds,
    )
    model = from_boosted_trees(features, booster.dump_model())
    return model


def _best_pairs(dump: Mapping[str, Any], count: int) -> list[list[int]]:
    """The pairs of features that trees of depth two gained most by splitting on together."""
    gains: dict[tuple[int, int], float] = defaultdict(float)
    for tree in dump["tree_info"]:
        root = tree["tree_structure"]
        if "split_feature" not in root:
            continue
        for child in (root["left_child"], root["right_child"]):
            if "split_feature" in child and child["split_feature"] != root["split_feature"]:
                first, second = sorted((root["split_feature"], child["split_feature"]))
                gains[first, second] += child["split_gain"]
    ordered = sorted(gains, key=lambda pair: (-gains[pair], pair))
    return [list(pair) for pair in ordered[:count]]
