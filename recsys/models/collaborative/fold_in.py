"""A user's ALS factors from his history: without torch or implicit, so that the online path can use it.

Formula and sources: docs/formulas/collaborative.md, «ALS».
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dposv

from recsys.models.collaborative.interactions import FloatArray


def gram(item_factors: FloatArray) -> FloatArray:
    """`YᵀY` of shape (factors, factors): computed once, shared by all fold-ins."""
    return item_factors.T @ item_factors


def fold_in(
    item_factors: FloatArray,
    YtY: FloatArray,
    indices: npt.NDArray[np.integer],
    confidences: FloatArray,
    regularization: float,
) -> FloatArray:
    """The factors x that minimise the ALS loss of one user: `(YᵀY + Σ (c - 1) y yᵀ + λI) x = Σ c y`.

    Args:
        item_factors: Y, float32 (n_hosts, factors).
        YtY: `gram(item_factors)`.
        indices: host rows of the history, each once, shape (n,). An empty history gives zeros.
        confidences: c of each, shape (n,), as the model was trained with (an unobserved host counts 1).
        regularization: λ of this user.

    Returns:
        float32, shape (factors,).
    """
    factors = item_factors.shape[1]
    if not len(indices):
        return np.zeros(factors, np.float32)
    seen = item_factors.take(indices, axis=0).astype(np.float64)
    weights = np.asarray(confidences, np.float64)
    system = (seen.T * (weights - 1)) @ seen
    system += YtY
    system.ravel()[:: factors + 1] += regularization
    # By Cholesky: the system is positive definite. LAPACK wants columns first, and the system is its own transpose.
    _, solution, fault = dposv(system.T, weights @ seen, overwrite_a=True, overwrite_b=True)
    if fault:
        raise np.linalg.LinAlgError(f"the system of a fold-in is not positive definite (dposv: {fault})")
    return np.asarray(solution, np.float32)
