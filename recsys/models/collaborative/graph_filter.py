"""Graph filter: two steps over the user–host graph, with a degree exponent of its own at each end.

Formula and sources: docs/formulas/collaborative.md, «Graph filter».
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field

from recsys.models.collaborative.host_weights import HostWeights, stack_pruned
from recsys.models.collaborative.interactions import Csr, Interactions, power, scaled

_BLOCK_CELLS = 48_000_000  # of a block of weights, if all of them were filled


class GraphFilterConfig(BaseModel):
    """Exponents of the degrees; 0.5 three times is the symmetric filter of GF-CF."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_exponent: float = Field(0.6, ge=0, le=2)
    """How much less a path counts through a user with many hosts."""
    source_exponent: float = Field(0.6, ge=0, le=2)
    """How much less a popular host of the history says about its user."""
    target_exponent: float = Field(0.3, ge=0, le=2)
    """How much less a popular host is recommended."""
    neighbours: int = Field(1500, ge=1)
    """Entries kept for each host of a history."""


@dataclass(frozen=True, slots=True)
class GraphFilter:
    """`W = D_h^-source · Rᵀ · D_u^-user · R · D_h^-target`, zero diagonal, largest `neighbours` of each row."""

    config: GraphFilterConfig = field(default_factory=GraphFilterConfig)
    name: str = "graph_filter"

    def fit(self, interactions: Interactions, seed: int = 0) -> HostWeights:  # noqa: ARG002  (deterministic)
        """Closed form; the seed is not used."""
        config, matrix = self.config, interactions.matrix
        host_degrees = interactions.host_degrees()
        reached = scaled(matrix, power(interactions.user_degrees(), -config.user_exponent))
        reached = scaled(reached, None, power(host_degrees, -config.target_exponent))
        back = scaled(matrix, None, power(host_degrees, -config.source_exponent)).T.tocsr()
        weights = stack_pruned(_paths(back, reached), interactions.n_hosts, config.neighbours)
        return HostWeights(self.name, weights)


def _paths(back: Csr, reached: Csr) -> Iterator[Csr]:
    """`back · reached` without its diagonal, in blocks of rows."""
    step = max(1, _BLOCK_CELLS // max(reached.shape[1], 1))
    for start in range(0, back.shape[0], step):
        block = sp.csr_matrix(back[start : start + step] @ reached)
        rows = start + block.tocoo().row
        off_diagonal = rows != block.indices
        block.data *= off_diagonal
        block.eliminate_zeros()
        yield block
