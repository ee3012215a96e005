"""A weighted sum of models, and how its weights are found on kept-back ties.

Scores of different models have different scales, so each model's scores are standardised over the hosts of one user
before they are summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.models.collaborative.interactions import Csr, FloatArray, Interactions
from recsys.models.collaborative.protocol import CollaborativeModel, FittedCollaborative
from recsys.models.collaborative.validation import (
    Check,
    Quality,
    list_gains,
    members,
    pooled,
    quality_of,
    top_unseen,
)

_POOL = 8  # of each member the best 8 · k hosts stay in the pool that weights are tuned on
_LADDER = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5)
_ROUNDS = 3


def standardised(scores: FloatArray) -> FloatArray:
    """Each row less its mean, over its standard deviation; a constant row becomes zeros. In place, and returned."""
    scores -= scores.mean(axis=1, keepdims=True)
    spread = scores.std(axis=1, keepdims=True)
    scores /= np.where(spread > 0, spread, 1)
    return scores


@dataclass(frozen=True, slots=True)
class FittedBlend:
    """`Σ weight · standardised scores` of fitted members."""

    members: tuple[FittedCollaborative, ...]
    weights: tuple[float, ...]
    name: str = "blend"

    def scores(self, histories: Csr) -> FloatArray:
        """See `FittedCollaborative.scores`."""
        total = np.zeros(histories.shape, np.float32)
        for member, weight in zip(self.members, self.weights, strict=True):
            total += np.float32(weight) * standardised(member.scores(histories))
        return total


@dataclass(frozen=True, slots=True)
class Blend:
    """Models to be fitted on the same ties and summed with `weights`."""

    members: tuple[CollaborativeModel, ...]
    weights: tuple[float, ...]
    name: str = "blend"

    def fit(self, interactions: Interactions, seed: int, start: FittedCollaborative | None = None) -> FittedBlend:
        """Fit every member with the same seed, each from its own part of `start`."""
        starts = start.members if isinstance(start, FittedBlend) else (None,) * len(self.members)
        pairs = zip(self.members, starts, strict=True)
        return FittedBlend(tuple(member.fit(interactions, seed, before) for member, before in pairs), self.weights)


@dataclass(frozen=True, slots=True)
class Pool:
    """Standardised scores of the hosts that any member ranks high: all that tuning weights needs.

    Arrays of shape (n_users, n_pool), but for `scores` (n_members, n_users, n_pool); unused places are not `valid`.
    """

    scores: FloatArray
    relevant: npt.NDArray[np.bool_]
    valid: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.int64]
    k: int

    def quality(self, weights: Sequence[float]) -> Quality:
        """Quality of the blend with these weights."""
        total = np.tensordot(np.asarray(weights, np.float32), self.scores, axes=1)
        total[~self.valid] = -np.inf
        k = min(self.k, total.shape[1])
        places = np.argpartition(-total, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(total, places, axis=1), axis=1, kind="stable")
        places = np.take_along_axis(places, order, axis=1)
        return quality_of(list_gains(np.take_along_axis(self.relevant, places, axis=1), self.counts))


def candidate_pool(models: Sequence[FittedCollaborative], check: Check) -> Pool:
    """Score the check's users with every model, block by block, and keep the union of their best hosts."""
    depth = min(_POOL * check.k, check.histories.shape[1])
    scores: list[FloatArray] = []
    relevant: list[npt.NDArray[np.bool_]] = []
    valid: list[npt.NDArray[np.bool_]] = []
    for rows, first in check.blocks(models[0].scores):
        histories = check.histories[rows]
        block = [standardised(first), *(standardised(model.scores(histories)) for model in models[1:])]
        hosts = np.sort(np.concatenate([top_unseen(one, histories, depth) for one in block], axis=1), axis=1)
        fresh = np.ones(hosts.shape, bool)
        fresh[:, 1:] = hosts[:, 1:] != hosts[:, :-1]
        scores.append(np.stack([np.take_along_axis(one, hosts, axis=1) for one in block]))
        relevant.append(members(hosts, check.relevant[rows]))
        valid.append(fresh & ~members(hosts, histories))
    counts = np.diff(check.relevant.indptr).astype(np.int64)
    usable = np.concatenate(valid)
    width = int(usable.sum(axis=1).max(initial=1))  # hosts that several rank high or that are known already go
    front = np.argsort(~usable, axis=1, kind="stable")[:, :width]
    kept = [np.take_along_axis(one, front, axis=1) for one in np.concatenate(scores, axis=1)]
    told, usable = (np.take_along_axis(of, front, axis=1) for of in (np.concatenate(relevant), usable))
    return Pool(np.stack(kept), told, usable, counts, check.k)


def tuned_weights(
    pools: Sequence[Pool], start: Sequence[float], errors: float = 2.0
) -> tuple[tuple[float, ...], Quality]:
    """Weights by coordinate ascent from `start`, on the users of all pools together.

    Where the best single member beats `start` the ascent begins there. At most three rounds over the members, each
    trying a fixed ladder of weights; the best of them is taken if it beats the weight held. The members' settings must
    not have been chosen by the same users' answers: the member with the most trials would look better than it is.

    Args:
        errors: standard errors by which a weight must be better; more than of a setting, since ten are tried at once.
    """

    def judged(weights: Sequence[float]) -> Quality:
        return pooled([pool.quality(weights) for pool in pools])

    weights = list(start)
    best = judged(weights)
    alone = [[float(member == other) for other in range(len(weights))] for member in range(len(weights))]
    single, quality = max(((one, judged(one)) for one in alone), key=lambda pair: pair[1].objective)
    if quality.beats(best, errors):
        weights, best = single, quality
    for _ in range(_ROUNDS):
        changed = False
        for member in range(len(weights)):
            trials = [[*weights[:member], step, *weights[member + 1 :]] for step in _LADDER if step != weights[member]]
            trial, quality = max(((one, judged(one)) for one in trials if any(one)), key=lambda pair: pair[1].objective)
            if quality.beats(best, errors):
                weights, best, changed = trial, quality, True
        if not changed:
            break
    return tuple(weights), best
