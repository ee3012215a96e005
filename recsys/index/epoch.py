"""A consistent snapshot of the rooms live now, as readers see it.

Slots and positions: the writer appends rooms to *slots* and marks slots of ended rooms dead; an epoch is the first n
slots and the first m dead marks. It never sees what is appended later, so it costs nothing to make and never changes.
Readers speak of *positions*: 0 … len − 1 over the live rooms of this epoch, in order of their start.

Shape letters: q queries, d dimension, w padded dimension, n slots, k answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.compiled import compiled
from recsys.index.flat import FloatMatrix, IntVector, as_queries, as_query, best, inner_products
from recsys.index.largest import near_largest
from recsys.index.outline import Outlines

_NO_SLOTS = np.empty(0, dtype=np.int64)


class HostJoin(NamedTuple):
    """Which of the hosts asked for is on air where; one entry per (room, host) pair, sorted by position."""

    positions: IntVector
    """(m,) positions in the epoch; a room with two of the hosts appears twice."""
    asked: IntVector
    """(m,) index into the host rows asked for."""
    cohosted: NDArray[np.bool_]
    """(m,) True where the host is a co-host of the room, not its owner."""


class FlaggedRooms(NamedTuple):
    """Live rooms a flag leads to; `guest` names a room once for each co-host with a flag. Ascending by position."""

    own: IntVector
    """(o,) positions of rooms whose host carries a flag."""
    own_flags: NDArray[np.int8]
    guest: IntVector
    """(g,) positions of rooms one of whose co-hosts does."""
    guest_flags: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Epoch:
    """Rooms live at one moment: immutable, made by `LiveRoomIndex.publish`.

    All arrays handed out are read-only or fresh copies. Scores are inner products, nothing is normalised.
    Threading: any number of readers, also while the writer goes on (cached arrays may be computed twice, alike).
    """

    number: int
    """Grows by one with every published change."""
    dimension: int
    _vectors_NW: FloatMatrix
    _outlines: Outlines
    _rooms_N: IntVector
    _hosts_N: IntVector
    _dead: IntVector
    _cohosts: IntVector
    _cohost_slots: IntVector
    _slot_of_room: dict[int, int]  # shared with the writer: may name slots beyond n, see `_slots_of_rooms`
    _slot_before: dict[int, int]
    _largest: float
    _host_bound: int
    _outlined_from: int

    def __len__(self) -> int:
        return len(self._rooms_N) - len(self._dead)

    @cached_property
    def rooms(self) -> IntVector:
        """(len,) int64 room rows by position."""
        return _frozen(self._rooms_N if not len(self._dead) else self._rooms_N[self._live_slots])

    @cached_property
    def hosts(self) -> IntVector:
        """(len,) int64 host rows by position: who the room belongs to."""
        return _frozen(self._hosts_N if not len(self._dead) else self._hosts_N[self._live_slots])

    def vectors(self) -> FloatMatrix:
        """(len, d) float32 vectors by position."""
        return self._vectors_NW[self._live_slots, : self.dimension]

    def position_of_room(self, rooms: Any) -> IntVector:
        """(m,) int64 positions of room rows; −1 for a room that is not live here."""
        slots = self._slots_of_rooms(np.asarray(rooms, dtype=np.int64).ravel())
        found = slots >= 0
        slots[found] = self._position_of_slot[slots[found]]
        return slots

    def join(self, hosts: Any) -> HostJoin:
        """All rooms these hosts own or co-host, with the host that led to each.

        Args:
            hosts: (h,) host rows; of a repeated one the first index is given.
        """
        asked = np.asarray(hosts, dtype=np.int64).ravel()
        mark = self._marked(asked)
        alive = self._alive
        own = np.flatnonzero(mark[self._hosts_N] & alive)
        joint = np.flatnonzero(mark[self._cohosts] & alive[self._cohost_slots])
        slots = np.concatenate((own, self._cohost_slots[joint]))
        names = np.concatenate((self._hosts_N[own], self._cohosts[joint]))
        order = np.argsort(asked, kind="stable")
        which = order[np.searchsorted(asked, names, sorter=order)] if len(names) else names
        cohosted = np.arange(len(slots)) >= len(own)
        by_slot = np.lexsort((which, cohosted, slots))
        return HostJoin(self._position_of_slot[slots[by_slot]], which[by_slot], cohosted[by_slot])

    def flagged(self, flags: NDArray[np.int8]) -> FlaggedRooms:
        """Live rooms whose host or a co-host carries a flag: one pass for all that one viewer's ties lead to.

        The private domain by join: complete by construction, no search involved. Cost grows with the live rooms (one
        table look-up each), not with the ties.

        Args:
            flags: (h,) by host row, 0 for none; hosts beyond it carry none.
        """
        by_host = flags[: self._host_bound]
        if len(by_host) < self._host_bound:
            by_host = np.concatenate((by_host, np.zeros(self._host_bound - len(by_host), dtype=np.int8)))
        own = np.empty(len(self._hosts_N), dtype=np.int64)
        own = own[: _with_flag(by_host, self._hosts_N, own)]
        if len(self._dead):
            own = own[self._alive[own]]
        own_flags = by_host.take(self._hosts_N.take(own))
        positions = self._position_of_slot[own] if len(self._dead) else own
        if not len(self._cohosts):
            return FlaggedRooms(positions, own_flags, _NO_SLOTS, own_flags[:0])
        joint = np.flatnonzero(by_host[self._cohosts])
        joint = joint[self._alive[self._cohost_slots[joint]]]
        guest_slots = self._cohost_slots[joint]
        order = np.argsort(guest_slots, kind="stable")
        guests = self._position_of_slot[guest_slots[order]]
        return FlaggedRooms(positions, own_flags, guests, by_host[self._cohosts[joint[order]]])

    def nearest(self, query: Any, k: int) -> IntVector:
        """(k′,) positions of the rooms `search` gives for one query (d,), ascending.

        Of many rooms those are compared of which their outlines do not show that they are farther away.
        """
        asked = as_query(query, self.dimension, self._largest)
        wanted = min(max(k, 0), len(self))
        if wanted in (0, len(self)):
            return np.arange(wanted)
        near = self._by_outlines(asked, wanted) if len(self._rooms_N) >= self._outlined_from else None
        if near is None:
            scores = inner_products(asked, self._vectors_NW)[0]
            if len(self._dead):
                scores[self._dead] = -np.inf
            near = _near(scores, self._rooms_N, wanted)
        return self._position_of_slot.take(near) if len(self._dead) else near

    def _by_outlines(self, asked: FloatMatrix, k: int) -> IntVector | None:
        """Slots of the k nearest; None where outlines leave too many to compare (most rooms are equal, or no vector
        but a few values of it say anything)."""
        some = self._outlines.within_reach(asked[0], len(self._rooms_N), self._dead, k)
        if 4 * len(some) > len(self._rooms_N):
            return None
        scores = inner_products(asked, self._vectors_NW.take(some, axis=0))[0]
        return some.take(_near(scores, self._rooms_N.take(some), k))

    def search(self, queries: Any, k: int, *, exclude: Any | None = None) -> tuple[IntVector, FloatMatrix]:
        """Best live rooms of each query, exact.

        Args:
            queries: (q, d), finite.
            k: answers wanted.
            exclude: room rows to leave out for all queries; rooms not live here are ignored.

        Returns:
            (q, k′) int64 room rows and (q, k′) float32 scores, k′ = min(k, live − excluded): never a −1, never a room
            that is not live, never fewer than asked while there are more. Best first, ties by smaller room row.

        Raises:
            IndexInputError: queries of another dimension, not finite, or so large that scores would overflow.
        """
        asked = as_queries(queries, self.dimension, self._largest)
        removed = self._dead
        if exclude is not None:
            left_out = set(self._slots_of_rooms(np.asarray(exclude, dtype=np.int64).ravel()).tolist()) - {-1}
            removed = np.concatenate((removed, np.fromiter(left_out, dtype=np.int64)))
        wanted = min(max(k, 0), len(self._rooms_N) - len(removed))
        scores_QN = inner_products(asked, self._vectors_NW)
        if len(scores_QN) == 1:  # the usual case at a fraction of its cost
            scores = scores_QN[0]
            if len(removed):
                scores[removed] = -np.inf
            slots = best(scores, self._rooms_N, wanted)
            return self._rooms_N.take(slots)[None, :], scores.take(slots)[None, :]
        if len(removed):
            scores_QN[:, removed] = -np.inf
        rooms_QK = np.empty((len(asked), wanted), dtype=np.int64)
        scores_QK = np.empty((len(asked), wanted), dtype=np.float32)
        for row, scores in enumerate(scores_QN):
            slots = best(scores, self._rooms_N, wanted)
            rooms_QK[row], scores_QK[row] = self._rooms_N[slots], scores[slots]
        return rooms_QK, scores_QK

    def scores(self, queries: Any, positions: IntVector | None = None) -> FloatMatrix:
        """(q, m) float32 scores of some positions, by default of all live rooms; bitwise those of `search`.

        Raises:
            IndexInputError: as `search`.
        """
        asked = as_queries(queries, self.dimension, self._largest)
        if positions is not None:
            return inner_products(asked, self._vectors_NW[self._live_slots[positions]])
        scores_QN = inner_products(asked, self._vectors_NW)
        return scores_QN[:, self._live_slots] if len(self._dead) else scores_QN

    @cached_property
    def _alive(self) -> NDArray[np.bool_]:
        alive = np.ones(len(self._rooms_N), dtype=np.bool_)
        alive[self._dead] = False
        return alive

    @cached_property
    def _live_slots(self) -> IntVector:
        return np.flatnonzero(self._alive)

    @cached_property
    def _position_of_slot(self) -> IntVector:
        return np.cumsum(self._alive, dtype=np.int64) - 1

    def _marked(self, hosts: IntVector) -> NDArray[np.bool_]:
        """(host bound,) True for the hosts asked for; hosts never seen on air are dropped."""
        mark = np.zeros(self._host_bound, dtype=np.bool_)
        mark[hosts[(hosts >= 0) & (hosts < self._host_bound)]] = True
        return mark

    def _slots_of_rooms(self, rooms: IntVector) -> IntVector:
        """(m,) slots of rooms live in this epoch, else −1.

        The writer's dictionary names the latest slot of every room it ever saw in this buffer; a slot this epoch does
        not have yet leads back, through `_slot_before`, to the one it has.
        """
        latest = self._slot_of_room.get
        slots = np.fromiter((latest(room, -1) for room in rooms.tolist()), dtype=np.int64, count=len(rooms))
        n = len(self._rooms_N)
        for i in np.flatnonzero(slots >= n):
            slot = int(slots[i])
            while slot >= n:
                slot = self._slot_before.get(slot, -1)
            slots[i] = slot
        found = slots >= 0
        slots[found] = np.where(self._alive[slots[found]], slots[found], -1)
        return slots


@compiled
def _with_flag(flags: NDArray[np.int8], hosts: IntVector, found: IntVector) -> int:
    """Into `found` where hosts with a flag stand, ascending; how many there are."""
    n = 0
    for i in range(len(hosts)):
        found[n] = i
        n += flags[np.uint64(hosts[i])] != 0  # unsigned: nobody looks whether it is negative
    return n


def _near(scores: NDArray[np.float32], rooms: IntVector, k: int) -> IntVector:
    """Positions, ascending, of the k largest scores; of equal ones in the last places smaller room rows have them."""
    if k == len(scores):
        return np.arange(k)
    near = near_largest(scores, k)
    return near if len(near) == k else np.sort(best(scores, rooms, k))


def _frozen(array: IntVector) -> IntVector:
    view = array.view()
    view.setflags(write=False)
    return view
