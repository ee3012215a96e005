"""A user's ALS factors from his history: without torch or implicit, so that the online path can use it.

Formula and sources: docs/formulas/collaborative.md, «ALS».
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dposv

from recsys.compiled import compiled
from recsys.models.collaborative.interactions import FloatArray

Floats = npt.NDArray[np.float64]


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


@dataclass(frozen=True)
class Turned:
    """Host factors on the axes Q of their Gram matrix, `YᵀY = Q diag(ℓ) Qᵀ`: a short history of n hosts then costs a
    system of n equations instead of one of as many as there are factors, whatever λ.

    With `D = ℓ + λ`, `Z = Y Q` of the history and `A = diag(√(c − 1)) Z D^(−½)` the solution of `fold_in` is
    `x = Q D^(−½) (u − Aᵀ (I + A Aᵀ)⁻¹ A u)`, where `u = D^(−½) Zᵀ c` (Woodbury's identity).
    """

    factors: FloatArray
    axes: Floats
    lengths: Floats

    @classmethod
    def of(cls, item_factors: FloatArray, YtY: FloatArray) -> Self:
        """From factors (n_hosts, factors) and their `gram`."""
        lengths, axes = np.linalg.eigh(YtY.astype(np.float64))
        return cls((item_factors @ axes).astype(np.float32), np.ascontiguousarray(axes.T), lengths)

    def fold_in(
        self, indices: npt.NDArray[np.integer], confidences: FloatArray, regularization: float
    ) -> FloatArray | None:
        """`fold_in` of a history (n,), n ≥ 1; None where that does better: it is not much shorter than the factors are
        many, a confidence is below 1, or the Gram matrix is not as positive as it is by rights."""
        if len(indices) > 0.75 * len(self.lengths) or self.lengths[0] + regularization <= 0:
            return None
        solution = np.empty(len(self.lengths), np.float32)
        done = _fold_in(self.factors, self.axes, self.lengths, indices, confidences, regularization, solution)
        return solution if done else None


@compiled
def _fold_in(
    turned: FloatArray, axes: Floats, lengths: Floats, hosts: npt.NDArray[np.integer], confidences: FloatArray,
    ridge: float, x: FloatArray,
) -> bool:  # fmt: skip
    """`Turned.fold_in` into `x`; rows of `axes` are the axes. Whether it could be done."""
    n, d = len(hosts), len(lengths)
    a, u, left = np.empty((n, d)), np.zeros(d), 1.0 / np.sqrt(lengths + ridge)
    for i in range(n):
        of_host, factors, c = a[i], turned[hosts[i]], float(confidences[i])
        if not c >= 1.0:
            return False
        root = np.sqrt(c - 1.0)
        for q in range(d):
            z = factors[q] * left[q]
            of_host[q] = root * z
            u[q] += c * z
    system, said = np.dot(a, a.T), np.dot(a, u)
    for i in range(n):  # by Cholesky; forward as it is made, then backward
        pivot = system[i]
        pivot[i] = np.sqrt(1.0 + pivot[i])
        for j in range(i + 1, n):
            pivot[j] /= pivot[i]
        said[i] /= pivot[i]
        for k in range(i + 1, n):
            of_host, share = system[k], pivot[k]
            for j in range(k, n):
                of_host[j] -= share * pivot[j]
            said[k] -= share * said[i]
    for i in range(n - 1, -1, -1):
        share = said[i]
        for j in range(i + 1, n):
            share -= system[i, j] * said[j]
        said[i] = share / system[i, i]
        of_host = a[i]
        for q in range(d):
            u[q] -= said[i] * of_host[q]
    x[:] = np.dot(u * left, axes)
    return True
