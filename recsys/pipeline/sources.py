"""Sources: where candidates come from.

The private domain (followed hosts and hosts bought from, also as co-hosts of somebody's room) comes by a join with the
rooms live now and is complete by construction; so do the hosts the viewer has entered before. The rest of the public
domain comes by search and is bounded: rooms nearest to the
viewer's vector, rooms of hosts that viewers went to next, rooms with many entries, rooms of newcomers.

A source that has nothing to say (a viewer without history has no vector) brings no candidates; that is not an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.index.epoch import Epoch
from recsys.index.largest import among_largest
from recsys.models.suite import Viewer
from recsys.pipeline.request import SOURCES, Request, Source
from recsys.pipeline.world import World
from recsys.ties.standing import STANDINGS, relations

NEWCOMER_VISITORS = 20
"""A host whom fewer users than this have ever entered is a newcomer."""


_CODES = {name: np.int8(code) for code, name in enumerate(SOURCES)}
_PRIVATE, _VISITED, _WELCOME_GUEST = np.int8(1), np.int8(2), np.int8(4)
_NO_ROOMS = np.empty(0, dtype=np.int64)
_EVERY_HOUR_US = 3_600_000_000


@dataclass(frozen=True)
class Candidates:
    """Rooms to rank, each once: (c,) room rows, and the position in `SOURCES` of the first source that brought it."""

    rooms: npt.NDArray[np.int64]
    source: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.rooms)


def private_hosts(world: World, user: int) -> npt.NDArray[np.int64]:
    """The hosts a user follows now or has bought from, blocked ones left out. (h,) ascending."""
    relation, commerce = world.ties.of("relation", user), world.ties.of("commerce", user)
    follows = relation.hosts[relations(world.blocks.relation, relation.rows).follows]
    return np.setdiff1d(np.union1d(follows, commerce.hosts), blocked_hosts(world, user)).astype(np.int64)


def blocked_hosts(world: World, user: int) -> npt.NDArray[np.int64]:
    """The hosts a user has blocked and not unblocked since. (h,)"""
    relation = world.ties.of("relation", user)
    return relation.hosts[relations(world.blocks.relation, relation.rows).blocks].astype(np.int64)


def candidates(world: World, epoch: Epoch, request: Request, viewer: Viewer, *, everything: bool = False) -> Candidates:
    """Candidates of all sources, without repeats; the first source in the order of `SOURCES` keeps a room.

    With `everything`, every room live now is a candidate: what the sources leave out is brought by `POPULAR`.
    """
    if request.rooms is not None:
        rooms = np.unique(request.rooms)
        return Candidates(rooms, np.zeros(len(rooms), dtype=np.int8))
    if not len(epoch):
        return Candidates(_NO_ROOMS, np.zeros(0, dtype=np.int8))
    sizes = world.config.pipeline.sources
    circle = _circle(world, epoch, viewer)
    # In the order of the epoch, whatever brought them: sums over candidates then depend on no row number.
    brought_by = np.full(len(epoch), len(SOURCES), dtype=np.int8)
    # Of several sources the first is written last.
    brought_by[_newcomers(world, epoch, sizes.newcomers, request)] = _CODES[Source.NEWCOMER]
    brought_by[_popular(world, epoch, len(epoch) if everything else sizes.popular)] = _CODES[Source.POPULAR]
    brought_by[_by_transition(world, epoch, viewer, sizes.transition)] = _CODES[Source.TRANSITION]
    brought_by[_nearest(epoch, viewer, sizes.nearest)] = _CODES[Source.NEAREST]
    brought_by[circle.visited] = _CODES[Source.VISITED]
    brought_by[circle.guest] = _CODES[Source.COHOST]
    brought_by[circle.own] = _CODES[Source.PRIVATE]
    kept = (brought_by < len(SOURCES)).nonzero()[0]
    return Candidates(epoch.rooms.take(kept), brought_by.take(kept))


class _Circle(NamedTuple):
    """Positions in the epoch of the rooms one viewer's own ties lead to; a room may be named more than once."""

    own: npt.NDArray[np.int64]
    guest: npt.NDArray[np.int64]
    visited: npt.NDArray[np.int64]


