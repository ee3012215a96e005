"""Lookups that wait at the same time are answered together: each to the last bit as alone, at less cost.

Nobody waits for company. A batch is whoever stands in the queue when the one before it has been answered; a lookup that
finds nobody is answered alone, at once. A batch is bounded, or the first of it would wait for the last.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from serving.admission import Ticket, Turns
from serving.asked import Asked, Served
from serving.problems import Problem

_LET_IN: Final = 3
"""Rounds of the loop from bytes that lie in a socket to a lookup that stands in the queue."""


class _Party(NamedTuple):
    """The lookups of one request, all answered in one batch."""

    asked: Sequence[Asked]
    ticket: Ticket
    done: asyncio.Future[list[Served]]


class Company:
    """The queue of one event loop; `run` answers until cancelled.

    Args:
        turns: who may wait and for how long, and on which step of the ladder a batch is answered.
        answer: several lookups at one instant.
        most_users: in one batch; a request of more users is one by itself.
        courtesy: awaited before every batch, which holds the loop.
    """

    def __init__(
        self,
        turns: Turns,
        answer: Callable[[Sequence[Asked]], list[Served]],
        most_users: int,
        courtesy: Callable[[], Awaitable[None]],
    ) -> None:
        self._turns, self._answer, self._most, self._courtesy = turns, answer, most_users, courtesy
        self._parties: deque[_Party] = deque()
        self._some = asyncio.Event()

    async def ask(self, asked: Sequence[Asked]) -> list[Served]:
        """Answers in the order of `asked`, whose `step` is chosen here.

        Raises:
            Problem: 503, the queue is full, or the deadline passed while waiting.
        """
        ticket = self._turns.stand()
        done: asyncio.Future[list[Served]] = asyncio.get_running_loop().create_future()
        self._parties.append(_Party(asked, ticket, done))
        self._some.set()
        return await done

    async def run(self) -> None:
        """Answer batch after batch until cancelled."""
        while True:
            await self._some.wait()
            # A batch holds the loop: whoever came meanwhile stands before the door, not in the queue.
            for _ in range(_LET_IN):
                await asyncio.sleep(0)
            await self._courtesy()
            self._answer_some()
            if not self._parties:
                self._some.clear()

    def _answer_some(self) -> None:
        """Take a batch off the queue and answer it; a failure is told to those it belongs to."""
        batch: list[_Party] = []
        users, left_s = 0, float("inf")
        while self._parties and (not batch or users + len(self._parties[0].asked) <= self._most):
            party = self._parties.popleft()
            self._turns.waiting -= 1
            if party.done.done():
                continue  # the caller has gone
            try:
                left_s = min(left_s, self._turns.left_s(party.ticket))
            except Problem as late:
                party.done.set_exception(late)
                continue
            batch.append(party)
            users += len(party.asked)
        if users:
            with self._turns.taken(left_s, users) as step:
                self._answered([(party, [replace(one, step=step) for one in party.asked]) for party in batch])

    def _answered(self, batch: list[tuple[_Party, list[Asked]]]) -> None:
        try:
            served = iter(self._answer([one for _, asked in batch for one in asked]))
        except Exception as error:
            if len(batch) == 1:
                batch[0][0].done.set_exception(error)
                return
            for one in batch:  # one of them is to blame: the others are answered alone
                self._answered([one])
            return
        for party, asked in batch:
            party.done.set_result([next(served) for _ in asked])
