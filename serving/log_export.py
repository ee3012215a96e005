"""The log as event tables, so that the nightly build sees what the service was told and what it showed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import polars as pl

from recsys.errors import InputRefused
from recsys.events.schemas import TABLES, columns_of
from serving.event_log import EventLog
from serving.event_rows import Refused, RowRules
from serving.loaded import ANSWER


def export(log: Path, out: Path, after: int = 0) -> dict[str, Any]:
    """Write records above an offset as `<table>/log-<first>-<last>.parquet` below `out`.

    Rows that break a rule of their own are left out (they were set aside on arrival) and counted; repeats are left to
    the quarantine of the build. Served answers become impressions: organic places have propensity 1, reserved places
    none, as their draw is not recorded.

    Returns:
        offset (of the last record; goes into the manifest of the bundle built from these files), rows per table, and
        `left_out`.

    Raises:
        ConfigError: the log cannot be opened. InputRefused: the files exist already.
    """
    opened = EventLog(log)
    rules = RowRules({})
    tables: dict[str, list[dict[str, Any]]] = {}
    last, left_out = after, 0
    try:
        for record in opened.read(after):
            last = record.seq
            if record.table == ANSWER:
                tables.setdefault("impressions", []).extend(_impressions(orjson.loads(record.row)))
                continue
            if record.table.startswith("_"):
                continue
            try:
                values = rules.check(record.table, orjson.loads(record.row))
                rules.adopt(record.table, values)
                tables.setdefault(record.table, []).append(values)
            except (Refused, orjson.JSONDecodeError):
                left_out += 1
    finally:
        opened.close()
    for table, rows in tables.items():
        file = out / table / f"log-{after + 1}-{last}.parquet"
        if file.exists():
            raise InputRefused("exported already", where=file, hint="give --after the offset exported last")
        file.parent.mkdir(parents=True, exist_ok=True)
        frame = pl.DataFrame(rows, infer_schema_length=None).select(list(TABLES[table].columns()))
        instants = columns_of(table, "time", "plan")
        frame.with_columns(pl.col(instants).cast(pl.Int64).cast(pl.Datetime("us", "UTC"))).write_parquet(file)
    return {"offset": last, "rows": {table: len(rows) for table, rows in tables.items()}, "left_out": left_out}


def _impressions(answer: dict[str, Any]) -> list[dict[str, Any]]:
    if answer["user_id"] is None:
        return []
    shown = zip(answer["room_ids"], answer["host_ids"], answer["slots"], strict=True)
    return [
        {
            "user_id": answer["user_id"],
            "room_id": room,
            "host_id": host,
            "at": answer["at"],
            "position": position,
            "slot": slot,
            "propensity": 1.0 if slot == "organic" else None,
        }
        for position, (room, host, slot) in enumerate(shown, start=1)
    ]
