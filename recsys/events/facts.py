"""Facts: what the event tables say, one line per instant.

A row of an event table may speak of several instants (a watch has an entry and, later, an exit). Each becomes a *fact*
of its own, and a fact at `t` is known at instants strictly after `t`. Every stage of the engine, the batch, the
nightly delta, replay and the service, reads facts and nothing else, so there is one as-of cut for all of them.

A fact frame has the columns of `FACT_SCHEMA`. Meaning of `count`, `value` and `aux` by kind:

| kind | count | value | aux |
|---|---|---|---|
| ROOM_START | 0 | 0 | 0 |
| ENTRY | 1 | start of the broadcast, µs (0: unknown) | 0 |
| STAY (at the exit) | 1 | stay, ms | entered_at, µs |
| LIKE, COMMENT, GIFT, SHARE, OTHER_ENGAGEMENT | how many | value, minor units | 0 |
| ORDER_LINE | quantity | amount, minor units | order row |
| REFUND, DISPUTE (at the later of refund and order) | 1 | refunded amount, minor units | order row |
| FOLLOW, UNFOLLOW, BLOCK, UNBLOCK, NOT_INTERESTED, REPORT | 1 | 0 | 0 |
| IMPRESSION | 1 | position | 0 |
| LEAVE_NOTICE | 0 | from, µs | to, µs |
| ROOM_END | 0 | 0 | 0 |

`room` is -1 where a row names none, where nobody knows it, and where it starts only after the row (not known then).
Refunds of kind `return` and `refund_only` (and of no kind) are REFUND; `dispute` and `counterfeit` are DISPUTE.
"""

from __future__ import annotations

from enum import IntEnum

import polars as pl


class FactKind(IntEnum):
    """Kinds of facts. Facts of one instant are applied in this order, so a room exists before its first entry."""

    ROOM_START = 0
    ENTRY = 1
    STAY = 2
    LIKE = 3
    COMMENT = 4
    GIFT = 5
    SHARE = 6
    OTHER_ENGAGEMENT = 7
    ORDER_LINE = 8
    REFUND = 9
    DISPUTE = 10
    FOLLOW = 11
    UNFOLLOW = 12
    UNBLOCK = 13
    BLOCK = 14
    NOT_INTERESTED = 15
    REPORT = 16
    IMPRESSION = 17
    LEAVE_NOTICE = 18
    ROOM_END = 19


FACT_SCHEMA: dict[str, pl.DataType] = {
    "at": pl.Int64(),  # µs since the epoch, UTC
    "kind": pl.UInt8(),  # FactKind
    "user": pl.Int32(),  # user row, -1: none
    "host": pl.Int32(),  # host row, -1: none
    "room": pl.Int64(),  # room row, -1: none
    "count": pl.Int64(),
    "value": pl.Int64(),
    "aux": pl.Int64(),
}
"""Columns of a fact frame. Rows (`user`, `host`, `room`) are dense positions in the vocabularies of `recsys.ids`."""

US_PER_S = 1_000_000
US_PER_DAY = 86_400 * US_PER_S
NEVER = -(2**63)
"""Stands for «no such time» in `max` fields of µs instants; `FOREVER` does so in `min` fields and open ends."""
FOREVER = 2**63 - 1
