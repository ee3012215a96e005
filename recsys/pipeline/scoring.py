"""The scorer: features → log-odds and strength for every candidate.

A joint broadcast is scored through its own host and, discounted by λ, through each co-host the viewer has a tie with;
the better way counts. The discount is a term of the explanation like any other.

Shape letters: n candidates, r rows (a candidate through one host), T terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled
from recsys.models.additive import AdditiveModel
from recsys.models.baselines import PriorRanker
from recsys.models.block_network import BlockNetwork
from recsys.models.strength import STRENGTH, heads_say, strength_head
from recsys.models.suite import Viewer
from recsys.pipeline.breakdown import Breakdown, Ranker
from recsys.pipeline.features import N_TIE, WITHOUT_TIE, Asking, feature_tables, of_known_hosts
from recsys.pipeline.world import World
from recsys.ties.algebra import Floats
from recsys.ties.gathering import GatheredTies

_MOST_COLUMNS = 8_192
"""Candidates whose features are worked out together: 8 MB of them."""
NOTHING_FINITE = -1e9
"""Stands for a score that is not finite: such a candidate sinks to the end instead of poisoning the order."""


@dataclass(frozen=True)
class Scored:
    """Scores of n candidates, made from a table of r ≥ n rows: each candidate through its host, then through co-hosts.

    `row` (n,) is the row whose score counts, `hosts` (n,) the host it came through; `strength` (n,) in [0, 1], NaN
    without a head. `values` (F, r) are the features of the rows, `discounts` (r,) what each was given for going through
    a co-host, `ties` the ties found.
    """

    row: npt.NDArray[np.intp]
    hosts: npt.NDArray[np.int64]
    score: Floats
    strength: Floats
    values: Floats
    discounts: Floats
    ties: GatheredTies
    ranker: Ranker

    def breakdown(self, candidates: npt.NDArray[np.intp]) -> Breakdown:
        """What the scores of some candidates are made of."""
        rows = self.row[candidates]
        return Breakdown(self.ranker, self.values, rows, self.score[candidates], self.discounts[rows])

    def tie_of(self, candidates: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Position in `ties` of the tie each candidate was scored through, −1 for none."""
        found = np.full(self.values.shape[1], -1, dtype=np.intp)
        found[self.ties.asked] = np.arange(len(self.ties.asked))
        return found[self.row[candidates]]

    def domain_weights(self) -> dict[str, float]:
        """How the viewer's choice divides between hosts he knows (`private`) and the others (`public`).

        The ranker is learnt as the choice of one room among those live, so the softmax of its scores is the chance of
        each candidate (docs/formulas/ranker.md), once the bonus of known hosts is taken off; the weights are its
        sums over both and add up to 1. Empty without candidates, and for stated weights, which are no chances.
        """
        if not len(self.score) or isinstance(self.ranker, PriorRanker):
            return {}
        bonus = self.ranker.private_bonus if isinstance(self.ranker, BlockNetwork) else 0.0
        private = _private_share(self.score, of_known_hosts(self.values), self.row, bonus)
        return {"private": private, "public": 1.0 - private}


@compiled
def _private_share(score: Floats, known: npt.NDArray[np.bool_], row: npt.NDArray[np.intp], bonus: float) -> float:
    """The share of the candidates (n,) scored by a `known` row in the softmax of `score` less their bonus."""
    highest, private, public = score.max(), 0.0, 0.0
    for i in range(len(score)):
        if known[row[i]]:
            private += np.exp(score[i] - highest - bonus)
        else:
            public += np.exp(score[i] - highest)
    return private / (private + public)


class ToScore(NamedTuple):
    """Candidate rooms (n,) of one viewer."""

    user: int
    viewer: Viewer
    rooms: npt.NDArray[np.int64]


class _Rows(NamedTuple):
    """The rows a viewer's candidates are scored by: the first `n` through their own hosts, the others through guests of
    the candidates `joint`."""

    asking: Asking
    n: int
    joint: npt.NDArray[np.int64]


def scored(world: World, user: int, viewer: Viewer, rooms: npt.NDArray[np.int64], at: int) -> Scored:
    """Score candidate rooms (n,) for one user at instant `at`, µs."""
    return scored_each(world, [ToScore(user, viewer, rooms)], at)[0]


def scored_each(world: World, asked: Sequence[ToScore], at: int) -> list[Scored]:
    """Score the candidates of several viewers at instant `at`, µs; no score depends on what is scored beside it."""
    found: list[Scored] = []
    group: list[_Rows] = []
    columns = 0
    for one in asked:
        rows = _rows(world, one)
        size = len(rows.asking.rooms)
        if group and (not size or not columns or columns + size > _MOST_COLUMNS):
            found += _scored_together(world, group, at)
            group, columns = [], 0
        group.append(rows)
        columns += size
    return found + _scored_together(world, group, at)


