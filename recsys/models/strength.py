"""Strength and the heads beside it: calibrated probabilities of what a tie will do next, additively explained.

Strength is the probability that the viewer enters the host's next broadcast, given what binds the two and nothing of
the moment; `returns` is the same given everything known of the tie (docs/formulas/strength.md). A head is an additive
model on tie features (log-odds) followed by a monotone calibration fitted on a later window than it was trained on.

Shape letters: m ties, F tie features, T terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.models.additive import AdditiveModel
from recsys.models.calibration import IsotonicMap, sigmoid
from recsys.models.stacked import stacked
from recsys.ties.algebra import Floats
from recsys.ties.features import TIE_FEATURES

STRENGTH = "strength"
HEADS = {
    STRENGTH: "enters the host's next broadcast, judged by the lasting tie alone",
    "returns": "enters the host's next broadcast",
    "stays": "stays a minute or more in it",
    "lingers": "stays in it beyond two product slots",
    "comments": "comments in it",
    "buys": "buys in it, or within half an hour after it",
    "rebuys": "a customer of the host buys there again within 30 days",
    "turns_away": "unfollows, blocks or sends back within 7 days",
}
"""All heads and what each is the probability of."""
_OF_CUSTOMERS = frozenset({"rebuys"})
_ORDERS = TIE_FEATURES.index("tie_order_lines")


@dataclass(frozen=True)
class StrengthHead:
    """One calibrated head.

    `stranger` is the probability said of a pair without a tie: the rate at which it happened to viewers without one;
    NaN where it means nothing (a stranger cannot buy again).
    """

    name: str
    model: AdditiveModel
    calibration: IsotonicMap
    stranger: float

    def probability(self, tie_values: Floats) -> Floats:
        """Calibrated probabilities (m,) of ties with features (F, m)."""
        return self.calibration.apply(sigmoid(self.model.score(tie_values)))

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Plain arrays for a bundle; `from_arrays` reads them back."""
        prefix = f"strength_{self.name}"
        knots = {f"{prefix}_calibration_{axis}": values for axis, values in self.calibration.to_arrays().items()}
        return {**self.model.arrays(prefix), **knots, f"{prefix}_stranger": np.array([self.stranger])}

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> StrengthHead:
        """The head written by `arrays`."""
        prefix = f"strength_{name}"
        knots = {axis: arrays[f"{prefix}_calibration_{axis}"] for axis in ("x", "y")}
        model = AdditiveModel.from_arrays(TIE_FEATURES, arrays, prefix)
        return cls(name, model, IsotonicMap.from_arrays(knots), float(arrays[f"{prefix}_stranger"][0]))


def strength_head(heads: Mapping[str, StrengthHead]) -> StrengthHead | None:
    """The head whose probability is the strength of a tie; None without one.

    In bundles built before strength had a head of its own it is `returns`.
    """
    return heads.get(STRENGTH) or heads.get("returns")


def heads_say(
    heads: Mapping[str, StrengthHead], known: Floats, where: npt.NDArray[np.intp], n: int
) -> dict[str, Floats]:
    """Probabilities (n,) of every head for n pairs; those at `where` (m,) have ties with features `known` (F, m).

    NaN where a head does not apply. All heads are read in one go.
    """
    odds = sigmoid(stacked(tuple(head.model for head in heads.values())).scores(known))
    found = {}
    for head, chances in zip(heads.values(), odds, strict=True):
        said = found[head.name] = np.full(n, head.stranger)
        said[where] = head.calibration.apply(chances)
        if head.name in _OF_CUSTOMERS:
            said[where[~(known[_ORDERS] > 0)]] = np.nan
    return found
