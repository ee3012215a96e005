"""Learning strength: few coefficients on what binds a tie, from all ties whose outcome is known, at the level of now.

Half of what a tie's probability was wrong by was its level: viewers gather old ties, and the share that comes again
falls. A model of few coefficients needs no ties of its own to be calibrated on, so all of them teach it, the newest
days among them; and the level is followed from day to day (`recsys.models.level`) instead of being a mean over a
stretch that is past.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.config import EngineConfig
from recsys.events.facts import US_PER_DAY
from recsys.models.calibration import IsotonicMap, logit, sigmoid
from recsys.models.level import level_now
from recsys.models.log_linear import fit_log_linear
from recsys.models.strength import STRENGTH, StrengthHead
from recsys.ties.features import TIE_FEATURES
from training.calibrating import calibration, one_outcome

BINDS = {
    "tie_entries": 1,
    "tie_stay_mean_min": 1,
    "tie_beyond_mean_min": 1,
    "tie_comments": 1,
    "tie_order_lines": 1,
    "tie_followed": 1,
    "tie_broadcasts_offered": -1,
    "tie_broadcasts_missed": -1,
    "tie_follow_missed": -1,
    "tie_unfollowed": -1,
    "tie_not_interested": -1,
    "tie_disputes": -1,
}
"""What strength reads: what binds (+1) and what loosens (−1) a tie. Nothing of the moment, nothing of the feed."""


def fit_strength(
    rows: npt.NDArray[np.float32], known: pl.DataFrame, now_us: int, stranger: float, config: EngineConfig
) -> StrengthHead:
    """The head `strength` as of `now_us`.

    Args:
        rows: (R, F_tie) features of all logged ties.
        known: those that teach it: row, user, room, at, weight and y, whether it happened.
        stranger: what is said of a pair without a tie.
    """
    labels, weight = known["y"].to_numpy(), known["weight"].to_numpy().astype(np.float64)
    model = fit_log_linear(
        TIE_FEATURES, rows[known["row"]], labels, BINDS, shrinkage=config.strength.shrinkage,
        bins=config.strength.bins, weights=weight,
    )  # fmt: skip
    said = sigmoid(model.score(rows[known["row"]].T))
    drawn = calibration(said, labels, weight, strict=True)
    outcomes = len(np.unique(one_outcome(known))) / len(known)
    days = -((now_us - 1 - known["at"].to_numpy()) // US_PER_DAY)
    level = level_now(drawn.apply(said), labels, outcomes * weight / weight.mean(), days)
    return StrengthHead(STRENGTH, model, IsotonicMap(drawn.x, sigmoid(logit(drawn.y) + level)), stranger)
