"""Unusual input that is fine: empty tables, other types, other partitions, very uneven users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.events import (
    build_vocabularies,
    clean,
    fact_stream,
    last_fact_us,
    open_events,
    tie_facts,
    validate,
)
from tests.contract.good_tables import GOOD, NOW, T0, at, good, write


def test_empty_tables_are_fine(tmp_path: Path) -> None:
    folder = write(tmp_path, **{table: rows.clear() for table, rows in good().items()})
    events = clean(open_events(folder), now=NOW)
    assert all(quality.rows == quality.good == 0 for quality in events.quality.tables.values())
    made = build_vocabularies(events, as_of_us=10**18)
    assert fact_stream(events, made, from_us=None, before_us=None).is_empty()
    assert tie_facts(events, made, before_us=10**18, bucket=(0, 2)).is_empty()
    untyped = pl.DataFrame({name: [] for name in GOOD["follows"]})
    assert validate(write(tmp_path, follows=untyped), now=NOW).tables["follows"].rows == 0


def test_unknown_columns_and_files_are_named_and_not_read(tmp_path: Path) -> None:
    folder = write(tmp_path, follows=pl.DataFrame([{**GOOD["follows"], "mood": "glad"}]))
    (folder / "stranger.parquet").write_bytes(b"")
    (folder / "notes.txt").write_text("read me")
    for hidden in ("_SUCCESS", ".follows.parquet.crc"):
        (folder / hidden).write_bytes(b"")
    report = validate(folder, now=NOW).to_json()
    assert report["notes"] == {"follows": {"unused_columns": ["mood"]}}
    assert report["unknown_files"] == ["notes.txt", "stranger.parquet"]
    assert clean(open_events(folder)).tables["follows"].collect().columns == ["user_id", "host_id", "at", "action"]


@pytest.mark.parametrize("to", [pl.String, pl.Int16, pl.UInt32, pl.UInt64, pl.Categorical])
def test_both_kinds_of_ids_give_the_same_facts(tmp_path: Path, to: type[pl.DataType]) -> None:
    through = pl.String if to == pl.Categorical else to
    recast = {
        table: rows.with_columns(pl.col("^(user|host|room|order)_id$").cast(through)).with_columns(
            pl.col("^(user|host|room|order)_id$").cast(to)
        )
        for table, rows in good().items()
    }
    seen = []
    for name, tables in (("plain", good()), ("cast", recast)):
        events = clean(open_events(write(tmp_path / name, **tables)), now=NOW)
        made = build_vocabularies(events, as_of_us=10**18)
        seen.append(fact_stream(events, made, from_us=None, before_us=None))
    assert seen[0].equals(seen[1]) and len(seen[0]) == 11


def test_any_unit_and_time_zone_names_the_same_instant(tmp_path: Path) -> None:
    instants = [
        pl.col("at").cast(pl.Datetime("ms", "UTC")),
        pl.col("at").cast(pl.Datetime("ns", "UTC")),
        pl.col("at").dt.convert_time_zone("Asia/Shanghai"),
    ]
    for n, instant in enumerate(instants):
        folder = write(tmp_path / str(n), follows=pl.DataFrame([GOOD["follows"]]).with_columns(at=instant))
        assert last_fact_us(clean(open_events(folder))) == int(at(1).timestamp()) * 1_000_000
    far = pl.DataFrame([GOOD["follows"]]).with_columns(at=pl.lit(2**62).cast(pl.Datetime("ms", "UTC")))
    assert validate(write(tmp_path, follows=far), now=None).tables["follows"].quarantined == {"time_out_of_range": 1}


def test_ids_beyond_64_bits_are_set_aside(tmp_path: Path) -> None:
    rows = pl.DataFrame([GOOD["follows"]] * 2).with_columns(user_id=pl.Series([1, 2**64 - 1], dtype=pl.UInt64))
    assert validate(write(tmp_path, follows=rows), now=NOW).tables["follows"].quarantined == {"null_key": 1}


def test_partitions_of_different_schemas_are_one_table(tmp_path: Path) -> None:
    parts = {
        "date=2024-03-01/bucket=0/a.parquet": pl.DataFrame([GOOD["watches"]]),
        "date=2024-03-01/bucket=1/a.parquet": pl.DataFrame([{**GOOD["watches"], "user_id": 5}]).drop("left_at"),
        "date=2024-03-02/bucket=0/b.parquet": pl.DataFrame([{**GOOD["watches"], "user_id": 6, "source": "follow"}]),
        "_temporary/c.parquet": pl.DataFrame([{**GOOD["watches"], "user_id": 9}]),
    }
    for name, rows in parts.items():
        path = tmp_path / "watches" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.write_parquet(path)
    events = clean(open_events(tmp_path), now=NOW)
    assert events.tables["watches"].collect()["user_id"].sort().to_list() == [1, 5, 6]
    assert events.quality.unused_columns == {}


def test_more_events_for_a_bundle_may_be_any_table(tmp_path: Path) -> None:
    folder = write(tmp_path, rooms=pl.DataFrame([GOOD["rooms"]]))
    assert clean(open_events(folder, any_table=True)).quality.tables["rooms"].good == 1


def test_one_user_with_a_million_events_and_one_host_with_all_followers(tmp_path: Path) -> None:
    n = 1_000_000
    seconds = pl.Series(np.arange(n) * 1_000_000 + int(T0.timestamp()) * 1_000_000).cast(pl.Datetime("us", "UTC"))
    watches = pl.select(
        user_id=pl.repeat(1, n, dtype=pl.Int64),
        host_id=pl.int_range(n) % 5,
        room_id=pl.int_range(n) % 7,
        entered_at=seconds,
    )
    everyone = pl.select(
        user_id=pl.int_range(n // 5),
        host_id=pl.repeat(2, n // 5, dtype=pl.Int64),
        at=pl.lit(T0),
        action=pl.lit("follow"),
    )
    events = clean(open_events(write(tmp_path, watches=watches, follows=everyone)), now=NOW)
    assert events.quality.tables["watches"].good == n and events.quality.tables["follows"].good == n // 5
    made = build_vocabularies(events, as_of_us=10**18)
    mine = tie_facts(events, made, before_us=10**18, bucket=(made.users.row(1) % 64, 64))
    assert (mine["user"] == made.users.row(1)).sum() == n + 1 and mine["user"].n_unique() == n // 5 // 64
