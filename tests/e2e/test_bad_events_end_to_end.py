"""Bad and thin input through the commands: one clear message and exit 3, or a bundle that says what it skipped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.conftest import SET
from tests.e2e.commands import done, laotie

T0 = datetime(2024, 3, 1, 18, tzinfo=UTC)
UTC_US = pl.Datetime("us", "UTC")


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def refused(events: Path, out: Path) -> str:
    """Build and validate both end with exit 3, one message, no traceback; nothing is published."""
    messages = []
    for arguments in (("build", events, "--out", out, *SET), ("validate", events)):
        result = laotie(*arguments)
        assert result.exit_code == 3, (arguments, result.exit_code, result.stdout, result.stderr)
        assert "Traceback" not in result.stderr and result.stdout == ""
        lines = [line for line in result.stderr.splitlines() if line.startswith("laotie: ")]
        assert len(lines) == 1
        messages += lines
    assert not (out / "CURRENT").exists()
    return messages[0]


def write(folder: Path, **frames: pl.DataFrame) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for name, frame in frames.items():
        frame.write_parquet(folder / f"{name}.parquet")
    return folder


def rooms(n: int = 6, n_hosts: int = 3) -> pl.DataFrame:
    """One broadcast an hour, in turn; the last two are still on air."""
    ends = [at(60 * i + 50) if i < n - 2 else None for i in range(n)]
    return pl.DataFrame(
        {
            "room_id": range(n),
            "host_id": [i % n_hosts for i in range(n)],
            "started_at": [at(60 * i) for i in range(n)],
            "ended_at": pl.Series(ends, dtype=UTC_US),
        }
    )


def watches(n_users: int = 8, n: int = 6, n_hosts: int = 3) -> pl.DataFrame:
    rows = [(u, i % n_hosts, i, at(60 * i + u + 1)) for i in range(n) for u in range(n_users) if (u + i) % 3]
    return pl.DataFrame(rows, schema=["user_id", "host_id", "room_id", "entered_at"], orient="row")


def follows(n_users: int = 8, n_hosts: int = 3) -> pl.DataFrame:
    rows = [(u, h, at(u), "follow") for u in range(n_users) for h in range(n_hosts) if (u + h) % 2]
    return pl.DataFrame(rows, schema=["user_id", "host_id", "at", "action"], orient="row")


def purchases(n: int = 60) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "order_id": range(n),
            "user_id": rng.integers(0, 12, n),
            "host_id": rng.integers(0, 8, n),
            "at": [at(i * 97) for i in range(n)],
            "amount_minor": rng.integers(100, 9_999, n),
        }
    )


def built(events: Path, out: Path, *more: object) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    document = done("build", events, "--out", out, *SET, *more)
    return document, {stage["name"]: stage for stage in document["stages"]}


def answers(out: Path, user: object, k: int = 5) -> list[dict[str, Any]]:
    rooms: list[dict[str, Any]] = done("lookup", "--bundle", out, "--user", user, "-k", k)["rooms"]
    return rooms


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "watches" in refused(tmp_path / "empty", tmp_path / "b")
    assert "watches" in refused(write(tmp_path / "users", users=pl.DataFrame({"user_id": [1]})), tmp_path / "b")


def test_watches_without_rooms(tmp_path: Path) -> None:
    """There is no live index then, and nobody can be told to have come back."""
    document, stages = built(write(tmp_path / "e", watches=watches()), tmp_path / "b")
    assert document["counts"]["state_visits"] > 0 and document["counts"]["live_rooms"] == 0
    assert stages["ranker"]["status"] == stages["strength"]["status"] == "skipped"
    assert answers(tmp_path / "b", 1) == []


def test_truncated_parquet(tmp_path: Path) -> None:
    events = write(tmp_path / "e", watches=watches(), rooms=rooms())
    whole = (events / "watches.parquet").read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        (events / "watches.parquet").write_bytes(whole[:size])
        assert "watches" in refused(events, tmp_path / "b")


@pytest.mark.parametrize("column", ["user_id", "host_id", "room_id", "entered_at"])
def test_a_required_column_is_missing(tmp_path: Path, column: str) -> None:
    events = write(tmp_path / "e", watches=watches().drop(column), rooms=rooms())
    assert column in refused(events, tmp_path / "b")


def test_times_without_a_zone(tmp_path: Path) -> None:
    naive = watches().with_columns(pl.col("entered_at").dt.replace_time_zone(None))
    assert "entered_at" in refused(write(tmp_path / "e", watches=naive, rooms=rooms()), tmp_path / "b")


def test_both_kinds_of_ids_in_one_role(tmp_path: Path) -> None:
    text = watches().with_columns(pl.format("h{}", pl.col("host_id")).alias("host_id"))
    assert "host" in refused(write(tmp_path / "e", watches=text, rooms=rooms()), tmp_path / "b")


def test_empty_tables_have_nothing_to_build_from(tmp_path: Path) -> None:
    events = write(tmp_path / "e", watches=watches().clear(), rooms=rooms().clear())
    result = laotie("build", events, "--out", tmp_path / "b", *SET)
    assert result.exit_code == 3 and "Traceback" not in result.stderr
    assert done("validate", events)["tables"]["watches"]["rows"] == 0


def test_all_rows_set_aside(tmp_path: Path) -> None:
    far = follows().with_columns(at=pl.lit(datetime(2099, 1, 1, tzinfo=UTC)).cast(UTC_US))
    events = write(tmp_path / "e", follows=far)
    assert done("validate", events)["tables"]["follows"] == {
        "rows": len(far), "good": 0, "quarantined": {"later_than_now": len(far)},
    }  # fmt: skip
    assert laotie("build", events, "--out", tmp_path / "b", *SET).exit_code == 3


def test_broken_rows_are_set_aside_and_the_rest_is_served(tmp_path: Path) -> None:
    """One row of 2099, one unknown action, one null: the as-of and the answers are those of the good rows."""
    broken = pl.DataFrame(
        [
            (1, 2, datetime(2099, 1, 1, tzinfo=UTC), "follow"),
            (1, 2, at(5), "wave"),
            (None, 2, at(5), "follow"),
        ],
        schema=follows().schema,
        orient="row",
    )
    dirty = write(
        tmp_path / "dirty",
        follows=pl.concat([follows(), broken]),
        rooms=rooms().with_columns(surprise=pl.lit("unknown column")),
        watches=watches(),
    )
    clean = write(tmp_path / "clean", follows=follows(), rooms=rooms(), watches=watches())
    report = done("validate", dirty)["tables"]["follows"]
    assert report["quarantined"] == {"later_than_now": 1, "unknown_action": 1, "null_key": 1}
    a, _ = built(dirty, tmp_path / "a")
    b, _ = built(clean, tmp_path / "b")
    assert a["as_of_us"] == b["as_of_us"] and a["counts"] == b["counts"]
    assert answers(tmp_path / "a", 1) == answers(tmp_path / "b", 1) != []


def test_a_small_market_is_served_by_stated_weights(tmp_path: Path) -> None:
    _, stages = built(write(tmp_path / "e", follows=follows(), rooms=rooms(), watches=watches()), tmp_path / "b")
    skipped = {name for name, stage in stages.items() if stage["status"] == "skipped"}
    assert {"ranker", "strength"} <= skipped and all(stages[name]["why"] for name in skipped)
    live = answers(tmp_path / "b", 1)
    assert [room["room_id"] for room in live] and {room["room_id"] for room in live} == {4, 5}
    assert [room["strength"] for room in live] == [None, None]  # nothing stands behind a number
    assert laotie("lookup", "--bundle", tmp_path / "b", "--user", 1).stdout.count("strength –  ") == 2


def test_follows_only(tmp_path: Path) -> None:
    """Like a crawl: one and the same time everywhere, nothing on air."""
    rng = np.random.default_rng(1)
    pairs = np.unique(rng.integers(0, 60, (900, 2)), axis=0)
    crawl = pl.DataFrame({"user_id": pairs[:, 0], "host_id": pairs[:, 1]}).with_columns(
        at=pl.lit(T0).cast(UTC_US), action=pl.lit("follow")
    )
    document, stages = built(write(tmp_path / "e", follows=crawl), tmp_path / "b")
    assert document["counts"]["state_relation"] == len(crawl)
    assert {n for n, s in stages.items() if s["status"] == "skipped"} >= {"ranker", "strength", "transition"}
    assert stages["factors"]["status"] == stages["graph"]["status"] == "passed"
    assert answers(tmp_path / "b", int(pairs[0, 0])) == []


def test_follows_only_and_rooms_told_later(tmp_path: Path) -> None:
    """What a crawl taught ranks the rooms that replay brings: followed hosts first."""
    rng = np.random.default_rng(1)
    pairs = np.unique(rng.integers(0, 40, (700, 2)), axis=0)
    crawl = pl.DataFrame({"user_id": pairs[:, 0], "host_id": pairs[:, 1]}).with_columns(
        at=pl.lit(T0).cast(UTC_US), action=pl.lit("follow")
    )
    built(write(tmp_path / "e", follows=crawl), tmp_path / "b")
    later = pl.DataFrame({"room_id": range(40), "host_id": range(40)}).with_columns(
        started_at=pl.lit(at(10)).cast(UTC_US)
    )
    asked = pl.DataFrame({"request_id": [1, 2], "user_id": [3, 999], "at": [at(20), at(20)]})
    asked.write_parquet(tmp_path / "asked")
    arguments = ("--requests", tmp_path / "asked", "--out", tmp_path / "out")
    done("replay", "--bundle", tmp_path / "b", "--events", write(tmp_path / "m", rooms=later), *arguments)
    out = pl.read_parquet(tmp_path / "out")
    followed = set(crawl.filter(pl.col("user_id") == 3)["host_id"])
    first = out.filter(pl.col("request_id") == 1).sort("rank")["host_id"].to_list()
    assert out["strength"].null_count() == len(out) and out["strength"].dtype == pl.Float64
    assert set(first[: len(followed)]) == followed and len(first) == 40
    assert len(out.filter(pl.col("request_id") == 2)) == 40


def test_purchases_only(tmp_path: Path) -> None:
    document, stages = built(write(tmp_path / "e", purchases=purchases()), tmp_path / "b")
    assert document["counts"]["state_commerce"] > 0
    assert {n for n, s in stages.items() if s["status"] == "skipped"} >= {"ranker", "strength", "transition"}
    assert answers(tmp_path / "b", 1) == []


def test_rooms_and_watches_only(tmp_path: Path) -> None:
    built(write(tmp_path / "e", rooms=rooms(), watches=watches()), tmp_path / "b")
    live = answers(tmp_path / "b", 1)
    assert {room["room_id"] for room in live} == {4, 5}
    assert live[0]["source"] == "visited_before" and live[0]["reasons"][0].startswith("came ")


def test_one_user_with_very_many_events_and_one_host_with_all_followers(tmp_path: Path) -> None:
    n = 60_000
    rng = np.random.default_rng(2)
    room = rng.integers(0, 5, n)
    many = pl.DataFrame(
        {
            "user_id": np.zeros(n, dtype=np.int64),
            "host_id": room % 3,
            "room_id": room,
            "entered_at": pl.Series(
                [int(T0.timestamp() * 1e6)] * n
            ) + pl.Series(room * 3_600_000_000 + rng.permutation(n) * 40_000 + 1),
        }
    ).with_columns(pl.col("entered_at").cast(UTC_US))  # fmt: skip
    fans = pl.DataFrame({"user_id": range(20_000)}).with_columns(
        host_id=pl.lit(0, dtype=pl.Int64), at=pl.lit(at(1)).cast(UTC_US), action=pl.lit("follow")
    )
    events = write(tmp_path / "e", rooms=rooms(5), watches=many, follows=fans)
    document, _ = built(
        events, tmp_path / "b", "--set", "build.ranker_requests=300", "--set", "build.strength_rows=600"
    )
    assert document["counts"]["users"] == 20_000 and document["counts"]["hosts"] == 3
    assert answers(tmp_path / "b", 0) and answers(tmp_path / "b", 19_999)[0]["reasons"]


def test_an_interrupted_or_refused_build_leaves_what_was_served(tmp_path: Path) -> None:
    good = write(tmp_path / "e", rooms=rooms(12, 6), watches=watches(30, 12, 6))
    document, _ = built(good, tmp_path / "b")
    assert document["metrics"]["index_recall_at_100"] == 1.0
    impossible = '[{"name": "never", "metric": "index_recall_at_100", "minimum": 2.0}]'
    result = laotie("build", good, "--out", tmp_path / "b", *SET, "--set", f"gates={impossible}")
    assert result.exit_code == 4 and "never" in result.stderr and "Traceback" not in result.stderr
    assert (tmp_path / "b" / "CURRENT").read_text().strip() == document["bundle"]
    assert laotie("build", tmp_path / "e", "--out", tmp_path / "b", "--set", "ties.nothing=1").exit_code == 2
    assert answers(tmp_path / "b", 1)
