"""Requests a replay cannot answer, or only in part: refused, or left out and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from tests.conftest import Built
from tests.e2e.commands import OUT_COLUMNS, done, laotie, refused


def test_rooms_nobody_has_told_of_are_left_out_and_counted(
    built: Built, tmp_path: Path, requests: pl.DataFrame
) -> None:
    room = requests["live_room_ids"][-1][0]
    asked = requests.with_columns(live_room_ids=pl.Series([[-3]] * (len(requests) - 1) + [[-1, room, -2]]))
    asked.write_parquet(tmp_path / "requests")
    rest = ("--requests", tmp_path / "requests", "--out", tmp_path / "out", "--json")
    result = laotie("replay", "--bundle", built.bundles, "--events", built.events, *rest)
    assert result.exit_code == 0, result.stderr
    assert orjson.loads(result.stdout)["unknown_rooms"] == len(requests) + 1
    assert pl.read_parquet(tmp_path / "out")["room_id"].to_list() == [room]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.with_columns(pl.col("at") - pl.duration(days=30)), "before the bundle's as-of"),
        (lambda r: r.with_columns(pl.col("at").dt.replace_time_zone(None)), "no UTC instants"),
        (lambda r: r.drop("user_id"), "lack columns"),
        (lambda r: r.with_columns(user_id=pl.lit(None, dtype=pl.Int64)), "nulls"),
        (lambda r: pl.concat([r, r.head(1)]), "got: 1 ids more than once, the first 'r0'"),
        (lambda r: r.with_columns(live_room_ids=pl.lit(5)), "rooms to rank are no lists"),
        (lambda r: r.with_columns(live_room_ids=pl.lit(["a"])), "requests, column live_room_ids; got: strings"),
    ],
)
def test_requests_that_cannot_be_answered(
    built: Built, tmp_path: Path, requests: pl.DataFrame, change: Any, message: str
) -> None:
    change(requests).write_parquet(tmp_path / "requests")
    rest = ("--requests", tmp_path / "requests", "--out", tmp_path / "out")
    assert message in refused("replay", "--bundle", built.bundles, "--events", built.events, *rest)
    assert not (tmp_path / "out").exists()


def test_no_requests_and_none_with_rooms(built: Built, tmp_path: Path, requests: pl.DataFrame) -> None:
    """The columns of an answer file have their types whatever is in it; its folder is made."""
    rest = ("--requests", tmp_path / "requests", "--out", tmp_path / "new" / "folder" / "out")
    schema = dict(zip(OUT_COLUMNS, (pl.String, pl.Int64, pl.Int64, pl.Int64, pl.Float64, pl.Float64), strict=True))
    for asked in (requests.clear(), requests.head(3).with_columns(live_room_ids=None)):
        asked.write_parquet(tmp_path / "requests")
        assert done("replay", "--bundle", built.bundles, "--events", built.events, *rest)["requests"] == len(asked)
        out = pl.read_parquet(rest[-1])
        assert dict(out.schema) == schema and out["request_id"].n_unique() == len(asked)


def test_requests_of_another_kind_of_ids_or_no_parquet(built: Built, tmp_path: Path, requests: pl.DataFrame) -> None:
    rest = ("--requests", tmp_path / "requests", "--out", tmp_path / "out")
    (tmp_path / "requests").write_bytes(b"PAR1 nothing")
    assert "cannot be read" in refused("replay", "--bundle", built.bundles, "--events", built.events, *rest)
    requests.with_columns(pl.col("user_id").cast(pl.String)).write_parquet(tmp_path / "requests")
    assert "ids of the other kind" in refused("replay", "--bundle", built.bundles, "--events", built.events, *rest)
    assert not (tmp_path / "out").exists()
