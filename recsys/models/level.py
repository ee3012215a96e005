"""The level of probabilities now, where what happens drifts away from what was said (docs/formulas/calibration.md).

A map fitted on a long stretch is right on average over it and wrong at its end if the rate has moved since. The offset
on the log-odds is followed as a local level (a random walk seen through outcomes: West, Harrison, *Bayesian forecasting
and dynamic models*, 1997, chapters 2 and 14): a_t = a_(t−1) + N(0, q²), y ~ Bernoulli(sigmoid(logit p + a_t)). How fast
it walks, q, is the likeliest of a few values, 0 among them: where nothing drifts, the whole stretch says the level.

Shape letters: n rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.models.calibration import logit, sigmoid

Floats = npt.NDArray[np.float64]
PACES = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Standard deviations of a step that are tried, log-odds."""
_START_SD = 0.5
"""Of the offset before the first step."""
_NEWTON_STEPS = 8


def level_now(p: Floats, y: npt.NDArray[np.integer], weight: Floats, step: npt.NDArray[np.integer]) -> float:
    """The offset to add to the log-odds of `p` so that their level is that of the latest step.

    Args:
        p: (n,) probabilities; y: (n,) outcomes in {0, 1}.
        weight: (n,) how many outcomes of its own each row is worth: less than 1 where rows ask about the same one.
        step: (n,) number of the time step of each row, ascending in time; steps without rows may be left out.
    """
    steps = [np.flatnonzero(step == number) for number in np.unique(step)]
    gaps = np.diff(np.unique(step), prepend=np.unique(step)[:1])
    said = logit(p)
    tried = [_filtered(said, y, weight, steps, gaps, pace) for pace in PACES]
    return max(tried)[1]


def _filtered(
    said: Floats,
    y: npt.NDArray[np.integer],
    weight: Floats,
    steps: list[npt.NDArray[np.intp]],
    gaps: npt.NDArray[np.integer],
    pace: float,
) -> tuple[float, float]:
    """Log likelihood of the outcomes if the offset walks at `pace`, Laplace's approximation, and the last offset."""
    level, variance, likelihood = 0.0, _START_SD**2, 0.0
    for rows, gap in zip(steps, gaps.tolist(), strict=True):
        variance += pace**2 * gap
        z, w, happened = said[rows], weight[rows], y[rows]
        found = level
        for _ in range(_NEWTON_STEPS):
            q = sigmoid(z + found)
            slope = float((w * (happened - q)).sum()) - (found - level) / variance
            curvature = float((w * q * (1.0 - q)).sum()) + 1.0 / variance
            found += min(max(slope / curvature, -1.0), 1.0)
        q = sigmoid(z + found)
        fit = float((w * (happened * np.log(q) + (1 - happened) * np.log1p(-q))).sum())
        curvature = float((w * q * (1.0 - q)).sum()) + 1.0 / variance
        likelihood += fit - (found - level) ** 2 / (2.0 * variance) - 0.5 * np.log(variance * curvature)
        level, variance = found, 1.0 / curvature
    return likelihood, level
