"""Exact index over the rooms live now: one writer appends, readers work on immutable epochs.

A room has one vector: its host's + λ · mean of its co-hosts' (co-hosts without a vector do not dilute the mean; a host
without a vector counts as zero). Rooms are appended to slots; the slot of an ended room is marked dead and skipped;
when a share of the slots is dead, the live ones are copied to new buffers and older epochs keep the old ones. So
starting, ending and publishing cost the same at 20 rooms and at 200,000, and nothing a reader sees is ever rewritten.

Shape letters: r rooms, c co-host pairs, d dimension, w padded dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.index.epoch import Epoch
from recsys.index.flat import FloatMatrix, IndexInputError, IntVector, as_rows, as_vectors, largest_entry
from recsys.index.live_config import LiveIndexConfig
from recsys.index.outline import Outlines

T = TypeVar("T", bound=np.generic)

_FIRST_CAPACITY = 64
_NO_ROWS = np.empty(0, dtype=np.int64)


class LiveRoomIndex:
    """The rooms live now and their vectors.

    Args:
        host_vectors: (n_hosts, d) by host row, finite; copied. Hosts beyond its rows are new: their rooms are live all
            the same, with a zero vector (score 0), and found by join.
        config: λ and when to compact.

    Raises:
        IndexInputError: vectors of a wrong shape or not finite.

    Threading: one writer at a time (`start`, `end`, their `_many` forms, `refresh`, `publish`); readers in any thread
    take `epoch` and keep it for the whole request. Changes are seen in epochs published after them.
    """

    def __init__(self, host_vectors: Any, config: LiveIndexConfig | None = None) -> None:
        self.config = config or LiveIndexConfig()
        self.dimension = int(np.shape(host_vectors)[1]) if np.ndim(host_vectors) == 2 else 0
        self._host_bound = 0
        self._adopt(host_vectors)
        self._n = self._n_dead = self._n_cohosts = 0
        self._vectors = np.zeros((_FIRST_CAPACITY, self._host_vectors.shape[1]), dtype=np.float32)
        self._outlines = Outlines.of_size(_FIRST_CAPACITY, self._host_vectors.shape[1])
        self._rooms, self._hosts, self._dead = (np.zeros(_FIRST_CAPACITY, dtype=np.int64) for _ in range(3))
        self._cohosts, self._cohost_slots = (np.zeros(_FIRST_CAPACITY, dtype=np.int64) for _ in range(2))
        self._alive = np.zeros(_FIRST_CAPACITY, dtype=np.bool_)
        self._slot_of_room: dict[int, int] = {}
        self._slot_before: dict[int, int] = {}
        self._number, self._changed = 0, True
        self.epoch = self.publish()
        """The epoch published last."""

    def __len__(self) -> int:
        """Rooms live now, published or not."""
        return self._n - self._n_dead

    def __contains__(self, room: int) -> bool:
        slot = self._slot_of_room.get(room)
        return slot is not None and bool(self._alive[slot])

    def start(self, room: int, host: int, cohosts: Sequence[int] = ()) -> None:
        """A room goes live; for a live room: its host and co-hosts are replaced (someone joined or left).

        Args:
            room: room row ≥ 0.
            host: host row ≥ 0, with or without a vector.
            cohosts: host rows ≥ 0; the host himself and repeats are dropped.

        Raises:
            IndexInputError: a negative row.
        """
        if room < 0 or host < 0:
            raise IndexInputError("a row is negative", got=(room, host), expected="room and host rows of 0 or more")
        others = [cohost for cohost in dict.fromkeys(cohosts) if cohost != host]
        if others and min(others) < 0:
            raise IndexInputError("a co-host row is negative", got=min(others), where=f"room {room}")
        self.end(room)
        self._reserve(1, len(others))
        slot = self._n
        row = self._vectors[slot]
        if host < self._n_hosts:
            row[:] = self._host_vectors[host]
        else:
            row[:] = 0.0
        if others:
            known = [other for other in others if other < self._n_hosts and self._has_vector[other]]
            if known:  # float64 sums in the order given, as in `_add_cohosts`
                total = self._host_vectors[known].sum(axis=0, dtype=np.float64)
                row += (total * (self.config.cohost_weight / len(known))).astype(np.float32)
            self._log_cohosts(slot, others)
        self._outlines.draw(self._vectors[slot : slot + 1], slot)
        self._rooms[slot], self._hosts[slot], self._alive[slot] = room, host, True
        self._name_slot(room, slot)
        self._host_bound = max(self._host_bound, host + 1, *(other + 1 for other in others))
        self._n = slot + 1
        self._changed = True

    def start_many(self, rooms: Any, hosts: Any, cohost_of: Any = _NO_ROWS, cohosts: Any = _NO_ROWS) -> None:
        """Many rooms go live; the same as `start` for each in turn, at a fraction of the cost per room.

        Args:
            rooms: (r,) room rows, distinct.
            hosts: (r,) host rows.
            cohost_of: (c,) positions in `rooms`; pair i says that `cohosts[i]` joins that room.
            cohosts: (c,) host rows.

        Raises:
            IndexInputError: a negative row, repeated rooms, lengths that differ, or a position out of range.
        """
        room_R, host_R = as_rows(rooms, "rooms"), as_rows(hosts, "hosts")
        pair_C = np.stack((as_rows(cohost_of, "cohost_of"), as_rows(cohosts, "cohosts")), axis=1)
        if len(room_R) != len(host_R) or len(np.unique(room_R)) != len(room_R):
            raise IndexInputError("rooms must be distinct, with one host each", got=(len(room_R), len(host_R)))
        if len(pair_C) and int(pair_C[:, 0].max()) >= len(room_R):
            raise IndexInputError("a co-host pair names no room", got=int(pair_C[:, 0].max()), expected=len(room_R))
        if len(pair_C):
            first = np.unique(pair_C, axis=0, return_index=True)[1]
            pair_C = pair_C[np.sort(first)]  # distinct, in the order given: sums are ordered
            pair_C = pair_C[pair_C[:, 1] != host_R[pair_C[:, 0]]]
        self.end_many(room_R)
        self._reserve(len(room_R), len(pair_C))
        start, stop = self._n, self._n + len(room_R)
        self._vectors[start:stop] = self._own_vectors(host_R)
        self._add_cohosts(self._vectors[start:stop], pair_C[:, 0], pair_C[:, 1])
        self._outlines.draw(self._vectors[start:stop], start)
        self._log_cohosts(pair_C[:, 0] + start, pair_C[:, 1])
        self._rooms[start:stop], self._hosts[start:stop], self._alive[start:stop] = room_R, host_R, True
        names = room_R.tolist()
        if self._slot_of_room.keys().isdisjoint(names):
            self._slot_of_room.update(zip(names, range(start, stop), strict=True))
        else:
            for slot, room in enumerate(names, start):
                self._name_slot(room, slot)
        self._host_bound = max(self._host_bound, 1 + int(max(host_R.max(initial=-1), pair_C[:, 1].max(initial=-1))))
        self._n = stop
        self._changed = True

    def end(self, room: int) -> bool:
        """A room ends; False when it was not live (an end told twice is no error)."""
        slot = self._slot_of_room.get(room)
        if slot is None or not self._alive[slot]:
            return False
        self._alive[slot] = False
        self._dead[self._n_dead] = slot
        self._n_dead += 1
        self._changed = True
        self._compact_if_due()
        return True

    def end_many(self, rooms: Any) -> int:
        """Many rooms end; how many of them were live. The same as `end` for each."""
        given = np.asarray(rooms).tolist()
        slots = np.fromiter({self._slot_of_room.get(room, -1) for room in given} - {-1}, dtype=np.int64)
        slots = slots[self._alive[slots]]
        if len(slots):
            self._alive[slots] = False
            self._dead[self._n_dead : self._n_dead + len(slots)] = slots
            self._n_dead += len(slots)
            self._changed = True
            self._compact_if_due()
        return len(slots)

    def refresh(self, host_vectors: Any) -> None:
        """New factors: every live room gets its vector anew. Epochs already taken keep the old ones.

        Args:
            host_vectors: (n_hosts, d), the dimension of before; more hosts are welcome.

        Raises:
            IndexInputError: another dimension or not finite; the index is unchanged.
        """
        self._adopt(host_vectors)
        self._compact(recompute=True)
        self._changed = True

    def publish(self) -> Epoch:
        """Makes all changes so far visible as a new epoch, in constant time; without changes, the epoch of before."""
        n, dead, pairs = self._n, self._n_dead, self._n_cohosts
        if self._changed:
            self._number += 1
            self.epoch = Epoch(
                number=self._number,
                dimension=self.dimension,
                _vectors_NW=self._vectors[:n],
                _outlines=self._outlines,
                _rooms_N=self._rooms[:n],
                _hosts_N=self._hosts[:n],
                _dead=self._dead[:dead],
                _cohosts=self._cohosts[:pairs],
                _cohost_slots=self._cohost_slots[:pairs],
                _slot_of_room=self._slot_of_room,
                _slot_before=self._slot_before,
                _largest=self._largest,
                _host_bound=self._host_bound,
                _outlined_from=self.config.outlined_from,
            )
            self._changed = False
        return self.epoch

    def _adopt(self, host_vectors: Any) -> None:
        vectors = as_vectors(host_vectors, self.dimension, what="host vectors").copy()
        largest = largest_entry(vectors) * (1.0 + self.config.cohost_weight)
        if largest > float(np.finfo(np.float32).max):
            raise IndexInputError("host vectors are too large for joint broadcasts in float32", got=largest)
        self._host_vectors, self._largest, self._n_hosts = vectors, largest, len(vectors)
        self._has_vector: NDArray[np.bool_] = np.asarray(vectors.any(axis=1))
        self._host_bound = max(self._host_bound, self._n_hosts)

    def _own_vectors(self, hosts: IntVector) -> FloatMatrix:
        """(r, w) vectors of the hosts, zero for new ones."""
        known = hosts < self._n_hosts
        if known.all():
            return self._host_vectors[hosts]
        vectors = np.zeros((len(hosts), self._host_vectors.shape[1]), dtype=np.float32)
        vectors[known] = self._host_vectors[hosts[known]]
        return vectors

    def _add_cohosts(self, vectors: FloatMatrix, owner: IntVector, cohosts: IntVector) -> None:
        """Adds λ · mean of the co-hosts that have a vector, in place; pair i belongs to row `owner[i]`."""
        known = cohosts < self._n_hosts
        known[known] = self._has_vector[cohosts[known]]
        owner, cohosts = owner[known], cohosts[known]
        if not len(owner):
            return
        touched, row = np.unique(owner, return_inverse=True)
        total = np.zeros((len(touched), vectors.shape[1]), dtype=np.float64)
        np.add.at(total, row, self._host_vectors[cohosts])
        total *= self.config.cohost_weight / np.bincount(row)[:, None]
        vectors[touched] += total.astype(np.float32)

    def _log_cohosts(self, slots: IntVector | int, cohosts: IntVector | list[int]) -> None:
        start, stop = self._n_cohosts, self._n_cohosts + len(cohosts)
        self._cohost_slots[start:stop], self._cohosts[start:stop] = slots, cohosts
        self._n_cohosts = stop

    def _name_slot(self, room: int, slot: int) -> None:
        before = self._slot_of_room.get(room)
        if before is not None:
            self._slot_before[slot] = before  # before the name moves: a reader must find the way back
        self._slot_of_room[room] = slot

    def _reserve(self, rooms: int, pairs: int) -> None:
        """Grows buffers by doubling; published epochs keep the ones they have."""
        if self._n + rooms > len(self._rooms):
            size = max(2 * len(self._rooms), self._n + rooms)
            self._vectors, self._outlines = _grown(self._vectors, size), self._outlines.grown(size)
            self._rooms, self._hosts = _grown(self._rooms, size), _grown(self._hosts, size)
            self._dead, self._alive = _grown(self._dead, size), _grown(self._alive, size)
        if self._n_cohosts + pairs > len(self._cohosts):
            size = max(2 * len(self._cohosts), self._n_cohosts + pairs)
            self._cohosts, self._cohost_slots = _grown(self._cohosts, size), _grown(self._cohost_slots, size)

    def _compact_if_due(self) -> None:
        if self._n_dead > max(_FIRST_CAPACITY // 2, self.config.dead_share * self._n):
            self._compact(recompute=False)

    def _compact(self, *, recompute: bool) -> None:
        """Copies the live rooms, in order, to new buffers with room to grow."""
        alive = self._alive[: self._n]
        keep = np.flatnonzero(alive)
        pairs = slice(0, self._n_cohosts)
        held = alive[self._cohost_slots[pairs]]
        cohosts = self._cohosts[pairs][held]
        slots = (np.cumsum(alive, dtype=np.int64) - 1)[self._cohost_slots[pairs][held]]
        size = max(_FIRST_CAPACITY, len(keep) + len(keep) // 2)
        rooms, hosts = self._rooms[keep], self._hosts[keep]
        vectors = np.empty((size, self._vectors.shape[1]), dtype=np.float32)
        if recompute:
            vectors[: len(keep)] = self._own_vectors(hosts)
            self._add_cohosts(vectors[: len(keep)], slots, cohosts)
        else:
            np.take(self._vectors, keep, axis=0, out=vectors[: len(keep)], mode="clip")
        self._vectors, self._outlines = vectors, Outlines.of_size(size, vectors.shape[1])
        self._outlines.draw(vectors[: len(keep)], 0)
        self._rooms, self._hosts = _grown(rooms, size), _grown(hosts, size)
        self._dead, self._alive = np.zeros(size, dtype=np.int64), _grown(alive[keep], size)
        self._cohosts = _grown(cohosts, max(_FIRST_CAPACITY, 2 * len(cohosts)))
        self._cohost_slots = _grown(slots, max(_FIRST_CAPACITY, 2 * len(cohosts)))
        self._n, self._n_dead, self._n_cohosts = len(keep), 0, len(cohosts)
        self._slot_of_room = dict(zip(rooms.tolist(), range(len(keep)), strict=True))
        self._slot_before = {}


def _grown(array: NDArray[T], size: int) -> NDArray[T]:
    larger = np.zeros((size, *array.shape[1:]), dtype=array.dtype)
    larger[: len(array)] = array
    return larger
