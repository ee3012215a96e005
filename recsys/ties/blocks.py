"""What is remembered: the declared blocks of ties, hosts, users and rooms.

One declaration serves the batch (`recsys.ties.batch`), the merge of the nightly delta (`recsys.ties.algebra`)
and the update per event (`recsys.ties.update`). A tie is spread over five blocks so that a pair that only ever watched
costs one narrow row: `visits` (entries and stays), `depth` (comments, likes, gifts), `commerce` (orders, refunds),
`relation` (follow and feedback), `exposure` (impressions).

`arrivals` counts the first entries of users at a host. Which entry is the first follows from the tie, so the batch
feeds this block from the ties (`recsys.ties.standing.first_entries`), and online the difference an entry makes to its
tie does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from recsys.events.facts import FactKind as F
from recsys.ties.algebra import Block, Column, Kind, Level, Source

ATTENDED_KEPT = 6
"""Broadcasts a tie remembers having attended (their starts)."""
ORDERS_KEPT = 8
"""Distinct order instants a tie remembers; cadence and dueness are read from them."""
BROADCASTS_KEPT = 32
"""Broadcast starts a host remembers; missed broadcasts are counted up to this many."""
TIE_HOUR_SLOTS = 8
DAY_HOURS = 24


def _facts(*kinds: F) -> frozenset[F]:
    return frozenset(kinds)


def _decayed(name: str, facts: frozenset[F], source: Source, *half_lives_days: float) -> tuple[Column, ...]:
    return tuple(
        Column(f"{name}_{_label(days)}", Kind.DECAYED, facts, source, half_life_days=days) for days in half_lives_days
    )


def _label(days: float) -> str:
    if days >= 1:
        return f"{days:g}d"
    minutes = round(days * 1440)
    return f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"


_ENTRY, _STAY = _facts(F.ENTRY), _facts(F.STAY)
_ORDER, _REFUND, _DISPUTE = _facts(F.ORDER_LINE), _facts(F.REFUND, F.DISPUTE), _facts(F.DISPUTE)
_ENGAGED = _facts(F.LIKE, F.COMMENT, F.GIFT, F.SHARE, F.OTHER_ENGAGEMENT)
MINUTE = 1 / 1440
HOUR = 1 / 24

_VISITS = (
    Column("n_entries", Kind.SUM, _ENTRY),
    Column("first_entry_at", Kind.MIN, _ENTRY, "at"),
    Column("last_entry_at", Kind.MAX, _ENTRY, "at"),
    Column("n_stays", Kind.SUM, _STAY),
    Column("stay_ms", Kind.SUM, _STAY, "value"),
    Column("beyond_ms", Kind.SUM, _STAY, "beyond"),
    Column("last_left_at", Kind.MAX, _STAY, "at"),
    Column("active_days", Kind.DAYS, _ENTRY),
    Column("hours", Kind.HOURS, _ENTRY, size=TIE_HOUR_SLOTS),
    Column("attended", Kind.LATEST, _ENTRY, "value", size=ATTENDED_KEPT),
    *_decayed("entries", _ENTRY, "one", 2 * HOUR, 12 * HOUR, 3, 14),
    *_decayed("stay_ms", _STAY, "value", 7),
    *_decayed("beyond_ms", _STAY, "beyond", 30),
)
_DEPTH = (
    Column("n_likes", Kind.SUM, _facts(F.LIKE), "count"),
    Column("n_comments", Kind.SUM, _facts(F.COMMENT), "count"),
    Column("n_gifts", Kind.SUM, _facts(F.GIFT), "count"),
    Column("n_shares", Kind.SUM, _facts(F.SHARE), "count"),
    Column("gift_minor", Kind.SUM, _facts(F.GIFT), "value"),
    Column("last_comment_at", Kind.MAX, _facts(F.COMMENT), "at"),
    Column("last_engaged_at", Kind.MAX, _ENGAGED, "at"),
    *_decayed("comments", _facts(F.COMMENT), "count", 7, 30),
    *_decayed("likes", _facts(F.LIKE), "count", 14),
    *_decayed("gift_minor", _facts(F.GIFT), "value", 30),
)
_COMMERCE = (
    Column("n_lines", Kind.SUM, _ORDER),
    Column("quantity", Kind.SUM, _ORDER, "count"),
    Column("spend_minor", Kind.SUM, _ORDER, "value"),
    Column("n_refunds", Kind.SUM, _REFUND),
    Column("n_disputes", Kind.SUM, _DISPUTE),
    Column("refunded_minor", Kind.SUM, _REFUND, "value"),
    Column("first_order_at", Kind.MIN, _ORDER, "at"),
    Column("last_order_at", Kind.MAX, _ORDER, "at"),
    Column("last_refund_at", Kind.MAX, _REFUND, "at"),
    Column("order_times", Kind.LATEST, _ORDER, "at", size=ORDERS_KEPT),
    *_decayed("lines", _ORDER, "one", 30, 120),
    *_decayed("spend_minor", _ORDER, "value", 60),
)
_RELATION = (
    Column("first_follow_at", Kind.MIN, _facts(F.FOLLOW), "at"),
    Column("last_follow_at", Kind.MAX, _facts(F.FOLLOW), "at"),
    Column("last_unfollow_at", Kind.MAX, _facts(F.UNFOLLOW), "at"),
    Column("last_block_at", Kind.MAX, _facts(F.BLOCK), "at"),
    Column("last_unblock_at", Kind.MAX, _facts(F.UNBLOCK), "at"),
    Column("n_not_interested", Kind.SUM, _facts(F.NOT_INTERESTED)),
    Column("n_reports", Kind.SUM, _facts(F.REPORT)),
    Column("last_negative_at", Kind.MAX, _facts(F.NOT_INTERESTED, F.REPORT), "at"),
)
_EXPOSURE = (
    Column("n_impressions", Kind.SUM, _facts(F.IMPRESSION)),
    Column("last_impression_at", Kind.MAX, _facts(F.IMPRESSION), "at"),
    *_decayed("impressions", _facts(F.IMPRESSION), "one", 1, 7),
)
_HOST = (
    Column("n_entries", Kind.SUM, _ENTRY),
    Column("first_entry_at", Kind.MIN, _ENTRY, "at"),
    Column("last_entry_at", Kind.MAX, _ENTRY, "at"),
    Column("n_stays", Kind.SUM, _STAY),
    Column("stay_ms", Kind.SUM, _STAY, "value"),
    Column("n_comments", Kind.SUM, _facts(F.COMMENT), "count"),
    Column("n_likes", Kind.SUM, _facts(F.LIKE), "count"),
    Column("n_lines", Kind.SUM, _ORDER),
    Column("spend_minor", Kind.SUM, _ORDER, "value"),
    Column("n_refunds", Kind.SUM, _REFUND),
    Column("n_disputes", Kind.SUM, _DISPUTE),
    Column("refunded_minor", Kind.SUM, _REFUND, "value"),
    Column("hours", Kind.HOURS, _ENTRY, size=DAY_HOURS),
    *_decayed("entries", _ENTRY, "one", MINUTE, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 12 * HOUR, 2, 7),
    *_decayed("lines", _ORDER, "one", 1, 30),
    *_decayed("comments", _facts(F.COMMENT), "count", HOUR),
)
_ARRIVALS = _decayed("arrivals", _ENTRY, "count", 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 2, 7)
_SCHEDULE = (
    Column("n_broadcasts", Kind.SUM, _facts(F.ROOM_START)),
    Column("first_broadcast_at", Kind.MIN, _facts(F.ROOM_START), "at"),
    Column("broadcasts", Kind.LATEST, _facts(F.ROOM_START), "at", size=BROADCASTS_KEPT),
)
_USER = (
    Column("n_entries", Kind.SUM, _ENTRY),
    Column("first_entry_at", Kind.MIN, _ENTRY, "at"),
    Column("last_entry_at", Kind.MAX, _ENTRY, "at"),
    Column("n_stays", Kind.SUM, _STAY),
    Column("stay_ms", Kind.SUM, _STAY, "value"),
    Column("n_lines", Kind.SUM, _ORDER),
    Column("active_days", Kind.DAYS, _ENTRY),
    Column("hours", Kind.HOURS, _ENTRY, size=DAY_HOURS),
    *_decayed("entries", _ENTRY, "one", HOUR, 1, 7),
)
_ROOM = (
    Column("n_entries", Kind.SUM, _ENTRY),
    Column("last_entry_at", Kind.MAX, _ENTRY, "at"),
    Column("n_comments", Kind.SUM, _facts(F.COMMENT), "count"),
    Column("n_lines", Kind.SUM, _ORDER),
    Column("n_stays", Kind.SUM, _STAY),
    Column("stay_ms", Kind.SUM, _STAY, "value"),
    *_decayed("entries", _ENTRY, "one", 2 * MINUTE, 10 * MINUTE, HOUR),
    *_decayed("comments", _facts(F.COMMENT), "count", 10 * MINUTE),
    *_decayed("lines", _ORDER, "one", 10 * MINUTE),
)

TIE_BLOCKS = ("visits", "depth", "commerce", "relation", "exposure")


@dataclass(frozen=True)
class Blocks:
    """All declared blocks, by name."""

    visits: Block
    depth: Block
    commerce: Block
    relation: Block
    exposure: Block
    host: Block
    schedule: Block
    arrivals: Block
    user: Block
    room: Block

    @property
    def all(self) -> tuple[Block, ...]:
        """Every block, in the order of declaration."""
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)

    def of(self, level: Level) -> tuple[Block, ...]:
        """The blocks of one key level."""
        return tuple(block for block in self.all if block.level == level)


@cache
def blocks(product_slot_s: int = 360) -> Blocks:
    """The declared blocks for one length of a product slot, s (a stay counts as «beyond» after two slots)."""
    slot_ms = product_slot_s * 1000

    def tie(name: str, columns: tuple[Column, ...]) -> Block:
        return Block(name, "tie", columns, slot_ms)

    return Blocks(
        visits=tie("visits", _VISITS),
        depth=tie("depth", _DEPTH),
        commerce=tie("commerce", _COMMERCE),
        relation=tie("relation", _RELATION),
        exposure=tie("exposure", _EXPOSURE),
        host=Block("host", "host", _HOST, slot_ms),
        schedule=Block("schedule", "host", _SCHEDULE, slot_ms),
        arrivals=Block("arrivals", "host", _ARRIVALS, slot_ms),
        user=Block("user", "user", _USER, slot_ms),
        room=Block("room", "room", _ROOM, slot_ms),
    )
