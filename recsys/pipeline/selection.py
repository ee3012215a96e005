"""The selector: the best k, with places reserved for newcomers.

Reserved places go to newcomers' rooms at the end of the answer. They displace rooms of hosts the viewer has no
tie with, from the bottom up; with k tied hosts live there is no reserved place.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

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
    places = int(request.k * world.config.pipeline.explore_share)
    if request.rooms is not None or not places or len(order) <= len(top):
        return Selected(top, reserved)
    newcomer = world.standings[hosts, STANDINGS.index("visitors")] < NEWCOMER_VISITORS
    wanted = places - int(newcomer[top].sum())
    waiting = order[len(top) :][newcomer[order[len(top) :]]][: max(wanted, 0)]
    displaceable = np.flatnonzero(~(_FROM_TIES[kept.source[top]] | newcomer[top]))
    leaving = displaceable[len(displaceable) - min(len(waiting), len(displaceable)) :]
    if not len(leaving):
        return Selected(top, reserved)
    staying = np.delete(top, leaving)
    chosen = np.concatenate([staying, waiting[: len(leaving)]])
    return Selected(chosen, np.arange(len(chosen)) >= len(staying))


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
