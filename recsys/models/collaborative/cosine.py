"""Host vectors learnt by a sampled softmax over cosines: a user points where the sum of his hosts' vectors points.

Formula and sources: docs/formulas/collaborative.md, «Cosine softmax». Plain numpy: gradients are written out, so that
neither training nor serving needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field

from recsys.models.collaborative.adam import Adam
from recsys.models.collaborative.interactions import Csr, FloatArray, Interactions, RowArray, given, power, scaled
from recsys.models.collaborative.protocol import FittedCollaborative

_EPSILON = np.float32(1e-12)
_WARM_UP_STEPS = 50
_FIRST_SPREAD = np.float32(0.1)  # of the vectors drawn at random: small, so that the first steps turn them


class CosineConfig(BaseModel):
    """Settings of the model and of its training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factors: int = Field(128, ge=2)
    temperature: float = Field(0.07, gt=0, le=2)
    """The smaller, the more a host is pushed away from the few most like it and the less from the rest."""
    source_exponent: float = Field(0.25, ge=-1, le=1)
    """Vectors of the history are summed times degree ** -this."""
    asked_share: float = Field(0.3, gt=0, lt=1)
    """Of a user's hosts, drawn anew each time, that are to be told from the others."""
    user_exponent: float = Field(0.5, ge=0, le=1)
    """A user's hosts count (how many are asked) ** -this each; 1 is the same weight for every user."""
    epochs: int = Field(40, ge=1)
    batch_users: int = Field(512, ge=1)
    """At most so many users a step; with few users so few that an epoch has 40 steps."""
    negatives: int = Field(4096, ge=1)
    """Hosts drawn for all users of a step; all hosts if there are no more."""
    max_steps: int = Field(3000, ge=1)
    learning_rate: float = Field(0.02, gt=0)
    """Of Adam: reached in 50 steps, then falling to zero in a straight line."""


@dataclass(frozen=True, slots=True)
class Cosine:
    """One vector a host; trained to find a part of each history from the sum of the rest."""

    config: CosineConfig = field(default_factory=CosineConfig)
    name: str = "cosine"

    def fit(
        self,
        interactions: Interactions,
        seed: int,
        start: FittedCollaborative | None = None,  # noqa: ARG002
    ) -> CosineVectors:
        """Adam from vectors drawn from `seed`, without `start`: the rate would undo what it had learnt.

        Time is `work` multiply-adds, memory about 5 matrices of host vectors and one of users × negatives.
        """
        config = self.config
        rng = np.random.default_rng(seed)
        shape = (interactions.n_hosts, config.factors)
        vectors = rng.standard_normal(shape, np.float32) * _FIRST_SPREAD
        shares = power(interactions.host_degrees(), -config.source_exponent)
        learner = Adam(vectors)
        total = _steps(interactions, config)
        for step, users in zip(range(total), _batches(interactions, config, rng), strict=False):
            rate = config.learning_rate * (1 - step / total) * min(1.0, (step + 1) / _WARM_UP_STEPS)
            learner.step(_gradient(interactions.matrix[users], vectors, shares, config, rng), rate)
        return CosineVectors(vectors * shares[:, None], _unit(vectors)[0])

    def work(self, interactions: Interactions) -> float:
        """About how many multiply-adds fitting takes."""
        config = self.config
        users, negatives = _batch_users(interactions, config), min(config.negatives, interactions.n_hosts)
        dense = 40 * interactions.n_hosts  # a step touches every vector a few times, at the speed of memory
        return float(_steps(interactions, config)) * config.factors * (3 * users * negatives + dense)


@dataclass(frozen=True, slots=True)
class CosineVectors:
    """What is summed over a history and what is scored with the sum, both float32 (n_hosts, factors)."""

    sources: FloatArray
    targets: FloatArray
    name: str = "cosine"

    def scores(self, histories: Csr) -> FloatArray:
        """See `FittedCollaborative.scores`. The length of the sum is left out: it is the same for all hosts."""
        sums: FloatArray = np.asarray(histories @ self.sources, np.float32)
        return sums @ self.targets.T


