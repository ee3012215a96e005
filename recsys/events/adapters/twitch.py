"""Twitch-100k (LiveRec, RecSys 2021): `100k_a.csv`, without a header: user, stream, streamer, start, stop.

Times are steps of ten minutes, counted from an origin nobody tells: step 0 is set to 2020-01-01 UTC, which moves every
fact alike. The crawler saw a viewer in the steps start … stop − 1.

- every line → watches, from the step `start` to the step `stop`
- every stream → rooms. It was on air at the crawls from its first viewer's `start` to its last viewer's `stop` − 1 and
  nothing is known in between, so it begins one second before the first of these steps and ends one second before the
  last `stop`: the rooms live at a step are then exactly the streams with a viewer in it, as in the LiveRec protocol.
  Its host is the streamer named at its earliest line
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from recsys.events.adapters.source import files_of, text_rows, whole
from recsys.events.adapters.writing import Output, TableWriter

ORIGIN = datetime(2020, 1, 1, tzinfo=UTC)
STEP_S = 600
_MOST_STEPS = 10**6
_COLUMNS = ("user", "stream", "streamer", "start", "stop")


def twitch_100k(src: Path, writer: TableWriter) -> None:
    """Write the event tables of a Twitch-100k file, or of the folder that holds `100k_a.csv`.

    Raises:
        InputRefused: the file is missing.
    """
    path = files_of(src, "100k_a.csv")[0]
    rows = text_rows(path, _COLUMNS, header=False).with_columns(
        whole(name).alias(name) for name in ("user", "stream", "start", "stop")
    )
    broken = {
        "unreadable_id": pl.any_horizontal([pl.col(name).is_null() for name in ("user", "stream", "streamer")]),
        "unreadable_time": ~(pl.col("start").is_between(0, _MOST_STEPS) & pl.col("stop").is_between(0, _MOST_STEPS)),
        "stop_not_after_start": pl.col("stop") <= pl.col("start"),
    }
    watched = {
        "user_id": pl.col("user"), "host_id": pl.col("streamer"), "room_id": pl.col("stream"),
        "entered_at": _instant(pl.col("start")), "left_at": _instant(pl.col("stop")),
    }  # fmt: skip
    writer.write(path.name, rows, broken, [Output("watches", watched)])
    usable = pl.all_horizontal([~rule.fill_null(True) for rule in broken.values()])
    first = pl.col("streamer").filter(pl.col("start") == pl.col("start").min()).min()
    streams = rows.filter(usable).group_by("stream").agg(first, pl.col("start").min(), pl.col("stop").max())
    second = pl.duration(seconds=1)
    on_air = {
        "room_id": pl.col("stream"), "host_id": pl.col("streamer"),
        "started_at": _instant(pl.col("start")) - second, "ended_at": _instant(pl.col("stop")) - second,
    }  # fmt: skip
    writer.write(f"{path.name} (streams)", streams, {"unreadable_id": pl.col("stream").is_null()},
                 [Output("rooms", on_air)])  # fmt: skip


def _instant(step: pl.Expr) -> pl.Expr:
    origin_us = int(ORIGIN.timestamp()) * 1_000_000
    return (origin_us + step * STEP_S * 1_000_000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
