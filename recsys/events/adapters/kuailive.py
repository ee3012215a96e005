"""KuaiLive (Zenodo 16565801): `room.csv`, `click.csv` and, if they are there, the other files of the same folder.

What becomes of it, file by file:

- `room.csv` → rooms; without a readable `end_timestamp` the room is still live. A room listed for several days
  (`p_date`) is one room: rows of one key are put together where event tables are read
- `click.csv` → watches; `watch_live_time` (ms) gives the exit. Two clicks of a user at the same instant stay two facts
  of one instant: neither is known when the other is ranked
- `comment.csv`, `like.csv`, `gift.csv` → engagements; `gift_price` is taken as minor units as it stands
- `negative.csv` → impressions. The files give no position: it is 0
- `streamer.csv`, `user.csv` → hosts, users with their time of registration. Nothing else of them is read: `accu_*`,
  `fans_*`, `follow_*` are counts at the end of the collection, that is of the future
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.events.adapters.source import instant_ms, one_file, real, text_rows, whole
from recsys.events.adapters.writing import Output, TableWriter

_WHO = ("user_id", "live_id", "streamer_id", "timestamp")
_ROOM = ("live_id", "streamer_id", "start_timestamp", "end_timestamp", "live_content_category")


def kuailive(src: Path, writer: TableWriter) -> None:
    """Write the event tables of a KuaiLive folder.

    Raises:
        InputRefused: `room.csv` or `click.csv` is missing, or a file lacks a column.
    """
    room, click = one_file(src, "room.csv"), one_file(src, "click.csv")
    assert room is not None and click is not None  # both are required
    _rooms(room, writer)
    _clicks(click, writer)
    for kind in ("comment", "like", "gift"):
        if (path := one_file(src, f"{kind}.csv", required=False)) is not None:
            _engagements(path, kind, writer)
    if (path := one_file(src, "negative.csv", required=False)) is not None:
        place = {"host_id": whole("streamer_id"), "at": _at("timestamp"), "position": pl.lit(0, pl.Int64)}
        writer.write(path.name, text_rows(path, _WHO), _who_is_missing(), [
            Output("impressions", {"user_id": whole("user_id"), "room_id": whole("live_id"), **place}),
        ])  # fmt: skip
    for name, column, table, of in (
        ("streamer.csv", "streamer_id", "hosts", "host_id"),
        ("user.csv", "user_id", "users", "user_id"),
    ):
        if (path := one_file(src, name, required=False)) is not None:
            columns = {of: whole(column), "registered_at": _at("reg_timestamp")}
            broken = {"unreadable_id": whole(column).is_null()}
            writer.write(path.name, text_rows(path, (column, "reg_timestamp")), broken, [Output(table, columns)])


def _rooms(path: Path, writer: TableWriter) -> None:
    end = whole("end_timestamp")
    ended = pl.when(end > 0).then(instant_ms(end))
    broken = {
        "unreadable_id": whole("live_id").is_null() | whole("streamer_id").is_null(),
        "unreadable_time": _at("start_timestamp").is_null(),
    }
    columns = {
        "room_id": whole("live_id"), "host_id": whole("streamer_id"), "started_at": _at("start_timestamp"),
        "ended_at": ended, "category": pl.col("live_content_category"),
    }  # fmt: skip
    writer.write(path.name, text_rows(path, _ROOM), broken, [Output("rooms", columns)])


def _clicks(path: Path, writer: TableWriter) -> None:
    stay = whole("watch_live_time")
    broken = _who_is_missing() | {
        "unreadable_duration": pl.col("watch_live_time").is_not_null() & stay.is_null(),
        "negative_duration": (stay < 0).fill_null(False),
    }
    columns = _who() | {"entered_at": _at("timestamp"), "left_at": instant_ms(whole("timestamp") + stay)}
    writer.write(path.name, text_rows(path, (*_WHO, "watch_live_time")), broken, [Output("watches", columns)])


def _engagements(path: Path, kind: str, writer: TableWriter) -> None:
    columns = _who() | {"at": _at("timestamp"), "kind": pl.lit(kind), "count": pl.lit(1, pl.Int64)}
    columns["value_minor"] = pl.lit(None, pl.Int64)
    names: tuple[str, ...] = _WHO
    broken = _who_is_missing()
    if kind == "gift":
        names = (*_WHO, "gift_price")
        price = real("gift_price")
        broken |= {"unreadable_amount": price.is_null() | (price.abs() > 1e15), "negative_amount": price < 0}
        columns["value_minor"] = price.round(0).cast(pl.Int64, strict=False)
    writer.write(path.name, text_rows(path, names), broken, [Output("engagements", columns, part=kind)])


def _who() -> dict[str, pl.Expr]:
    return {"user_id": whole("user_id"), "host_id": whole("streamer_id"), "room_id": whole("live_id")}


def _who_is_missing() -> dict[str, pl.Expr]:
    unreadable = pl.any_horizontal([whole(name).is_null() for name in ("user_id", "live_id", "streamer_id")])
    return {"unreadable_id": unreadable, "unreadable_time": _at("timestamp").is_null()}


def _at(name: str) -> pl.Expr:
    return instant_ms(whole(name))
