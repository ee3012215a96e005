"""The same arguments give the same rows, whatever runs in parallel; the output appears complete or not at all."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.errors import ConfigError, InputRefused
from recsys.events.simulator import WorldConfig, demo_world, load_world, market, simulate
from recsys.events.simulator.config import Exposure
from recsys.events.simulator.tables import SCHEMAS

TABLES = (
    "rooms", "follows", "watches", "engagements", "purchases", "refunds", "feedback", "impressions", "notices", "hosts",
    "users", "_truth/strengths", "_truth/users", "_truth/hosts", "_truth/cheats",
)  # fmt: skip


def assert_same_events(one: Path, other: Path) -> None:
    for table in TABLES:
        left = sorted(path.relative_to(one) for path in (one / table).glob("*.parquet"))
        assert left == sorted(path.relative_to(other) for path in (other / table).glob("*.parquet"))
        for path in left:
            assert_frame_equal(pl.read_parquet(one / path), pl.read_parquet(other / path))


def test_same_seed_same_rows_and_another_seed_other_rows(tmp_path: Path) -> None:
    world = WorldConfig()
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        simulate(world, users=120, hosts=40, days=6, seed=seed, out=tmp_path / name)
    assert_same_events(tmp_path / "a", tmp_path / "b")
    watches = [pl.read_parquet(tmp_path / name / "watches" / "*.parquet") for name in ("a", "c")]
    assert not watches[0].equals(watches[1])


def test_rows_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    size = {"users": market.PART_USERS + 300, "hosts": 60, "days": 1, "seed": 9}
    simulate(WorldConfig(), **size, out=tmp_path / "one")
    simulate(WorldConfig(), **size, out=tmp_path / "two", processes=2)
    assert len(list((tmp_path / "two" / "users").glob("*.parquet"))) == 2
    assert_same_events(tmp_path / "one", tmp_path / "two")


def test_demo_world_is_small_and_ends_with_rooms_on_air(tmp_path: Path) -> None:
    report = demo_world(tmp_path / "demo")
    assert 40_000 <= report.events <= 80_000
    rooms = pl.read_parquet(report.out / "rooms" / "*.parquet")
    assert rooms["ended_at"].null_count() >= 5
    watches = pl.read_parquet(report.out / "watches" / "*.parquet")
    assert watches["left_at"].null_count() >= 1
    assert report.rows["watches"] == watches.height


def test_report_counts_what_is_on_disk_and_progress_reaches_the_end(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    start = datetime(2025, 1, 1, tzinfo=timezone(timedelta(hours=8)))
    report = simulate(
        WorldConfig(),
        users=50,
        hosts=20,
        days=3,
        seed=1,
        out=tmp_path / "world",
        start=start,
        progress=lambda stage, share: told.append((stage, share)),
    )
    assert report.start == start
    assert report.end == start + timedelta(days=3)
    assert told[-1] == ("done", 1.0)
    assert [share for _, share in told] == sorted(share for _, share in told)
    for table, rows in report.rows.items():
        assert pl.read_parquet(report.out / table / "*.parquet").height == rows
    assert report.size_bytes == sum(path.stat().st_size for path in report.out.rglob("*.parquet"))


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("mine")
    with pytest.raises(InputRefused, match="not empty"):
        simulate(WorldConfig(), users=5, hosts=5, days=1, seed=1, out=tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "precious"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the pen broke")

    monkeypatch.setattr(market, "brush_orders", fail)
    with pytest.raises(RuntimeError, match="the pen broke"):
        simulate(WorldConfig(), users=5, hosts=5, days=1, seed=1, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [{"users": 0}, {"hosts": 0}, {"days": 0}, {"seed": -1}, {"processes": 0}, {"start": datetime(2025, 1, 1)}]
)
def test_sizes_out_of_range_are_config_errors(wrong: dict[str, object], tmp_path: Path) -> None:
    size: dict[str, object] = {"users": 5, "hosts": 5, "days": 1, "seed": 1}
    with pytest.raises(ConfigError):
        simulate(WorldConfig(), out=tmp_path / "out", **(size | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(("users", "hosts", "days"), [(1, 1, 1), (3, 1, 2), (1, 300, 1)])
def test_the_smallest_markets_work(users: int, hosts: int, days: int, tmp_path: Path) -> None:
    report = simulate(WorldConfig(), users=users, hosts=hosts, days=days, seed=2, out=tmp_path / "out")
    assert report.rows["users"] == users
    for table, schema in SCHEMAS.items():
        assert dict(pl.read_parquet(report.out / table / "*.parquet").schema) == schema, table


def test_worlds_of_the_repository_load_and_the_default_is_private_domain() -> None:
    assert load_world("private_domain") == WorldConfig()
    names = {load_world(name).name for name in ("private_domain", "traffic", "counts_suffice")}
    assert names == {"private_domain", "traffic", "counts_suffice"}


def test_wrong_worlds_are_refused_with_every_fault_and_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="counts_suffice"):
        load_world("atlantis")
    with pytest.raises(ConfigError, match="there is no such world file"):
        load_world(tmp_path / "none.yaml")
    path = tmp_path / "wrong.yaml"
    path.write_text("visits: {stay_medain_minutes: 3}\nhosts: {newcomer_share: 7}\n")
    with pytest.raises(ConfigError) as caught:
        load_world(path)
    assert "visits.stay_medain_minutes" in str(caught.value)
    assert "hosts.newcomer_share" in str(caught.value)
    path.write_text("- a list\n")
    with pytest.raises(ConfigError, match="map of sections"):
        load_world(path)
    path.write_text("name: [\n")
    with pytest.raises(ConfigError, match="YAML"):
        load_world(path)
    with pytest.raises(ValueError, match="explore slot shares"):
        WorldConfig(exposure=Exposure(newcomer_slot_share=0.6, venue_slot_share=0.6))