def _circle(world: World, epoch: Epoch, viewer: Viewer) -> _Circle:
    """Rooms of hosts followed, bought from or visited, and rooms such hosts join as guests, in one pass.

    A blocked host brings no room as a guest, and his own only as visited: the filter then says why it is not shown.
    """
    relation, commerce, visits = (viewer.ties[name] for name in ("relation", "commerce", "visits"))
    if not len(relation) + len(commerce) + len(visits):
        return _Circle(_NO_ROOMS, _NO_ROOMS, _NO_ROOMS)
    flags = np.zeros(len(world.standings), dtype=np.int8)
    flags[visits.hosts] = _VISITED | _WELCOME_GUEST
    flags[commerce.hosts] |= _PRIVATE
    if len(relation):
        stand = relations(world.blocks.relation, relation.rows)
        flags[relation.hosts[stand.follows]] |= _PRIVATE
        flags[relation.hosts[stand.blocks]] &= _VISITED
    found = epoch.flagged(flags)
    again, again_guest = found.own_flags & _VISITED != 0, found.guest_flags & _WELCOME_GUEST != 0
    return _Circle(
        found.own[found.own_flags & _PRIVATE != 0],
        found.guest[found.guest_flags & _PRIVATE != 0],
        np.concatenate((found.own[again], found.guest[again_guest])),
    )


def _nearest(epoch: Epoch, viewer: Viewer, size: int) -> npt.NDArray[np.int64]:
    if viewer.search is None or not size:
        return _NO_ROOMS
    return epoch.nearest(viewer.search, size, viewer.products)


def _by_transition(world: World, epoch: Epoch, viewer: Viewer, size: int) -> npt.NDArray[np.intp]:
    scores = world.models.next_chances(viewer, epoch.hosts) if size else None
    if scores is None:
        return _NO_ROOMS
    best = among_largest(scores, size)
    return best[scores.take(best) > 0]


def _popular(world: World, epoch: Epoch, size: int) -> npt.NDArray[np.intp]:
    return world.heat.hottest(epoch, size) if size else _NO_ROOMS


def _newcomers(world: World, epoch: Epoch, size: int, request: Request) -> npt.NDArray[np.int64]:
    """Rooms of hosts with hardly any history, in an order that differs from viewer to viewer and hour to hour.

    It walks round all rooms, from a place and with a stride drawn from viewer and hour, until enough are found.
    """
    n = len(epoch)
    viewer = request.user & 0xFFFFFFFF if request.seed is None else request.seed
    drawn = _scrambled(viewer << 32 | request.at // _EVERY_HOUR_US & 0xFFFFFFFF)
    start, stride = drawn % n, 1 + (drawn >> 32) % n
    while gcd(stride, n) != 1:
        stride += 1
    visitors = world.standings[:, STANDINGS.index("visitors")]
    found, walked, step = _NO_ROOMS, 0, 8 * size
    while len(found) < size and walked < n:
        places = (start + stride * np.arange(walked, min(walked + step, n))) % n
        found = np.concatenate((found, places[visitors[epoch.hosts[places]] < NEWCOMER_VISITORS]))
        walked, step = walked + step, 4 * step
    return found[:size]


def propensities(world: World, epoch: Epoch, sources: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """With which probability each room (n,) was a candidate, by the source (n,) that brought it.

    Only newcomers' rooms are drawn, `newcomers` of those live, each as likely as another (to what a walk with a random
    stride is off); every other source brings its rooms with certainty. Who is shown of given candidates is no chance.
    """
    found = np.ones(len(sources))
    drawn = sources == _CODES[Source.NEWCOMER]
    if drawn.any():
        live = max(_newcomers_live(world, epoch), 1)
        found[drawn] = min(1.0, world.config.pipeline.sources.newcomers / live)
    return found


def _newcomers_live(world: World, epoch: Epoch) -> int:
    """Rooms on air of hosts with hardly any history; counted anew after an entry or a room has changed."""
    asked, known = (epoch, world.heat.moves), world.newcomers_live
    if known is not None and known[0] == asked:
        return known[1]
    visitors = world.standings[:, STANDINGS.index("visitors")]
    live = int(np.count_nonzero(visitors[epoch.hosts] < NEWCOMER_VISITORS))
    world.newcomers_live = asked, live
    return live


def _scrambled(seed: int) -> int:
    """64 bits that look random (the finaliser of SplitMix64: Steele, Lea, Flood, OOPSLA 2014)."""
    mixed = (seed + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return mixed ^ mixed >> 31
