"""Bad input: a clear refusal, or quarantine with a reason. Nothing is lost, nothing ends in a traceback."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.errors import ConfigError, InputRefused
from recsys.events import (
    build_vocabularies,
    clean,
    last_fact_us,
    open_events,
    room_table,
    validate,
)
from recsys.events.schemas import REASON_ORDER, TABLES
from tests.contract.good_tables import FAR, GOOD, NOW, at, good, write

BROKEN: list[tuple[str, dict[str, Any], str]] = [
    *((table, {key: None}, "null_key") for table, row in GOOD.items() for key in ("user_id", "room_id", "order_id")
      if key in row and (table, key) != ("purchases", "room_id")),
    ("follows", {"at": None}, "null_key"),
    ("engagements", {"kind": None}, "null_value"),
    ("purchases", {"amount_minor": None}, "null_value"),
    ("rooms", {"started_at": None}, "null_value"),
    ("follows", {"action": "wave"}, "unknown_action"),
    ("feedback", {"kind": "shrug"}, "unknown_kind"),
    ("refunds", {"kind": "shrug"}, "unknown_kind"),
    ("notices", {"kind": "party"}, "unknown_kind"),
    ("watches", {"left_at": at(4)}, "left_before_entered"),
    ("rooms", {"room_id": 8, "ended_at": at(-1)}, "ended_before_started"),
    ("notices", {"to": at(99)}, "to_before_from"),
    ("purchases", {"amount_minor": -1}, "negative_amount"),
    ("refunds", {"amount_minor": -1}, "negative_amount"),
    ("engagements", {"value_minor": -1}, "negative_amount"),
    ("engagements", {"count": -1}, "negative_count"),
    ("purchases", {"quantity": -1}, "negative_quantity"),
    ("impressions", {"position": -1}, "negative_position"),
    ("impressions", {"propensity": 0.0}, "propensity_out_of_range"),
    ("impressions", {"propensity": float("nan")}, "propensity_out_of_range"),
    ("purchases", {"amount_minor": 2**62}, "amount_too_large"),
    ("engagements", {"value_minor": 2**62}, "amount_too_large"),
    ("engagements", {"count": 2**62}, "count_too_large"),
    ("purchases", {"quantity": 2**62}, "quantity_too_large"),
    ("impressions", {"position": 2**62}, "position_too_large"),
    ("follows", {"at": datetime(1969, 1, 1, tzinfo=UTC)}, "time_out_of_range"),
    ("watches", {"left_at": datetime(2500, 1, 1, tzinfo=UTC)}, "time_out_of_range"),
    ("watches", {"entered_at": FAR, "left_at": None}, "later_than_now"),
    ("watches", {"left_at": FAR}, "later_than_now"),
    ("purchases", {"at": FAR}, "later_than_now"),
    ("users", {"registered_at": FAR}, "later_than_now"),
    ("watches", {"host_id": 3}, "host_differs_from_room"),
    ("engagements", {"host_id": 3}, "host_differs_from_room"),
    ("purchases", {"host_id": 3}, "host_differs_from_room"),
    ("impressions", {"host_id": 3}, "host_differs_from_room"),
    ("watches", {"entered_at": at(61), "left_at": None}, "entered_after_end"),
    *((table, {}, "duplicate_key") for table in TABLES if table != "engagements"),
    ("purchases", {"amount_minor": 10}, "duplicate_key"),
]  # fmt: skip


def test_the_good_world_is_good(tmp_path: Path) -> None:
    report = validate(write(tmp_path, **good()), now=NOW).to_json()
    assert report["tables"] == {table: {"rows": 1, "good": 1, "quarantined": {}} for table in TABLES}
    assert report["notes"] == {} and report["unknown_files"] == []


@pytest.mark.parametrize(("table", "change", "reason"), BROKEN)
def test_a_broken_row_is_set_aside_and_the_others_are_used(
    tmp_path: Path, table: str, change: dict[str, Any], reason: str
) -> None:
    rows = [GOOD[table], {**GOOD[table], **change}]
    report = validate(write(tmp_path, **good(**{table: rows})), now=NOW)
    assert report.to_json()["tables"].pop(table) == {"rows": 2, "good": 1, "quarantined": {reason: 1}}
    assert all(quality.quarantined == {} for name, quality in report.tables.items() if name != table)


def test_every_reason_is_tried() -> None:
    assert {reason for _, _, reason in BROKEN} == set(REASON_ORDER)


def test_a_row_with_many_faults_is_counted_once(tmp_path: Path) -> None:
    row = {**GOOD["purchases"], "user_id": None, "amount_minor": -1, "quantity": -1, "at": FAR}
    report = validate(write(tmp_path, **good(purchases=[row])), now=NOW)
    assert report.tables["purchases"].quarantined == {"null_key": 1}
    assert report.tables["refunds"].notes == {"waiting": 1}


def test_a_stamp_of_2099_reaches_no_fact(tmp_path: Path) -> None:
    rows = [GOOD["follows"], {**GOOD["follows"], "at": FAR}]
    folder = write(tmp_path, follows=pl.DataFrame(rows))
    assert last_fact_us(clean(open_events(folder), now=NOW)) == int(at(1).timestamp()) * 1_000_000
    assert last_fact_us(clean(open_events(folder))) == int(FAR.timestamp()) * 1_000_000  # no clock, no such rule
    almost = [{**GOOD["follows"], "at": NOW + timedelta(minutes=59)}]
    assert validate(write(tmp_path, follows=pl.DataFrame(almost)), now=NOW).tables["follows"].good == 1
    with pytest.raises(ConfigError, match="now"):
        validate(folder, now=NOW.replace(tzinfo=None))


def test_guests_may_receive_and_sell_and_a_host_is_no_guest_of_his_own(tmp_path: Path) -> None:
    room = {**GOOD["rooms"], "cohost_ids": [3, 2, 3, None]}
    gift, line = {**GOOD["engagements"], "host_id": 3}, {**GOOD["purchases"], "host_id": 3}
    events = clean(open_events(write(tmp_path, **good(rooms=[room], engagements=[gift], purchases=[line]))))
    assert events.quality.tables["engagements"].good == events.quality.tables["purchases"].good == 1
    assert events.quality.tables["rooms"].notes == {"cohost_is_host": 1}
    made = build_vocabularies(events, as_of_us=10**18)
    assert room_table(events, made)["cohosts"].to_list() == [[made.hosts.row(3)]]


# what is refused as a whole


def a_file(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "follows.parquet").write_bytes(content) and None


def follows(**columns: pl.Series | pl.Expr) -> Callable[[Path], None]:
    return lambda folder: (
        pl.DataFrame([GOOD["follows"]]).with_columns(**columns).write_parquet(folder / "follows.parquet")
    )


def truncated(folder: Path) -> None:
    path = folder / "follows.parquet"
    pl.DataFrame({**GOOD["follows"], "user_id": range(50_000)}).write_parquet(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damaged_inside(folder: Path) -> None:
    path = folder / "follows.parquet"
    pl.DataFrame({**GOOD["follows"], "user_id": np.random.default_rng(0).permutation(50_000)}).write_parquet(path)
    content = bytearray(path.read_bytes())
    content[40:20_000] = bytes(19_960)
    path.write_bytes(bytes(content))


def two_kinds(folder: Path) -> None:
    text = pl.DataFrame([{**GOOD["feedback"], "user_id": "1"}])
    write(folder, follows=pl.DataFrame([GOOD["follows"]]), feedback=text)


def twice(folder: Path) -> None:
    (folder / "follows").mkdir()
    follows()(folder)
    follows()(folder / "follows")


REFUSED: list[tuple[Callable[[Path], Any], str]] = [
    (lambda folder: (folder / "notes.txt").write_text("no tables"), "no usable event table"),
    (lambda folder: write(folder, rooms=pl.DataFrame([GOOD["rooms"]])), "no usable event table"),
    (lambda folder: (folder / "follows").mkdir(), "no usable event table"),
    (a_file(b""), "cannot be read"),
    (a_file(b"user_id,host_id\n1,2\n"), "cannot be read"),
    (truncated, "cannot be read"),
    (damaged_inside, "cannot be read"),
    (lambda folder: write(folder, follows=pl.DataFrame([GOOD["follows"]]).drop("host_id")), "host_id"),
    (follows(at=pl.col("at").dt.replace_time_zone(None)), "UTC"),
    (follows(at=pl.col("at").dt.date()), "unusable type"),
    (follows(at=pl.lit("2024-03-01T00:00:00Z")), "unusable type"),
    (follows(at=pl.lit(1_700_000_000)), "unusable type"),
    (follows(user_id=pl.lit(1.0)), "Int64"),
    (follows(user_id=pl.lit(True)), "unusable type"),
    (follows(action=pl.lit(1)), "unusable type"),
    (lambda folder: write(folder, purchases=pl.DataFrame([{**GOOD["purchases"], "amount_minor": 9.5}])), "minor units"),
    (two_kinds, "two kinds"),
    (twice, "there twice"),
]


@pytest.mark.parametrize(("make", "says"), REFUSED)
def test_an_unusable_folder_is_refused_with_one_clear_message(
    tmp_path: Path, make: Callable[[Path], Any], says: str
) -> None:
    make(tmp_path)
    with pytest.raises(InputRefused, match=says) as refused:
        validate(tmp_path, now=NOW)
    assert refused.value.exit_code == 3 and "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="no such folder"):
        validate(tmp_path / "absent", now=NOW)
