"""One good row of every table, and how to write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

T0 = datetime(2024, 3, 1, tzinfo=UTC)


NOW = datetime(2024, 4, 1, tzinfo=UTC)


FAR = datetime(2099, 1, 1, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


GOOD: dict[str, dict[str, Any]] = {
    "rooms": {"room_id": 7, "host_id": 2, "started_at": at(0), "ended_at": at(60)},
    "watches": {"user_id": 1, "host_id": 2, "room_id": 7, "entered_at": at(5), "left_at": at(9)},
    "follows": {"user_id": 1, "host_id": 2, "at": at(1), "action": "follow"},
    "engagements": {
        "user_id": 1, "host_id": 2, "room_id": 7, "at": at(6), "kind": "gift", "count": 1, "value_minor": 5,
    },
    "purchases": {
        "order_id": 1, "line": 1, "user_id": 1, "host_id": 2, "room_id": 7, "at": at(8), "amount_minor": 9,
        "quantity": 1,
    },
    "refunds": {"order_id": 1, "host_id": 2, "at": at(50), "amount_minor": 9, "kind": "return"},
    "feedback": {"user_id": 1, "host_id": 2, "at": at(70), "kind": "block"},
    "impressions": {"user_id": 1, "room_id": 7, "host_id": 2, "at": at(4), "position": 1, "propensity": 0.5},
    "notices": {"host_id": 2, "at": at(3), "from": at(100), "to": at(200), "kind": "leave"},
    "hosts": {"host_id": 2, "category": "tea", "city_tier": "1", "registered_at": at(-5)},
    "users": {"user_id": 1, "city_tier": "1", "registered_at": at(-5)},
}  # fmt: skip


def write(folder: Path, **tables: pl.DataFrame) -> Path:
    folder.mkdir(exist_ok=True)
    for table, rows in tables.items():
        rows.write_parquet(folder / f"{table}.parquet")
    return folder


def good(**instead: list[dict[str, Any]]) -> dict[str, pl.DataFrame]:
    return {table: pl.DataFrame(instead.get(table, [row]), infer_schema_length=None) for table, row in GOOD.items()}
