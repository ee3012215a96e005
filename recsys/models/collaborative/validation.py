"""Checking models on ties kept back from them: who is asked, what counts, and how good an order is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recsys.models.collaborative.interactions import Csr, FloatArray, Interactions, RowArray, given, power
from recsys.models.collaborative.protocol import FittedCollaborative

_BLOCK_CELLS = 24_000_000  # scores held at a time, about 100 MB
_LEAST_GAIN = 2e-5
_POOL = 8  # hosts ordered when an exponent is tuned: the best 8 · k at each end


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over the users asked; the ideal order has min(k, relevant) hits on top."""

    recall: float
    ndcg: float
    gains: npt.NDArray[np.float64] = field(compare=False, repr=False)
    """Of every user asked, shape (2, n)."""

    @property
    def objective(self) -> float:
        """What selection maximises: the mean of both."""
        return (self.recall + self.ndcg) / 2

    def beats(self, other: Quality, errors: float = 1.0) -> bool:
        """Better than `other`, on the same users, by more than `errors` standard errors of the difference.

        The best of many trials is the best by luck, too; for what is no better than luck no default is left.
        """
        differences = (self.gains - other.gains).mean(axis=0)
        luck = errors * differences.std() / np.sqrt(len(differences))
        return bool(differences.mean() > max(luck, _LEAST_GAIN))


@dataclass(frozen=True, slots=True)
class Check:
    """Users to ask: their histories, what was kept back of each (both CSR (n, n_hosts)), and how many places count."""

    histories: Csr
    relevant: Csr
    k: int

    def quality(self, fitted: FittedCollaborative) -> Quality:
        """Quality of a model's order of unseen hosts."""
        found = [
            self.gains(top_unseen(scores, self.histories[rows], self.k), rows)
            for rows, scores in self.blocks(fitted.scores)
        ]
        return quality_of(np.concatenate(found, axis=1))

    def qualities(self, fitted: FittedCollaborative, degrees: FloatArray, exponents: Sequence[float]) -> list[Quality]:
        """Quality of the scores times `degrees ** exponent` for each of ascending `exponents`, scored once.

        Only hosts high up at the lowest or at the highest exponent are ordered: what is far down at both ends is not
        on top in between.
        """
        factors = [power(degrees, exponent) for exponent in exponents]
        found: list[list[npt.NDArray[np.float64]]] = [[] for _ in factors]
        for rows, scores in self.blocks(fitted.scores):
            histories = self.histories[rows]
            ends = [top_unseen(scores * factor, histories, _POOL * self.k) for factor in (factors[0], factors[-1])]
            hosts = np.sort(np.concatenate(ends, axis=1), axis=1)
            pooled = np.take_along_axis(scores, hosts, axis=1)
            left_out = members(hosts, histories)
            left_out[:, 1:] |= hosts[:, 1:] == hosts[:, :-1]
            for gains, factor in zip(found, factors, strict=True):
                ranked = np.where(left_out, -np.inf, pooled * factor[hosts])
                order = np.argsort(-ranked, axis=1, kind="stable")[:, : self.k]
                gains.append(self.gains(np.take_along_axis(hosts, order, axis=1), rows))
        return [quality_of(np.concatenate(gains, axis=1)) for gains in found]

    def gains(self, top: RowArray, rows: slice) -> npt.NDArray[np.float64]:
        """Recall and NDCG of the lists `top` (n, k) of the users `rows`, shape (2, n)."""
        relevant = self.relevant[rows]
        return list_gains(members(top, relevant), np.diff(relevant.indptr))

    def blocks(self, score: Callable[[Csr], FloatArray]) -> Iterator[tuple[slice, FloatArray]]:
        """Scores of the users in bounded blocks, each with the rows it covers."""
        for rows in row_blocks(*self.histories.shape):
            yield rows, score(self.histories[rows])


@dataclass(frozen=True, slots=True)
class Draw:
    """What was kept back once, and the ties that were left to learn from.

    `check` and `others` ask different users: what was chosen by the answers of the ones is judged by the others'.
    """

    train: Interactions
    check: Check
    others: Check


def members(hosts: RowArray, sets: Csr) -> npt.NDArray[np.bool_]:
    """Whether each of `hosts` (n, m) is in the set that is the same row of `sets`."""
    mask = np.zeros(sets.shape, bool)
    mask[np.repeat(np.arange(sets.shape[0]), np.diff(sets.indptr)), sets.indices] = True
    return np.take_along_axis(mask, hosts, axis=1)


def list_gains(hits: npt.NDArray[np.bool_], counts: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Recall and NDCG of each list, shape (2, n).

    Args:
        hits: whether each place holds a relevant host, shape (n, k).
        counts: how many relevant hosts there are, shape (n,), each at least 1.
    """
    k = hits.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(counts, k) - 1]
    return np.stack([hits.sum(axis=1) / counts, (hits * discounts).sum(axis=1) / ideal])


def quality_of(gains: npt.NDArray[np.float64]) -> Quality:
    """Mean of per-user gains of shape (2, n)."""
    recall, ndcg = gains.mean(axis=1)
    return Quality(float(recall), float(ndcg), gains)


def pooled(qualities: Sequence[Quality]) -> Quality:
    """Quality over the users of all draws together."""
    return quality_of(np.concatenate([quality.gains for quality in qualities], axis=1))


def row_blocks(n_rows: int, n_hosts: int) -> Iterator[slice]:
    """Slices over `n_rows` that keep a dense block of scores within about 100 MB."""
    step = max(1, _BLOCK_CELLS // max(n_hosts, 1))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def top_unseen(scores: FloatArray, histories: Csr, k: int) -> RowArray:
    """Rows of the best k hosts outside each history, best first, equal scores by host row; int64 (n, min(k, n_hosts)).

    Hosts of the history come after all others, and scores that are not finite sink to the end with them.
    """
    masked = np.where(np.isfinite(scores), scores, -np.inf).astype(np.float32, copy=False)
    masked[np.repeat(np.arange(len(masked)), np.diff(histories.indptr)), histories.indices] = -np.inf
    k = min(k, masked.shape[1])
    if k < masked.shape[1]:
        columns = np.argpartition(-masked, k - 1, axis=1)[:, :k]
        columns.sort(axis=1)
    else:
        columns = np.broadcast_to(np.arange(k), masked.shape)
    order = np.argsort(-np.take_along_axis(masked, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def internal_check(
    interactions: Interactions, *, share: float, max_users: int, k: int, seed: int, max_others: int = 0
) -> Draw:
    """Ask random users for `share` of their hosts each: at most `max_users` of them, and `max_others` others.

    Nobody else gives anything, and all together give about `share` of all pairs at most: where histories are short
    every asked user gives far more than `share` of his own, and what suits a thinner graph does not suit the whole.
    """
    taken = given(np.diff(interactions.matrix.indptr), share)
    drawn = np.random.default_rng(seed + 1).permutation(np.flatnonzero(taken))
    enough = int(np.searchsorted(np.cumsum(taken[drawn]), share * interactions.n_pairs)) + 1
    drawn = drawn[: min(enough, max_users + max_others)]
    rest, held = interactions.hold_out(share, seed, drawn)
    first, others = np.sort(drawn[:max_users]), np.sort(drawn[max_users:])
    return Draw(rest, Check(rest.matrix[first], held[first], k), Check(rest.matrix[others], held[others], k))