def _batch_users(interactions: Interactions, config: CosineConfig) -> int:
    return min(config.batch_users, max(16, interactions.n_users // 40))


def _steps(interactions: Interactions, config: CosineConfig) -> int:
    able = int((np.diff(interactions.matrix.indptr) > 1).sum())
    return min(config.max_steps, config.epochs * -(-able // _batch_users(interactions, config)))


def _batches(interactions: Interactions, config: CosineConfig, rng: np.random.Generator) -> Iterator[RowArray]:
    """Users with at least two hosts, in random order, again and again."""
    able = np.flatnonzero(np.diff(interactions.matrix.indptr) > 1)
    size = _batch_users(interactions, config)
    while len(able):
        order = rng.permutation(able)
        for start in range(0, len(order), size):
            yield np.sort(order[start : start + size])


def _gradient(
    histories: Csr, vectors: FloatArray, shares: FloatArray, config: CosineConfig, rng: np.random.Generator
) -> FloatArray:
    """Of the mean loss of a step, (n_hosts, factors)."""
    n_users, n_hosts = histories.shape
    asked = _asked(histories, config.asked_share, rng)
    row_of = np.repeat(np.arange(n_users), np.diff(histories.indptr))
    rows, targets = row_of[asked], histories.indices[asked]
    summed = scaled(histories, None, shares)
    summed.data[asked] = 0
    users_UD, lengths_U = _unit(np.asarray(summed @ vectors, np.float32))
    targets_TD, target_lengths = _unit(vectors[targets])
    others = np.sort(rng.choice(n_hosts, min(config.negatives, n_hosts), replace=False, shuffle=False))
    others_ND, other_lengths = _unit(vectors[others])

    heat = np.float32(1 / config.temperature)
    chances_UN = users_UD @ others_ND.T  # cosines ≤ 1: less 1 nothing overflows
    chances_UN -= 1
    chances_UN *= heat
    np.exp(chances_UN, out=chances_UN)
    place = np.full(n_hosts, -1, np.int64)
    place[others] = np.arange(len(others))
    known = place[histories.indices] >= 0
    chances_UN[row_of[known], place[histories.indices[known]]] = 0  # what he has is not an answer he failed to give
    scale = np.float32(n_hosts / len(others))
    rest_U = chances_UN.sum(axis=1) * scale
    own_T = np.exp((np.einsum("td,td->t", users_UD[rows], targets_TD) - 1) * heat)
    all_T = own_T + rest_U[rows] + _EPSILON
    weights_T = np.bincount(rows, minlength=n_users).astype(np.float32)[rows] ** np.float32(-config.user_exponent)
    weights_T /= weights_T.sum()

    pull_T = (own_T / all_T - 1) * weights_T * heat
    push_U = np.bincount(rows, weights_T / all_T, n_users).astype(np.float32) * scale * heat
    chances_UN *= push_U[:, None]
    pulls = sp.csr_matrix((pull_T, (rows, np.arange(len(rows)))), shape=(n_users, len(rows)))
    to_users = np.asarray(chances_UN @ others_ND + pulls @ targets_TD, np.float32)
    result = np.asarray(summed.T.tocsr() @ _turned(to_users, users_UD, lengths_U), np.float32)
    to_others = np.asarray(chances_UN.T @ users_UD, np.float32)
    result[others] += _turned(to_others, others_ND, other_lengths)
    to_targets = _turned(pull_T[:, None] * users_UD[rows], targets_TD, target_lengths)
    which = sp.csr_matrix((np.ones(len(rows), np.float32), (targets, np.arange(len(rows)))), shape=(n_hosts, len(rows)))
    result += which @ to_targets
    return result


def _asked(histories: Csr, share: float, rng: np.random.Generator) -> RowArray:
    """Places in `histories.indices` of `share` of each row's hosts, at least one and never all of them."""
    counts = np.diff(histories.indptr)
    row_of = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((rng.random(histories.nnz), row_of))
    rank = np.arange(histories.nnz) - np.repeat(histories.indptr[:-1], counts)
    return np.sort(order[rank < np.repeat(given(counts, share), counts)])


def _unit(vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    np.maximum(lengths, _EPSILON, out=lengths)
    return vectors / lengths[:, None], lengths


def _turned(gradient: FloatArray, units: FloatArray, lengths: FloatArray) -> FloatArray:
    """The gradient of vectors from that of their directions: what lies along them is lost."""
    along = np.einsum("nd,nd->n", gradient, units)
    result: FloatArray = (gradient - along[:, None] * units) / lengths[:, None]
    return result
