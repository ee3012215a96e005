"""Drift: how far the ties of today lie from those of the base bundle, feature by feature and head by head.

A build samples ties, and keeps ten bins of equal numbers and the share in each (`profile.json` in the bundle) of every
tie feature and of what every head says of these ties. The population stability index of a later build is
Σ (p − q)·ln(p / q) over these bins, p then and q now; ties without a value are a bin of their own. With shares floored
at 10⁻⁴, 0 is no change; by custom 0.1 is worth a look and 0.25 an alarm. Of n ties each time it is some 20 / n by
chance.

The index of a head asks whether the ties have moved, so it is of one and the same head: what the *base's* head says of
today's ties. Heads are learnt anew every night, and their level follows the latest days: most ties are weak and lie
close together, so a level a tenth higher moves nearly all of them a bin, though their order is as it was. What learning
has changed is told apart: of the same ties the means of what both heads say, the rank correlation between them, and the
slope of the log-odds now on those of the base: 1 is as before, 0 a head that no longer tells ties apart.

What the ranker reads besides ties (rooms, hosts, taste, the viewer) and the chance it gives are of candidates of the
latest requests of the log, of each build its own, and are compared likewise. They move with the hour and the weekday,
so no gate judges them unless one is configured on `drift_psi_candidates_max`. The chance is the softmax of the scores
within a request, by the ranker on trial, which has not seen these requests; a score itself has no level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.bundle import Bundle
from recsys.live.artefact import load_heads
from recsys.live.state import LiveState
from recsys.models.additive_training import softmax
from recsys.models.calibration import logit
from recsys.models.strength import STRENGTH, StrengthHead, heads_say, strength_head
from recsys.pipeline.features import FEATURES
from recsys.ties.features import TIE_FEATURES
from training.tie_log import TieLog

BINS = 10
MOST_USERS = 2_000
AGES = ("tie_days_since_first", "tie_follow_age_days", "host_age_days")
"""Features that grow as the history does: reported, judged by no gate."""
CHANCE = "ranker_chance"
CANDIDATES = (*FEATURES[len(TIE_FEATURES) :], CHANCE)
"""What is compared of candidates: features that are not of the tie, and the chance of being chosen."""
MOST_CANDIDATES = 20_000
LEAST_TIES = 500
"""Of fewer ties the index is chance: it is reported, and gates are skipped."""
LOOK, ALARM = 0.1, 0.25
"""Stability indices that are worth a look, and an alarm."""
_LEAST_SHARE = 1e-4

Values = Mapping[str, npt.NDArray[np.floating]]
Profile = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Drift:
    """What has moved since the base; empty without one.

    `indices`: stability index by name; `relearnt`: of every head that both have, `head`, means `then` (the base's head)
    and `now` of what is said of today's ties, the rank correlation `order` and the `slope`; `metrics`: what gates read.
    """

    indices: dict[str, float] = field(default_factory=dict)
    relearnt: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


def drift_from(
    base: Bundle | None, rows: npt.NDArray[np.float32], now: Values, candidates: Values | None = None
) -> Drift:
    """What has moved since a base bundle.

    Args:
        rows: today's ties (`sampled_ties`); now: what today's heads say of them (`values_of`).
        candidates: the latest candidates (`sampled_candidates`), by the names in `CANDIDATES`.
    """
    before = base_profile(base)
    if base is None or not before:
        return Drift()
    by_base = values_of(rows, load_heads(base))
    if STRENGTH not in before:
        by_base.pop(STRENGTH, None)
    relearnt = _relearnt(by_base, now)
    by_base |= candidates or {}
    metrics = drift_metrics(before, by_base)
    for line in relearnt:
        if line["head"] == STRENGTH and "drift_psi_strength" in metrics:
            metrics["drift_strength_slope"] = line["slope"]
    return Drift(drift_of(before, by_base), relearnt, metrics)


def no_candidates() -> npt.NDArray[np.float32]:
    """The sample of a build without a log of requests."""
    return np.empty((0, len(CANDIDATES)), dtype=np.float32)


def sampled_candidates(
    rows: npt.NDArray[np.float32], scores: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Values (C, len(`CANDIDATES`)) of candidates, every so-manieth of them.

    Args:
        rows: (N, F) features; scores: (N,) of the ranker; groups: (R,) candidates per request.
    """
    every = slice(None, None, max(1, len(rows) // MOST_CANDIDATES))
    chance = softmax(scores, groups)[every].astype(np.float32)
    return np.column_stack([rows[every, len(TIE_FEATURES) :], chance])


def sampled_ties(live: LiveState, as_of_us: int, seed: int) -> npt.NDArray[np.float32]:
    """Features (R, F_tie) of ties of sampled users as of an instant."""
    world, rng = live.world, np.random.default_rng(seed)
    log = TieLog(world, rng)
    users = np.arange(len(world.users))
    if len(users) > MOST_USERS:
        users = np.sort(rng.choice(users, MOST_USERS, replace=False))
    for user in users.tolist():
        log.log(as_of_us, user)
    rows: npt.NDArray[np.float32] = log.rows()[log.frame()["tied"].to_numpy()]
    return rows


def values_of(rows: npt.NDArray[np.float32], heads: Mapping[str, StrengthHead]) -> dict[str, npt.NDArray[np.floating]]:
    """Values (R,) of ties by name: their features, what heads say as `STRENGTH` and `chance_<head>`; NaN: has none.

    Args:
        rows: (R, F_tie).
    """
    values: dict[str, npt.NDArray[np.floating]] = dict(zip(TIE_FEATURES, rows.T, strict=True))
    if heads and len(rows):
        said = heads_say(heads, rows.T.astype(np.float64), np.arange(len(rows)), len(rows))
        strength = strength_head(heads)
        for name, head in heads.items():
            values[STRENGTH if head is strength else f"chance_{name}"] = said[name]
    return values


def profile_of(values: Values) -> Profile:
    """Bins of equal numbers, the share in each (the last one: no value) and of how many ties `n`, by name."""
    profile: Profile = {}
    for name, column in values.items():
        known = column[np.isfinite(column)].astype(np.float64)
        if len(column):
            edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])) if len(known) else np.empty(0)
            profile[name] = {"edges": edges.tolist(), "shares": _shares(column, edges).tolist(), "n": len(column)}
    return profile


