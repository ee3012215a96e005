"""What raw probabilities of logged ties mean: the map that repairs them, and which rows ask about one outcome."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.models.calibration import IsotonicMap, LogitMap, sigmoid

_MANY = 1000
"""With so many events the calibration may take any monotone form; with fewer it is held halfway to a line."""


def one_outcome(asked: pl.DataFrame) -> npt.NDArray[np.int64]:
    """A number per row (R,), the same where rows ask about one outcome: of a user at a room, or with a host.

    Args:
        asked: user, host, and `room` where the outcome is that of a broadcast.
    """
    what = asked["room" if "room" in asked.columns else "host"].to_numpy().astype(np.int64)
    return np.asarray(asked["user"].to_numpy() * (what.max(initial=0) + 1) + what)


def calibration(
    p: npt.NDArray[np.float64], y: npt.NDArray[np.integer], weight: npt.NDArray[np.float64], strict: bool = False
) -> IsotonicMap:
    """What raw probabilities mean: any monotone map where it happened often; where rarely, halfway to a line.

    With `strict` (for strength) halfway to a line where often, else the line: steps alone say the same of all weak
    ties, and their order is lost; and a model of few coefficients needs little more than its level put right.

    Steps of an isotonic map over few events are rough at the ends, where log loss punishes most; a line of log-odds is
    smooth but has two parameters only. Their mean was the best of the three on simulated markets.
    """
    steps, many = IsotonicMap.fit(p, y, weight=weight), int(y.sum()) >= _MANY
    if many and not strict:
        return steps
    line = LogitMap.fit(p, y, weight=weight / weight.mean(), slope_sd=0.5)
    knots = np.unique(np.concatenate([sigmoid(np.linspace(-12.0, 6.0, 181)), steps.x]))
    if strict and not many:
        return IsotonicMap(knots, line.apply(knots))
    return IsotonicMap(knots, (line.apply(knots) + steps.apply(knots)) / 2)
