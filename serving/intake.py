"""From arriving events to a moved state: judged, freed of repeats, applied; the same fold on arrival and on recovery.

`Intake.feed` is a pure function of the state and the log: fed the same records in the same order it ends in the same
state, so every worker and every restart agrees. A record brings its time of receipt, so no clock is read here.

Repeats are known in two ways: by event id, and by the key of the row (`recsys.events.keys`: the open row of a broadcast
or a watch and its completion are one). Both memories are bounded (`dedup_horizon`), as
are orders, refunds that wait, and ends that a correction of their room may make count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from recsys.events.facts import NEVER, FactKind
from recsys.events.schemas import FEEDBACK_KINDS, TABLES
from recsys.events.single_rows import CLOCK_TOLERANCE_US, ID_ROLES, Refused, RowRules
from recsys.events.vocabularies import Vocabularies
from recsys.live.state import LiveState
from serving.refund_shares import Orders
from serving.rooms_told import RoomsTold
from serving.seen import Lately
from serving.typed_rows import TypedRows

ACCEPTED: Final = "accepted"
DUPLICATE: Final = "duplicate"
QUARANTINED: Final = "quarantined"
Verdict = tuple[str, str | None]
"""Status and, unless accepted, the reason."""
TAKEN: Final[Verdict] = (ACCEPTED, None)

_ANSWERS: Final = 512
"""Answers remembered at least: those of one instant are logged within a commit or two."""
_OPEN, _COMPLETE = 1, 2
_F = FactKind  # as plain numbers: looking up a member of an enumeration takes longer than using it
_ENTRY, _STAY, _ORDER_LINE = int(_F.ENTRY), int(_F.STAY), int(_F.ORDER_LINE)
_FOLLOW, _UNFOLLOW, _IMPRESSION = int(_F.FOLLOW), int(_F.UNFOLLOW), int(_F.IMPRESSION)
_LEAVE_NOTICE, _OTHER_ENGAGEMENT = int(_F.LEAVE_NOTICE), int(_F.OTHER_ENGAGEMENT)
_ENGAGEMENT: Final = {kind: int(FactKind[kind.upper()]) for kind in ("like", "comment", "gift", "share")}
_FEEDBACK: Final = {kind: int(FactKind[kind.upper()]) for kind in FEEDBACK_KINDS}


class Intake:
    """Lets a `LiveState` know events, one at a time.

    Args:
        live: the state to move.
        vocabularies: of the bundle it came from; unknown ids are appended.
        dedup_horizon: event ids, row keys and the like remembered at least, of each.
        lease_us: how long a room stays without a sign of life, µs; 0: for ever.

    Threading: one writer; readers are serialised with it by the caller.
    """

    def __init__(
        self,
        live: LiveState,
        vocabularies: Vocabularies,
        *,
        dedup_horizon: int = 500_000,
        lease_us: int = 0,
    ) -> None:
        self.live, self.vocabularies = live, vocabularies
        self.rooms = RoomsTold(live, vocabularies, lease_us, dedup_horizon)
        self.as_of_us = NEVER
        """Facts before this instant may be in the bundle; set by whoever loads it."""
        kinds = {n: v.kind for n in ("user", "host", "room", "order") if (v := getattr(vocabularies, n + "s")).kind}
        self.rules = RowRules(kinds)
        self._rows = TypedRows(self.rules)
        self.ids: Lately[str, bool] = Lately(dedup_horizon)
        self.keys: Lately[tuple[Any, ...], int] = Lately(dedup_horizon)
        self.shown: Lately[tuple[Any, ...], list[int | str]] = Lately(_ANSWERS)
        """Rooms by viewer and instant of the answers that showed them."""
        self.orders = Orders(dedup_horizon)
        self._facts_from = self._received_us = NEVER

    def shown_already(self, viewer: int | str, at: int, rooms: list[int | str]) -> set[int | str]:
        """Rooms that other answers showed this viewer at this instant, before one of `rooms`: an impression is told by
        user, room and instant, in the batch too."""
        before = self.shown.get((viewer, at)) or []
        self.shown.put((viewer, at), [*before, *rooms])
        return set(before)

    def seen(self, event_id: str) -> bool:
        """Whether an event of this id was fed within the horizon."""
        return event_id in self.ids

    def feed(self, event_id: str, table: str, row: str, received_us: int, facts_from: int = NEVER) -> Verdict:
        """Judge one event and apply its facts.

        Args:
            event_id: names the event; a second one of the same id is a duplicate, whatever it says.
            table, row: a row of the contract's tables, as JSON.
            received_us: when the log received it, µs.
            facts_from: facts earlier than this are in the bundle already and only remembered, not applied. An end is
                always applied: it cannot be told twice.
        """
        if not self.ids.add(event_id, True):
            return DUPLICATE, "event_id"
        self._facts_from, self._received_us = facts_from, received_us
        try:
            values = self._rows.read(table, row, received_us + CLOCK_TOLERANCE_US)
            verdict = _TAKERS[table](self, values)
        except Refused as refused:
            return QUARANTINED, refused.reason
        if len(self.rules.kinds) < len(ID_ROLES) and verdict[0] == ACCEPTED:
            self.rules.adopt(table, values)
        return verdict

    def _apply(self, at: int, kind: int, *more: Any) -> None:
        """Let the state know a fact, unless the bundle holds it."""
        if at >= self._facts_from:
            self.live.apply(at, kind, *more)

    def _once(self, key: tuple[Any, ...]) -> None:
        if not self.keys.add(key, 1):
            raise Refused("duplicate_key")

    def _who(self, values: Any, host: int = -1) -> tuple[int, int]:
        """Rows of user and host (≥ 0: found already)."""
        ids = self.vocabularies
        return ids.users.add(values.user_id), host if host >= 0 else ids.hosts.add(values.host_id)

    def _take_rooms(self, v: Any) -> Verdict:
        news = self.rooms.take(v, self._received_us, self._facts_from)
        return TAKEN if news else (DUPLICATE, "lease_renewed")

    def _take_watches(self, v: Any) -> Verdict:
        entered, left = v.entered_at, v.left_at
        room, start, host = self.rooms.of("watches", v, entered, self._received_us)
        key = ("watches", v.user_id, v.room_id, entered)
        if host < 0:
            host = self.vocabularies.hosts.add(v.host_id)
        mine = _OPEN if left is None else _COMPLETE
        held = self.keys.get(key)
        if held is not None and (held >> 2 != host or held & mine):
            raise Refused("duplicate_key")
        self.keys.put(key, host << 2 | (held or 0) & 3 | mine)
        user = self.vocabularies.users.add(v.user_id)
        if held is None and not (left is not None and self._entry_known(user, host, entered)):
            self._apply(entered, _ENTRY, user, host, room, 1, start, 0)
        if left is not None:
            self._apply(left, _STAY, user, host, room, 1, (left - entered) // 1_000, entered)
        return TAKEN

    def _entry_known(self, user: int, host: int, entered: int) -> bool:
        """Whether the bundle counts this entry already: then its completion tells of the stay only."""
        if entered >= self.as_of_us:
            return False
        block = self.live.world.blocks.visits
        row = self.live.world.ties.row("visits", user, host)
        return row is not None and int(row.ints[0, block.int_column("last_entry_at")]) >= entered

    def _take_engagements(self, v: Any) -> Verdict:
        at = v.at
        room, _, host = self.rooms.of("engagements", v, at, self._received_us)
        user, host = self._who(v, host)
        count, value = v.count, v.value_minor
        kind = _ENGAGEMENT.get(v.kind, _OTHER_ENGAGEMENT)
        self._apply(at, kind, user, host, room, 1 if count is None else count, value or 0, 0)
        return TAKEN

    def _take_purchases(self, v: Any) -> Verdict:
        at = v.at
        room, _, host = self.rooms.of("purchases", v, at, self._received_us)
        self._once(("purchases", v.order_id, v.host_id, v.line))
        user, host = self._who(v, host)
        order, quantity = self.vocabularies.orders.add(v.order_id), v.quantity
        amount = v.amount_minor
        self._apply(at, _ORDER_LINE, user, host, room, 1 if quantity is None else quantity, amount, order)
        for fact in self.orders.line(order, user, host, at, amount, (v.host_id, v.user_id)):
            self._apply(*fact)
        return TAKEN

    def _take_refunds(self, v: Any) -> Verdict:
        self._once(("refunds", v.order_id, v.at))
        order = self.vocabularies.orders.add(v.order_id)
        host = -1 if v.host_id is None else self.vocabularies.hosts.add(v.host_id)
        for fact in self.orders.refund(order, host, v.at, v.amount_minor, v.kind):
            self._apply(*fact)
        return TAKEN

    def _take_follows(self, v: Any) -> Verdict:
        self._once(("follows", v.user_id, v.host_id, v.at, v.action))
        kind = _FOLLOW if v.action == "follow" else _UNFOLLOW
        self._apply(v.at, kind, *self._who(v), -1, 1, 0, 0)
        return TAKEN

    def _take_feedback(self, v: Any) -> Verdict:
        self._once(("feedback", v.user_id, v.host_id, v.at, v.kind))
        self._apply(v.at, _FEEDBACK[v.kind], *self._who(v), -1, 1, 0, 0)
        return TAKEN

    def _take_impressions(self, v: Any) -> Verdict:
        room, _, host = self.rooms.of("impressions", v, v.at, self._received_us)
        self._once(("impressions", v.user_id, v.room_id, v.at))
        self._apply(v.at, _IMPRESSION, *self._who(v, host), room, 1, v.position, 0)
        return TAKEN

    def _take_notices(self, v: Any) -> Verdict:
        self._once(("notices", v.host_id, v.at, v.from_, v.to, v.kind))
        host = self.vocabularies.hosts.add(v.host_id)
        self._apply(v.at, _LEAVE_NOTICE, -1, host, -1, 0, v.from_, v.to)
        return TAKEN

    def _take_hosts(self, v: Any) -> Verdict:
        self._once(("hosts", v.host_id))
        self.live.world.grow_hosts(self.vocabularies.hosts.add(v.host_id) + 1)
        return TAKEN

    def _take_users(self, v: Any) -> Verdict:
        self._once(("users", v.user_id))
        self.vocabularies.users.add(v.user_id)
        return TAKEN


_TAKERS: Final[dict[str, Callable[[Intake, Any], Verdict]]] = {
    name: getattr(Intake, f"_take_{name}") for name in TABLES
}
"""What takes a row of each table; not held by intakes, which would keep themselves, and with them their state."""
