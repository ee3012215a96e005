"""Filters: each returns what it kept and what it removed, so that «why not shown» always has an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.index.epoch import Epoch
from recsys.models.suite import Viewer
from recsys.pipeline.request import Outcome, Request
from recsys.pipeline.sources import Candidates
from recsys.pipeline.world import World

Filter = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_] | None]
"""Room rows → which of them pass; None: all."""


class Filtered(NamedTuple):
    """`kept` candidates and, per filter, the room rows it `removed`."""

    kept: Candidates
    removed: list[tuple[Outcome, npt.NDArray[np.int64]]]


def filtered(world: World, epoch: Epoch, request: Request, viewer: Viewer, found: Candidates) -> Filtered:
    """Apply all filters in order. Rooms named by a request are not asked whether they are live; blocks always hold."""
    removed: list[tuple[Outcome, npt.NDArray[np.int64]]] = []
    kept = found
    filters: tuple[tuple[Outcome, Filter], ...] = (
        (Outcome.FILTERED_NOT_LIVE, lambda rooms: _live(world, epoch, request, rooms)),
        (Outcome.FILTERED_BLOCKED, lambda rooms: _not_blocked(world, viewer, rooms)),
        (Outcome.FILTERED_EXCLUDED, lambda rooms: _not_excluded(request, rooms)),
        (Outcome.FILTERED_CATEGORY, lambda rooms: _of_category(world, request, rooms)),
    )
    for outcome, passes in filters:
        passing = passes(kept.rooms)
        if passing is not None and not passing.all():
            removed.append((outcome, kept.rooms[~passing]))
            kept = Candidates(kept.rooms[passing], kept.source[passing])
    return Filtered(kept, removed)


def _live(world: World, epoch: Epoch, request: Request, rooms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
    """Candidates were live in `epoch`; only when the index has moved on since is each of them asked again."""
    now = world.index.publish()
    if request.rooms is not None or now is epoch:
        return None
    live: npt.NDArray[np.bool_] = now.position_of_room(rooms) >= 0
    return live


def _not_blocked(world: World, viewer: Viewer, rooms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
    return ~np.isin(world.rooms.host[rooms], viewer.blocked) if len(viewer.blocked) else None


def _not_excluded(request: Request, rooms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
    return None if request.exclude is None else ~np.isin(rooms, request.exclude)


def _of_category(world: World, request: Request, rooms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
    return None if request.category is None else world.rooms.of_category(rooms, request.category)
