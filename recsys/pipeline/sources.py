"""Sources: where candidates come from.

The private domain (followed hosts and hosts bought from, also as co-hosts of somebody's room) comes by a join with the
rooms live now and is complete by construction; so do the hosts the viewer has entered before. The rest of the public
domain comes by search and is bounded: rooms nearest to the viewer's vector, rooms of hosts that viewers went to next,
rooms with many entries, rooms of newcomers.

A source that has nothing to say (a viewer without history has no vector) brings no candidates; that is not an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled
from recsys.index.epoch import Epoch, FlaggedRooms
from recsys.index.largest import among_largest
from recsys.models.suite import Viewer
from recsys.models.transition_counts import TRANSITION_FEATURES
from recsys.pipeline.request import SOURCES, Request, Source
from recsys.pipeline.world import World
from recsys.ties.standing import STANDINGS, relations

NEWCOMER_VISITORS = 20
"""A host whom fewer users than this have ever entered is a newcomer."""


_CODES = {name: np.int8(code) for code, name in enumerate(SOURCES)}
_PRIVATE, _VISITED, _WELCOME_GUEST, _NEXT = np.int8(1), np.int8(2), np.int8(4), np.int8(8)
Codes = npt.NDArray[np.int8]
"""Positions in `SOURCES`."""
Flags = npt.NDArray[np.int8]
"""Sums of `_PRIVATE` (followed or bought from), `_VISITED`, `_WELCOME_GUEST` (visited and not blocked) and `_NEXT`
(where viewers of the last hosts went)."""
Hosts = npt.NDArray[np.int32]
_CHANCE = TRANSITION_FEATURES.index("transition_recent")
_NO_ROOMS = np.empty(0, dtype=np.int64)
_NOTHING_FLAGGED = FlaggedRooms(_NO_ROOMS, np.empty(0, dtype=np.int8), _NO_ROOMS, np.empty(0, dtype=np.int8))
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
    stand = relations(world.blocks.relation, relation.rows)
    private = np.union1d(relation.hosts[stand.follows], commerce.hosts)
    return np.setdiff1d(private, relation.hosts[stand.blocks]).astype(np.int64)


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
    # In the order of the epoch, whatever brought them: sums over candidates then depend on no row number.
    brought_by = np.full(len(epoch), len(SOURCES), dtype=np.int8)
    # Of several sources the first is written last.
    brought_by[_newcomers(world, epoch, sizes.newcomers, request)] = _CODES[Source.NEWCOMER]
    brought_by[_popular(world, epoch, len(epoch) if everything else sizes.popular)] = _CODES[Source.POPULAR]
    led = _led_to(world, epoch, viewer)
    brought_by[_by_transition(world, epoch, viewer, led, sizes.transition)] = _CODES[Source.TRANSITION]
    brought_by[_nearest(epoch, viewer, sizes.nearest)] = _CODES[Source.NEAREST]
    _bring_circle(led, brought_by)
    brought = (brought_by != len(SOURCES)).nonzero()[0]
    return Candidates(epoch.rooms.take(brought), brought_by.take(brought))


def _led_to(world: World, epoch: Epoch, viewer: Viewer) -> FlaggedRooms:
    """Live rooms of hosts the viewer has ties with, and of those viewers of his last hosts went to, in one pass; nobody
    without ties has last hosts."""
    relation, commerce, visits = viewer.ties["relation"], viewer.ties["commerce"], viewer.ties["visits"]
    if not len(relation) + len(commerce) + len(visits):
        return _NOTHING_FLAGGED
    flags = np.zeros(len(world.standings), dtype=np.int8)
    _flag(visits.hosts, commerce.hosts, relation.hosts, viewer.stand.follows, viewer.stand.blocks, flags)
    if viewer.next_hosts is not None:
        _flag_next(viewer.next_hosts.hosts, flags)
    return epoch.flagged(flags)


def _bring_circle(led: FlaggedRooms, brought_by: Codes) -> None:
    """Rooms of hosts followed, bought from or visited, and rooms such hosts join as guests.

    A blocked host brings no room as a guest, and his own only as visited: the filter then says why it is not shown.
    """
    _mark(led.own, led.own_flags, _VISITED, _CODES[Source.VISITED], brought_by)
    if len(led.guest):
        _mark(led.guest, led.guest_flags, _WELCOME_GUEST, _CODES[Source.VISITED], brought_by)
        _mark(led.guest, led.guest_flags, _PRIVATE, _CODES[Source.COHOST], brought_by)
    _mark(led.own, led.own_flags, _PRIVATE, _CODES[Source.PRIVATE], brought_by)


@compiled
def _flag(
    visited: Hosts, bought_from: Hosts, related: Hosts, follows: npt.NDArray[np.bool_], blocks: npt.NDArray[np.bool_],
    flags: Flags,
) -> None:  # fmt: skip
    """What the hosts a viewer has ties with may bring; `follows` and `blocks` are of the hosts `related`."""
    for host in visited:
        flags[host] = _VISITED | _WELCOME_GUEST
    for host in bought_from:
        flags[host] |= _PRIVATE
    for i in range(len(related)):
        if follows[i]:
            flags[related[i]] |= _PRIVATE
        if blocks[i]:
            flags[related[i]] &= _VISITED


@compiled
def _flag_next(hosts: Hosts, flags: Flags) -> None:
    """Transitions may lead to hosts of whom the state holds nothing, as in a rehearsal; these are not on air."""
    for host in hosts:
        if host < len(flags):
            flags[host] |= _NEXT


@compiled
def _mark(positions: npt.NDArray[np.int64], flags: Flags, flag: np.int8, code: np.int8, brought_by: Codes) -> None:
    """Rooms at these positions whose hosts carry a flag are brought by a source."""
    for i in range(len(positions)):
        if flags[i] & flag:
            brought_by[positions[i]] = code


def _nearest(epoch: Epoch, viewer: Viewer, size: int) -> npt.NDArray[np.int64]:
    if viewer.search is None or not size:
        return _NO_ROOMS
    return epoch.nearest(viewer.search, size)


def _by_transition(world: World, epoch: Epoch, viewer: Viewer, led: FlaggedRooms, size: int) -> npt.NDArray[np.int64]:
    """Of the rooms of hosts that viewers of his last hosts went to, those he most likely goes to next."""
    rooms = led.own[(led.own_flags & _NEXT).nonzero()[0]]
    transitions = world.models.transitions(viewer, epoch.hosts.take(rooms)) if size else None
    if transitions is None:
        return _NO_ROOMS
    return rooms.take(among_largest(transitions[_CHANCE], size))


def _popular(world: World, epoch: Epoch, size: int) -> npt.NDArray[np.intp]:
    return world.heat.hottest(epoch, size) if size else _NO_ROOMS


def _newcomers(world: World, epoch: Epoch, size: int, request: Request) -> npt.NDArray[np.int64]:
    """Rooms of hosts with hardly any history, in an order that differs from viewer to viewer and hour to hour.

    It walks round all rooms, from a place and with a stride drawn from viewer and hour, until enough are found.
    """
    n = len(epoch)
    if not size:
        return _NO_ROOMS
    viewer = request.user & 0xFFFFFFFF if request.seed is None else request.seed
    drawn = _scrambled(viewer << 32 | request.at // _EVERY_HOUR_US & 0xFFFFFFFF)
    start, stride = drawn % n, 1 + (drawn >> 32) % n
    while gcd(stride, n) != 1:
        stride += 1
    visitors = world.standings[:, STANDINGS.index("visitors")]
    found = np.empty(min(size, n), dtype=np.int64)
    return found[: _walk(start, stride % n, epoch.hosts, visitors, NEWCOMER_VISITORS, found)]


@compiled
def _walk(
    start: int, stride: int, hosts: npt.NDArray[np.int64], visitors: npt.NDArray[np.int64], too_many: int,
    found: npt.NDArray[np.int64],
) -> int:  # fmt: skip
    """The first positions on the walk (with `stride` < n) whose hosts have fewer visitors, as many as `found` holds;
    how many there are."""
    n, place = 0, start
    for _ in range(len(hosts)):
        if n == len(found):
            break
        found[n] = place
        n += visitors[hosts[place]] < too_many
        place += stride
        if place >= len(hosts):
            place -= len(hosts)
    return n


def propensities(world: World, epoch: Epoch, sources: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """With which probability each room (n,) was a candidate, by the source (n,) that brought it.

    Only newcomers' rooms are drawn, `newcomers` of those live, each as likely as another (to what a walk with a random
    stride is off); every other source brings its rooms with certainty. Who is shown of given candidates is no chance.
    """
    drawn = sources == _CODES[Source.NEWCOMER]
    if not np.count_nonzero(drawn):
        return np.ones(len(sources))
    live = max(_newcomers_live(world, epoch), 1)
    return np.where(drawn, min(1.0, world.config.pipeline.sources.newcomers / live), 1.0)


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
