"""The common form of the linear models: one weight for each (host of the history, host to score).

Graph filters, EASE and neighbourhood models all end as a matrix W, and `scores = histories · W`. Large ones are built a
block of rows at a time and each row keeps only its largest entries, so that memory is `n_hosts · neighbours`, never
`n_hosts²`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsys.models.collaborative.interactions import Csr, FloatArray, scaled


@dataclass(frozen=True, slots=True)
class HostWeights:
    """A fitted linear model.

    `weights` is float32, shape (n_hosts, n_hosts), dense or CSR: row = host of the history, column = host scored.
    """

    name: str
    weights: FloatArray | Csr

    def scores(self, histories: Csr) -> FloatArray:
        """`histories · weights`, float32 (n_queries, n_hosts); see `FittedCollaborative.scores`."""
        product = histories @ self.weights
        dense = product.toarray() if sp.issparse(product) else np.asarray(product)
        return np.ascontiguousarray(dense, dtype=np.float32)

    def row(self, host_row: int) -> FloatArray:
        """Weights from one host to every host, float32 (n_hosts,): the neighbours to explain an answer with."""
        if isinstance(self.weights, np.ndarray):
            return np.asarray(self.weights[host_row], np.float32)
        return np.asarray(self.weights[[host_row]].toarray(), np.float32).ravel()

    def rescaled(self, host_factors: FloatArray) -> HostWeights:
        """The model whose scores are these times one factor for each host scored."""
        if isinstance(self.weights, np.ndarray):
            return HostWeights(self.name, np.asarray(self.weights * host_factors, np.float32))
        return HostWeights(self.name, scaled(self.weights, None, host_factors))


def stack_pruned(blocks: Iterable[FloatArray | Csr], n_hosts: int, neighbours: int) -> Csr:
    """Rows block by block into one CSR matrix, of each row the `neighbours` entries of largest magnitude.

    Args:
        blocks: consecutive rows of the full matrix, each of shape (block, n_hosts), dense or CSR.
    """
    data: list[FloatArray] = []
    indices: list[npt.NDArray[np.int32]] = []
    lengths: list[npt.NDArray[np.int64]] = [np.zeros(1, np.int64)]
    for block in blocks:
        kept = (
            _largest_sparse(block, neighbours) if sp.issparse(block) else _largest_dense(np.asarray(block), neighbours)
        )
        data.append(kept.data.astype(np.float32, copy=False))
        indices.append(kept.indices.astype(np.int32, copy=False))
        lengths.append(np.diff(kept.indptr).astype(np.int64))
    indptr = np.cumsum(np.concatenate(lengths))
    shape = (len(indptr) - 1, n_hosts)
    if not data:
        return sp.csr_matrix(np.zeros(shape, np.float32))
    return sp.csr_matrix((np.concatenate(data), np.concatenate(indices), indptr), shape=shape)


def _largest_dense(block: FloatArray, neighbours: int) -> Csr:
    if neighbours >= block.shape[1]:
        return sp.csr_matrix(block)
    columns = np.argpartition(-np.abs(block), neighbours, axis=1)[:, :neighbours]
    columns.sort(axis=1)
    values = np.take_along_axis(block, columns, axis=1)
    filled = values != 0
    indptr = np.zeros(len(block) + 1, np.int64)
    np.cumsum(filled.sum(axis=1), out=indptr[1:])
    return sp.csr_matrix((values[filled], columns[filled].astype(np.int32), indptr), shape=block.shape)


def _largest_sparse(block: Csr, neighbours: int) -> Csr:
    counts = np.diff(block.indptr)
    if not len(counts) or counts.max() <= neighbours:
        return block
    rows = np.repeat(np.arange(block.shape[0]), counts)
    order = np.lexsort((-np.abs(block.data), rows))
    rank = np.arange(block.nnz) - np.repeat(block.indptr[:-1], counts)
    kept = np.sort(order[rank < neighbours])
    indptr = np.zeros(block.shape[0] + 1, np.int64)
    np.cumsum(np.minimum(counts, neighbours), out=indptr[1:])
    return sp.csr_matrix((block.data[kept], block.indices[kept], indptr), shape=block.shape)
