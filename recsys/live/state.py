"""One writer that lets a `World` know one fact after the other.

Replay, the training log and the service all move their state through `LiveState.apply`; what is measured offline is
what is served. A fact at `t` must be applied before any request at an instant > t and after every request at or before
t; who calls is responsible for that order (`recsys.live.replay`, `training.log`, the service's intake).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import polars as pl

from recsys.events.facts import FOREVER, NEVER, FactKind
from recsys.models.suite import LatestEntered, entered, latest_entered
from recsys.pipeline.world import World
from recsys.ties.standing import BLOCK_OF_FACT, columns_of, standing_at, standings
from recsys.ties.update import Cells, Program

# plain numbers: looking up a member of an enumeration costs as much as changing a state
_ENTRY = int(FactKind.ENTRY)
_IMPRESSION = int(FactKind.IMPRESSION)
_LEAVE_NOTICE = int(FactKind.LEAVE_NOTICE)
_ROOM_END = int(FactKind.ROOM_END)
_ROOM_START = int(FactKind.ROOM_START)
_TIE_FACTS = frozenset(range(FactKind.ENTRY, FactKind.IMPRESSION + 1))
_MOST_LATEST = 100_000
"""Users whose last hosts are kept at hand, some 500 bytes each."""


class _Plan(NamedTuple):
    """How a fact changes its tie, and the standings of its host."""

    place: Callable[[int, int], tuple[Cells, int]]
    program: Program
    standing: Callable[[Cells, int], tuple[bool, ...]]
    columns: list[int]


class LiveState:
    """Applies facts to a world. One writer; readers are the caller's business."""

    def __init__(self, world: World) -> None:
        self.world = world
        blocks = world.ties.blocks
        standing = {name: standing_at(blocks[name]) for name in set(BLOCK_OF_FACT.values())}
        self._plans: list[_Plan | None] = [None] * len(FactKind)
        for kind, name in BLOCK_OF_FACT.items():
            program, place = world.ties.updaters[name].programs[kind], world.ties.placing(name)
            assert program is not None  # the block is the one that the fact feeds
            self._plans[kind] = _Plan(place, program, standing[name], columns_of(name))
        self._first_entry = blocks["visits"].int_column("first_entry_at")
        self._entry_width = len(blocks["visits"].ints)
        self._latest: dict[int, LatestEntered] = {}
        counting = (world.users, world.hosts, world.moments)
        self._of_users, self._of_hosts, self._of_rooms = (frozenset(map(int, s.block.facts)) for s in counting)
        self._each_impression = any(_IMPRESSION in store.block.facts for store in counting)

    def register_rooms(self, rooms: pl.DataFrame) -> None:
        """Make rooms known by row so that facts and requests can name them; nothing becomes live by this.

        Args:
            rooms: columns room, host, cohosts (list), started_at (µs), category, as `recsys.events.room_table` gives.
        """
        named = rooms.select("room", "host", "cohosts", "started_at", "category")
        hosts = [int(named["host"].max() or 0), *named["cohosts"].explode(empty_as_null=False).to_list()]  # type: ignore[arg-type]
        self.world.grow_hosts(max(host for host in hosts if host is not None) + 1)
        for room, host, cohosts, started_at, category in named.iter_rows():
            self.world.announce(room, host, tuple(cohosts or ()), started_at, category)

    def apply(self, at: int, kind: int, user: int, host: int, room: int, count: int, value: int, aux: int) -> None:
        """Let the world know one fact; arguments are the columns of `FACT_SCHEMA`."""
        world = self.world
        if host >= len(world.standings):
            world.grow_hosts(host + 1)
        if kind in _TIE_FACTS:
            if user >= 0 and host >= 0:
                if kind == _ENTRY:
                    started_at = world.rooms.started_at.item(room) if 0 <= room < len(world.rooms.started_at) else NEVER
                    latest = self._latest_of(user)
                    world.models.observe_entry(latest, user, host, at, started_at)
                    self._latest[user] = entered(latest, host, at)
                self._tie(user, host, kind, at, count, value)
                if kind in self._of_users:
                    world.users.apply(user, kind, at, count, value)
            if host >= 0 and kind in self._of_hosts:
                world.hosts.apply(host, kind, at, count, value)
                if kind == _ENTRY:
                    world.heat.update(world.hosts.cells, host)
            if room >= 0 and kind in self._of_rooms:
                world.moments.apply(room, kind, at, count, value)
        elif kind == _ROOM_START:
            self._start(room, host, at)
        elif kind == _ROOM_END:
            world.index.end(room)
        elif kind == _LEAVE_NOTICE:
            world.leaves.setdefault(host, []).append((value, aux))

    def apply_impressions(self, at: int, user: int, hosts: list[int], rooms: list[int]) -> None:
        """Rooms (n) shown to a user in one answer, first place first: as a fact each, at a fraction of the cost.

        Args:
            hosts, rooms: rows; −1: not known (any more).
        """
        once: dict[int, None] = {}
        for position, (host, room) in enumerate(zip(hosts, rooms, strict=True), start=1):
            if host < 0 or host in once or self._each_impression:
                self.apply(at, _IMPRESSION, user, host, room, 1, position, 0)
            else:
                once[host] = None
        if once and user >= 0:
            self.world.grow_hosts(max(once) + 1)
            self.world.ties.apply_many(user, list(once), FactKind.IMPRESSION, at)

    def end_rooms(self, rooms: Iterable[int]) -> None:
        """Rooms that are over without a fact of their own (a lease that ran out)."""
        for room in rooms:
            self.world.index.end(room)

    def forget_user(self, user: int) -> None:
        """Nothing of this user (row) is read any more: no ties, no counts, and he stands in no host's standings."""
        world = self.world
        for name, block in world.ties.blocks.items():
            ties = world.ties.of(name, user)
            if len(ties) and name in BLOCK_OF_FACT.values():
                where = (ties.hosts[:, None].astype(np.intp), np.array(columns_of(name)))
                np.subtract.at(world.standings, where, standings(block, ties.rows))
        world.ties.forget(user)
        world.heat.moves += 1  # standings have changed though nobody entered
        self._latest.pop(user, None)
        world.users.forget(user)
        if world.models.audience is not None:
            world.models.audience.forget(user)

    def _latest_of(self, user: int) -> LatestEntered:
        """The hosts a user entered last, kept for those who entered lately: all his ties would have to be read."""
        latest = self._latest.get(user)
        if latest is None:
            if len(self._latest) >= _MOST_LATEST:
                self._latest.clear()
            latest = latest_entered(self.world.ties, self.world.blocks, user)
        return latest

    def _start(self, room: int, host: int, at: int) -> None:
        world = self.world
        world.schedule.apply(host, _ROOM_START, at, 0, 0)
        world.index.start(room, host, world.rooms.cohosts.get(room, ()))

    def _arrival(self, host: int, first_at: int, at: int) -> None:
        """Count a first entry; a late event that proves earlier than the first one known moves it."""
        if first_at != FOREVER:
            self.world.arrivals.apply(host, _ENTRY, first_at, -1, 0)
        self.world.arrivals.apply(host, _ENTRY, at, 1, 0)

    def _tie(self, user: int, host: int, kind: int, at: int, count: int, value: int) -> None:
        """Update the tie and, by the difference it makes, the counts of users by standing."""
        plan = self._plans[kind]
        if plan is None:
            self.world.ties.apply(user, host, kind, at, count, value)
            return
        held, row = plan.place(user, host)
        ints, decayed, latest = held
        if kind == _ENTRY:
            first = ints[row * self._entry_width + self._first_entry]
            if at < first:
                self._arrival(host, first, at)
        before = plan.standing(held, row)
        plan.program(ints, decayed, latest, row, at, count, value)
        after = plan.standing(held, row)
        if after != before:
            for column, was, stands in zip(plan.columns, before, after, strict=True):
                if was != stands:
                    self.world.standings[host, column] += 1 if stands else -1
