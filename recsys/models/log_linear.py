"""A logistic regression on logarithms of counts, in the served additive form (offline only).

    log-odds = b + Σ_j w_j · log(1 + x_j),    w_j held to a sign: more of what binds never lowers it

It is fitted with a normal prior on every coefficient (ridge; Hoerl, Kennard, Technometrics 1970), w_j ≥ 0 or ≤ 0 by
L-BFGS-B (Byrd, Lu, Nocedal, Zhu, SIAM J. Sci. Comput. 1995). Few coefficients and their signs are what little data can
bear: boosted tables on all features order the ties of a user worse where a tie has a handful of events
(docs/formulas/strength.md). Features are binned before the fit, so the tables served are exactly what was fitted.

Shape letters: N rows, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from recsys.models.additive import AdditiveModel
from recsys.models.calibration import sigmoid

Floats = npt.NDArray[np.float64]


def fit_log_linear(
    features: Sequence[str],
    rows: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer],
    signs: Mapping[str, int],
    *,
    shrinkage: float,
    bins: int,
    weights: Floats | None = None,
) -> AdditiveModel:
    """The log-odds of `labels` (N,) as a sum of tables over the features named in `signs`, bound to `features`.

    Args:
        features: names of the columns of `rows`.
        rows: (N, F), non-negative; NaN («nothing is known») counts as 0.
        signs: by feature +1 (more never lowers the log-odds) or −1 (more never raises it).
        shrinkage: precision of the prior of each coefficient, per standard deviation of its log(1 + x).
        bins: bins per feature at most; in a bin the mean of log(1 + x) counts.
        weights: (N,) rows count so much, relative to their mean.
    """
    mass = np.ones(len(rows)) if weights is None else weights / weights.mean()
    edges, levels, columns, used = [], [], [], []
    for name in signs:
        column = np.nan_to_num(rows[:, list(features).index(name)].astype(np.float64))
        cuts = _cuts(column, bins)
        if len(cuts):
            place = np.searchsorted(cuts, column)
            level = np.bincount(place, mass * np.log1p(column)) / np.bincount(place, mass)
            used.append(name)
            edges.append(cuts)
            levels.append(level)
            columns.append(level[place])
    if not used:
        rate = float(np.average(labels, weights=mass))
        return AdditiveModel((), (), (), (), float(np.log(rate / (1.0 - rate)))).bound_to(features)
    bias, slopes = _ridge(np.column_stack(columns), labels, mass, [signs[name] for name in used], shrinkage)
    kept = [i for i, slope in enumerate(slopes) if slope]
    # missing is read as 0
    mains = tuple(slopes[i] * np.append(levels[i], levels[i][np.searchsorted(edges[i], 0.0)]) for i in kept)
    return AdditiveModel(tuple(used[i] for i in kept), tuple(edges[i] for i in kept), mains, (), bias).bound_to(
        features
    )


def _cuts(column: Floats, bins: int) -> Floats:
    """Upper edges of all bins but the last; none for a constant column."""
    values = np.unique(column)
    if len(values) > bins:
        positive = column[column > 0]
        values = np.unique(np.quantile(positive, np.linspace(0.0, 1.0, bins), method="inverted_cdf"))
        values = np.append(0.0, values) if (column == 0).any() else values
    return values[:-1]


def _ridge(
    columns: Floats, labels: npt.NDArray[np.integer], mass: Floats, signs: Sequence[int], shrinkage: float
) -> tuple[float, Floats]:
    """Intercept and slopes (F,) of the columns (N, F) as they are; the prior is on standardised ones."""
    from scipy.optimize import minimize  # offline only

    mean = np.average(columns, axis=0, weights=mass)
    spread = np.sqrt(np.average((columns - mean) ** 2, axis=0, weights=mass))
    scaled = (columns - mean) / spread

    def loss(asked: Floats) -> tuple[float, Floats]:
        odds = asked[0] + scaled @ asked[1:]
        wrong = mass * (sigmoid(odds) - labels)
        value = float((mass * (np.logaddexp(0.0, odds) - labels * odds)).sum() + shrinkage / 2 * (asked[1:] ** 2).sum())
        return value, np.append(wrong.sum(), wrong @ scaled + shrinkage * asked[1:])

    bounds = [(None, None), *((0.0, None) if sign > 0 else (None, 0.0) for sign in signs)]
    found = minimize(loss, np.zeros(1 + len(signs)), jac=True, method="L-BFGS-B", bounds=bounds)
    slopes = found.x[1:] / spread
    return float(found.x[0] - slopes @ mean), slopes
