"""EASE on the degree-normalised user–host graph, by whichever of its two Gram matrices is smaller.

Formula and sources: docs/formulas/collaborative.md, «EASE».
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field

from recsys.models.collaborative.dense_inverse import invert_in_place
from recsys.models.collaborative.host_weights import HostWeights, stack_pruned
from recsys.models.collaborative.interactions import Csr, FloatArray, Interactions, power, scaled
from recsys.models.collaborative.protocol import FittedCollaborative

_BLOCK_ROWS = 512


class EaseConfig(BaseModel):
    """Settings; exponents 0 and a regularisation of some hundreds are the EASE of the paper."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    regularization: float = Field(500.0, gt=0)
    """Ridge λ in units of the mean squared entry of the scaled graph, so that it means the same at any exponents."""
    user_exponent: float = Field(0.35, ge=0, le=1)
    """Users are scaled by degree ** -this: the error of a user with many hosts weighs less."""
    host_exponent: float = Field(0.3, ge=0, le=1)
    """Hosts are scaled by degree ** -this: popular hosts are regularised more."""
    target_exponent: float = Field(0.1, ge=-1, le=1)
    """Scores are scaled back by degree ** this; equal to `host_exponent` undoes the scaling exactly."""
    neighbours: int = Field(1500, ge=1)
    """Entries kept for each host of a history when weights are not kept dense."""
    dense_hosts: int = Field(6000, ge=1)
    """Up to so many hosts all weights are kept, dense."""


@dataclass(frozen=True, slots=True)
class Ease:
    """Ridge regression of every host on all others at once, weights of a host on itself forced to zero."""

    config: EaseConfig = field(default_factory=EaseConfig)
    name: str = "ease"

    def fit(
        self,
        interactions: Interactions,
        seed: int = 0,  # noqa: ARG002
        start: FittedCollaborative | None = None,  # noqa: ARG002
    ) -> HostWeights:
        """Solved at once, without seed or start. Time is the cube of `dense_dimension`, memory 5 bytes × its square."""
        config = self.config
        host_degrees = interactions.host_degrees()
        shrink = power(host_degrees, -config.host_exponent)
        grow = power(host_degrees, config.target_exponent)
        graph = scaled(interactions.matrix, power(interactions.user_degrees(), -config.user_exponent), shrink)
        penalty = config.regularization * float(np.mean(graph.data.astype(np.float64) ** 2)) if graph.nnz else 1.0
        rows = (_primal if graph.shape[1] <= graph.shape[0] else _dual)(graph, penalty)
        blocks = (block * shrink[start : start + len(block), None] * grow for start, block in rows)
        if interactions.n_hosts <= config.dense_hosts:
            weights: FloatArray | Csr = np.concatenate(list(blocks)).astype(np.float32, copy=False)
        else:
            weights = stack_pruned(blocks, interactions.n_hosts, config.neighbours)
        return HostWeights(self.name, weights)


def dense_dimension(n_users: int, n_hosts: int) -> int:
    """Side of the one dense matrix that fitting inverts."""
    return min(n_users, n_hosts)


def _primal(graph: Csr, regularization: float) -> Iterator[tuple[int, FloatArray]]:
    """Rows of `B = I - P · diag(1 / diag P)` with `P = (XᵀX + λI)⁻¹`, in blocks with the row they start at."""
    inverse = _regularised_inverse(graph.T.tocsr(), regularization)
    scale = np.asarray(-1 / np.diagonal(inverse), np.float32)
    for start in range(0, len(inverse), _BLOCK_ROWS):
        block: FloatArray = inverse[start : start + _BLOCK_ROWS] * scale
        own = np.arange(len(block))
        block[own, start + own] = 0
        yield start, block


def _dual(graph: Csr, regularization: float) -> Iterator[tuple[int, FloatArray]]:
    """The same from users: `λP = I - Xᵀ(XXᵀ + λI)⁻¹X`, so that only an n_users² matrix is ever inverted."""
    inverse = _regularised_inverse(graph, regularization)
    by_host = graph.T.tocsr()
    diagonal = np.empty(graph.shape[1], np.float32)
    for host in range(graph.shape[1]):
        inside = slice(by_host.indptr[host], by_host.indptr[host + 1])
        users, values = by_host.indices[inside], by_host.data[inside]
        diagonal[host] = 1 - values @ inverse[np.ix_(users, users)] @ values
    scale = np.asarray(1 / diagonal, np.float32)
    for start in range(0, graph.shape[1], _BLOCK_ROWS):
        through_users = by_host[start : start + _BLOCK_ROWS] @ inverse
        block: FloatArray = np.ascontiguousarray((by_host @ np.ascontiguousarray(through_users.T)).T) * scale
        own = np.arange(len(block))
        block[own, start + own] = 0
        yield start, block


def _regularised_inverse(rows: Csr, regularization: float) -> FloatArray:
    """`(rows · rowsᵀ + λI)⁻¹`, dense float32."""
    n = rows.shape[0]
    gram: FloatArray = np.empty((n, n), np.float32)
    columns = rows.T.tocsr()
    for start in range(0, n, _BLOCK_ROWS):
        gram[start : start + _BLOCK_ROWS] = sp.csr_matrix(rows[start : start + _BLOCK_ROWS] @ columns).toarray()
    gram[np.diag_indices(n)] += np.float32(regularization)
    invert_in_place(gram)
    return gram
