"""How good said probabilities are: AUC, log loss, skill over the base rate, calibration, with what chance alone gives.

Rows are weighted by one over the chance with which they were sampled, so that figures speak of all ties and not of the
sample. Intervals resample users (`recsys.evaluation.bootstrap` says why). Formulas: docs/formulas/calibration.md.

Shape letters: n rows, U users, B bins.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from recsys.errors import InputRefused
from recsys.models.calibration import EPS

Floats = npt.NDArray[np.float64]
BINS = 15
REPLICATES = 200
SERVED_ECE_SHARE = 0.10
"""Calibration error, as a share of the base rate, that a served probability may have beyond what chance alone gives."""


@dataclass(frozen=True)
class ProbabilityReport:
    """What became of n said probabilities.

    Attributes:
        rows, base_rate: how many were judged, and the weighted share of them in which it happened.
        auc: chance that a row where it happened was said more than one where it did not; ½ is blind.
        log_loss: mean negative log-likelihood, nats.
        skill, skill_low, skill_high: 1 − log loss / log loss of the base rate, and its 95 % interval over users.
        ece: expected calibration error over 15 bins of equal mass, in units of probability.
        ece_share: `ece` as a share of the base rate.
        ece_chance: the 95th percentile of the `ece` that flawless probabilities would show on these rows.
        curve: per bin mean `said`, share `observed`, number `n`.
    """

    rows: int
    base_rate: float
    auc: float
    log_loss: float
    skill: float
    skill_low: float
    skill_high: float
    ece: float
    ece_share: float
    ece_chance: float
    curve: tuple[dict[str, float], ...]

    @property
    def ece_beyond_chance(self) -> float:
        """Calibration error beyond chance, in units of probability; 0 where chance explains all of it."""
        return max(0.0, self.ece - self.ece_chance)

    @property
    def ece_excess(self) -> float:
        """The same as a share of the base rate."""
        return self.ece_beyond_chance / self.base_rate

    @property
    def worth_serving(self) -> bool:
        """Better than the base rate with its interval, and calibrated as far as these rows can tell."""
        return self.skill_low > 0.0 and self.ece <= SERVED_ECE_SHARE * self.base_rate + self.ece_chance

    def figures(self) -> dict[str, float]:
        """The numbers without the curve."""
        return {name: float(value) for name, value in asdict(self).items() if name != "curve"} | {
            "ece_excess": self.ece_excess
        }

    def document(self) -> dict[str, Any]:
        """The numbers and the curve."""
        return self.figures() | {"reliability": list(self.curve)}


def judge(
    p: ArrayLike,
    y: ArrayLike,
    *,
    users: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    outcomes: ArrayLike | None = None,
    seed: int = 0,
) -> ProbabilityReport:
    """Judge probabilities against outcomes.

    Args:
        p: (n,) probabilities; y: (n,) outcomes in {0, 1}, both values present.
        users: (n,) whom each row belongs to; None: every row its own.
        weight: (n,) rows count this much; None: 1 each.
        outcomes: (n,) rows of one value ask about one and the same outcome, which chance draws once for all of them;
            None: every row its own.

    Raises:
        InputRefused: shapes differ, or y holds one value only: then nothing can be said.
    """
    said, truth = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    mass = np.ones(len(said)) if weight is None else np.asarray(weight, dtype=np.float64)
    of = np.arange(len(said)) if users is None else np.unique(np.asarray(users), return_inverse=True)[1]
    same = np.arange(len(said)) if outcomes is None else np.unique(np.asarray(outcomes), return_inverse=True)[1]
    if not (said.shape == truth.shape == mass.shape == of.shape == same.shape) or len(np.unique(truth)) != 2:
        raise InputRefused(
            "probabilities cannot be judged", got=f"shapes {said.shape}, {truth.shape}, {mass.shape}, {of.shape}, "
            f"{len(np.unique(truth))} outcomes", expected="four arrays of one length, outcomes of both kinds",
        )  # fmt: skip
    rng = np.random.default_rng(seed)
    order = np.argsort(said, kind="stable")
    bins = _bins(mass[order])
    sorted_said, sorted_mass = said[order], mass[order]
    bin_mass = np.bincount(bins, sorted_mass).astype(np.float64)
    mean_said = np.bincount(bins, sorted_mass * sorted_said) / bin_mass
    observed = np.bincount(bins, sorted_mass * truth[order]) / bin_mass
    sorted_same, n_outcomes = same[order], int(same.max()) + 1
    drawn = (rng.random(n_outcomes)[sorted_same] < sorted_said for _ in range(REPLICATES // 2))
    chance = [_error(mean_said, np.bincount(bins, sorted_mass * y) / bin_mass, bin_mass) for y in drawn]
    clipped = np.clip(said, EPS, 1 - EPS)
    losses = -(truth * np.log(clipped) + (1 - truth) * np.log1p(-clipped))
    sums = np.stack([np.bincount(of, mass * column) for column in (losses, truth, np.ones(len(said)))], axis=1)
    times = _drawn(len(sums), rng)
    low, high = np.quantile(_skill(times @ sums), [0.025, 0.975]).tolist()
    base = float(np.average(truth, weights=mass))
    ece = _error(mean_said, observed, bin_mass)
    return ProbabilityReport(
        rows=len(said),
        base_rate=base,
        auc=_auc(said, truth, mass),
        log_loss=float(np.average(losses, weights=mass)),
        skill=float(_skill(sums.sum(axis=0, keepdims=True))[0]),
        skill_low=low,
        skill_high=high,
        ece=ece,
        ece_share=ece / base,
        ece_chance=float(np.quantile(chance, 0.95)),
        curve=tuple(
            {"said": float(s), "observed": float(o), "n": float(n)}
            for s, o, n in zip(mean_said, observed, np.bincount(bins), strict=True)
        ),
    )


def _bins(mass: Floats) -> npt.NDArray[np.int64]:
    """Bin of each row, rows being in order of what was said: B bins of equal mass, fewer when rows are fewer."""
    middle = np.cumsum(mass) - mass / 2
    found = np.floor(min(BINS, len(mass)) * middle / mass.sum()).astype(np.int64)
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def _error(said: Floats, observed: Floats, mass: Floats) -> float:
    return float((mass * np.abs(said - observed)).sum() / mass.sum())


def _drawn(n: int, rng: np.random.Generator) -> Floats:
    """How often each of n users is drawn in each replicate, (REPLICATES, n)."""
    return np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(REPLICATES)]).astype(np.float64)


def _skill(sums: Floats) -> Floats:
    """1 − loss / loss of the base rate, from rows of (loss, happened, mass); 0 where the base rate says all."""
    loss, happened, mass = sums.T
    rate = np.clip(happened / mass, EPS, 1 - EPS)
    base = -mass * (rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    return np.asarray(np.where((happened > 0) & (happened < mass), 1.0 - loss / base, 0.0))


def _auc(said: Floats, truth: Floats, mass: Floats) -> float:
    """Area under the ROC curve, equal values counting half (Mann and Whitney, 1947), weighted."""
    _, at = np.unique(said, return_inverse=True)
    hits, misses = np.bincount(at, mass * truth), np.bincount(at, mass * (1 - truth))
    below = np.cumsum(misses) - misses
    return float((hits * (below + misses / 2)).sum() / (hits.sum() * misses.sum()))
