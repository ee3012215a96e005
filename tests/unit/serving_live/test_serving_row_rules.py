"""The rules for one arriving row against the batch rules: the same rows set aside, for the same reasons."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.events.quarantine import CLOCK_TOLERANCE, clean
from recsys.events.reading import from_frames
from recsys.events.schemas import EARLIEST, LATEST, REASON_ORDER, TABLES, columns_of, is_id, optional, role
from recsys.events.single_rows import Refused, RowRules, instant_us
from recsys.instants import from_datetime, to_datetime

T0, STEP_US, N_STEPS = 1_717_200_000_000_000, 50_000_000_000, 20
LATEST_US = T0 + 15 * STEP_US
"""No fact may be later."""
BOUNDS = [one + off for one in (from_datetime(EARLIEST), from_datetime(LATEST)) for off in (-1, 0, 1)]
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
        near = T0 + rng.integers(0, N_STEPS, n) * STEP_US  # a grid: equal times and the bounds themselves occur
        far = rng.choice([*BOUNDS, LATEST_US + 1], n)
        series = pl.Series(name, np.where(rng.random(n) < 0.25, far, near)).cast(pl.Datetime("us", "UTC"))
    elif is_id(column):
        series = pl.Series(name, rng.permutation(10**6)[:n])
    elif of == "number":
        series = pl.Series(name, rng.choice([-1, 0, 1, 7, 10**9, 10**9 + 1, 10**12, 10**12 + 1], n))
    elif of == "real":
        series = pl.Series(name, rng.choice([-0.5, 0.0, 0.5, 1.0, 1.5], n))
    else:
        words = WORDS.get(name) or WORDS.get(table) or ["a"]
        series = pl.Series(name, [words[i] for i in rng.integers(0, len(words), n)], pl.String)
    return pl.Series(name, [None if null else v for null, v in zip(nulls, series, strict=True)], series.dtype)


def reasons_of(table: str) -> set[str]:
    """Every reason that a row of this table can be set aside for without its room or other rows of its key."""
    schema = TABLES[table]
    found = {name for name in dir(schema) if name in REASON_ORDER}  # the rules declared in it
    if columns_of(table, "time", "plan"):
        found.add("time_out_of_range")
    if columns_of(table, "time"):
        found.add("later_than_now")
    if any(not optional(c) and not is_id(c) and name not in schema.KEY for name, c in schema.columns().items()):
        found.add("null_value")
    return found


@pytest.mark.parametrize("table", list(TABLES))
def test_one_row_at_a_time_as_in_a_batch(table: str) -> None:
    rng = np.random.default_rng(7)
    n = 1_500
    frame = pl.DataFrame([drawn(table, name, n, rng) for name in TABLES[table].columns()])
    events = clean(from_frames({table: frame}), now=to_datetime(LATEST_US) - CLOCK_TOLERANCE)
    rules = RowRules({})
    single: Counter[str] = Counter()
    kept = []
    for row in frame.iter_rows(named=True):
        try:
            kept.append(rules.check(table, row, LATEST_US))
        except Refused as refused:
            single[refused.reason] += 1
    assert dict(single) == events.quality.tables[table].quarantined
    assert set(single) == reasons_of(table)
    columns = [name for name in frame.columns if name != "cohost_ids"]  # of these the batch makes a set
    good = events.tables[table].select(columns).collect()
    of_single = pl.DataFrame(kept, schema_overrides=good.schema, infer_schema_length=None).select(columns)
    assert_frame_equal(of_single, good, check_row_order=False)


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
