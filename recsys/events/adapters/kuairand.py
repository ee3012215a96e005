"""KuaiRand: `log_standard_*.csv`, `log_random_*.csv` and `video_features_basic_*.csv`, short videos of Kuaishou.

A video's author stands in for the host and the video for the room; there is no rooms table, since videos do not go
live, so a bundle of this data has ties and no live index.

- every line → impressions (the logs give no position: it is 0); `slot` is `random` where the video was put in at random
- `is_click` = 1 → watches, from `time_ms` for `play_time_ms`
- `is_like`, `is_comment`, `is_forward`, `is_profile_enter` → engagements `like`, `comment`, `share`, `profile_enter`
- `is_follow` → follows; `is_hate` → feedback `not_interested`

The logs date only the beginning of a play. What the viewer did during it is known at its end, never before: those
facts carry the instant `time_ms` + `play_time_ms`. A video without an author is set aside.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.events.adapters.source import files_of, instant_ms, text_rows, whole, yes
from recsys.events.adapters.writing import Output, TableWriter

_LOG = (
    "user_id", "video_id", "time_ms", "is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate",
    "play_time_ms", "is_profile_enter", "is_rand",
)  # fmt: skip
_ENGAGED = {"is_like": "like", "is_comment": "comment", "is_forward": "share", "is_profile_enter": "profile_enter"}


def kuairand(src: Path, writer: TableWriter) -> None:
    """Write the event tables of a KuaiRand folder.

    Raises:
        InputRefused: there is no log or no file of video features, or a file lacks a column.
    """
    logs = [*files_of(src, "log_standard_*.csv"), *files_of(src, "log_random_*.csv", required=False)]
    videos = [text_rows(path, ("video_id", "author_id")) for path in files_of(src, "video_features_basic_*.csv")]
    authors = (
        pl.concat(videos)
        .select(video=whole("video_id"), author=whole("author_id"))
        .drop_nulls()
        .group_by("video")
        .agg(pl.col("author").min())
    )
    for path in logs:
        rows = text_rows(path, _LOG).with_columns(
            user=whole("user_id"), video=whole("video_id"), at=whole("time_ms"), play=whole("play_time_ms")
        )
        writer.write(path.name, rows.join(authors, on="video", how="left"), _broken(), _outputs())


def _broken() -> dict[str, pl.Expr]:
    marks = ["is_click", "is_follow", "is_hate", "is_rand", *_ENGAGED]
    return {
        "unreadable_id": pl.col("user").is_null() | pl.col("video").is_null(),
        "unreadable_time": instant_ms(pl.col("at")).is_null(),
        "unreadable_duration": pl.col("play").is_null(),
        "negative_duration": pl.col("play") < 0,
        "unreadable_mark": pl.any_horizontal([yes(name).is_null() for name in marks]),
        "unknown_author": pl.col("author").is_null(),
    }


def _outputs() -> list[Output]:
    who = {"user_id": pl.col("user"), "host_id": pl.col("author")}
    begin, end = instant_ms(pl.col("at")), instant_ms(pl.col("at") + pl.col("play"))
    slot = pl.when(yes("is_rand")).then(pl.lit("random"))
    shown = who | {"room_id": pl.col("video"), "at": begin, "position": pl.lit(0, pl.Int64), "slot": slot}
    watched = who | {"room_id": pl.col("video"), "entered_at": begin, "left_at": end}
    outputs = [
        Output("impressions", shown),
        Output("watches", watched, yes("is_click")),
        Output("follows", who | {"at": end, "action": pl.lit("follow")}, yes("is_follow")),
        Output("feedback", who | {"at": end, "kind": pl.lit("not_interested")}, yes("is_hate")),
    ]
    for mark, kind in _ENGAGED.items():
        said = who | {"room_id": pl.col("video"), "at": end, "kind": pl.lit(kind), "count": pl.lit(1, pl.Int64)}
        outputs.append(Output("engagements", said, yes(mark), part=kind))
    return outputs
