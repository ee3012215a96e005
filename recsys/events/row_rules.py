"""The rules of a row itself (`recsys.events.schemas`), applied: what keeps them, and the others by reason."""

from __future__ import annotations

from typing import Any

import polars as pl

from recsys.events.schemas import REASON_ORDER, TABLES, columns_of, reason


def by_row_rules(table: str, scan: pl.LazyFrame) -> tuple[pl.LazyFrame, int, dict[str, int]]:
    """Rows that keep the rules of their schema (times as µs), how many there were, and broken rows by first reason."""
    kept, failed = typed_rows(table, scan)
    counts: dict[str, int] = {}
    for rules, n in failed.cooccurrence_counts().items():
        first = min((reason(table, rule) for rule in rules), key=REASON_ORDER.index)
        counts[first] = counts.get(first, 0) + n
    total = int(scan.select(pl.len()).collect(engine="streaming").item())
    return kept, total, counts


def typed_rows(table: str, scan: pl.LazyFrame) -> tuple[pl.LazyFrame, Any]:
    """Rows that keep the rules of their schema, times as µs, and those that do not."""
    kept, failed = TABLES[table].filter(scan)
    return kept.lazy().with_columns(pl.col(columns_of(table, "time", "plan")).to_physical()), failed
