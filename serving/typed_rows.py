"""Rows read from JSON straight into the types of their columns, as most arriving rows have them.

What the types alone cannot say good of goes through `recsys.events.single_rows`, which knows all rules and reasons: so
a row is judged in microseconds, and in one way. A test holds both ways to the same values and verdicts.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import orjson

from recsys.events.row_values import attribute
from recsys.events.schemas import TABLES, optional, role
from recsys.events.single_rows import (
    EARLIEST_US,
    ID_ROLES,
    LATEST_US,
    Refused,
    RowRules,
    instant_us,
    obey_rules,
)

_INT64: Final = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_INSTANT: Final = Annotated[int, msgspec.Meta(ge=EARLIEST_US, le=LATEST_US)] | str
_TYPES: Final[dict[str, Any]] = {
    "time": _INSTANT, "plan": _INSTANT, "number": _INT64, "real": float, "text": str, "line": _INT64 | str,
}  # fmt: skip


class TypedRows:
    """Reads rows and judges them by their own rules.

    Args:
        rules: the rules, and the kinds of ids known so far.

    Threading: one writer.
    """

    def __init__(self, rules: RowRules) -> None:
        self._rules = rules
        self._readers: dict[str, tuple[msgspec.json.Decoder[Any], tuple[tuple[str, bool], ...]]] = {}

    def read(self, table: str, text: str, latest_us: int) -> Any:
        """The values of a row, an attribute per column (`recsys.events.row_values.Values`).

        Args:
            text: JSON.
            latest_us: no fact of the row may be later, µs.

        Raises:
            Refused: it breaks a rule.
        """
        reader = self._readers.get(table) or self._reader(table)
        if reader is None:
            return self._rules.check(table, _parsed(text), latest_us)
        try:
            values = reader[0].decode(text)
            newest = 0
            for name, is_fact in reader[1]:
                at = getattr(values, name)
                if at is None:
                    continue
                if type(at) is str:
                    at = instant_us(at)
                    if not EARLIEST_US <= at <= LATEST_US:
                        return self._rules.check(table, _parsed(text), latest_us)
                    setattr(values, name, at)
                if is_fact and at > newest:
                    newest = at
        except (msgspec.DecodeError, Refused):
            return self._rules.check(table, _parsed(text), latest_us)
        obey_rules(table, values, newest, latest_us)
        return values

    def _reader(self, table: str) -> tuple[msgspec.json.Decoder[Any], tuple[tuple[str, bool], ...]] | None:
        """Decoder and columns of instants of a table; None: unknown, or the kind of one of its ids is."""
        kinds = self._rules.kinds
        if table not in TABLES:
            return None
        fields: list[Any] = []
        instants = []
        for name, column in TABLES[table].columns().items():
            of = role(column)
            if of in ID_ROLES and of not in kinds:
                return None
            kind: Any = (_INT64 if kinds[of] == "int" else str) if of in ID_ROLES else _TYPES[of]
            kind = list[kind] if name == "cohost_ids" else kind
            fields.append((attribute(name), kind | None, None) if optional(column) else (attribute(name), kind))
            if of in ("time", "plan"):
                instants.append((attribute(name), of == "time"))
        fields.sort(key=len)  # those that must be there come first
        made = msgspec.defstruct(table, fields, rename={"from_": "from"}, forbid_unknown_fields=True, gc=False)
        reader = self._readers[table] = (msgspec.json.Decoder(made), tuple(instants))
        return reader


def _parsed(text: str) -> object:
    """The row, or None if it is no JSON after all: it is set aside, and the log stays readable."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
