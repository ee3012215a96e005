"""What the intake knows of rooms: whose they are, when they began and ended, and whether they still give signs of life.

Rows of one room may contradict each other and come in any order. Which of them holds is the rule of
`recsys.events.keys`: the earliest start leads, and a row that leads the one told first takes its place. So the room is
the one that a replay and the next bundle know. What was judged by the room before (entries, purchases) stays judged.
"""

from __future__ import annotations

from typing import Any

from recsys.events.facts import NEVER, FactKind
from recsys.events.keys import lead
from recsys.events.quarantine import GUEST_TABLES
from recsys.events.single_rows import Refused
from recsys.events.vocabularies import Vocabularies
from recsys.live.leases import Leases
from recsys.live.room_starts import take_back_start
from recsys.live.state import LiveState
from serving.seen import ByRow, Lately

_OPEN, _COMPLETE, _NOWHERE = 1, 2, (-1, 0, -1)
_ROOM_START, _ROOM_END = int(FactKind.ROOM_START), int(FactKind.ROOM_END)


class RoomsTold:
    """Rooms of a `LiveState`, told row by row.

    Args:
        live: the state to move.
        vocabularies: of the bundle it came from; unknown ids are appended.
        lease_us: how long a room stays without a sign of life, µs; 0: for ever.
        horizon: ends told by hosts whose room it is not that are remembered at least.

    Threading: one writer.
    """

    def __init__(self, live: LiveState, vocabularies: Vocabularies, lease_us: int, horizon: int) -> None:
        self.live, self.vocabularies = live, vocabularies
        self.leases = Leases(lease_us)
        self.ended = ByRow("q", NEVER)
        """Room row → instant of its end, µs, of rooms known to have ended."""
        self.ends_of_others: Lately[tuple[int, int | str], int] = Lately(horizon)
        """(room row, host id) → the earliest end that rows of a host tell whose room it is not, µs: a correction may
        make it his. No row says that none will come, so only the horizon bounds them."""
        self.lapsed: set[int] = set()
        """Room rows whose lease ran out and was not renewed since."""
        self.seen = ByRow("b", 0)
        """Room row → whether an open row and a completion were told."""

    def of(self, table: str, values: Any, at: int, received_us: int) -> tuple[int, int, int]:
        """(room row, its start, host row), (−1, 0, −1) when nobody knows it by then; checks that row and room agree.

        Raises:
            Refused: the host differs from the room's, or the room had ended.
        """
        room_id = values.room_id
        if room_id is None:
            return _NOWHERE
        room = self.vocabularies.rooms.row(room_id)
        rooms = self.live.world.rooms
        if room < 0 or room >= len(rooms.host):
            return _NOWHERE
        own, start = rooms.host.item(room), rooms.started_at.item(room)
        if own < 0 or start > at:
            return _NOWHERE
        host = self.vocabularies.hosts.row(values.host_id)
        if host != own and (table not in GUEST_TABLES or host not in rooms.cohosts.get(room, ())):
            raise Refused("host_differs_from_room")
        end = self.ended.get(room)
        if table == "watches" and end is not None and end < at:
            raise Refused("entered_after_end")
        if end is None and self.leases.lease_us and table != "impressions":  # being shown is no sign of life
            self._renew(room, min(at, received_us))
        return room, start, host

    def take(self, v: Any, received_us: int, facts_from: int) -> bool:
        """Let a row of `rooms` count; False: it is a sign of life of a live room and nothing else.

        Args:
            received_us, facts_from: as in `Intake.feed`.

        Raises:
            Refused: it repeats a row, or contradicts the one that leads.
        """
        room, told_of = self.vocabularies.rooms.row(v.room_id), self.live.world.rooms.host
        guests = sorted({one for one in v.cohost_ids or () if one != v.host_id})
        flags = 0
        if not (0 <= room < len(told_of) and told_of[room] >= 0):
            room = self.vocabularies.rooms.add(v.room_id)
            self._announce(room, v, guests)
            self._start(room, facts_from)
        else:
            held = self._leading(room)
            told = lead(v.started_at, v.host_id, v.ended_at is not None, v.category, guests)
            if told[:2] < held[:2]:
                self._correct(room, v, guests, facts_from)
            elif told[:2] > held[:2] and (v.ended_at is None or v.host_id != held[1]):
                if v.ended_at is not None:
                    self._note_end(room, v.host_id, v.ended_at)
                raise Refused("duplicate_key")
            else:
                flags = self.seen.get(room) or _OPEN
                if told < held:
                    self._announce(room, v, guests)
        if v.ended_at is not None:
            self._end(room, v.ended_at)
            self.seen[room] = flags | _COMPLETE
        else:
            self.seen[room] = flags | _OPEN | (_COMPLETE if room in self.ended else 0)
            if room not in self.ended and (flags or room in self.live.world.index):
                self._renew(room, received_us)
        if flags & (_OPEN if v.ended_at is None else _COMPLETE):
            if room in self.ended:
                raise Refused("duplicate_key")
            return False
        return True

    def keep_alive(self, now_us: int) -> None:
        """Give every room live now a fresh lease, as on loading a bundle."""
        for room in self.live.world.index.publish().rooms.tolist():
            self.leases.renew(room, now_us)

    def end_expired(self, now_us: int) -> list[int]:
        """End the rooms whose lease ran out; their rows."""
        over = self.leases.expired(now_us)
        if over:
            self.live.end_rooms(over)
            self.lapsed.update(over)
        return over

    def _leading(self, room: int) -> tuple[Any, ...]:
        """The row that leads until now, as `recsys.events.keys.lead` compares it; of the bundle it is an open one."""
        rooms, id_of = self.live.world.rooms, self.vocabularies.hosts.id
        guests: list[Any] = sorted(id_of(one) for one in rooms.cohosts.get(room, ()))
        ended = self.seen.get(room) == _COMPLETE
        return lead(rooms.started_at.item(room), id_of(rooms.host.item(room)), ended, rooms.category(room), guests)

    def _correct(self, room: int, v: Any, guests: list[Any], facts_from: int) -> None:
        """The row leads the one that was told before: the room began then, and with that host."""
        rooms = self.live.world.rooms
        host, start = rooms.host.item(room), rooms.started_at.item(room)
        if start >= facts_from:
            take_back_start(self.live.world, room, host, start)
        self._announce(room, v, guests)
        if rooms.host[room] != host:
            if room in self.ended:
                self._note_end(room, self.vocabularies.hosts.id(host), self.ended[room])
            end = self.ends_of_others.get((room, v.host_id))
            self.ended[room] = NEVER if end is None else end
            self.ends_of_others.drop((room, v.host_id))
        self._start(room, facts_from)
        self.lapsed.discard(room)
        if room in self.ended:
            self._end(room, self.ended[room])

    def _announce(self, room: int, v: Any, guests: list[Any]) -> None:
        world, hosts = self.live.world, self.vocabularies.hosts
        host, rows = hosts.add(v.host_id), tuple(hosts.add(one) for one in guests)
        world.grow_hosts(max(host, *rows) + 1 if rows else host + 1)
        world.announce(room, host, rows, v.started_at, v.category)
        if room in world.index:
            world.index.start(room, host, rows)

    def _start(self, room: int, facts_from: int) -> None:
        """The room goes live, unless the bundle holds this fact."""
        rooms = self.live.world.rooms
        at = rooms.started_at.item(room)
        if at >= facts_from:
            self.live.apply(at, _ROOM_START, -1, rooms.host.item(room), room, 0, 0, 0)

    def _end(self, room: int, at: int) -> None:
        """The room is over, also if the bundle should hold it: it cannot be told twice."""
        self.ended[room] = min(at, self.ended.get(room) or at)
        self.leases.end(room)
        self.lapsed.discard(room)
        self.live.apply(at, _ROOM_END, -1, self.live.world.rooms.host.item(room), room, 0, 0, 0)

    def _note_end(self, room: int, host_id: Any, at: int) -> None:
        held = self.ends_of_others.get((room, host_id))
        self.ends_of_others.put((room, host_id), at if held is None else min(at, held))

    def _renew(self, room: int, at: int) -> None:
        """A sign of life: a longer lease, and back on air if the lease had run out."""
        if not self.leases.lease_us:
            return
        self.leases.renew(room, at)
        if room in self.lapsed:
            self.lapsed.discard(room)
            world = self.live.world
            world.index.start(room, int(world.rooms.host[room]), world.rooms.cohosts.get(room, ()))
