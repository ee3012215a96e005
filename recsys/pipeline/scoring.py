"""The scorer: features → log-odds and strength for every candidate.

A joint broadcast is scored through its own host and, discounted by λ, through each co-host the viewer has a tie with;
the better way counts. The discount is a term of the explanation like any other.

Shape letters: n candidates, r rows (a candidate through one host), T terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
import numpy.typing as npt

from recsys.models.suite import Viewer
from recsys.pipeline.features import N_TIE, feature_table
from recsys.pipeline.sources import blocked_hosts
from recsys.pipeline.world import World
from recsys.ties.algebra import Floats

COHOST_TERM = "through a co-host"
NOTHING_FINITE = -1e9
"""Stands for a score that is not finite: such a candidate sinks to the end instead of poisoning the order."""


@dataclass(frozen=True)
class Scored:
    """Scores of n candidates.

    `hosts` (n,) is the host the score came through; `contributions` (T + 1, n) sum with `bias` to `score` (n,);
    `strength` (n,) in [0, 1]; `values` (F, n) the features behind them.
    """

    hosts: npt.NDArray[np.int64]
    score: Floats
    strength: Floats
    contributions: Floats
    terms: tuple[str, ...]
    bias: float
    values: Floats


def scored(world: World, user: int, viewer: Viewer, rooms: npt.NDArray[np.int64], at: int) -> Scored:
    """Score candidate rooms (n,) for one user at instant `at`, µs."""
    own = world.rooms.host[rooms].astype(np.int64)
    candidate, through = _ways(world, user, rooms)
    positions = np.concatenate([np.arange(len(rooms)), candidate])
    hosts = np.concatenate([own, through])
    table = feature_table(world, user, viewer, rooms[positions], hosts, at)
    ranker = world.models.ranker
    parts = ranker.contributions(table.values)
    discount = np.where(np.arange(len(hosts)) < len(rooms), 0.0, log(max(world.config.pipeline.cohost_discount, 1e-9)))
    parts = np.concatenate([parts, discount[None, :]])
    total = ranker.bias + parts.sum(axis=0)
    total[~np.isfinite(total)] = NOTHING_FINITE
    strength = _strength(world, table.values, table.ties.asked)
    strength[len(rooms) :] *= world.config.pipeline.cohost_discount
    best, strongest = np.arange(len(rooms)), strength[: len(rooms)].copy()
    for row, at_candidate in enumerate(candidate.tolist(), start=len(rooms)):
        if total[row] > total[best[at_candidate]]:
            best[at_candidate] = row
        strongest[at_candidate] = max(strongest[at_candidate], strength[row])
    return Scored(
        hosts[best],
        total[best],
        strongest,
        parts[:, best],
        (*ranker.terms, COHOST_TERM),
        ranker.bias,
        table.values[:, best],
    )


def _ways(world: World, user: int, rooms: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(position of the candidate, co-host) for every co-host of a candidate with whom the user has a tie."""
    guests = world.rooms.cohosts
    if not guests or not world.config.pipeline.cohost_discount:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    tied = {int(host) for name in ("visits", "relation", "commerce") for host in world.ties.of(name, user).hosts}
    tied -= set(blocked_hosts(world, user).tolist())
    pairs = [
        (i, host) for i, room in enumerate(rooms.tolist()) if room in guests for host in guests[room] if host in tied
    ]
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _strength(world: World, values: Floats, tied: npt.NDArray[np.intp]) -> Floats:
    """P(comes back to the host's next broadcast) per row; a pair without a tie gets the rate of such pairs."""
    head = world.models.strength.get("returns")
    if head is None:
        return np.zeros(values.shape[1])
    strength = np.full(values.shape[1], head.stranger)
    strength[tied] = head.probability(values[:N_TIE, tied])
    return strength


def heads_of(
    world: World, rooms: npt.NDArray[np.int64], through: npt.NDArray[np.int64], values: Floats
) -> dict[str, Floats]:
    """What every head says of answered rooms (n,), by name; NaN where it does not apply.

    Args:
        through: (n,) the host each score came through; a guest's probabilities are discounted by λ, as strength is.
        values: (F, n) the features behind the scores.
    """
    ties = values[:N_TIE]
    tied = np.asarray(np.isfinite(ties).any(axis=0))
    share = np.where(world.rooms.host[rooms] == through, 1.0, world.config.pipeline.cohost_discount)
    return {name: share * head.of_all(ties, tied) for name, head in world.models.strength.items()}
