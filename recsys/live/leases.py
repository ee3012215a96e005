"""Leases of live rooms: a room that nobody renews in time vanishes, so a lost end cannot keep a dead room on air.

Leases are a matter of the wall clock of the service only; replay and training know none.
"""

from __future__ import annotations

import heapq


class Leases:
    """Deadlines by room row.

    Args:
        lease_us: how long a room stays without being renewed, µs; 0: for ever.

    Threading: one writer. Cost: O(log rooms) a renewal that moves a deadline, O(1) for an `expired` with nothing due.
    """

    def __init__(self, lease_us: int) -> None:
        self.lease_us = lease_us
        self._until: dict[int, int] = {}
        self._queue: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._until)

    def renew(self, room: int, now: int) -> None:
        """A sign of life of a live room at `now`, µs; an older sign than the last one changes nothing."""
        if not self.lease_us:
            return
        until = now + self.lease_us
        held = self._until.get(room)
        if held is None:
            self._until[room] = until
            heapq.heappush(self._queue, (until, room))
        elif until > held:
            self._until[room] = until  # its place in the queue is corrected when the old deadline comes up

    def deadlines(self) -> dict[int, int]:
        """Room row → until when, µs."""
        return dict(self._until)

    def restore(self, deadlines: dict[int, int]) -> None:
        """Hold these deadlines and no others."""
        self._until = dict(deadlines)
        self._queue = [(until, room) for room, until in deadlines.items()]
        heapq.heapify(self._queue)

    def end(self, room: int) -> None:
        """The room is over; its lease is of no interest any more."""
        self._until.pop(room, None)

    def expired(self, now: int) -> list[int]:
        """Rooms whose lease ran out before `now`, µs; they are forgotten here and may be renewed later."""
        over = []
        while self._queue and self._queue[0][0] < now:
            due, room = heapq.heappop(self._queue)
            until = self._until.get(room)
            if until is None:
                continue
            if until > due and until >= now:
                heapq.heappush(self._queue, (until, room))
                continue
            del self._until[room]
            over.append(room)
        return over
