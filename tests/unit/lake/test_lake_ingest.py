"""The lake: what is read from it is what was brought in, once, whatever happened on the way."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from recsys.cli import build_app
from recsys.errors import ConfigError, InputRefused
from recsys.events import Events, build_vocabularies, clean, fact_stream, open_events, tie_facts, user_parts
from recsys.events.facts import FACT_SCHEMA, FOREVER
from recsys.events.lake import grouping
from recsys.events.lake.compaction import compact
from recsys.events.lake.ingest import ingest
from recsys.events.lake.manifest import LakeManifest
from recsys.events.lake.partition import bucket_of
from recsys.events.schemas import TABLES

T0 = datetime(2024, 3, 1, tzinfo=UTC)
FIRST_DAY = datetime(2026, 1, 5, tzinfo=UTC)
TIMES = {"rooms": "started_at", "watches": "entered_at"}


def facts(folder: Path) -> pl.DataFrame:
    events = clean(open_events(folder))
    return fact_stream(events, build_vocabularies(events, as_of_us=FOREVER), from_us=None, before_us=None)


def quality(folder: Path) -> dict[str, object]:
    document = clean(open_events(folder)).quality.to_json()
    return {"tables": {name: table for name, table in document["tables"].items() if table["rows"]}}


def cut(market: Path, out: Path, day_from: int, day_to: int) -> Path:
    """The rows of some days of the market, as an export would give them."""
    for table in TABLES:
        if not (market / table).exists() and not (market / f"{table}.parquet").exists():
            continue
        rows = pl.concat([pl.read_parquet(path) for path in sorted(market.glob(f"{table}*/**/*.parquet"))] or
                         [pl.read_parquet(market / f"{table}.parquet")])  # fmt: skip
        time = TIMES.get(table, "at")
        if time in rows.columns:
            start = FIRST_DAY
            days = (rows[time] - start).dt.total_days().clip(0)
            rows = rows.filter(days.is_between(day_from, day_to, closed="left"))
        if rows.height:
            (out / table).mkdir(parents=True, exist_ok=True)
            rows.write_parquet(out / table / "part.parquet")
    return out


def one(folder: Path, table: str, **columns: object) -> Path:
    (folder).mkdir(parents=True, exist_ok=True)
    pl.DataFrame({name: [value] for name, value in columns.items()}).write_parquet(folder / f"{table}.parquet")
    return folder


def test_an_export_of_many_groups_is_read_through_sorted_runs(market: Path, tmp_path: Path, monkeypatch) -> None:
    """Runs are an inner matter: the lake holds the same rows in the same places, and no run is left behind."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ingest(market, whole, buckets=4)
    monkeypatch.setattr(grouping, "GROUP_ROWS", 200)
    made: list[int] = []
    runs = grouping._sorted_runs
    monkeypatch.setattr(grouping, "_sorted_runs", lambda rows, folder: made.append(1) or runs(rows, folder))
    (parts / ".arriving-of-one-killed").mkdir(parents=True)
    ingest(market, parts, buckets=4)
    assert made and not list(parts.glob(".arriving-*"))
    placed = {path.relative_to(whole) for path in whole.rglob("*.parquet")}
    assert placed == {path.relative_to(parts) for path in parts.rglob("*.parquet")}
    for path in sorted(placed):
        left, right = pl.read_parquet(whole / path), pl.read_parquet(parts / path)
        assert_frame_equal(left, right, check_row_order=False)


def test_a_lake_reads_as_the_tables_do(market: Path, tmp_path: Path) -> None:
    report = ingest(market, tmp_path / "lake", buckets=4)
    assert report.offset == 1 and all(counts["known"] == 0 for counts in report.tables.values())
    assert_frame_equal(facts(tmp_path / "lake"), facts(market))
    assert quality(tmp_path / "lake") == quality(market)
    assert len({path.name for path in (tmp_path / "lake/watches").iterdir()}) >= 5
    assert {path.name for path in (tmp_path / "lake/watches").glob("date=*/*")} == {f"bucket={b:02d}" for b in range(4)}


def test_buckets_are_read_apart_and_make_the_whole(market: Path, tmp_path: Path) -> None:
    ingest(market, tmp_path / "lake", buckets=4)
    events = clean(open_events(tmp_path / "lake"))
    vocabularies = build_vocabularies(events, as_of_us=FOREVER)
    assert user_parts(events, 64) == 4
    for n in (1, 2, 4):
        parts = [tie_facts(events, vocabularies, before_us=FOREVER, bucket=(b, n)) for b in range(n)]
        users = [set(part["user"].unique()) for part in parts]
        assert sum(map(len, users)) == len(set().union(*users))
        whole = tie_facts(events, vocabularies, before_us=FOREVER, bucket=None)
        assert_frame_equal(pl.concat(parts).sort(list(FACT_SCHEMA)), whole.sort(list(FACT_SCHEMA)))
    for path in (tmp_path / "lake").glob("watches/*/bucket=03/*"):
        path.unlink()  # bucket 1 of 4 has no need of it
    assert len(tie_facts(events, vocabularies, before_us=FOREVER, bucket=(1, 4)))


