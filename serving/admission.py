"""Turns: one batch of lookups (`serving.company`) or explanation at a time, the rest waits in order.

A lookup is processor work of some milliseconds; answering several at once in one process makes all of them late. So
they queue here. A queue that is full refuses at once. When its turn comes, a lookup shares what is left of its deadline
with those who wait behind it, and gets the richest step of the ladder (`serving.ladder`) that fits into its share, by
the cost of that step as measured lately: answers get simpler before anybody is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

from serving.ladder import STEPS
from serving.problems import Problem

_FIRST_GUESS_S = (0.004, 0.003, 0.002, 0.002)
_NEWEST = 0.05  # least weight of the newest measurement; the first ones weigh 1, 1/2, 1/3 …
_FADE = 0.99  # a step not taken is believed to get cheaper, so that it is tried again


class Ticket(NamedTuple):
    """When somebody came, s, and how many turns there had been."""

    arrived: float
    served: int


class Turns:
    """The queue of one event loop.

    Args:
        most_waiting: lookups that may wait; the next is refused.
        deadline_s: from arrival to the beginning of the last step that fits.
        clock: monotonic seconds.
    """

    def __init__(self, most_waiting: int, deadline_s: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._most, self._deadline_s, self._clock = most_waiting, deadline_s, clock
        self.waiting = 0
        self.cost_s = list(_FIRST_GUESS_S)
        self._measured = [0] * len(STEPS)
        self._served = 0

    @asynccontextmanager
    async def in_full(self, n_users: int) -> AsyncIterator[None]:
        """The turn of `n_users` answered on step 0, however little time is left; its holder does not await.

        Raises:
            Problem: 503, the queue is full, or the deadline passed while waiting.
        """
        ticket = self.stand()
        try:
            # A lookup holds the loop, so whoever came meanwhile stands before the door, not in the queue: let them in,
            # or nobody would ever be seen to wait.
            await asyncio.sleep(0)
        finally:
            self.waiting -= 1
        self.left_s(ticket)
        with self._measured_on(0, n_users):
            yield

    def stand(self) -> Ticket:
        """Stand in the queue; whoever leaves it takes one off `waiting`.

        Raises:
            Problem: 503, the queue is full.
        """
        if self.waiting >= self._most:
            raise Problem(503, "overloaded", "too many lookups are waiting", retry_after_s=self._deadline_s)
        self.waiting += 1
        return Ticket(self._clock(), self._served)

    def left_s(self, ticket: Ticket) -> float:
        """What is left of the deadline, s.

        Raises:
            Problem: 503, it passed while waiting.
        """
        # What passed before the first turn after its arrival is the machine's delay, not the queue's.
        waited = self._clock() - ticket.arrived if self._served > ticket.served else 0.0
        if waited >= self._deadline_s:
            raise Problem(503, "deadline", "the deadline passed while waiting", retry_after_s=self._deadline_s)
        return self._deadline_s - waited

    @contextmanager
    def taken(self, left_s: float, n_users: int) -> Iterator[int]:
        """The turn of `n_users` answered at once, without waiting, as each of them has `left_s`; gives the step."""
        step = self.step_for(left_s / (n_users + self.waiting))
        with self._measured_on(step, n_users):
            yield step

    @contextmanager
    def _measured_on(self, step: int, n_users: int) -> Iterator[None]:
        begun = self._clock()
        try:
            yield
            self._learn(step, (self._clock() - begun) / n_users)
        finally:
            self._served += 1

    def step_for(self, left_s: float) -> int:
        """The richest step whose cost fits into the time left, else the simplest."""
        return next((step for step in range(len(STEPS)) if self.cost_s[step] <= left_s), len(STEPS) - 1)

    def _learn(self, step: int, took_s: float) -> None:
        for richer in range(step):
            self.cost_s[richer] *= _FADE
        self._measured[step] += 1
        self.cost_s[step] += max(_NEWEST, 1 / self._measured[step]) * (took_s - self.cost_s[step])
