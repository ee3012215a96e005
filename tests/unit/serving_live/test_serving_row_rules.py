"""The rules for one arriving row against the batch rules: the same rows set aside, for the same reasons."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.events.quarantine import clean
from recsys.events.reading import from_frames
from recsys.events.schemas import TABLES, is_id, role
from recsys.events.single_rows import Refused, RowRules, instant_us
from recsys.instants import to_datetime

T0 = 1_717_200_000_000_000
WORDS = {
    "action": ["follow", "unfollow", "poke", None],
    "feedback": ["not_interested", "block", "report", "unblock", "shrug", None],
    "refunds": ["return", "refund_only", "counterfeit", "dispute", "gift", None],
    "notices": ["leave", "party", None],
    "engagements": ["like", "comment", "gift", "share", "wave", None],
}


def drawn(table: str, name: str, n: int, rng: np.random.Generator) -> pl.Series:
    """A column with faults in it."""
    column = TABLES[table].columns()[name]
    nulls = rng.random(n) < 0.08
    of = role(column)
    if name == "cohost_ids":
        return pl.Series(name, [[int(x) for x in rng.integers(1, 9, 2)] for _ in range(n)], pl.List(pl.Int64))
    if of in ("time", "plan"):
        far = rng.choice([0, 0, 0, 0, -(10**16), 10**16], n)
        values = T0 + rng.integers(0, 10**12, n) + far
        series = pl.Series(name, values).cast(pl.Datetime("us", "UTC"))
    elif is_id(column):
        series = pl.Series(name, rng.permutation(10**6)[:n])
    elif of == "number":
        series = pl.Series(name, rng.choice([-1, 0, 1, 7, 10**9 + 1, 10**12 + 1], n))
    elif of == "real":
        series = pl.Series(name, rng.choice([-0.5, 0.0, 0.5, 1.0, 1.5], n))
    else:
        words = WORDS.get(name) or WORDS.get(table) or ["a"]
        series = pl.Series(name, [words[i] for i in rng.integers(0, len(words), n)], pl.String)
    return pl.Series(name, [None if null else v for null, v in zip(nulls, series, strict=True)], series.dtype)


@pytest.mark.parametrize("table", list(TABLES))
def test_one_row_at_a_time_as_in_a_batch(table: str) -> None:
    rng = np.random.default_rng(7)
    n = 600
    frame = pl.DataFrame([drawn(table, name, n, rng) for name in TABLES[table].columns()])
    batch = clean(from_frames({table: frame})).quality.tables[table]
    rules = RowRules({})
    single: Counter[str] = Counter()
    for row in frame.iter_rows(named=True):
        try:
            rules.check(table, row)
        except Refused as refused:
            single[refused.reason] += 1
    assert dict(single) == {reason: count for reason, count in batch.quarantined.items() if reason != "duplicate_key"}
    assert single


def test_every_spelling_of_an_instant_names_the_same_one() -> None:
    spelt = ["2024-06-01T12:00:00+00:00", "2024-06-01T12:00:00Z", "2024-06-01T20:00:00.000000+08:00"]
    at = datetime(2024, 6, 1, 12, tzinfo=UTC)
    us = instant_us(at)
    assert {instant_us(text) for text in spelt} == {us}
    assert to_datetime(us) == at
    assert instant_us(us) == us


BAD = [
    ("watches", {"user_id": 1, "host_id": 2, "room_id": 3, "entered_at": "2024-06-01T12:00:00"}, "unusable_type"),
    ("watches", {"user_id": True, "host_id": 2, "room_id": 3, "entered_at": "2024-06-01T12:00Z"}, "unusable_type"),
    ("watches", {"user_id": "x", "host_id": 2, "room_id": 3, "entered_at": "2024-06-01T12:00Z"}, "ids_of_two_kinds"),
    ("watches", {"user_id": 2**70, "host_id": 2, "room_id": 3, "entered_at": "2024-06-01T12:00Z"}, "null_key"),
    ("watches", {"user_id": 1.0, "host_id": 2, "room_id": 3, "entered_at": "2024-06-01T12:00Z"}, "unusable_type"),
    ("watches", [1], "not_a_row"),
    ("views", {}, "unknown_table"),
    ("rooms", {}, "null_key"),
]


@pytest.mark.parametrize(("table", "row", "reason"), BAD)
def test_what_a_file_would_be_refused_for_sets_one_event_aside(table: str, row: Any, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        RowRules({"user": "int"}).check(table, row)
    assert refused.value.reason == reason
