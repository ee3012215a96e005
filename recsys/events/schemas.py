"""The event tables: columns, types, keys and the rules a row must keep. This is their one declaration.

Reading (`recsys.events.reading`) brings files into these types, quarantine (`recsys.events.quarantine`) applies the
rules. A rule is named by the reason under which a row that breaks it is counted. Rules that need more than the row
itself (the clock, the room, other rows of the same key) are in `quarantine`.

Ids are integers or strings, so they are `Any` here; their role (`user`, `host`, `room`, `order`) says which columns
must be of one kind. A null rule result passes, so every rule on an optional column is silent where it is absent.
"""

from __future__ import annotations

from typing import Any

import dataframely as dy
import polars as pl

from recsys.events.columns import (
    EARLIEST,
    LATEST,
    MOST_COUNT,
    MOST_MINOR,
    EventTable,
    id_column,
    in_range,
    int_column,
    is_id,
    optional,
    role,
    text_column,
    time_column,
)

__all__ = [
    "EARLIEST",
    "LATEST",
    "MOST_COUNT",
    "MOST_MINOR",
    "REASON_ORDER",
    "TABLES",
    "EventTable",
    "columns_of",
    "is_id",
    "optional",
    "reason",
    "required",
    "role",
]

FOLLOW_ACTIONS = ("follow", "unfollow")
REFUND_KINDS = ("return", "refund_only", "counterfeit", "dispute")
FEEDBACK_KINDS = ("not_interested", "block", "report", "unblock")
NOTICE_KINDS = ("leave",)


class Rooms(EventTable):
    """Broadcasts. A later row completes `ended_at`."""

    KEY = ("room_id",)
    room_id = id_column("room")
    host_id = id_column("host")
    started_at = time_column()
    ended_at = time_column(optional=True)
    category = text_column(optional=True)
    title = text_column(optional=True)
    cohost_ids = dy.List(dy.Any(), nullable=True, metadata={"role": "host", "optional": True})

    @dy.rule()
    def ended_before_started(cls: Any) -> pl.Expr:
        return pl.col("ended_at") >= pl.col("started_at")


class Follows(EventTable):
    KEY = ("user_id", "host_id", "at", "action")
    user_id = id_column("user")
    host_id = id_column("host")
    at = time_column()
    action = text_column()

    @dy.rule()
    def unknown_action(cls: Any) -> pl.Expr:
        return pl.col("action").is_in(FOLLOW_ACTIONS)


class Watches(EventTable):
    """Entries into rooms. A later row completes `left_at`."""

    KEY = ("user_id", "room_id", "entered_at")
    user_id = id_column("user")
    host_id = id_column("host")
    room_id = id_column("room")
    entered_at = time_column()
    left_at = time_column(optional=True)
    source = text_column(optional=True)

    @dy.rule()
    def left_before_entered(cls: Any) -> pl.Expr:
        return pl.col("left_at") >= pl.col("entered_at")


class Engagements(EventTable):
    """Likes, comments, gifts, shares. The list of kinds is open: an unlisted one is another engagement, no error."""

    user_id = id_column("user")
    host_id = id_column("host")
    room_id = id_column("room")
    at = time_column()
    kind = text_column()
    count = int_column(optional=True)
    value_minor = int_column(optional=True)

    @dy.rule()
    def negative_count(cls: Any) -> pl.Expr:
        return pl.col("count") >= 0

    @dy.rule()
    def count_too_large(cls: Any) -> pl.Expr:
        return in_range("count", MOST_COUNT)

    @dy.rule()
    def negative_amount(cls: Any) -> pl.Expr:
        return pl.col("value_minor") >= 0

    @dy.rule()
    def amount_too_large(cls: Any) -> pl.Expr:
        return in_range("value_minor", MOST_MINOR)


class Purchases(EventTable):
    """Order lines."""

    KEY = ("order_id", "host_id", "line")
    order_id = id_column("order")
    line = id_column("line", optional=True)
    user_id = id_column("user")
    host_id = id_column("host")
    room_id = id_column("room", optional=True)
    at = time_column()
    amount_minor = int_column()
    quantity = int_column(optional=True)
    category = text_column(optional=True)

    @dy.rule()
    def negative_amount(cls: Any) -> pl.Expr:
        return pl.col("amount_minor") >= 0

    @dy.rule()
    def amount_too_large(cls: Any) -> pl.Expr:
        return in_range("amount_minor", MOST_MINOR)

    @dy.rule()
    def negative_quantity(cls: Any) -> pl.Expr:
        return pl.col("quantity") >= 0

    @dy.rule()
    def quantity_too_large(cls: Any) -> pl.Expr:
        return in_range("quantity", MOST_COUNT)


