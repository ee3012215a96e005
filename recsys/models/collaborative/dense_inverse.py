"""Inverse of a large symmetric positive definite matrix, in its own memory plus a quarter.

LAPACK's in-place Cholesky inverse needs fewer operations, but its threaded build crashes (segmentation fault in spotrf,
OpenBLAS 0.3.30, two threads) on single-precision matrices beyond 2³¹ bytes. So only blocks well below that are given to
it, and they are joined by the Schur complement, which is matrix products and therefore fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import lapack

from recsys.models.collaborative.interactions import FloatArray

_LEAF = 16_384
_STRIP = 2_048  # rows of a product held at a time


def invert_in_place(matrix: FloatArray, *, leaf: int = _LEAF) -> None:
    """Overwrite `matrix`, float32 (n, n), symmetric and positive definite, with its inverse.

    With `M = [[A, Bᵀ], [B, C]]`, `T = B·A⁻¹` and `S = C - T·Bᵀ` the inverse is
    `[[A⁻¹ + Tᵀ·S⁻¹·T, -Tᵀ·S⁻¹], [-S⁻¹·T, S⁻¹]]`, and A and S are inverted the same way until they are no larger than
    `leaf`. About 1.25 n³ multiply-adds.

    Raises:
        numpy.linalg.LinAlgError: not positive definite in single precision.
    """
    n = len(matrix)
    if n <= leaf:
        matrix[...] = _small_inverse(matrix)
        return
    half = n // 2
    first, last = matrix[:half, :half], matrix[half:, half:]
    below, right = matrix[half:, :half], matrix[:half, half:]
    invert_in_place(first, leaf=leaf)
    through = below @ first
    for start in range(0, n - half, _STRIP):
        last[start : start + _STRIP] -= through[start : start + _STRIP] @ below.T
    invert_in_place(last, leaf=leaf)
    for start in range(0, n - half, _STRIP):
        below[start : start + _STRIP] = -(last[start : start + _STRIP] @ through)
    for start in range(0, half, _STRIP):
        first[start : start + _STRIP] -= through[:, start : start + _STRIP].T @ below
        right[start : start + _STRIP] = below[:, start : start + _STRIP].T


def _small_inverse(matrix: FloatArray) -> FloatArray:
    routines: Any = lapack
    lower, failed = routines.spotrf(np.array(matrix, np.float32, order="F"), lower=1, overwrite_a=1, clean=0)
    if not failed:
        lower, failed = routines.spotri(lower, lower=1, overwrite_c=1)
    if failed:
        raise np.linalg.LinAlgError(f"a matrix of side {len(matrix)} is not positive definite in single precision")
    for start in range(0, len(lower), _STRIP):  # LAPACK fills the lower triangle only
        stop = start + _STRIP
        lower[start:stop, stop:] = lower[stop:, start:stop].T
        corner = np.tril(lower[start:stop, start:stop])
        lower[start:stop, start:stop] = corner + np.tril(corner, -1).T
    inverse: FloatArray = lower
    return inverse
