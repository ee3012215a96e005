"""Low-pass filter of a user's history on the graph of hosts: what varies smoothly over shared followers is kept.

Formula and sources: docs/formulas/collaborative.md, «Low-pass filter».
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field

from recsys.models.collaborative.host_weights import HostWeights
from recsys.models.collaborative.interactions import Csr, FloatArray, Interactions, power, scaled
from recsys.models.collaborative.protocol import FittedCollaborative

_BLOCK_CELLS = 1_500_000  # scores made at a time by one thread: a handful of such blocks, 6 MB each, stay in the cache
_POWER_STEPS = 20
_NORM_MARGIN = 1.01  # the power iteration approaches the norm from below, and the filter must not see more than 1


class LowPassConfig(BaseModel):
    """Exponents of the degrees and the response."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_exponent: float = Field(0.3, ge=0, le=1)
    """Users are scaled by degree ** -this: a person with many hosts ties any two of them loosely."""
    host_exponent: float = Field(0.3, ge=0, le=1)
    """Hosts are scaled by degree ** -this in the graph: popular hosts dominate the smooth part less."""
    source_exponent: float = Field(0.3, ge=-1, le=1)
    """How much less still a popular host of the history says about its user."""
    target_exponent: float = Field(0.15, ge=-1, le=1)
    """Scores are scaled by degree ** this; equal to `host_exponent` undoes the scaling of the graph."""
    cutoff: float = Field(0.3, gt=0)
    """The eigenvalue, as a share of the largest, whose part of the history is halved."""
    degree: int = Field(6, ge=1, le=30)
    """Of the polynomial that stands for the response: so many steps there and back over the graph."""
    dense_hosts: int = Field(6000, ge=0)
    """Up to so many hosts the filter is written out as a matrix of weights, so that it can be read row by row."""
    threads: int = Field(1, ge=1)
    """More than one changes nothing in the result: histories are filtered independently."""


@dataclass(frozen=True, slots=True)
class LowPass:
    """`D_h^target · f(G) · D_h^-source` with `G = AᵀA / ‖AᵀA‖`, `A = D_u^-user · R · D_h^-host`."""

    config: LowPassConfig = field(default_factory=LowPassConfig)
    name: str = "low_pass"

    def fit(
        self,
        interactions: Interactions,
        seed: int,
        start: FittedCollaborative | None = None,  # noqa: ARG002
    ) -> HostWeights | GraphOperator:
        """Nothing is solved: the norm of the graph is all that is found, by power iteration from `seed`."""
        operator = self.operator(interactions, seed)
        if interactions.n_hosts > self.config.dense_hosts:
            return operator
        weights = operator.scores(sp.identity(interactions.n_hosts, np.float32, format="csr"))
        return HostWeights(self.name, weights)

    def operator(self, interactions: Interactions, seed: int) -> GraphOperator:
        """The filter as steps over the graph, whatever the number of hosts."""
        config = self.config
        host_degrees = interactions.host_degrees()
        graph = scaled(
            interactions.matrix,
            power(interactions.user_degrees(), -config.user_exponent),
            power(host_degrees, -config.host_exponent),
        )
        back = graph.T.tocsr()
        scale = 1 / _norm(graph, back, seed)
        return GraphOperator(config, graph, scaled(back, np.full(graph.shape[1], scale, np.float32)), host_degrees)


@dataclass(frozen=True, slots=True)
class GraphOperator:
    """A fitted filter: `back · there` is G, both CSR float32, and the degrees of the hosts (n_hosts,)."""

    config: LowPassConfig
    there: Csr
    back: Csr
    host_degrees: FloatArray
    name: str = "low_pass"

    def scores(self, histories: Csr) -> FloatArray:
        """See `FittedCollaborative.scores`. Time is degree · ties · histories, memory a few blocks of scores."""
        result = np.empty(histories.shape, np.float32)
        target = power(self.host_degrees, self.config.target_exponent)
        shares = coefficients(self.config)

        def fill(rows: slice) -> None:
            total: FloatArray | None = None
            for share, term in zip(shares, self.terms(histories[rows]), strict=True):
                if total is None:
                    total = term * share
                else:
                    total += term * share
            assert total is not None
            np.multiply(total.T, target, out=result[rows])

        step = max(1, _BLOCK_CELLS // max(histories.shape[1], 1))
        blocks = [slice(start, start + step) for start in range(0, histories.shape[0], step)]
        with ThreadPoolExecutor(self.config.threads) as pool:  # sparse products leave the interpreter lock
            list(pool.map(fill, blocks))
        return result

    def terms(self, histories: Csr) -> Iterator[FloatArray]:
        """`T_k(2G - I) · D_h^-source · historiesᵀ` for k = 0 … degree, each (n_hosts, n_queries), not to be changed."""
        source = power(self.host_degrees, -self.config.source_exponent)
        before = np.ascontiguousarray(scaled(histories, None, source).T.toarray(), np.float32)
        yield before
        now = self._step(before, 2.0)
        now -= before
        for _ in range(self.config.degree - 1):
            yield now
            after = self._step(now, 4.0)
            after -= 2 * now
            after -= before
            before, now = now, after
        yield now

    def _step(self, signals: FloatArray, factor: float) -> FloatArray:
        stepped: FloatArray = np.asarray(self.back @ (self.there @ signals), np.float32)
        stepped *= np.float32(factor)
        return stepped


def coefficients(config: LowPassConfig) -> npt.NDArray[np.float32]:
    """Chebyshev coefficients, (degree + 1,), of the response `x / (x + cutoff)` on [0, 1]."""

    def response(point: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        eigenvalue = (point + 1) / 2
        return np.asarray(eigenvalue / (eigenvalue + config.cutoff), np.float64)

    interpolate: Any = np.polynomial.chebyshev.chebinterpolate  # its annotations refuse float64
    return np.asarray(interpolate(response, config.degree), np.float32)


def _norm(there: Csr, back: Csr, seed: int) -> float:
    """An upper estimate of the largest eigenvalue of `back · there`; 1 for a graph without ties."""
    signal = np.random.default_rng(seed).random(there.shape[1]).astype(np.float32)
    norm = 0.0
    for _ in range(_POWER_STEPS):
        signal = back @ (there @ signal)
        norm = float(np.linalg.norm(signal))
        if norm == 0:
            return 1.0
        signal /= np.float32(norm)
    return _NORM_MARGIN * norm
