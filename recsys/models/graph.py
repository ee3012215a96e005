"""A sparse host → host graph, read at request time: similar hosts, or where viewers went next.

score(c) = Σ_h w_h · G[h, c] over the hosts h of a history. Only the rows of the history are touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsys.compiled import compiled
from recsys.models.bound import check_rows


@dataclass(frozen=True)
class HostGraph:
    """CSR rows of a (n, n) float32 matrix. Immutable; any number of threads may read it."""

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    data: npt.NDArray[np.float32]

    @classmethod
    def of(cls, matrix: sp.csr_matrix | npt.NDArray[np.floating[Any]]) -> HostGraph:
        """From a CSR or dense matrix."""
        csr = sp.csr_matrix(matrix)
        return cls(csr.indptr.astype(np.int64), csr.indices.astype(np.int32), csr.data.astype(np.float32))

    @property
    def n_hosts(self) -> int:
        """Hosts the graph knows; later hosts have no edges."""
        return len(self.indptr) - 1

    def scores(
        self, hosts: npt.NDArray[np.integer], weights: npt.NDArray[np.floating[Any]], n_hosts: int
    ) -> npt.NDArray[np.float32]:
        """Scores (n_hosts,) of all hosts from a history.

        Args:
            hosts: (h,) host rows of the history; those the graph does not know are skipped.
            weights: (h,) their weights.
            n_hosts: length of the result, at least the graph's.
        """
        scores = np.zeros(max(n_hosts, self.n_hosts), dtype=np.float32)
        _add_rows(self.indptr, self.indices, self.data, hosts, weights, scores)
        return scores

    def arrays(self, prefix: str) -> dict[str, npt.NDArray[np.generic]]:
        """Plain arrays for a bundle; `from_arrays` reads them back."""
        return {f"{prefix}_indptr": self.indptr, f"{prefix}_indices": self.indices, f"{prefix}_data": self.data}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> HostGraph:
        """The graph written by `arrays`.

        Raises:
            BundleRefused: the arrays are no graph: reading it would leave them.
        """
        graph = cls(*(arrays[f"{prefix}_{part}"] for part in ("indptr", "indices", "data")))
        check_rows(graph.indptr, graph.indices, len(graph.data), graph.n_hosts, where=f"models/{prefix}")
        return graph


@compiled
def _add_rows(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    data: npt.NDArray[np.float32],
    hosts: npt.NDArray[np.integer],
    weights: npt.NDArray[np.floating[Any]],
    scores: npt.NDArray[np.float32],
) -> None:
    """Add the weighted rows of the graph to `scores`; hosts it does not know have none."""
    for i in range(len(hosts)):
        if hosts[i] < len(indptr) - 1:
            weight, row = np.float32(weights[i]), slice(indptr[hosts[i]], indptr[hosts[i] + 1])
            others, edges = indices[row], data[row]
            for z in range(len(others)):
                scores[np.uint32(others[z])] += weight * edges[z]  # unsigned: not looked at whether it is negative
