"""The estimator for too little history: a shrunk rate of repetition per pair. Needs no label window at all."""

from __future__ import annotations

import numpy as np

from recsys.models.calibration import FloatArray
from training.rebuy.model import PairTable

PRIOR_DAYS = 60.0


def counting_probability(table: PairTable, horizon_days: float) -> FloatArray:
    """p = 1 - exp(-rate x horizon), (n,), with rate = (purchases - 1 + r x 60) / (days since the first + 60).

    The gamma-Poisson posterior mean: r = (sum of purchases - 1) / (sum of days since the first) over all pairs, worth
    60 days of observation. The first purchase of a pair is what makes it a pair and is no repetition.
    """
    n = table.x[:, table.names.index("n")].astype(np.float64)
    days = table.x[:, table.names.index("first")].astype(np.float64)
    pooled = (n - 1).sum() / max(days.sum(), 1.0)
    rate = (n - 1 + pooled * PRIOR_DAYS) / (days + PRIOR_DAYS)
    return np.asarray(-np.expm1(-rate * horizon_days))
