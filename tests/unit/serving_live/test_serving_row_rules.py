"""The rules for one arriving row against the batch rules: the same rows set aside, for the same reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.events.quarantine import clean
from recsys.events.reading import from_frames
from recsys.events.row_values import attribute
from recsys.events.schemas import EARLIEST, LATEST, REASON_ORDER, TABLES, columns_of, is_id, optional, role
from recsys.events.single_rows import CLOCK_TOLERANCE_US, NOT_A_ROW, Refused, RowRules, instant_us
from recsys.id_kinds import IdKind
from recsys.instants import from_datetime, to_datetime
from serving.typed_rows import TypedRows

T0, STEP_US, N_STEPS = 1_717_200_000_000_000, 50_000_000_000, 20
LATEST_US = T0 + 15 * STEP_US
"""No fact may be later."""
BOUNDS = [one + off for one in (from_datetime(EARLIEST), from_datetime(LATEST)) for off in (-1, 0, 1)]
NAMES = {attribute(name) for table in TABLES.values() for name in table.columns()}
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
    events = clean(from_frames({table: frame}), now=to_datetime(LATEST_US - CLOCK_TOLERANCE_US))
    rules = RowRules({})
    single: Counter[str] = Counter()
    kept = []
    for row in frame.iter_rows(named=True):
        try:
            kept.append(rules.check(table, row, LATEST_US).columns())
        except Refused as refused:
            single[refused.reason] += 1
    assert dict(single) == events.quality.tables[table].quarantined
    assert set(single) == reasons_of(table)
    columns = [name for name in frame.columns if name != "cohost_ids"]  # of these the batch makes a set
    good = events.tables[table].select(columns).collect()
    of_single = pl.DataFrame(kept, schema_overrides=good.schema, infer_schema_length=None).select(columns)
    assert_frame_equal(of_single, good, check_row_order=False)


def verdict(judge: Callable[[], Any]) -> tuple[Any, ...]:
    try:
        values = judge()
    except Refused as refused:
        return ("refused", refused.reason)
    found = [(name, getattr(values, name)) for name in sorted(NAMES) if hasattr(values, name)]
    return tuple((name, type(value), value) for name, value in found)


def spelt(value: Any, rng: np.random.Generator) -> Any:
    """A value as a caller may write it into JSON; now and then as nobody should."""
    if isinstance(value, datetime):
        value = value.isoformat() if rng.random() < 0.5 else from_datetime(value)
    odd = [True, 1.0, 1.5, "1", [], {}, 2**63, -(2**63) - 1, 2**70, "2024-06-01T12:00", "2024-06-01T12:00:00.1234567Z"]
    return odd[rng.integers(len(odd))] if rng.random() < 0.02 else value


@pytest.mark.parametrize("kind", ["int", "str"])
@pytest.mark.parametrize("table", list(TABLES))
def test_a_typed_row_is_the_row_that_the_rules_read(table: str, kind: IdKind) -> None:
    rng = np.random.default_rng(8)
    frame = pl.DataFrame([drawn(table, name, 600, rng) for name in TABLES[table].columns()])
    rules = RowRules(dict.fromkeys(("user", "host", "room", "order"), kind))
    typed = TypedRows(rules)
    ids = [name for name, column in TABLES[table].columns().items() if is_id(column)]
    good = 0
    for row in frame.iter_rows(named=True):
        if kind == "str":
            row |= {name: None if row[name] is None else str(row[name]) for name in ids}
            if table == "rooms" and row["cohost_ids"] is not None:
                row["cohost_ids"] = ["a", "b"]
        told = {name: spelt(value, rng) for name, value in row.items() if value is not None or rng.random() < 0.5}
        if rng.random() < 0.05:
            told["unheard_of"] = 1
        text = orjson.dumps(_within_json(told)).decode()
        ours = verdict(lambda text=text: typed.read(table, text, LATEST_US))
        assert ours == verdict(lambda text=text: rules.check(table, orjson.loads(text), LATEST_US)), text
        good += ours[0] != "refused"
    assert 20 < good < 600


NO_ROWS = ["", "[1]", "{", '{"user_id": 1, "city_tier": "\\ud800"}', '{"user_id": 1, "x": 01}', "null"]


@pytest.mark.parametrize("text", NO_ROWS)
def test_what_is_no_row_is_set_aside(text: str) -> None:
    with pytest.raises(Refused) as refused:
        TypedRows(RowRules({"user": "int"})).read("users", text, LATEST_US)
    assert refused.value.reason == NOT_A_ROW


def _within_json(row: dict[str, Any]) -> dict[str, Any]:
    """Integers beyond 64 bits as JSON numbers; orjson writes none of them."""
    return {name: orjson.Fragment(str(v)) if type(v) is int and abs(v) >= 2**63 else v for name, v in row.items()}


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
