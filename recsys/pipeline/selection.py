"""The selector: the best k, with places reserved for newcomers.

Reserved places go to newcomers' rooms at the end of the answer. They displace rooms of hosts the viewer has no
tie with, from the bottom up; with k tied hosts live there is no reserved place.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled
from recsys.ids import Vocabulary
from recsys.pipeline.request import SOURCES, Request, Source
from recsys.pipeline.sources import NEWCOMER_VISITORS, Candidates
from recsys.pipeline.world import World
from recsys.ties.algebra import Floats
from recsys.ties.standing import STANDINGS

_FROM_TIES = np.array([source in (Source.PRIVATE, Source.COHOST, Source.VISITED) for source in SOURCES])


class Selected(NamedTuple):
    """Positions of the chosen candidates in answer order (k′,), and which of them sit in a reserved place (k′,)."""

    order: npt.NDArray[np.intp]
    reserved: npt.NDArray[np.bool_]


def select(world: World, request: Request, kept: Candidates, hosts: npt.NDArray[np.int64], score: Floats) -> Selected:
    """Choose and order. Equal scores are ordered by the rooms' external ids (by row, where nobody knows them): rows of
    new rooms depend on who told of them first."""
    order = _best_first(score, kept.rooms, world.room_ids)
    top = order[: request.k]
    reserved = np.zeros(len(top), dtype=np.bool_)
    if request.rooms is not None or len(order) <= len(top):
        return Selected(top, reserved)
    places = int(request.k * world.config.pipeline.explore_share)
    newcomer = world.standings[:, STANDINGS.index("visitors")].take(hosts) < NEWCOMER_VISITORS
    chosen = np.empty(len(top), dtype=np.intp)
    n = _reserve(order, places, newcomer, _FROM_TIES.take(kept.source) | newcomer, chosen)
    reserved[len(top) - n :] = True
    return Selected(chosen, reserved)


@compiled
def _reserve(
    order: npt.NDArray[np.intp], places: int, newcomer: npt.NDArray[np.bool_], stays: npt.NDArray[np.bool_],
    chosen: npt.NDArray[np.intp],
) -> int:  # fmt: skip
    """The first of `order`, as many as `chosen` holds, those that need not stay giving way, from the bottom up, to
    newcomers further down until newcomers have as many `places`; how many such stand at the end now."""
    k = len(chosen)
    wanted, waiting = places, 0
    for candidate in order[:k]:
        wanted -= newcomer[candidate]
    for candidate in order[k:]:
        waiting += newcomer[candidate]
    leaving, n, first = min(max(wanted, 0), waiting), 0, k
    while n < leaving and first > 0:  # from `first` on they leave
        first -= 1
        n += not stays[order[first]]
    at = 0
    for i in range(k):
        if i < first or stays[order[i]]:
            chosen[at] = order[i]
            at += 1
    for candidate in order[k:]:
        if at < k and newcomer[candidate]:
            chosen[at] = candidate
            at += 1
    return n


def _best_first(score: Floats, rooms: npt.NDArray[np.int64], room_ids: Vocabulary | None) -> npt.NDArray[np.intp]:
    """Positions (n,), best score first; runs of equal scores in the order of external ids, read for these only."""
    order: npt.NDArray[np.intp] = (-score).argsort()
    descending = score[order]
    same = descending[1:] == descending[:-1]
    if not same.any():
        return order
    order = np.lexsort((rooms, -score))
    if room_ids is None:
        return order
    equal = np.zeros(len(order), dtype=np.bool_)
    equal[1:] = same
    equal[:-1] |= same
    where = np.flatnonzero(equal)
    run = np.cumsum(np.concatenate(([True], ~same)))[where].tolist()  # ascends: runs stay where they are
    ids = room_ids.listed(rooms[order[where]])
    by_id = sorted(range(len(where)), key=list(zip(run, ids, strict=True)).__getitem__)
    order[where] = order[where[by_id]]
    return order