class Refunds(EventTable):
    """Money given back. No `kind`: a return."""

    KEY = ("order_id", "at")
    order_id = id_column("order")
    host_id = id_column("host", optional=True)
    at = time_column()
    amount_minor = int_column(optional=True)
    kind = text_column(optional=True)

    @dy.rule()
    def unknown_kind(cls: Any) -> pl.Expr:
        return pl.col("kind").is_in(REFUND_KINDS)

    @dy.rule()
    def negative_amount(cls: Any) -> pl.Expr:
        return pl.col("amount_minor") >= 0

    @dy.rule()
    def amount_too_large(cls: Any) -> pl.Expr:
        return in_range("amount_minor", MOST_MINOR)


class Feedback(EventTable):
    KEY = ("user_id", "host_id", "at", "kind")
    user_id = id_column("user")
    host_id = id_column("host")
    at = time_column()
    kind = text_column()

    @dy.rule()
    def unknown_kind(cls: Any) -> pl.Expr:
        return pl.col("kind").is_in(FEEDBACK_KINDS)


class Impressions(EventTable):
    """Rooms shown to a user. Whether one was entered is derived from watches."""

    KEY = ("user_id", "room_id", "at")
    user_id = id_column("user")
    room_id = id_column("room")
    host_id = id_column("host")
    at = time_column()
    position = int_column()
    slot = text_column(optional=True)
    propensity = dy.Float64(nullable=True, metadata={"role": "real", "optional": True})

    @dy.rule()
    def negative_position(cls: Any) -> pl.Expr:
        return pl.col("position") >= 0

    @dy.rule()
    def position_too_large(cls: Any) -> pl.Expr:
        return in_range("position", MOST_COUNT)

    @dy.rule()
    def propensity_out_of_range(cls: Any) -> pl.Expr:
        return (pl.col("propensity") > 0) & (pl.col("propensity") <= 1)


class Notices(EventTable):
    """Announcements of hosts. `leave`: announced at `at` that there is no broadcast from … to."""

    KEY = ("host_id", "at", "from", "to", "kind")
    host_id = id_column("host")
    at = time_column()
    from_ = dy.Datetime(
        nullable=False, time_unit="us", time_zone="UTC", min=EARLIEST, max=LATEST, alias="from",
        metadata={"role": "plan", "optional": False},
    )  # fmt: skip
    to = time_column(plan=True)
    kind = text_column()

    @dy.rule()
    def unknown_kind(cls: Any) -> pl.Expr:
        return pl.col("kind").is_in(NOTICE_KINDS)

    @dy.rule()
    def to_before_from(cls: Any) -> pl.Expr:
        return pl.col("to") >= pl.col("from")


class Hosts(EventTable):
    KEY = ("host_id",)
    host_id = id_column("host")
    category = text_column(optional=True)
    city_tier = text_column(optional=True)
    registered_at = time_column(optional=True)


class Users(EventTable):
    KEY = ("user_id",)
    user_id = id_column("user")
    city_tier = text_column(optional=True)
    registered_at = time_column(optional=True)


TABLES: dict[str, type[EventTable]] = {
    "rooms": Rooms,
    "follows": Follows,
    "watches": Watches,
    "engagements": Engagements,
    "purchases": Purchases,
    "refunds": Refunds,
    "feedback": Feedback,
    "impressions": Impressions,
    "notices": Notices,
    "hosts": Hosts,
    "users": Users,
}

REASON_ORDER = (
    "null_key", "null_value", "time_out_of_range", "unknown_action", "unknown_kind", "left_before_entered",
    "ended_before_started", "to_before_from", "negative_amount", "negative_count", "negative_quantity",
    "negative_position", "amount_too_large", "count_too_large", "quantity_too_large", "position_too_large",
    "propensity_out_of_range", "later_than_now", "host_differs_from_room", "entered_after_end", "duplicate_key",
)  # fmt: skip
"""Every reason of quarantine. A row that breaks several rules is counted once, under the first of these."""


def columns_of(table: str, *roles: str) -> list[str]:
    """Names of the columns of `table` that have one of these roles, in their order."""
    return [name for name, column in TABLES[table].columns().items() if role(column) in roles]


def required(table: str) -> list[str]:
    """Names of the columns without which `table` is refused."""
    return [name for name, column in TABLES[table].columns().items() if not optional(column)]


def reason(table: str, rule: str) -> str:
    """The reason under which rows that break `rule` are counted. Rules of a column are called `column|check`."""
    column, _, check = rule.partition("|")
    if not check:
        return rule
    if check == "nullability":
        return "null_key" if column in TABLES[table].KEY else "null_value"
    return "propensity_out_of_range" if column == "propensity" else "time_out_of_range"