def test_no_row_comes_twice(market: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    ingest(cut(market, tmp_path / "a", 0, 3), lake, buckets=2)
    ingest(cut(market, tmp_path / "b", 1, 9), lake)  # days 1 and 2 overlap
    assert_frame_equal(facts(lake), facts(market))
    again = ingest(cut(market, tmp_path / "c", 0, 9), lake)
    assert sum(counts["new"] for counts in again.tables.values()) == 0
    assert again.offset == 2
    assert ingest(tmp_path / "b", lake).skipped == sorted(path.name for path in (tmp_path / "b").iterdir())
    assert_frame_equal(facts(lake), facts(market))


def test_equal_rows_of_one_export_all_count(tmp_path: Path) -> None:
    row = {"user_id": 1, "host_id": 2, "room_id": 3, "at": T0, "kind": "like"}
    (tmp_path / "e").mkdir()
    pl.DataFrame([row, row]).write_parquet(tmp_path / "e/engagements.parquet")
    pl.DataFrame([row, row, row]).write_parquet(tmp_path / "engagements.parquet")
    (tmp_path / "f").mkdir()
    shutil.move(tmp_path / "engagements.parquet", tmp_path / "f/engagements.parquet")
    assert ingest(tmp_path / "e", tmp_path / "lake").tables["engagements"] == {"read": 2, "new": 2, "known": 0}
    assert ingest(tmp_path / "f", tmp_path / "lake").tables["engagements"] == {"read": 3, "new": 1, "known": 2}


def test_an_interrupted_ingestion_leaves_the_lake_as_it_was(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = tmp_path / "lake"
    ingest(cut(market, tmp_path / "a", 0, 3), lake, buckets=2)
    before, held = facts(lake), LakeManifest.read(lake)

    def interrupted(self: LakeManifest, lake: Path) -> None:
        raise KeyboardInterrupt

    rest = cut(market, tmp_path / "b", 3, 9)
    with monkeypatch.context() as patch:
        patch.setattr(LakeManifest, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ingest(rest, lake)
    assert LakeManifest.read(lake) == held
    assert_frame_equal(facts(lake), before)
    (lake / "watches/date=2019-01-01").mkdir()
    shutil.copy(lake / held.files[-1].path, lake / "watches/date=2019-01-01/000009.parquet")  # left by something else
    ingest(rest, lake)
    assert_frame_equal(facts(lake), facts(market))
    assert not list((lake / "watches/date=2019-01-01").iterdir())


def test_a_first_ingestion_that_was_killed_is_repeated(market: Path, tmp_path: Path) -> None:
    lake, told = tmp_path / "lake", []
    code = """
import os, sys
import recsys.events.lake.ingest as lake
from pathlib import Path
write = lake.write_part
def killed(path, rows):
    write(path, rows)
    if len(list(Path(sys.argv[2]).rglob("*.parquet"))) >= int(sys.argv[3]):
        os.kill(os.getpid(), 9)
lake.write_part = killed
lake.ingest(Path(sys.argv[1]), Path(sys.argv[2]), buckets=8)
"""
    for files in (1, 30):
        done = subprocess.run([sys.executable, "-c", code, str(market), str(lake), str(files)], check=False)
        told.append(done.returncode)
    assert told == [-signal.SIGKILL] * 2 and list(lake.rglob("*.parquet"))
    with pytest.raises(InputRefused, match="no usable event table"):
        open_events(lake)
    assert ingest(market, lake, buckets=2).buckets == 2  # nothing is in it yet
    assert_frame_equal(facts(lake), facts(market))
    listed = {file.path for file in LakeManifest.read(lake).files}
    assert {str(path.relative_to(lake)) for path in lake.rglob("*.parquet")} == listed


@pytest.mark.parametrize("rows", [20, 300])  # days are cut by buckets; days are read together
def test_how_many_rows_are_read_at_once_changes_nothing(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("recsys.events.lake.grouping.GROUP_ROWS", rows)
    found = ingest(market, tmp_path / "lake", buckets=4).tables
    assert all(table["new"] == table["read"] for table in found.values())
    assert_frame_equal(facts(tmp_path / "lake"), facts(market))


def test_late_rows_go_into_their_own_day(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    ingest(one(tmp_path / "a", "follows", user_id=1, host_id=2, at=T0, action="follow"), lake)
    late = T0 - timedelta(days=40)
    ingest(one(tmp_path / "b", "follows", user_id=1, host_id=3, at=late, action="follow"), lake)
    paths = sorted(str(path.relative_to(lake)) for path in lake.glob("follows/*/*/*"))
    assert paths == [
        "follows/date=2024-01-21/bucket=00/000002.parquet", "follows/date=2024-03-01/bucket=00/000001.parquet",
    ]  # fmt: skip
    assert [file.first_seq for file in LakeManifest.read(lake).files] == [1, 2]


def test_rows_that_break_rules_are_kept_for_the_quarantine(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {
            "user_id": [1, None, 1, 1],
            "host_id": [2, 2, 2, 2],
            "at": [T0, T0, None, datetime(9999, 1, 1, tzinfo=UTC)],
            "action": ["follow", "follow", "follow", "wink"],
        }
    )
    (tmp_path / "e").mkdir()
    rows.write_parquet(tmp_path / "e/follows.parquet")
    ingest(tmp_path / "e", tmp_path / "lake", buckets=8)
    assert quality(tmp_path / "lake") == quality(tmp_path / "e")


def test_compaction_changes_files_only(market: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    for day in range(5):
        ingest(cut(market, tmp_path / f"d{day}", 0, day + 1), lake, buckets=2)
    late = one(tmp_path / "late", "follows", user_id=1, host_id=2, at=T0, action="follow")
    ingest(late, lake)
    ingest(one(tmp_path / "later", "follows", user_id=1, host_id=3, at=T0, action="follow"), lake)
    before, open_before = facts(lake), clean(open_events(lake))
    done = compact(lake)
    assert done["files_after"] < done["files_before"]
    assert_frame_equal(facts(lake), before)
    assert _rows(open_before) == _rows(clean(open_events(lake)))  # a reader that began before it still reads
    assert compact(lake)["partitions"] == 0
    assert ingest(tmp_path / "d4", lake).tables == {}
    merged = [file for file in LakeManifest.read(lake).files if file.first_seq != file.last_seq]
    assert merged and all(file.rows > 1 for file in merged)


def test_text_ids(tmp_path: Path) -> None:
    rows = pl.DataFrame({"user_id": [f"u{i}" for i in range(50)], "host_id": ["h"] * 50, "at": [T0] * 50,
                         "action": ["follow"] * 50})  # fmt: skip
    (tmp_path / "e").mkdir()
    rows.write_parquet(tmp_path / "e/follows.parquet")
    ingest(tmp_path / "e", tmp_path / "lake", buckets=4)
    assert_frame_equal(facts(tmp_path / "lake"), facts(tmp_path / "e"))
    with pytest.raises(InputRefused, match="two kinds"):
        ingest(one(tmp_path / "n", "follows", user_id=1, host_id="h", at=T0, action="follow"), tmp_path / "lake")


def test_the_bucket_of_a_user_is_for_ever() -> None:
    numbers = pl.DataFrame({"id": [0, 1, 2, 64, 128, -1, 2**63 - 1, None]}, schema={"id": pl.Int64})
    assert numbers.select(bucket_of("id", pl.Int64(), 64)).to_series().to_list() == BUCKETS_OF_NUMBERS
    texts = pl.DataFrame({"id": ["", "a", "老铁", None]})
    assert texts.select(bucket_of("id", pl.String(), 64)).to_series().to_list() == BUCKETS_OF_TEXTS
    spread = pl.DataFrame({"id": pl.int_range(0, 640_000, 64, eager=True)}).select(bucket_of("id", pl.Int64(), 64))
    assert spread.to_series().value_counts()["count"].min() > 100  # ids that share a factor are spread too


BUCKETS_OF_NUMBERS = [0, 45, 27, 32, 1, 18, 45, 0]
BUCKETS_OF_TEXTS = [0, 3, 0, 0]


def test_what_is_no_lake_is_refused(market: Path, tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="no lake and not empty"):
        ingest(market, market)
    with pytest.raises(ConfigError, match="power of two"):
        ingest(market, tmp_path / "lake", buckets=3)
    follows = one(tmp_path / "a", "follows", user_id=1, host_id=2, at=T0, action="follow")
    ingest(follows, tmp_path / "lake", buckets=2)
    with pytest.raises(ConfigError, match="another number of buckets"):
        ingest(follows, tmp_path / "lake", buckets=4)
    listing = tmp_path / "lake" / "_lake.json"
    listing.write_bytes(orjson.dumps(orjson.loads(listing.read_bytes()) | {"schema_version": 99}))
    with pytest.raises(InputRefused, match="schema of the lake is unknown"):
        open_events(tmp_path / "lake")
    listing.write_text("{")
    with pytest.raises(InputRefused, match="not a lake"):
        open_events(tmp_path / "lake")


def test_commands(tmp_path: Path) -> None:
    follows = one(tmp_path / "a", "follows", user_id=1, host_id=2, at=T0, action="follow")
    lake = str(tmp_path / "lake")
    done = CliRunner().invoke(build_app(), ["ingest", str(follows), "--lake", lake, "--json"])
    assert done.exit_code == 0, done.output
    assert orjson.loads(done.stdout)["tables"] == {"follows": {"read": 1, "new": 1, "known": 0}}
    assert CliRunner().invoke(build_app(), ["compact", lake, "--json"]).exit_code == 0
    assert CliRunner().invoke(build_app(), ["validate", lake]).exit_code == 0
    assert CliRunner().invoke(build_app(), ["ingest", lake, "--lake", lake]).exit_code == 3


def _rows(events: Events) -> dict[str, int]:
    return {table: rows.select(pl.len()).collect().item() for table, rows in events.tables.items()}
