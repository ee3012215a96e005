"""Exact inner-product search over a float32 matrix. The only module that imports faiss.

FAISS computes the scores straight from our memory (`fvec_inner_products_ny`), nothing is copied into a FAISS index, so
a snapshot of the matrix can be searched as it is. We select the best ourselves, for three promises `IndexFlatIP` does
not give: ties are broken by key, not by heap order; a row's score does not depend on its position or on how many
queries are asked together (FAISS switches to BLAS from 20 queries on, which rounds differently); rows can be excluded
without answers getting fewer.

Shape letters: q queries, n vectors, w width (dimension padded by `padded`), k answers.
Threading: every function is pure, releases the GIL while FAISS works, and starts no threads.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import LaotieError
from recsys.index.largest import near_largest

with warnings.catch_warnings():  # swig types lack __module__: a DeprecationWarning at import on Python 3.12+
    warnings.simplefilter("ignore", DeprecationWarning)
    import faiss

_fvec_inner_products_ny: Any = faiss.fvec_inner_products_ny  # type: ignore[attr-defined]  # not in the stubs of 1.15
_fvec_norm_L2sqr: Any = faiss.fvec_norm_L2sqr
FloatMatrix = NDArray[np.float32]
IntVector = NDArray[np.int64]

_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_WIDTH_STEP = 16
_BLOCK_ROWS = 2048  # 0.5 MB at w = 64: a block stays in L2 while all queries pass over it


class IndexInputError(LaotieError, ValueError):
    """A vector, row or query given to an index is unusable; the index is unchanged."""

    exit_code = 2


def padded(dimension: int) -> int:
    """Width rows are stored with: the next multiple of 16.

    At d = 4 and 8 FAISS treats the last rows of a matrix with another kernel and so rounds equal rows differently;
    from 16 on every row goes through the same one.
    """
    return -(-dimension // _WIDTH_STEP) * _WIDTH_STEP


def as_vectors(vectors: Any, dimension: int | None = None, *, what: str = "vectors") -> FloatMatrix:
    """Checks a matrix and returns it as C-contiguous float32, shape (rows, padded(d)), extra columns zero.

    Raises:
        IndexInputError: not two-dimensional, no columns, another dimension than expected, or not finite.
    """
    with np.errstate(over="ignore"):
        given = np.asarray(vectors, dtype=np.float32)
    if given.ndim != 2 or given.shape[1] == 0 or (dimension is not None and given.shape[1] != dimension):
        expected = f"(rows, {'d' if dimension is None else dimension})"
        raise IndexInputError(f"{what} have the wrong shape", got=given.shape, expected=expected)
    if not np.isfinite(given).all():
        row = int(np.flatnonzero(~np.isfinite(given).all(axis=1))[0])
        raise IndexInputError(
            f"{what} hold a value that is not finite", where=f"row {row}", expected="finite float32 values"
        )
    width = padded(given.shape[1])
    if width == given.shape[1]:
        return np.ascontiguousarray(given)
    wide = np.zeros((len(given), width), dtype=np.float32)
    wide[:, : given.shape[1]] = given
    return wide


def as_rows(values: Any, what: str) -> IntVector:
    """Checks dense rows (host or room rows) and returns them as int64, shape (n,).

    Raises:
        IndexInputError: not integers, negative, or not one-dimensional.
    """
    rows = np.asarray(values)
    if rows.size and (rows.ndim != 1 or rows.dtype.kind not in "iu" or int(rows.min()) < 0):
        raise IndexInputError(f"{what} must be integers ≥ 0 in one dimension", got=f"{rows.dtype} {rows.shape}")
    return rows.astype(np.int64, copy=False).reshape(-1)


def largest_entry(vectors: FloatMatrix) -> float:
    """Largest absolute value of a matrix, 0 for an empty one; with it `as_queries` rules out overflow."""
    return max(float(vectors.max(initial=0.0)), -float(vectors.min(initial=0.0)))


def as_queries(queries: Any, dimension: int, largest: float) -> FloatMatrix:
    """Checks queries and returns them as C-contiguous float32, shape (q, padded(d)).

    Args:
        queries: (q, d).
        dimension: d.
        largest: largest absolute entry of the vectors to be searched.

    Raises:
        IndexInputError: another shape, a value that is not finite, or Σ|query| · largest beyond float32: no score of
            an accepted query overflows.
    """
    ready = (
        isinstance(queries, np.ndarray)
        and queries.ndim == 2
        and queries.dtype == np.float32
        and queries.shape[1] == dimension == padded(dimension)
        and queries.flags.c_contiguous
    )
    asked: FloatMatrix = queries if ready else as_vectors(queries, dimension, what="queries")
    if len(asked) == 1 and _bounded(asked[0], largest):
        return asked
    reach = float(np.abs(asked).sum(axis=1, dtype=np.float64).max(initial=0.0)) * largest
    if not reach <= _LARGEST_FLOAT:  # also true for NaN
        as_vectors(queries, dimension, what="queries")
        raise IndexInputError(
            "a query is too large: its scores would overflow", got=reach, expected="products in float32"
        )
    return asked


def as_query(query: Any, dimension: int, largest: float) -> FloatMatrix:
    """One query (d,) as `as_queries` returns it, (1, padded(d)): the usual case at a fraction of its cost."""
    usual = isinstance(query, np.ndarray) and query.dtype == np.float32 and query.shape == (padded(dimension),)
    if usual and query.flags.c_contiguous and len(query) == dimension and _bounded(query, largest):
        found: FloatMatrix = query[None, :]
        return found
    return as_queries(np.asarray(query)[None, :], dimension, largest)


def _bounded(query: NDArray[np.float32], largest: float) -> bool:
    """Whether a score of one query (w,) surely cannot overflow, told by its length alone: Σ|x| ≤ √w·‖x‖.

    False where it is not finite, or within a hundredth of the largest float: `as_queries` then adds the values up.
    """
    squares = float(_fvec_norm_L2sqr(faiss.swig_ptr(query), len(query)))  # numpy would warn where they overflow
    return math.sqrt(len(query) * squares) * largest <= 0.99 * _LARGEST_FLOAT


def inner_products(queries: FloatMatrix, vectors: FloatMatrix) -> FloatMatrix:
    """All scores, shape (q, n) float32; equal rows get bitwise equal scores whatever their position.

    Args:
        queries: (q, w) from `as_vectors`.
        vectors: (n, w) C-contiguous float32.
    """
    n, width = vectors.shape
    scores_QN = np.empty((len(queries), n), dtype=np.float32)
    if n == 0:
        return scores_QN
    if len(queries) == 1:
        pointers = faiss.swig_ptr(scores_QN), faiss.swig_ptr(queries), faiss.swig_ptr(vectors)
        _fvec_inner_products_ny(*pointers, width, n)
        return scores_QN
    for start in range(0, n, _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS]
        block_pointer = faiss.swig_ptr(block)
        for query, scores in zip(queries, scores_QN, strict=True):
            target = scores[start : start + _BLOCK_ROWS]
            _fvec_inner_products_ny(faiss.swig_ptr(target), faiss.swig_ptr(query), block_pointer, width, len(block))
    return scores_QN


def best(scores: NDArray[np.float32], keys: NDArray[np.integer[Any]], k: int) -> IntVector:
    """Positions of the k best scores, best first, ties by smaller key; min(k, n) of them, int64.

    Exclude a position by setting its score to −inf and asking for no more than the others.
    """
    if k <= 0:
        return np.empty(0, dtype=np.int64)
    if k >= len(scores):
        return np.lexsort((keys, -scores)).astype(np.int64, copy=False)
    near = near_largest(scores, k)
    found = near[np.lexsort((keys.take(near), -scores.take(near)))]
    return found[:k].astype(np.int64, copy=False)
