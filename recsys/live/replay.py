"""Past requests answered in time order, as the service would have answered them then.

Facts and requests are merged by time: at instant t first all requests at t are answered from facts before t, then the
facts at t are applied. Leases play no part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.events.facts import FACT_SCHEMA
from recsys.live.state import LiveState
from recsys.pipeline.lookup import lookup
from recsys.pipeline.request import Answer, Request
from recsys.progress import Progress, silent


@dataclass(frozen=True)
class PastRequest:
    """A request by rows: external id, user row (−1 unknown), instant (µs), the room rows to rank or None, seed."""

    request_id: object
    user: int
    at: int
    rooms: tuple[int, ...] | None
    seed: int | None = None


def answers(
    live: LiveState, facts: pl.DataFrame, requests: list[PastRequest], k: int, progress: Progress = silent
) -> Iterator[tuple[PastRequest, Answer]]:
    """Answer requests (ascending in time) from a moving state; yields them in the order given.

    Args:
        live: the state before the first fact.
        facts: a fact frame sorted by `at` (`fact_stream`).
        requests: ascending by `at`.
        k: rooms wanted; a request that names its rooms gets all of them up to k.
    """
    stream = facts.select(FACT_SCHEMA.keys()).iter_rows()
    waiting = next(stream, None)
    for done, request in enumerate(requests):
        while waiting is not None and waiting[0] < request.at:
            live.apply(*waiting)
            waiting = next(stream, None)
        rooms = None if request.rooms is None else np.array(request.rooms, dtype=np.int64)
        asked = Request(request.user, request.at, k, rooms, explain=False, seed=request.seed)
        yield request, lookup(live.world, asked)
        if done % 256 == 0:
            progress("replay", done / len(requests))
    progress("replay", 1.0)


def answer_frame(pairs: Iterator[tuple[PastRequest, Answer]]) -> pl.DataFrame:
    """Answers as rows: request (position), rank (1 …), room and host rows, score, strength (null: none was trained)."""
    types = dict.fromkeys(("request", "rank", "room", "host"), np.int64) | {"score": float, "strength": float}
    parts: dict[str, list[np.ndarray]] = {name: [np.empty(0, dtype=of)] for name, of in types.items()}
    for position, (_, answer) in enumerate(pairs):
        n = len(answer)
        parts["request"].append(np.full(n, position, dtype=np.int64))
        parts["rank"].append(np.arange(1, n + 1, dtype=np.int64))
        parts["room"].append(answer.rooms)
        parts["host"].append(answer.hosts)
        parts["score"].append(answer.score)
        parts["strength"].append(answer.strength)
    return pl.DataFrame({name: np.concatenate(arrays) for name, arrays in parts.items()}).with_columns(
        pl.col("strength").fill_nan(None)
    )
