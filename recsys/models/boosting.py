"""Boosted trees with LightGBM (offline only): what all of them share, named once. One seed gives one model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

LEAF_ROWS = 40
"""Fewest rows of a leaf; a dataset that filters its features in advance must know it, too."""

Floats = npt.NDArray[np.float64]
Objective = Callable[[Floats, lgb.Dataset], tuple[Floats, Floats]]


def boost(
    data: lgb.Dataset,
    rounds: int,
    *,
    objective: Objective | str,
    leaves: int,
    rate: float,
    feature_share: float,
    threads: int,
    seed: int,
    **others: Any,
) -> lgb.Booster:
    """Boost `rounds` trees on four fifths of the rows each.

    Args:
        objective: LightGBM's name of a loss, or gradient and Hessian of one.
        leaves: of a tree, at most; rate: of learning; feature_share: of the features, drawn for each tree.
        others: further LightGBM parameters; they go before those set here.
    """
    settings: dict[str, Any] = {
        "objective": objective,
        "num_leaves": leaves,
        "learning_rate": rate,
        "feature_fraction": feature_share,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "min_data_in_leaf": LEAF_ROWS,
        "num_threads": threads,
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "verbosity": -1,
    }
    return lgb.train(settings | others, data, num_boost_round=rounds)
