"""Demand: how many viewers a host's next broadcast will bring back, how many of them buy, and how much they order.

A sum of probabilities over all ties of the host, each calibrated for a tie *at rest* (as it is at any instant, not as
it is when its viewer has just come somewhere), times what the host's own broadcasts showed beyond such sums, shrunk.
Formulas: docs/formulas/demand.md.

Shape letters: m ties, F tie features, H hosts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.models.strength import StrengthHead
from recsys.ties.algebra import Floats

QUANTITIES = ("viewers", "buyers", "orders")
"""What is expected of a broadcast: viewers who return, those of them who buy, and the orders they place."""


@dataclass(frozen=True)
class Quantity:
    """One quantity of a broadcast, summed over ties.

    Attributes:
        head: what a tie at rest contributes.
        per_tie: each tie of whom it is true counts this much: orders per buyer, else 1.
        ratio: (H,) what the host's broadcasts showed over what its ties said, shrunk towards 1.
        shape: of the gamma by which a broadcast's mean varies around its expectation; larger is more certain.
    """

    head: StrengthHead
    per_tie: float
    ratio: Floats
    shape: float

    def per_tie_of(self, tie_values: Floats) -> Floats:
        """What ties with features (F, m) contribute (m,), before the ratio of their host."""
        return self.per_tie * self.head.probability(tie_values)

    def of_hosts(self, summed: Floats) -> Floats:
        """Expectations (H,) from sums over ties (H,); hosts newer than the model keep their sum."""
        ratio = np.ones(len(summed))
        known = min(len(summed), len(self.ratio))
        ratio[:known] = self.ratio[:known]
        return np.asarray(summed * ratio)


@dataclass(frozen=True)
class Demand:
    """The quantities that could be learnt, by name (`QUANTITIES`)."""

    of: Mapping[str, Quantity]

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Plain arrays for a bundle; `from_arrays` reads them back."""
        found: dict[str, npt.NDArray[np.generic]] = {}
        for name, quantity in self.of.items():
            found |= {f"demand_{key}": array for key, array in quantity.head.arrays().items()}
            found[f"demand_{name}_ratio"] = quantity.ratio
            found[f"demand_{name}"] = np.array([quantity.per_tie, quantity.shape])
        return found

    @classmethod
    def from_arrays(cls, heads: Mapping[str, str], arrays: Mapping[str, npt.NDArray[Any]]) -> Demand:
        """The demand written by `arrays`; `heads`: the name of the head of every quantity."""
        of = {}
        for name, head in heads.items():
            per_tie, shape = np.asarray(arrays[f"demand_{name}"], dtype=np.float64).tolist()
            said = StrengthHead.from_arrays(head, _Prefixed(arrays))
            of[name] = Quantity(said, per_tie, np.asarray(arrays[f"demand_{name}_ratio"]), shape)
        return cls(of)

    def heads(self) -> dict[str, str]:
        """The name of the head of every quantity, for `from_arrays`."""
        return {name: quantity.head.name for name, quantity in self.of.items()}


class _Prefixed(dict[str, npt.NDArray[Any]]):
    """The arrays whose names begin with `demand_`, without it."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        super().__init__()
        self._arrays = arrays

    def __missing__(self, name: str) -> npt.NDArray[Any]:
        return self._arrays[f"demand_{name}"]
