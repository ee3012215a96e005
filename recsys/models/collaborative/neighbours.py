"""Item neighbours by a power of their cosine: a few close hosts speak, the many loosely related ones do not.

Formula and sources: docs/formulas/collaborative.md, «Neighbours».
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field

from recsys.models.collaborative.host_weights import HostWeights, stack_pruned
from recsys.models.collaborative.interactions import Csr, Interactions, power, scaled
from recsys.models.collaborative.protocol import FittedCollaborative

_BLOCK_ROWS = 512


class NeighboursConfig(BaseModel):
    """Exponents of the degrees and of the similarity itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_exponent: float = Field(0.3, ge=0, le=1)
    """Followers are scaled by degree ** -this before hosts are compared."""
    source_exponent: float = Field(0.5, ge=0, le=1)
    """Similarities are divided by the degree of the host of the history ** this; ½ at both ends is the cosine."""
    target_exponent: float = Field(0.4, ge=0, le=1)
    """And by the degree of the host scored ** this; less than ½ recommends popular hosts more."""
    sharpness: float = Field(2.0, gt=0, le=8)
    """The power similarities are raised to: 1 lets the many loose ones add up, larger ones leave it to the closest."""
    neighbours: int = Field(1500, ge=1)
    """Entries kept for each host of a history."""

    @classmethod
    def by_itself(cls, neighbours: int) -> NeighboursConfig:
        """For scores that nothing is blended with: then the many loose similarities help (docs/results.md)."""
        return cls(user_exponent=0.5, sharpness=1.0, neighbours=neighbours)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """`W_ij = (Σ_u a_ui·a_uj / (d_i^source · d_j^target)) ^ sharpness` for i ≠ j, with `a = d_u^-user · R`."""

    config: NeighboursConfig = field(default_factory=NeighboursConfig)
    name: str = "neighbours"

    def fit(
        self,
        interactions: Interactions,
        seed: int = 0,  # noqa: ARG002
        start: FittedCollaborative | None = None,  # noqa: ARG002
    ) -> HostWeights:
        """Counted at once, without seed or start. Time is `work`."""
        return HostWeights(
            self.name, stack_pruned(self._rows(interactions), interactions.n_hosts, self.config.neighbours)
        )

    def work(self, interactions: Interactions) -> float:
        """How many pairs of hosts are counted: the sum of squares of how many hosts each user has."""
        return float((np.diff(interactions.matrix.indptr).astype(np.float64) ** 2).sum())

    def _rows(self, interactions: Interactions) -> Iterator[Csr]:
        config = self.config
        degrees = interactions.host_degrees()
        by_user = scaled(interactions.matrix, power(interactions.user_degrees(), -config.user_exponent))
        by_host = by_user.T.tocsr()
        source = power(degrees, -config.source_exponent)
        target = power(degrees, -config.target_exponent)
        for start in range(0, interactions.n_hosts, _BLOCK_ROWS):
            block = sp.csr_matrix(by_host[start : start + _BLOCK_ROWS] @ by_user)
            rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
            block.data[block.indices == rows + start] = 0
            block.eliminate_zeros()
            similar = scaled(block, source[start : start + block.shape[0]], target)
            similar.data **= np.float32(config.sharpness)
            yield similar
