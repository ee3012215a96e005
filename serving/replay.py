"""Past requests answered from a bundle and later events: `laotie replay`."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import polars as pl

from recsys.bundle import Bundle
from recsys.errors import InputRefused
from recsys.events import Known, Vocabularies, clean, extend_vocabularies, fact_stream, open_events, room_table
from recsys.ids import Vocabulary
from recsys.instants import format_instant
from recsys.live.artefact import load
from recsys.live.replay import PastRequest, answer_frame, answers
from recsys.pipeline.request import seed_of
from recsys.progress import Progress, silent

_REQUIRED = ("request_id", "user_id", "at")


def replay(
    bundle: Bundle, events: Path, requests: Path, out: Path, *, k: int, progress: Progress = silent
) -> dict[str, object]:
    """Answer past requests in time order and write them.

    Args:
        bundle: the state before the first fact. Facts of `events` before its as-of are known already and skipped.
        events: folder with any of the event tables.
        requests: Parquet with request_id, user_id, at and optionally live_room_ids.
        out: Parquet to write: request_id, rank, room_id, host_id, score, strength.
        k: rooms per request at most.

    Returns:
        counts (`unknown_rooms`: named by requests, but nobody told of them; the others are ranked), seconds, and the
        quality report of the events.

    Raises:
        InputRefused: a table or the requests cannot be used, or a request lies before the bundle's as-of.
    """
    live, vocabularies = load(bundle)
    as_of = bundle.manifest.window.as_of_us
    known = Known.load(bundle.path) if bundle.has("known_rooms.arrow") else None
    later = clean(open_events(events, any_table=True), known=known)
    extend_vocabularies(vocabularies, later)
    asked = read_requests(requests, as_of)
    rooms = room_table(later, vocabularies) if "rooms" in later.tables else None
    if rooms is not None:
        live.register_rooms(rooms.filter(~_told_of(rooms["room"].to_numpy(), live.world.rooms.host)))
    facts = fact_stream(later, vocabularies, from_us=as_of, before_us=int(asked["at_us"].max() or as_of))  # type: ignore[arg-type]
    past, unheard_of = _past_requests(requests, asked, vocabularies, live.world.rooms.host)
    begun = time.perf_counter()
    frame = answer_frame(answers(live, facts, past, k, progress))
    seconds = time.perf_counter() - begun
    ids = asked["request_id"]
    frame.select(
        pl.Series("request_id", ids.gather(frame["request"].cast(pl.UInt32))),
        "rank",
        vocabularies.rooms.ids(frame["room"].to_numpy()).alias("room_id"),
        vocabularies.hosts.ids(frame["host"].to_numpy()).alias("host_id"),
        "score",
        "strength",
    ).write_parquet(out)
    return {
        "requests": len(past),
        "unknown_rooms": unheard_of,
        "facts": len(facts),
        "answers": len(frame),
        "seconds": round(seconds, 3),
        "bundle": bundle.manifest.name,
        "quality": later.quality.to_json(),
    }


def read_requests(path: Path, as_of: int) -> pl.DataFrame:
    """The requests sorted by time (draws in file order), with `at_us`.

    Raises:
        InputRefused: unreadable, a column missing or null, times without a zone, a `request_id` given twice, or a
            request before `as_of`.
    """
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputRefused("requests cannot be read", where=path, got=str(error), expected="a Parquet file") from error
    lacking = [name for name in _REQUIRED if name not in frame.columns]
    if lacking:
        raise InputRefused("requests lack columns", where=path, got=frame.columns, expected=f"also {lacking}")
    kind = frame.schema["at"]
    if not isinstance(kind, pl.Datetime) or kind.time_zone is None:
        raise InputRefused(
            "request times are no UTC instants",
            where=f"{path}, column at",
            got=kind,
            expected="Datetime with a time zone",
        )
    if frame.schema.get("live_room_ids") == pl.Null():
        frame = frame.drop("live_room_ids")
    given = frame.schema.get("live_room_ids")
    if given is not None and not isinstance(given, pl.List | pl.Array):
        raise InputRefused(
            "rooms to rank are no lists",
            where=f"{path}, column live_room_ids",
            got=given,
            expected="a list of room ids",
        )
    nulls = [name for name in _REQUIRED if frame[name].null_count()]
    if nulls:
        raise InputRefused("requests hold nulls", where=path, got=nulls, expected="a value in every row")
    doubled = frame["request_id"].filter(frame["request_id"].is_duplicated()).unique(maintain_order=True)
    if len(doubled):
        raise InputRefused(
            "requests share a request_id",
            where=path,
            got=f"{len(doubled)} ids more than once, the first {doubled[0]!r}",
            expected="one row per request_id",
            hint="answers are told apart by it alone",
        )
    frame = frame.with_columns(at_us=pl.col("at").dt.convert_time_zone("UTC").dt.epoch("us"))
    early = frame.filter(pl.col("at_us") < as_of)
    if len(early):
        raise InputRefused(
            "requests lie before the bundle's as-of",
            where=path,
            got=f"{len(early)} requests, the first at {format_instant(early['at_us'].min())}",  # type: ignore[arg-type]
            expected=f"{format_instant(as_of)} or later",
            hint="a bundle cannot forget; build one with an earlier --as-of",
        )
    return frame.sort("at_us", maintain_order=True)


def _told_of(rooms: np.ndarray, room_hosts: np.ndarray) -> np.ndarray:
    """Which rooms (rows; −1: unknown) have a host."""
    told = (rooms >= 0) & (rooms < len(room_hosts))
    told[told] = room_hosts[rooms[told]] >= 0
    return told


def _rows(ids: pl.Series, vocabulary: Vocabulary, where: str) -> np.ndarray:
    try:
        return vocabulary.rows(ids)
    except InputRefused as error:
        raise InputRefused(
            error.what,
            where=where,
            got=error.got,
            expected=error.expected,
            hint="write the ids as the bundle's events do",
        ) from error


def _past_requests(
    path: Path, asked: pl.DataFrame, vocabularies: Vocabularies, room_hosts: np.ndarray
) -> tuple[list[PastRequest], int]:
    """The requests by rows, and how many of the rooms they name nobody has told of: those cannot be ranked."""
    users = _rows(asked["user_id"], vocabularies.users, f"{path}, column user_id").tolist()
    seeds = [seed_of(user) for user in asked["user_id"]]
    rooms: list[tuple[int, ...] | None] = [None] * len(asked)
    unknown = 0
    if "live_room_ids" in asked.columns:
        given = asked.with_row_index("request").select("request", "live_room_ids").drop_nulls("live_room_ids")
        named = given.explode("live_room_ids", empty_as_null=False, keep_nulls=False)
        rows = _rows(named["live_room_ids"], vocabularies.rooms, f"{path}, column live_room_ids")
        told = _told_of(rows, room_hosts)
        unknown = int((~told).sum())
        lists: dict[int, list[int]] = {request: [] for request in given["request"].to_list()}
        for request, row in zip(named["request"].filter(told).to_list(), rows[told].tolist(), strict=True):
            lists[request].append(row)
        for request, found in lists.items():
            rooms[request] = tuple(found)
    past = zip(asked["request_id"].to_list(), users, asked["at_us"].to_list(), rooms, seeds, strict=True)
    return [PastRequest(*one) for one in past], unknown
