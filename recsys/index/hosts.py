"""Nearest hosts by inner product or cosine: for diagnostics and offline work, never on the path of a request."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.index.flat import FloatMatrix, IntVector, as_queries, as_vectors, best, inner_products, largest_entry


class HostIndex:
    """Exact index over all host vectors.

    Args:
        vectors: (n_hosts, d), row = host row, finite; copied to float32.
        normalise: divide each vector by its length, so that scores are cosines when queries are unit vectors.
            A zero vector stays zero.

    Raises:
        IndexInputError: wrong shape or a value that is not finite.

    Threading: immutable after construction; any number of readers.
    """

    def __init__(self, vectors: Any, *, normalise: bool = False) -> None:
        rows = as_vectors(vectors, what="host vectors")
        self.dimension = int(np.shape(vectors)[1])
        if normalise:
            length = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1, keepdims=True))
            rows = (rows / np.where(length > 0, length, 1.0)).astype(np.float32)
        elif np.shares_memory(rows, vectors):
            rows = rows.copy()
        self._vectors = rows
        self._keys = np.arange(len(rows))
        self._largest = largest_entry(rows)

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Any, k: int) -> tuple[IntVector, FloatMatrix]:
        """Best hosts of each query: (q, k′) host rows and scores, k′ = min(k, n_hosts); ties by smaller host row.

        Raises:
            IndexInputError: queries of another dimension, not finite, or too large.
        """
        asked = as_queries(queries, self.dimension, self._largest)
        return self._ranked(inner_products(asked, self._vectors), min(max(k, 0), len(self)))

    def neighbours(self, host: int, k: int) -> tuple[IntVector, FloatMatrix]:
        """Hosts most similar to one of the index, itself left out: (k′,) host rows and scores, k′ = min(k, n − 1)."""
        scores = inner_products(self._vectors[host : host + 1], self._vectors)
        scores[0, host] = -np.inf
        hosts, near = self._ranked(scores, min(max(k, 0), len(self) - 1))
        return hosts[0], near[0]

    def _ranked(self, scores_QN: FloatMatrix, k: int) -> tuple[IntVector, FloatMatrix]:
        hosts = np.empty((len(scores_QN), k), dtype=np.int64)
        for row, scores in zip(hosts, scores_QN, strict=True):
            row[:] = best(scores, self._keys, k)
        return hosts, np.take_along_axis(scores_QN, hosts, axis=1)
