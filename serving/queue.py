"""Between the event loop and the log: batches that arrive while one is being flushed share the next commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from serving.asked import Served
from serving.engine import Engine, Event
from serving.event_log import Entry, LogFailed
from serving.intake import Verdict
from serving.problems import Problem

log = logging.getLogger("laotie.serving")
MOST_AT_ONCE = 4_000
_MOST_ANSWERS = 1_000
_MOST_COURTESY_S = 0.004


class IntakeQueue:
    """Batches waiting for the log. Used from one event loop; `run` works until cancelled.

    Args:
        engine: applies them, in a thread.
        most_waiting: events that may wait; a batch that does not fit is refused.
        lost: told how many answers were not logged.
    """

    def __init__(self, engine: Engine, most_waiting: int, lost: Callable[[int], None]) -> None:
        self._engine, self._most, self._lost = engine, most_waiting, lost
        self._batches: list[tuple[Sequence[Event], asyncio.Future[list[Verdict]]]] = []
        self._answers: list[Entry] = []
        self._some = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._acknowledged = asyncio.Event()  # all events put so far; answers do not count
        self._acknowledged.set()
        self.waiting = 0

    async def put(self, events: Sequence[Event]) -> list[Verdict]:
        """One verdict per event, once they are logged, flushed and applied.

        Raises:
            Problem: 503, too many events are waiting. LogFailed: nothing of the batch was acknowledged.
        """
        if self.waiting and self.waiting + len(events) > self._most:
            raise Problem(503, "overloaded", "too many events are waiting", retry_after_s=1.0)
        if not events:
            return []
        done: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        self.waiting += len(events)
        self._batches.append((events, done))
        self._acknowledged.clear()
        self._some.set()
        return await done

    async def pass_by(self) -> None:
        """Wait for the events under way to be acknowledged, but not for long: a lookup beside them holds them up."""
        if not self._acknowledged.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_MOST_COURTESY_S):
                    await self._acknowledged.wait()

    def later(self, served: Sequence[Served], request_id: str) -> None:
        """Log answers with the next commit, nobody waits for it; those that find the queue full are lost, or all of
        them if it fails."""
        kept = served[: max(0, _MOST_ANSWERS - len(self._answers))]
        self._lost(len(served) - len(kept))
        self._answers += [one.impressions(request_id) for one in kept]
        self._some.set()

    async def run(self) -> None:
        """Move batches to the log until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            self._idle.clear()
            while self._batches or self._answers:
                await self._commit()
            self._idle.set()

    async def drain(self) -> None:
        """Wait until everything put so far is in the log."""
        while self._batches or self._answers or not self._idle.is_set():
            await asyncio.sleep(0.005)

    async def _commit(self) -> None:
        taken, n = 0, 0
        while taken < len(self._batches) and n < MOST_AT_ONCE:
            n += len(self._batches[taken][0])
            taken += 1
        batches, self._batches = self._batches[:taken], self._batches[taken:]
        answers, self._answers = self._answers, []
        try:
            verdicts = await asyncio.to_thread(
                self._engine.apply, [event for events, _ in batches for event in events], answers
            )
        except Exception as error:
            if not isinstance(error, LogFailed):  # whose callers say so
                log.exception("intake failed")
            self._lost(len(answers))
            for _, done in batches:
                if not done.cancelled():
                    done.set_exception(error)
        else:
            start = 0
            for events, done in batches:
                if not done.cancelled():
                    done.set_result(verdicts[start : start + len(events)])
                start += len(events)
        finally:
            self.waiting -= n
            if not self.waiting:
                self._acknowledged.set()
