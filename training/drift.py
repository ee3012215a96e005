"""Drift: how far the ties of today lie from those of the base bundle, feature by feature and head by head.

A build samples ties, and keeps ten bins of equal numbers and the share in each (`profile.json` in the bundle) of every
tie feature and of what every head says of these ties. The population stability index of a later build is
Σ (p − q)·ln(p / q) over these bins, p then and q now; ties without a value are a bin of their own. With shares floored
at 10⁻⁴, 0 is no change; by custom 0.1 is worth a look and 0.25 an alarm. Of n ties each time it is some 20 / n by
chance.

Scores of the ranker are not compared: they are of the rooms live at one instant, and others are live at the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.bundle import Bundle
from recsys.live.state import LiveState
from recsys.models.strength import STRENGTH, heads_say, strength_head
from recsys.ties.features import TIE_FEATURES
from training.log import TieLog

BINS = 10
MOST_USERS = 2_000
AGES = ("tie_days_since_first", "tie_follow_age_days")
"""Features that grow as the history does: reported, judged by no gate."""
LEAST_TIES = 500
"""Of fewer ties the index is chance: it is reported, and gates are skipped."""
LOOK, ALARM = 0.1, 0.25
"""Stability indices that are worth a look, and an alarm."""
_LEAST_SHARE = 1e-4

Values = Mapping[str, npt.NDArray[np.floating]]
Profile = dict[str, dict[str, Any]]


def sampled_values(live: LiveState, as_of_us: int, seed: int) -> dict[str, npt.NDArray[np.floating]]:
    """Features of ties of sampled users and what every head says of them, as of an instant.

    Values (R,) by name: those of features, `STRENGTH`, `chance_<head>` of the other heads; NaN where a tie has none.
    """
    world, rng = live.world, np.random.default_rng(seed)
    log = TieLog(world, rng)
    users = np.arange(len(world.users))
    if len(users) > MOST_USERS:
        users = np.sort(rng.choice(users, MOST_USERS, replace=False))
    for user in users.tolist():
        log.log(as_of_us, user)
    rows = log.rows()[log.frame()["tied"].to_numpy()]
    values: dict[str, npt.NDArray[np.floating]] = dict(zip(TIE_FEATURES, rows.T, strict=True))
    if world.models.strength and len(rows):
        said = heads_say(world.models.strength, rows.T.astype(np.float64), np.arange(len(rows)), len(rows))
        strength = strength_head(world.models.strength)
        for name, head in world.models.strength.items():
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
    """What gates read: the index of the strength, the largest of the features but `AGES`, and of the other chances."""
    enough = {
        name: value
        for name, value in drift_of(base, values).items()
        if min(len(values[name]), base[name].get("n", LEAST_TIES)) >= LEAST_TIES
    }
    features = [value for name, value in enough.items() if name in TIE_FEATURES and name not in AGES]
    chances = [value for name, value in enough.items() if name.startswith("chance_")]
    metrics = {"drift_psi_features_max": max(features)} if features else {}
    metrics |= {"drift_psi_chances_max": max(chances)} if chances else {}
    return metrics | ({"drift_psi_strength": enough[STRENGTH]} if STRENGTH in enough else {})


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
