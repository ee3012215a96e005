"""The service without a network: one bundle, the log, and what arrives; lookups, explanations, events, swaps.

    with Engine.open(bundle, log_path) as engine:
        engine.apply([("e1", "rooms", {"room_id": 9, "host_id": 4, "started_at": "2026-05-01T20:00:00Z"})])
        answer = engine.lookup(42, k=20)

Acknowledged means: in the log, flushed, and applied; the next lookup of any worker on the same log sees it. Engines in
several processes may share one log: each reads what the others appended before it answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from recsys.bundle import resolve
from recsys.erasure import pseudonym
from recsys.errors import InputRefused
from recsys.events.log_tables import ERASE
from recsys.pipeline.lookup import lookups as answers_to
from serving.asked import Asked, Served, request_of
from serving.config import ServingConfig
from serving.event_log import Entry, EventLog, Moved, Record, as_text
from serving.intake import ACCEPTED, DUPLICATE, TAKEN, Verdict
from serving.ladder import STEPS, restricted, stepped_down
from serving.loaded import Loaded
from serving.loading import A_TURN, hand_over_leases, load_beside, load_rehearsed
from serving.memories import let_go, trim
from serving.seen import Lately
from serving.snapshots import drop as drop_snapshot

Event = tuple[str, str, Any]
"""(event_id, table, row): the row as a mapping, or as JSON text or bytes."""


def clock_us() -> int:
    """The wall clock, µs since the epoch."""
    return time.time_ns() // 1_000


class Engine:
    """See the module. All methods may be called from any thread.

    Args:
        loaded: the bundle to serve, up to date with `log`.
        log: where events go; None: events are applied and forgotten with the process (tests, benchmarks).
        reader: a second connection to the same log, so that lookups never wait for a flush.
        bundles: the folder of bundles that `swap` without a path asks for its `CURRENT`.
        clock: the wall clock, µs.
    """

    def __init__(
        self,
        loaded: Loaded,
        config: ServingConfig,
        *,
        log: EventLog | None = None,
        reader: EventLog | None = None,
        bundles: Path | None = None,
        clock: Callable[[], int] = clock_us,
    ) -> None:
        self.config, self.clock, self.bundles = config, clock, bundles
        self.loaded = loaded
        self._log, self._reader = log, reader
        self._state = threading.RLock()
        self._writing = threading.Lock()
        self._swapping = threading.Lock()
        self._waiting, self._folding = 0, False
        self._verdicts: Lately[int, Verdict] = Lately(20_000)

    @classmethod
    def open(
        cls, bundle: Path, log: Path | None, config: ServingConfig | None = None, clock: Callable[[], int] = clock_us
    ) -> Self:
        """Load a bundle (or the `CURRENT` of a folder of bundles) and bring it up to the end of the log.

        Raises:
            BundleRefused, GateFailed: the bundle cannot be served. ConfigError: the log cannot be used.
        """
        config = config or ServingConfig()
        opened = EventLog(log) if log is not None else None
        loaded = load_rehearsed(resolve(bundle), config, opened, clock())
        path = resolve(bundle)
        return cls(
            loaded,
            config,
            log=opened,
            reader=EventLog(log) if log is not None else None,
            bundles=bundle if path != bundle else None,
            clock=clock,
        )

    @property
    def log_path(self) -> Path | None:
        """Where the log lies, if there is one."""
        return None if self._log is None else self._log.path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the log; nothing is lost by not calling it."""
        with self._writing, self._state:
            for log in (self._log, self._reader):
                if log is not None:
                    log.close()

    @contextmanager
    def reading(self) -> Iterator[Loaded]:
        """The state, up to date with everything acknowledged so far, nobody else at it.

        Raises:
            LogFailed: the log cannot be read, so nobody knows what was acknowledged.
        """
        self._waiting += 1
        try:
            self._state.acquire()
        finally:
            self._waiting -= 1
        try:
            if self._reader is not None and self._log is not None:
                last = self._reader.last
                # What the writer of this process is about to apply nobody was told of: a lookup need not do it for him.
                in_hand = last == self._log.written and self._writing.locked()
                if last > self.loaded.applied and not in_hand:
                    self._fold(self._reader.read(self.loaded.applied))
            self.loaded.intake.rooms.end_expired(self.clock())
            yield self.loaded
        finally:
            self._state.release()

    def lookup(self, asked: Asked) -> Served:
        """Ranked live rooms of one viewer; unknown viewers get the public domain (the documented cold path)."""
        return self.lookup_many([asked])[0]

    def lookup_many(self, asked: Sequence[Asked]) -> list[Served]:
        """`lookup` for several viewers at one instant, from one state; cheaper than one by one, the same answers."""
        alike: dict[Any, list[int]] = {}
        for i, one in enumerate(asked):
            alike.setdefault((one.step, one.sources, one.k), []).append(i)
        served: dict[int, Served] = {}
        with self.reading() as loaded:
            if loaded.scattered:
                loaded.fetch([one.user_id for one in asked if one.user_id is not None])
            at = self.clock()
            for group in alike.values():
                served |= zip(group, self._served(loaded, [asked[i] for i in group], at), strict=True)
        return [served[i] for i in range(len(asked))]

    def _served(self, loaded: Loaded, asked: list[Asked], at: int) -> list[Served]:
        """Answers to viewers who ask for as many rooms of the same sources, on one step of the ladder."""
        requests = [request_of(one, loaded, at) for one in asked]
        world, step, sources = loaded.live.world, asked[0].step, asked[0].sources
        view = stepped_down(world, step, asked[0].k)
        if sources is not None:
            view = restricted(view, sources)
        answers = answers_to(view, requests)
        if step:
            answers = [replace(answer, degraded=(*answer.degraded, STEPS[step])) for answer in answers]
        ids, epoch = loaded.vocabularies, world.index.epoch.number
        return [
            Served(
                one,
                answer,
                loaded,
                at,
                request.user,
                epoch,
                ids.rooms.listed(answer.rooms),
                ids.hosts.listed(answer.hosts),
            )
            for one, request, answer in zip(asked, requests, answers, strict=True)
        ]

    def apply(
        self, events: Sequence[Event], answers: Sequence[Entry] = (), moved: Moved | None = None
    ) -> list[Verdict]:
        """Log, flush and apply a batch; one verdict per event, in order. Names of tables with a `_` are nobody's.

        Args:
            answers: served answers as `Served.impressions`, logged in the same commit.
            moved: how far the stream was read that the events come from; stored in the same commit.

        Raises:
            PositionMoved: another reader of the stream was faster; as with LogFailed, nothing was done.
            LogFailed: nothing of the batch is acknowledged, logged or applied.
        """
        entries = [(name, table.replace("_", "?", 1), as_text(row)) for name, table, row in events]
        return self._apply([*entries, *answers], moved)[: len(entries)]

    def _apply(self, entries: list[Entry], moved: Moved | None = None) -> list[Verdict]:
        with self._writing:
            now = max(self.clock(), self.loaded.last_received_us)  # a clock set back makes no event one of the future
            if self._log is not None:
                records = self._log.append(entries, now, lambda: self.loaded.applied, self._catch_up, moved)
            else:
                records = self._without_log(entries, now)
            for start in range(0, len(records), A_TURN):
                some = records[start : start + A_TURN]
                with self._turn():
                    self.loaded.fetch_entrants(some)
                    self._fold(iter(some))
            made = {record.event_id: self._verdicts.get(record.seq) or TAKEN for record in records}
        repeat: Verdict = (DUPLICATE, "event_id")
        return [made.pop(event_id, repeat) for event_id, _, _ in entries]

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Alone at the state, and then who waits: side by side they would wait for each other's interpreter, often."""
        with self._state:
            yield
        if self._waiting:
            time.sleep(0.0002)

    def _catch_up(self, records: list[Record]) -> Callable[[str], bool]:
        if records or self._folding:  # else a lookup that has the state is not waited for, the log being locked
            with self._state:
                self._fold(iter(records))
        return self.loaded.intake.seen

    def _without_log(self, entries: list[Entry], now: int) -> list[Record]:
        fresh = {one[0]: one for one in reversed(entries) if not self.loaded.intake.seen(one[0])}
        ordered = [one for one in entries if fresh.get(one[0]) is one]
        return [Record(seq, *one, now) for seq, one in enumerate(ordered, self.loaded.applied + 1)]

    def _fold(self, records: Iterator[Record]) -> None:
        loaded = self.loaded
        self._folding = True  # `applied` says more than is known until the record is taken
        try:
            for record in records:
                if record.seq > loaded.applied:
                    verdict = loaded.take(record)
                    if verdict[0] != ACCEPTED:
                        self._verdicts.put(record.seq, verdict)
        finally:
            self._folding = False

    def swap(self, path: Path | None = None) -> str:
        """Serve another bundle (None: the folder's `CURRENT`) without a pause; its name.

        Raises:
            InputRefused: there is no folder. BundleRefused, GateFailed: it cannot be served; the one before still is.
        """
        with self._swapping:
            if path is None:
                if self.bundles is None:
                    raise InputRefused(
                        "no folder of bundles to take the current one from", where=self.loaded.bundle.path,
                        hint="serve the folder that this bundle lies in, or name the bundle to swap to",
                    )  # fmt: skip
                path = resolve(self.bundles)
            fresh = load_beside(path, self.config, self.log_path, self.clock(), self._turn)
            with self._writing, self._state:
                if self._log is not None:
                    for record in self._log.read(fresh.applied):
                        fresh.take(record)
                fresh.last_received_us = max(fresh.last_received_us, self.loaded.last_received_us)
                before = self.loaded
                hand_over_leases(before, fresh)
                self.loaded = fresh
            let_go(before.intake)
            del before
            trim()
            return fresh.name

    def vitals(self) -> dict[str, Any]:
        """How the state is: what /readyz and /metrics tell."""
        with self.reading() as loaded:
            return loaded.vitals(self.clock())

    def erase(self, user_id: int | str) -> dict[str, Any]:
        """Forget a user: at once in the state, for good in the log. A receipt.

        Raises:
            LogFailed: not acknowledged; ask again.
        """
        now = self.clock()
        with self.reading() as loaded:
            row = loaded.vocabularies.users.row(user_id)
            told = {"user": pseudonym(user_id), "at": now, "bundle": loaded.name, "row": row}
        self._apply([(f"erase-{now}-{told['user']}", ERASE, as_text(told))])
        rows = 0
        if self._log is not None:
            with self._writing:
                drop_snapshot(self._log.path)
                rows = self._log.forget_user(user_id)
        return {"user_id": user_id, "erased_at_us": now, "log_rows": rows, "offset": self.loaded.applied}
