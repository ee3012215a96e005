"""One arriving row against the rules of its table: the rules of `recsys.events.schemas`, one row at a time.

The batch rules are declared as Polars expressions and cost milliseconds however small the batch is; an event must be
judged in microseconds. So the same declarations (columns, types, roles, keys) are compiled into one plain function per
table here, and a test holds both to the same verdict with the same reason on the same rows.

A row comes as JSON gives it: ids as integers or strings, instants as ISO 8601 text with an offset (or whole µs since
the epoch), a time without an offset names no instant and is set aside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from recsys.events.row_values import Values, attribute
from recsys.events.schemas import (
    EARLIEST,
    FEEDBACK_KINDS,
    FOLLOW_ACTIONS,
    LATEST,
    MOST_COUNT,
    MOST_MINOR,
    NOTICE_KINDS,
    REASON_ORDER,
    REFUND_KINDS,
    TABLES,
    is_id,
    optional,
    role,
)
from recsys.id_kinds import IdKind
from recsys.instants import from_datetime

NOT_A_ROW: Final = "not_a_row"
UNKNOWN_TABLE: Final = "unknown_table"
UNUSABLE_TYPE: Final = "unusable_type"
IDS_OF_TWO_KINDS: Final = "ids_of_two_kinds"
"""Reasons that only single events have: in a file these four are faults of a column, and the table is refused."""

_RANK: Final = {name: position for position, name in enumerate(REASON_ORDER)}
_ALL_WELL: Final = len(REASON_ORDER)
_OUT_OF_RANGE: Final = _RANK["time_out_of_range"]
ID_ROLES: Final = ("user", "host", "room", "order")
"""Roles whose ids are of one kind each."""
EARLIEST_US: Final = from_datetime(EARLIEST)
LATEST_US: Final = from_datetime(LATEST)
CLOCK_TOLERANCE_US: Final = 3_600_000_000
"""No fact may be later than its row was received (by a service) or is read (from a table) by more than this."""
_MOST_INT64: Final = 2**63 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Refused(Exception):
    """A row breaks a rule; `reason` is the one under which it is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def instant_us(value: object) -> int:
    """µs since the epoch from ISO 8601 text with an offset, an aware datetime, or whole µs.

    Raises:
        Refused: anything else.
    """
    if type(value) is str:
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise Refused(UNUSABLE_TYPE) from None
    elif type(value) is int:
        return value
    if isinstance(value, datetime) and value.tzinfo is not None:
        span = value - _EPOCH
        return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds
    raise Refused(UNUSABLE_TYPE)


class RowRules:
    """The rules of all tables for ids of given kinds.

    Args:
        kinds: role (`user`, `host`, `room`, `order`) → kind of its ids; a missing role takes the kind of the first id
            it sees. Changed in place.

    Threading: one writer.
    """

    def __init__(self, kinds: dict[str, IdKind]) -> None:
        self.kinds = kinds
        self._tables = {name: _columns(name) for name in TABLES}

    def check(self, table: str, row: object, latest_us: int = _MOST_INT64) -> Values:
        """The row in the types of its schema, times as µs, absent columns as None; unknown columns are dropped.

        Args:
            latest_us: no fact of the row may be later; announced spans may.

        Raises:
            Refused: with the reason the batch rules would count the row under.
        """
        columns = self._tables.get(table)
        if columns is None:
            raise Refused(UNKNOWN_TABLE)
        if not isinstance(row, Mapping):
            raise Refused(NOT_A_ROW)
        found: dict[str, Any] = {}
        worst, newest, kinds = _ALL_WELL, 0, self.kinds
        for name, of, if_null in columns:
            value = row.get(name)
            if value is not None:
                kind = type(value)
                if of == "time" or of == "plan":
                    if kind is not int:
                        value = instant_us(value)
                    if not EARLIEST_US <= value <= LATEST_US:
                        worst = min(worst, _OUT_OF_RANGE)
                    elif of == "time" and value > newest:
                        newest = value
                elif not (kind is str and (kinds.get(of) == "str" or of == "text")) and not (
                    kind is int and kinds.get(of) == "int" and -(2**63) <= value <= _MOST_INT64
                ):
                    value = self._typed(of, name, value)
            if value is None and if_null < worst:
                worst = if_null
            found[attribute(name)] = value
        if worst < _ALL_WELL:
            raise Refused(REASON_ORDER[worst])
        values = Values(**found)
        obey_rules(table, values, newest, latest_us)
        return values

    def _typed(self, of: str, name: str, value: Any) -> Any:
        if of == "number":
            if type(value) is not int:
                raise Refused(UNUSABLE_TYPE)
            return min(value, _MOST_INT64)
        if of == "text":
            if type(value) is int and name == "city_tier":
                return str(value)
            if type(value) is not str:
                raise Refused(UNUSABLE_TYPE)
            return value
        if of == "real":
            if type(value) not in (int, float):
                raise Refused(UNUSABLE_TYPE)
            return float(value)
        if of == "guests":
            if not isinstance(value, list):
                raise Refused(UNUSABLE_TYPE)
            return [self._id("host", one) for one in value if one is not None]
        return self._id(of, value)

    def _id(self, of: str, value: Any) -> int | str | None:
        kind: IdKind
        if type(value) is int:
            kind = "int"
        elif type(value) is str:
            kind = "str"
        else:
            raise Refused(UNUSABLE_TYPE)
        if self.kinds.get(of, kind) != kind:
            raise Refused(IDS_OF_TWO_KINDS)
        if kind == "int" and not -(2**63) <= value <= _MOST_INT64:
            return None  # does not fit: the batch reads it as null too
        return value  # type: ignore[no-any-return]

    def adopt(self, table: str, values: Any) -> None:
        """Fix the kind of roles seen for the first time, from a row that is used."""
        if len(self.kinds) == len(ID_ROLES):
            return
        for name, of, _ in self._tables[table]:
            if of in ID_ROLES and of not in self.kinds:
                value = getattr(values, name)
                if value is not None:
                    self.kinds[of] = "int" if isinstance(value, int) else "str"


