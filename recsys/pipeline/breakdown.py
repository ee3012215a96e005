"""What scores are made of: every term of the ranker, worked out when somebody asks.

Shape letters: n rows, F features, T terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from recsys.models.additive import AdditiveModel
from recsys.models.baselines import PriorRanker
from recsys.models.block_network import BlockNetwork
from recsys.ties.algebra import Floats

COHOST_TERM = "through a co-host"
Ranker = BlockNetwork | AdditiveModel | PriorRanker


@dataclass(frozen=True)
class Breakdown:
    """Of n rows: `scores` (n,) are what was said of them, in it `discounts` (n,), what was added for going through a
    co-host; their features are the columns `of` (n,) of `table` (F, r), copied when somebody asks. The table of all
    that was scored together is kept until it is let go."""

    ranker: Ranker
    table: Floats
    of: npt.NDArray[np.intp]
    scores: Floats
    discounts: Floats

    @property
    def values(self) -> Floats:
        """The features of the rows, (F, n)."""
        return self.table[:, self.of]

    @cached_property
    def contributions(self) -> Floats:
        """What each term adds, (n, T + 1): the ranker's terms, then the discount. With `bias` they sum to the score."""
        values = self.values
        if isinstance(self.ranker, BlockNetwork):
            terms = self.ranker.contributions(values, self.scores - self.discounts)
        else:
            terms = self.ranker.contributions(values)
        return np.concatenate([terms, self.discounts[None, :]]).T

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms."""
        return (*self.ranker.terms, COHOST_TERM)

    @property
    def bias(self) -> float:
        """What every score starts from."""
        return self.ranker.bias

    def told(self, row: int) -> dict[str, float]:
        """The bias and every term that adds to the score of one row, largest first."""
        terms = {name: v for name, v in zip(self.terms, self.contributions[row].tolist(), strict=True) if v}
        return {"bias": self.bias, **dict(sorted(terms.items(), key=lambda term: -abs(term[1])))}

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Breakdown:
        """The breakdown of some of the rows."""
        return Breakdown(self.ranker, self.table, self.of[rows], self.scores[rows], self.discounts[rows])
