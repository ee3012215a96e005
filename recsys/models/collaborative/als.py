"""Implicit-feedback ALS with frequency-scaled regularisation: the border module around the untyped `implicit`.

Formula and sources: docs/formulas/collaborative.md, «ALS». The online path uses `fold_in` and never imports this.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from implicit.cpu import als as _implicit_als
from pydantic import BaseModel, ConfigDict, Field
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped, unused-ignore]

from recsys.models.collaborative.fold_in import fold_in, gram
from recsys.models.collaborative.interactions import Csr, FloatArray, Interactions, RowArray
from recsys.models.collaborative.protocol import FittedCollaborative

_half_step: Callable[..., None] = _implicit_als._als.least_squares_cg
_HOSTS_OF_DEFAULT = 2_000
"""The default regularization is for at most so many hosts."""
_LEVELS_PER_OCTAVE = 4  # rows are solved in groups of like regularisation, within 9 % of their own


class AlsConfig(BaseModel):
    """Settings, in the terms of «Revisiting iALS»: its α₀ is `1 / confidence`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factors: int = Field(128, ge=4)
    iterations: int = Field(8, ge=1)
    confidence: float = Field(20.0, ge=1)
    """Weight of a tie of confidence 1, where a pair without a tie weighs 1."""
    regularization: float = Field(0.02, gt=0)
    frequency_exponent: float = Field(1.0, ge=0, le=2)
    """ν: λ of a row grows with (its confidence + number of columns) ** ν; 0 is the same λ for all."""
    cg_steps: int = Field(3, ge=1)
    threads: int = Field(1, ge=1)
    """More than one changes nothing in the result: rows are solved independently."""

    @classmethod
    def suited_to(cls, n_hosts: int, **settings: Any) -> Self:
        """The defaults for a vocabulary of so many hosts, but for `settings`.

        With frequency scaling λ grows with the number of hosts; what suits it in practice grows with its root only.
        """
        scale = min(1.0, sqrt(_HOSTS_OF_DEFAULT / max(n_hosts, 1)))
        return cls(regularization=cls.model_fields["regularization"].default * scale, **settings)


@dataclass(frozen=True, slots=True)
class Als:
    """Alternating least squares by `implicit`'s conjugate-gradient half-steps."""

    config: AlsConfig = field(default_factory=AlsConfig)
    name: str = "als"

    def fit(
        self, interactions: Interactions, seed: int, start: FittedCollaborative | FloatArray | None = None
    ) -> AlsFactors:
        """Alternate from host factors drawn from `seed`, or from those of `start`, where new hosts alone are drawn.

        Args:
            start: a fitted ALS model; or host factors (n_hosts, factors), rows of NaN where there are none: such hosts
                begin at zero.

        Raises:
            ValueError: `start` is no ALS model, has another number of factors, or more hosts.
        """
        config = self.config
        by_user = _confidences(interactions.matrix, config.confidence)
        by_host = by_user.T.tocsr()
        rng = np.random.default_rng(seed)
        scale = 1 / np.sqrt(config.factors)
        users, hosts = (
            (rng.standard_normal((n, config.factors)) * scale).astype(np.float32) for n in interactions.matrix.shape
        )
        if start is not None:
            known = _host_factors(start, hosts.shape)
            hosts[: len(known)] = known
        with threadpool_limits(
            1, "blas"
        ):  # many small systems: the library's own threads would only wait for each other
            if isinstance(start, np.ndarray):
                _solve(by_user, users, hosts, config)  # users begin at random: a step more, or they pull the hosts away
            for _ in range(config.iterations):
                _solve(by_user, users, hosts, config)
                _solve(by_host, hosts, users, config)
        return AlsFactors(config, users, hosts, gram(hosts))

    def work(self, interactions: Interactions) -> float:
        """About how many multiply-adds fitting takes: products with the Gram matrix for each row, with each tie."""
        config = self.config
        a_step = sum(interactions.matrix.shape) * config.factors**2 + 4 * interactions.n_pairs * config.factors
        return float(config.iterations * (config.cg_steps + 1) * a_step)


@dataclass(frozen=True, slots=True)
class AlsFactors:
    """A fitted ALS model: float32 factors of users (n_users, factors) and hosts (n_hosts, factors)."""

    config: AlsConfig
    user_factors: FloatArray
    host_factors: FloatArray
    host_gram: FloatArray
    name: str = "als"

    def fold_in(self, histories: Csr) -> FloatArray:
        """Exact factors of each history, float32 (n_queries, factors)."""
        weighted = _confidences(histories, self.config.confidence)
        penalties = _regularization(weighted, self.config)
        result = np.empty((weighted.shape[0], self.config.factors), np.float32)

        def fill(rows: range) -> None:
            for row in rows:
                inside = slice(weighted.indptr[row], weighted.indptr[row + 1])
                seen, confidences = weighted.indices[inside], weighted.data[inside]
                result[row] = fold_in(self.host_factors, self.host_gram, seen, confidences, float(penalties[row]))

        threads = self.config.threads
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, (range(first, len(result), threads) for first in range(threads))))
        return result

    def scores(self, histories: Csr) -> FloatArray:
        """See `FittedCollaborative.scores`."""
        return self.fold_in(histories) @ self.host_factors.T


def _host_factors(start: FittedCollaborative | FloatArray, shape: tuple[int, ...]) -> FloatArray:
    if isinstance(start, np.ndarray):
        held = np.where(np.isfinite(start).all(axis=1, keepdims=True), start, np.float32(0))
    elif isinstance(start, AlsFactors):
        held = start.host_factors
    else:
        raise ValueError(f"ALS cannot go on from the model {start.name}")
    n_hosts, factors = held.shape
    if factors != shape[1] or n_hosts > shape[0]:
        raise ValueError(f"a start of {n_hosts} hosts with {factors} factors for {shape[0]} with {shape[1]}")
    return held


def _confidences(matrix: Csr, confidence: float) -> Csr:
    return sp.csr_matrix((matrix.data * np.float32(confidence), matrix.indices, matrix.indptr), shape=matrix.shape)


def _regularization(weighted: Csr, config: AlsConfig) -> FloatArray:
    """λ of each row: `regularization · (Σ c + n_columns) ** frequency_exponent`."""
    total = np.asarray(weighted.sum(axis=1), np.float64).ravel() + weighted.shape[1]
    return np.asarray(config.regularization * total**config.frequency_exponent, np.float32)


def _solve(weighted: Csr, solved: FloatArray, fixed: FloatArray, config: AlsConfig) -> None:
    """One half-step in place: `solved` given `fixed`. `implicit` takes one λ a call, so rows go in groups of like λ."""
    penalties = _regularization(weighted, config)
    levels = np.rint(np.log2(penalties) * _LEVELS_PER_OCTAVE).astype(np.int64)
    for level in np.unique(levels):
        rows: RowArray = np.flatnonzero(levels == level)
        part: Any = weighted[rows]
        factors = solved[rows]
        penalty = float(np.mean(penalties[rows], dtype=np.float64))
        _half_step(part, factors, fixed, penalty, num_threads=config.threads, cg_steps=config.cg_steps)
        solved[rows] = factors