def obey_rules(table: str, values: Any, newest: int, latest_us: int) -> None:
    """The rules of a row whose values are of their types, keys there and times in range.

    Args:
        values: an attribute per column, as `Values` has them.
        newest: the latest instant of any of its facts, µs.
        latest_us: none may be later.

    Raises:
        Refused: it breaks one.
    """
    rule = _RULES.get(table)
    if rule is not None:
        broken = rule(values)
        if broken is not None:
            raise Refused(broken)
    if newest > latest_us:
        raise Refused("later_than_now")


def _columns(table: str) -> list[tuple[str, str, int]]:
    """(name, role, rank of the reason under which a null is counted) of every column."""
    found = []
    for name, column in TABLES[table].columns().items():
        of = "guests" if name == "cohost_ids" else role(column)
        if_null = _ALL_WELL
        if not optional(column):
            if_null = _RANK["null_key" if is_id(column) or name in TABLES[table].KEY else "null_value"]
        found.append((name, of, if_null))
    return found


def _first(*broken: str | None) -> str | None:
    """The broken rule that is counted: rules are asked in the order of `REASON_ORDER`."""
    return next((name for name in broken if name), None)


def _rooms(v: Any) -> str | None:
    return "ended_before_started" if v.ended_at is not None and v.ended_at < v.started_at else None


def _follows(v: Any) -> str | None:
    return None if v.action in FOLLOW_ACTIONS else "unknown_action"


def _watches(v: Any) -> str | None:
    return "left_before_entered" if v.left_at is not None and v.left_at < v.entered_at else None


def _negative(v: Any, column: str, reason: str) -> str | None:
    return reason if getattr(v, column) is not None and getattr(v, column) < 0 else None


def _large(v: Any, column: str, most: int, reason: str) -> str | None:
    return reason if getattr(v, column) is not None and getattr(v, column) > most else None


def _engagements(v: Any) -> str | None:
    if v.value_minor is v.count is None:
        return None
    return _first(
        _negative(v, "value_minor", "negative_amount"),
        _negative(v, "count", "negative_count"),
        _large(v, "value_minor", MOST_MINOR, "amount_too_large"),
        _large(v, "count", MOST_COUNT, "count_too_large"),
    )


def _purchases(v: Any) -> str | None:
    if v.quantity is None and 0 <= v.amount_minor <= MOST_MINOR:
        return None
    return _first(
        _negative(v, "amount_minor", "negative_amount"),
        _negative(v, "quantity", "negative_quantity"),
        _large(v, "amount_minor", MOST_MINOR, "amount_too_large"),
        _large(v, "quantity", MOST_COUNT, "quantity_too_large"),
    )


def _refunds(v: Any) -> str | None:
    return _first(
        "unknown_kind" if v.kind is not None and v.kind not in REFUND_KINDS else None,
        _negative(v, "amount_minor", "negative_amount"),
        _large(v, "amount_minor", MOST_MINOR, "amount_too_large"),
    )


def _feedback(v: Any) -> str | None:
    return None if v.kind in FEEDBACK_KINDS else "unknown_kind"


def _impressions(v: Any) -> str | None:
    share = v.propensity
    if share is None and 0 <= v.position <= MOST_COUNT:
        return None
    return _first(
        _negative(v, "position", "negative_position"),
        _large(v, "position", MOST_COUNT, "position_too_large"),
        "propensity_out_of_range" if share is not None and not 0 < share <= 1 else None,
    )


def _notices(v: Any) -> str | None:
    if v.kind not in NOTICE_KINDS:
        return "unknown_kind"
    return "to_before_from" if v.to < v.from_ else None


_RULES: Final[dict[str, Callable[[Any], str | None]]] = {
    "rooms": _rooms,
    "follows": _follows,
    "watches": _watches,
    "engagements": _engagements,
    "purchases": _purchases,
    "refunds": _refunds,
    "feedback": _feedback,
    "impressions": _impressions,
    "notices": _notices,
}
