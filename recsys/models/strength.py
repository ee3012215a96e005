"""Strength and the heads beside it: calibrated probabilities of what a tie will do next, additively explained.

Strength is the probability that the viewer enters the host's next broadcast, given what binds the two and nothing of
the moment; `returns` is the same given everything known of the tie (docs/formulas/strength.md). A head is an additive
model on tie features (log-odds) followed by a monotone calibration fitted on a later window than it was trained on.

Shape letters: m ties, F tie features, T terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled
from recsys.models.additive import AdditiveModel
from recsys.models.bound import check_shapes
from recsys.models.calibration import IsotonicMap, sigmoid
from recsys.models.distinct import distinct
from recsys.models.stacked import StackedModels
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


@dataclass(frozen=True, eq=False)
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
        different, of = distinct(tie_values)
        return self.calibration.apply(sigmoid(self.model.score(different))).take(of)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Plain arrays for a bundle; `from_arrays` reads them back."""
        prefix = f"strength_{self.name}"
        knots = {f"{prefix}_calibration_{axis}": values for axis, values in self.calibration.to_arrays().items()}
        return {**self.model.arrays(prefix), **knots, f"{prefix}_stranger": np.array([self.stranger])}

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> StrengthHead:
        """The head written by `arrays`. BundleRefused: its arrays do not fit each other."""
        prefix = f"strength_{name}"
        knots = {axis: arrays[f"{prefix}_calibration_{axis}"] for axis in ("x", "y")}
        n_knots = max(1, knots["x"].size)
        check_shapes(knots, {"x": (n_knots,), "y": (n_knots,)}, where=f"models/{prefix}_calibration")
        model = AdditiveModel.from_arrays(TIE_FEATURES, arrays, prefix)
        return cls(name, model, IsotonicMap.from_arrays(knots), float(arrays[f"{prefix}_stranger"][0]))


def strength_head(heads: Mapping[str, StrengthHead]) -> StrengthHead | None:
    """The head whose probability is the strength of a tie; None without one.

    In bundles built before strength had a head of its own it is `returns`.
    """
    return heads.get(STRENGTH) or heads.get("returns")


class _Stack(NamedTuple):
    """H heads as one: their models, the knots of their maps end to end (those of head h from `ends[h]` on), what they
    say of strangers and which speak of customers only, (H,) each."""

    models: StackedModels
    said: Floats
    calibrated: Floats
    ends: npt.NDArray[np.int64]
    strangers: Floats
    of_customers: npt.NDArray[np.bool_]


def heads_say(
    heads: Mapping[str, StrengthHead], known: Floats, where: npt.NDArray[np.intp], n: int
) -> dict[str, Floats]:
    """Probabilities (n,) of every head for n pairs; those at `where` (m,) have ties with features `known` (F, m).

    NaN where a head does not apply. All heads are read in one go.
    """
    stack, (different, of) = _stacked(tuple(heads.values())), distinct(known)
    chances = sigmoid(stack.models.scores(different))
    _calibrate(chances, stack.said, stack.calibrated, stack.ends)
    found = np.empty((len(heads), n))
    _say(chances, of, stack.strangers, stack.of_customers, known[_ORDERS], where, found)
    return dict(zip(heads, found, strict=True))


@lru_cache(maxsize=8)
def _stacked(heads: tuple[StrengthHead, ...]) -> _Stack:
    maps = [head.calibration for head in heads]
    return _Stack(
        StackedModels([head.model for head in heads]),
        np.concatenate([np.empty(0), *(map_.x for map_ in maps)]),
        np.concatenate([np.empty(0), *(map_.y for map_ in maps)]),
        np.cumsum([0, *(len(map_.x) for map_ in maps)]),
        np.array([head.stranger for head in heads], dtype=np.float64),
        np.array([head.name in _OF_CUSTOMERS for head in heads], dtype=np.bool_),
    )


@compiled
def _calibrate(chances: Floats, said: Floats, calibrated: Floats, ends: npt.NDArray[np.int64]) -> None:
    """`IsotonicMap.apply` of every head to its row of `chances` (H, m), in place."""
    for h in range(len(chances)):
        row, x, y = chances[h], said[ends[h] : ends[h + 1]], calibrated[ends[h] : ends[h + 1]]
        row[:] = np.interp(row, x, y)


@compiled
def _say(
    chances: Floats, of: npt.NDArray[np.intp], strangers: Floats, of_customers: npt.NDArray[np.bool_], orders: Floats,
    where: npt.NDArray[np.intp], found: Floats,
) -> None:  # fmt: skip
    """Into `found` (H, n) what heads say of strangers, and at `where` (m,) of ties: `chances` (H, u) in the columns
    `of` (m,); NaN where a head of customers meets one without `orders` (m,)."""
    for h in range(len(found)):
        row = found[h]
        row[:] = strangers[h]
        for j in range(len(where)):
            row[where[j]] = chances[h, of[j]] if orders[j] > 0 or not of_customers[h] else np.nan
