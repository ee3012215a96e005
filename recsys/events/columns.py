"""The kinds of columns event tables are made of, and what a column says of itself.

A column's metadata names its `role` (user, host, room, order, line, time, plan, number, real, text) and whether it is
`optional`; reading, keys and rules follow from these, so a new column is declared in one place
(`recsys.events.schemas`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import dataframely as dy
import polars as pl

EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
MOST_MINOR = 10**12
"""Largest amount of one row in minor units; sums of nine million such rows still fit into int64."""
MOST_COUNT = 10**9


def id_column(role: str, *, optional: bool = False) -> dy.Any:
    """External ids, integers or strings, of one role."""
    metadata: dict[str, Any] = {"role": role, "optional": optional}
    return dy.Any(metadata=metadata)


def time_column(*, optional: bool = False, plan: bool = False) -> dy.Datetime:
    """A UTC instant, µs. `plan`: announced beforehand, so it may lie in the future and is not a fact of its own."""
    return dy.Datetime(
        nullable=optional, time_unit="us", time_zone="UTC", min=EARLIEST, max=LATEST,
        metadata={"role": "plan" if plan else "time", "optional": optional},
    )  # fmt: skip


def int_column(*, optional: bool = False) -> dy.Int64:
    """A whole number."""
    return dy.Int64(nullable=optional, metadata={"role": "number", "optional": optional})


def text_column(*, optional: bool = False) -> dy.String:
    """Text."""
    return dy.String(nullable=optional, metadata={"role": "text", "optional": optional})


def in_range(column: str, most: int) -> pl.Expr:
    """Whether the numbers are at most `most`; null passes."""
    return pl.col(column) <= most


def role(column: dy.Column) -> str:
    """What a column holds: user, host, room, order, line, time, plan, number, real or text."""
    return str((column.metadata or {})["role"])


def optional(column: dy.Column) -> bool:
    """Whether the column may be absent or null."""
    return bool((column.metadata or {})["optional"])


def is_id(column: dy.Column) -> bool:
    """Whether the column holds external ids (or a list of them)."""
    return role(column) in ("user", "host", "room", "order", "line")


class EventTable(dy.Schema):
    """Base of all event tables. `KEY`: the columns that name a row; empty: rows have no key."""

    KEY: tuple[str, ...] = ()

    @dy.rule()
    def null_key(cls: Any) -> pl.Expr:
        """Required ids are there."""
        ids = [name for name, column in cls.columns().items() if is_id(column) and not optional(column)]
        return pl.all_horizontal([pl.col(name).is_not_null() for name in ids] or [pl.lit(True)])