def _rows(world: World, one: ToScore) -> _Rows:
    rooms, n = one.rooms, len(one.rooms)
    hosts = world.rooms.host[rooms].astype(np.int64)
    joint, through = _ways(world, one.viewer, rooms)
    if len(joint):
        rooms, hosts = np.concatenate([rooms, rooms[joint]]), np.concatenate([hosts, through])
    return _Rows(Asking(one.user, one.viewer, rooms, hosts), n, joint)


def _scored_together(world: World, group: list[_Rows], at: int) -> list[Scored]:
    """Features of all in one table; models read each viewer's part of it by itself, for what a matrix product gives for
    a column may depend on how many there are."""
    table = feature_tables(world, [rows.asking for rows in group], at)
    ranker, found = world.models.ranker, []
    for (asking, n, joint), part, ties in zip(group, table.spans.parts(), table.of_request, strict=True):
        values, tied = table.values[:, part], ties.asked
        total = _scores(ranker, values, tied)
        total[~np.isfinite(total)] = NOTHING_FINITE
        strength = _strength(world, values, tied)
        row, discounts = np.arange(n), np.zeros(len(asking.rooms))
        if len(joint):
            discounts[n:] = log(max(world.config.pipeline.cohost_discount, 1e-9))
            total += discounts
            strength[n:] *= world.config.pipeline.cohost_discount
            for i, at_candidate in enumerate(joint.tolist(), start=n):
                if total[i] > total[row[at_candidate]]:
                    row[at_candidate] = i
                strength[at_candidate] = max(strength[at_candidate], strength[i])
        found.append(Scored(row, asking.hosts[row], total[row], strength[:n], values, discounts, ties, ranker))
    return found


def _scores(ranker: Ranker, values: Floats, tied: npt.NDArray[np.intp]) -> Floats:
    """Scores of all rows; of those without a tie, what is the same for all of them is worked out once."""
    if isinstance(ranker, BlockNetwork):
        return ranker.score_request(values, tied)
    if not isinstance(ranker, AdditiveModel):
        return ranker.score(values)
    total = _for_strangers(ranker).score(values)
    if len(tied):
        total[tied] = ranker.score(values[:, tied])
    return total


@lru_cache(maxsize=16)
def _for_strangers(ranker: AdditiveModel) -> AdditiveModel:
    return ranker.given(WITHOUT_TIE)


def _ways(
    world: World, viewer: Viewer, rooms: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(position of the candidate, co-host) for every co-host of a candidate with whom the viewer has a tie."""
    guests = world.rooms.cohosts
    if not guests or not world.config.pipeline.cohost_discount:
        return _NOBODY, _NOBODY
    joint = [i for i, room in enumerate(rooms.tolist()) if room in guests]
    if not joint:
        return _NOBODY, _NOBODY
    tied = {int(host) for name in ("visits", "relation", "commerce") for host in viewer.ties[name].hosts}
    tied -= set(viewer.blocked.tolist())
    pairs = [(i, host) for i in joint for host in guests[int(rooms[i])] if host in tied]
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


_NOBODY = np.empty(0, dtype=np.int64)


def _strength(world: World, values: Floats, tied: npt.NDArray[np.intp]) -> Floats:
    """Strength per row: what its head says (`recsys.models.strength`); without a tie the rate of such pairs, without a
    head NaN."""
    head = strength_head(world.models.strength)
    if head is None:
        return np.full(values.shape[1], np.nan)
    strength = np.full(values.shape[1], head.stranger)
    strength[tied] = head.probability(values[:N_TIE, tied])
    return strength


def heads_of(
    world: World,
    rooms: npt.NDArray[np.int64],
    through: npt.NDArray[np.int64],
    values: Floats,
    tied: npt.NDArray[np.intp],
) -> dict[str, Floats]:
    """What every head beside strength says of answered rooms (n,), by name; NaN where it does not apply.

    Args:
        through: (n,) the host each score came through; a guest's probabilities are discounted by λ, as strength is.
        values: (F, n) the features behind the scores.
        tied: (m,) positions of those scored through a tie.
    """
    said_of = {name: head for name, head in world.models.strength.items() if name != STRENGTH}
    known = values[:N_TIE, tied]
    say_something = np.isfinite(known).any(axis=0)
    if not say_something.all():
        tied, known = tied[say_something], known[:, say_something]
    said = heads_say(said_of, known, tied, len(rooms))
    guests = (world.rooms.host.take(rooms) != through).nonzero()[0]
    if len(guests):
        for chances in said.values():
            chances[guests] *= world.config.pipeline.cohost_discount
    return said
