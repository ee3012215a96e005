"""Who has a tie to which host: the one input of every collaborative model.

Rows are dense rows of vocabularies (`recsys.ids`); this module never sees external ids or times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Csr: TypeAlias = "sp.csr_matrix"
FloatArray: TypeAlias = npt.NDArray[np.float32]
RowArray: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interactions:
    """Users × hosts with a positive confidence where there is a tie.

    `matrix` is float32 CSR, shape (n_users, n_hosts), canonical: host rows ascending within a user, no pair twice, no
    stored zeros. Build it with `from_rows`, which makes it so; a confidence of 1 everywhere is plain «follows».
    """

    matrix: Csr

    @classmethod
    def from_rows(
        cls,
        user_rows: npt.NDArray[np.integer],
        host_rows: npt.NDArray[np.integer],
        confidences: npt.NDArray[np.floating] | None = None,
        *,
        n_users: int,
        n_hosts: int,
    ) -> Interactions:
        """From parallel arrays of equal length; a pair given twice counts once, with its largest confidence.

        Raises:
            ValueError: rows outside the shape, or a confidence that is not positive and finite.
        """
        users, hosts = np.asarray(user_rows, np.int64), np.asarray(host_rows, np.int64)
        values = np.ones(len(users), np.float32) if confidences is None else np.asarray(confidences, np.float32)
        if not len(users) == len(hosts) == len(values):
            raise ValueError(f"{len(users)} users, {len(hosts)} hosts, {len(values)} confidences")
        if len(users) and (min(users.min(), hosts.min()) < 0 or users.max() >= n_users or hosts.max() >= n_hosts):
            raise ValueError(f"a row outside {n_users} users × {n_hosts} hosts")
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise ValueError("confidences must be positive and finite")
        order = np.lexsort((-values, hosts, users))
        users, hosts, values = users[order], hosts[order], values[order]
        first = np.ones(len(users), bool)
        first[1:] = (users[1:] != users[:-1]) | (hosts[1:] != hosts[:-1])
        users, hosts, values = users[first], hosts[first], values[first]
        indptr = np.zeros(n_users + 1, np.int64)
        np.cumsum(np.bincount(users, minlength=n_users), out=indptr[1:])
        index = np.int32 if max(len(users), n_hosts) < 2**31 else np.int64
        matrix = sp.csr_matrix((values, hosts.astype(index), indptr.astype(index)), shape=(n_users, n_hosts))
        matrix.has_canonical_format = True
        return cls(matrix)

    @property
    def n_users(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def n_hosts(self) -> int:
        return int(self.matrix.shape[1])

    @property
    def n_pairs(self) -> int:
        return int(self.matrix.nnz)

    def user_degrees(self) -> FloatArray:
        """Sum of confidences of each user, shape (n_users,)."""
        return np.asarray(self.matrix.sum(axis=1), np.float32).ravel()

    def host_degrees(self) -> FloatArray:
        """Sum of confidences of each host, shape (n_hosts,)."""
        return np.asarray(self.matrix.sum(axis=0), np.float32).ravel()

    def hold_out(self, share: float, seed: int, users: RowArray | None = None) -> tuple[Interactions, Csr]:
        """Keep back a random `share` of the hosts of each user, or of each of `users` only.

        A user with at least two hosts gives at least one and keeps at least one, so that he can be both asked and
        checked; a user with one host keeps it.

        Returns:
            The rest, and what was kept back as a CSR matrix of the same shape.
        """
        if not 0 < share < 1:
            raise ValueError(f"share {share} is not within (0, 1)")
        counts = np.diff(self.matrix.indptr)
        of_pair = np.repeat(np.arange(self.n_users), counts)
        draw = np.random.default_rng(seed).random(self.n_pairs)
        order = np.lexsort((draw, of_pair))  # within each user in random order
        rank = np.empty(self.n_pairs, np.int64)
        rank[order] = np.arange(self.n_pairs) - np.repeat(self.matrix.indptr[:-1], counts)
        taken = given(counts, share)
        if users is not None:
            asked = np.zeros(self.n_users, bool)
            asked[users] = True
            taken[~asked] = 0
        held = rank < np.repeat(taken, counts)
        return Interactions(_select(self.matrix, of_pair, ~held)), _select(self.matrix, of_pair, held)


def given(counts: npt.NDArray[np.integer], share: float) -> npt.NDArray[np.int64]:
    """How many of his hosts a user with `counts` (n,) of them gives when `share` is kept back: see `hold_out`."""
    wanted = np.maximum(np.rint(counts * share), 1).astype(np.int64)
    taken: npt.NDArray[np.int64] = np.clip(wanted, 0, np.maximum(counts - 1, 0))
    return taken


def _select(matrix: Csr, users: RowArray, keep: npt.NDArray[np.bool_]) -> Csr:
    indptr = np.zeros(matrix.shape[0] + 1, matrix.indptr.dtype)
    np.cumsum(np.bincount(users[keep], minlength=matrix.shape[0]), out=indptr[1:])
    chosen = sp.csr_matrix((matrix.data[keep], matrix.indices[keep], indptr), shape=matrix.shape)
    chosen.has_canonical_format = True
    return chosen


def power(degrees: FloatArray, exponent: float) -> FloatArray:
    """`degrees ** exponent`, and 0 where the degree is 0 (a host nobody has a tie to is reached by no path)."""
    result = np.zeros(len(degrees), np.float32)
    positive = degrees > 0
    result[positive] = degrees[positive].astype(np.float64) ** exponent
    return result


def scaled(matrix: Csr, row_factors: FloatArray | None = None, column_factors: FloatArray | None = None) -> Csr:
    """`diag(row_factors) · matrix · diag(column_factors)` as a new CSR matrix; None leaves a side as it is."""
    data = matrix.data.copy()
    if row_factors is not None:
        data *= np.repeat(row_factors, np.diff(matrix.indptr))
    if column_factors is not None:
        data *= column_factors[matrix.indices]
    return sp.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)