def base_profile(base: Bundle | None) -> Profile:
    """The profile of a base bundle; empty without one.

    Of a base built before strength had a head of its own the strength is left out: it was another quantity.
    """
    if base is None or not base.has("profile"):
        return {}
    profile: Profile = base.json("profile")
    other = STRENGTH not in base.json("world")["strength"]
    return {name: bins for name, bins in profile.items() if not (other and name == STRENGTH)}


def drift_of(base: Profile, values: Values) -> dict[str, float]:
    """Population stability index of every name that both have."""
    return {
        name: stability_index(np.array(base[name]["shares"]), _shares(column, np.array(base[name]["edges"])))
        for name, column in values.items()
        if name in base and len(column)
    }


def stability_index(then: npt.NDArray[np.float64], now: npt.NDArray[np.float64]) -> float:
    """Σ (p − q)·ln(p / q) of two vectors of shares."""
    p, q = np.maximum(then, _LEAST_SHARE), np.maximum(now, _LEAST_SHARE)
    return float(((p - q) * np.log(p / q)).sum())


def drift_metrics(base: Profile, values: Values) -> dict[str, float]:
    """What gates read: the index of the strength, the largest of the ties' features, of the other chances, and of what
    is known of candidates; but `AGES`."""
    enough = {
        name: value
        for name, value in drift_of(base, values).items()
        if min(len(values[name]), base[name].get("n", LEAST_TIES)) >= LEAST_TIES
    }
    features = [value for name, value in enough.items() if name in TIE_FEATURES and name not in AGES]
    chances = [value for name, value in enough.items() if name.startswith("chance_")]
    metrics = {"drift_psi_features_max": max(features)} if features else {}
    metrics |= {"drift_psi_chances_max": max(chances)} if chances else {}
    candidates = [value for name, value in enough.items() if name in CANDIDATES and name not in AGES]
    metrics |= {"drift_psi_candidates_max": max(candidates)} if candidates else {}
    return metrics | ({"drift_psi_strength": enough[STRENGTH]} if STRENGTH in enough else {})


def _relearnt(then: Values, now: Values) -> list[dict[str, Any]]:
    found = []
    for name in now:
        if name in TIE_FEATURES or name not in then:
            continue
        both = pl.DataFrame({"then": then[name], "now": now[name]}).filter(pl.all_horizontal(pl.all().is_finite()))
        odds = pl.DataFrame({side: logit(both[side].to_numpy()) for side in both.columns})
        if both["then"].n_unique() > 1:
            level = both["now"].n_unique() == 1  # it says the same of all ties: no order, and a slope of 0
            order = 0.0 if level else both.select(pl.corr("then", "now", method="spearman")).item()
            slope = odds.select(pl.cov("then", "now") / pl.var("then")).item()
            means = {side: both[side].mean() for side in both.columns}
            found.append({"head": name, **means, "order": order, "slope": slope})
    return found


def drift_lines(drift: Mapping[str, float]) -> list[dict[str, Any]]:
    """`feature`, `psi` and what that `means`, the largest index first."""
    found = sorted(drift.items(), key=lambda item: -item[1])
    said = ((ALARM, "alarm"), (LOOK, "worth a look"), (0.0, "stable"))
    return [{"feature": n, "psi": v, "means": next(word for least, word in said if v >= least)} for n, v in found]


def strength_histogram(values: Values) -> list[dict[str, Any]]:
    """Sampled ties by strength, in bins of 0.02: strength, n."""
    if STRENGTH not in values:
        return []
    counts, edges = np.histogram(values[STRENGTH], bins=50, range=(0.0, 1.0))
    return [{"strength": float(edge) + 0.01, "n": int(n)} for edge, n in zip(edges, counts, strict=False) if n]


def _shares(column: npt.NDArray[np.floating], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    known = np.isfinite(column)
    where = np.where(known, np.searchsorted(edges, np.where(known, column, 0.0), side="right"), len(edges) + 1)
    return np.bincount(where, minlength=len(edges) + 2) / len(column)
