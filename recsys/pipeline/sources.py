"""Sources: where candidates come from.

The private domain (followed hosts and hosts bought from, also as co-hosts of somebody's room) comes by a join with the
rooms live now and is complete by construction; so do the hosts the viewer has entered before. The rest of the public
domain comes by search and is bounded: rooms nearest to the
viewer's vector, rooms of hosts that viewers went to next, rooms with many entries, rooms of newcomers.

A source that has nothing to say (a viewer without history has no vector) brings no candidates; that is not an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.index.epoch import Epoch
from recsys.models.suite import Viewer
from recsys.pipeline.request import SOURCES, Request, Source
from recsys.pipeline.world import World
from recsys.ties.standing import STANDINGS, blocked, followed

NEWCOMER_VISITORS = 20
"""A host whom fewer users than this have ever entered is a newcomer."""


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
    follows = relation.hosts[followed(world.blocks.relation, relation.rows)]
    return np.setdiff1d(np.union1d(follows, commerce.hosts), blocked_hosts(world, user)).astype(np.int64)


def blocked_hosts(world: World, user: int) -> npt.NDArray[np.int64]:
    """The hosts a user has blocked and not unblocked since. (h,)"""
    relation = world.ties.of("relation", user)
    return relation.hosts[blocked(world.blocks.relation, relation.rows)].astype(np.int64)


def visited_hosts(world: World, user: int) -> npt.NDArray[np.int64]:
    """All hosts the user has ever entered. (h,)"""
    return world.ties.of("visits", user).hosts.astype(np.int64)


def candidates(world: World, epoch: Epoch, request: Request, viewer: Viewer, *, everything: bool = False) -> Candidates:
    """Candidates of all sources, without repeats; the first source in the order of `SOURCES` keeps a room.

    With `everything`, every room live now is a candidate: what the sources leave out is brought by `POPULAR`.
    """
    if request.rooms is not None:
        rooms = np.unique(request.rooms)
        return Candidates(rooms, np.zeros(len(rooms), dtype=np.int8))
    own, guest = _joined(epoch, private_hosts(world, request.user))
    visited = visited_hosts(world, request.user)
    again, _ = _joined(epoch, visited)  # blocked hosts too: the filter then says why they are not shown
    _, again_guest = _joined(epoch, np.setdiff1d(visited, blocked_hosts(world, request.user)))
    by_source = [(Source.PRIVATE, own), (Source.COHOST, guest), (Source.VISITED, np.append(again, again_guest))]
    sizes = world.config.pipeline.sources
    by_source.append((Source.NEAREST, _nearest(epoch, viewer, sizes.nearest)))
    by_source.append((Source.TRANSITION, _by_transition(epoch, viewer, sizes.transition)))
    by_source.append((Source.POPULAR, _popular(world, epoch, len(epoch) if everything else sizes.popular, request.at)))
    by_source.append((Source.NEWCOMER, _newcomers(world, epoch, sizes.newcomers, request)))
    rooms = np.concatenate([rows for _, rows in by_source])
    source = np.concatenate([np.full(len(rows), SOURCES.index(name), dtype=np.int8) for name, rows in by_source])
    _, first = np.unique(rooms, return_index=True)
    kept = np.sort(first)
    return Candidates(rooms[kept], source[kept])


def _joined(epoch: Epoch, hosts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Live rooms these hosts own, and live rooms they join as co-hosts."""
    if not len(hosts) or not len(epoch):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    joined = epoch.join(hosts)
    rooms = epoch.rooms[joined.positions]
    return rooms[~joined.cohosted], rooms[joined.cohosted]


def _nearest(epoch: Epoch, viewer: Viewer, size: int) -> npt.NDArray[np.int64]:
    if viewer.vector is None or not size or not len(epoch):
        return np.empty(0, dtype=np.int64)
    rooms: npt.NDArray[np.int64] = epoch.search(viewer.vector[None, :], size)[0][0]
    return rooms


def _by_transition(epoch: Epoch, viewer: Viewer, size: int) -> npt.NDArray[np.int64]:
    if viewer.transition_scores is None or not size or not len(epoch):
        return np.empty(0, dtype=np.int64)
    scores = viewer.transition_scores[epoch.hosts]
    return epoch.rooms[_largest(scores, size)][: int((scores > 0).sum())]


def _popular(world: World, epoch: Epoch, size: int, at: int) -> npt.NDArray[np.int64]:
    if not size or not len(epoch):
        return np.empty(0, dtype=np.int64)
    block, rows, hosts = world.blocks.host, world.hosts.rows, epoch.hosts
    column = block.decay_column("entries_30m")  # one column of all live hosts: `decay_to` would carry all of them
    age = np.maximum(float(at) - rows.ints[hosts, 0].astype(np.float64), 0.0)
    rate = rows.decayed[hosts, column] * np.exp2(-age / block.half_lives_us[column])
    return epoch.rooms[_largest(rate, size)]


def _newcomers(world: World, epoch: Epoch, size: int, request: Request) -> npt.NDArray[np.int64]:
    """Rooms of hosts with hardly any history, in an order that differs from viewer to viewer and hour to hour."""
    if not size or not len(epoch):
        return np.empty(0, dtype=np.int64)
    visitors = world.standings[epoch.hosts, STANDINGS.index("visitors")]
    new = np.flatnonzero(visitors < NEWCOMER_VISITORS)
    seed = np.random.SeedSequence([request.user & 0xFFFFFFFF, request.at // 3_600_000_000])
    rng = np.random.Generator(np.random.PCG64(seed))
    rooms: npt.NDArray[np.int64] = epoch.rooms[rng.permutation(new)[:size]]
    return rooms


def _largest(values: npt.NDArray[np.floating], size: int) -> npt.NDArray[np.intp]:
    """Positions of the `size` largest values, largest first; equal values by position."""
    if len(values) > size:
        threshold = np.partition(values, len(values) - size)[len(values) - size]
        kept = np.flatnonzero(values >= threshold)
        return kept[np.argsort(-values[kept], kind="stable")][:size]
    return np.argsort(-values, kind="stable")
