"""An erased user and the lake: out of it for good, whatever brings him back and whatever interrupts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.erasure import Erasure
from recsys.events import open_events
from recsys.events.lake import erasing as lake_erasing
from recsys.events.lake.erasing import erase_from_lake
from recsys.events.lake.from_log import ingest_log
from recsys.events.lake.ingest import ingest
from recsys.events.lake.manifest import LakeManifest
from serving.config import ServingConfig
from serving.engine import Engine

from .served_world import AS_OF, Clock
from .test_serving_erasure import files_with

S = 1_000_000
CONFIG = ServingConfig(lease_s=0.0)


def of_users(events: Path) -> Iterator[pl.Series]:
    for table in events.glob("*.parquet"):
        rows = pl.read_parquet(table)
        if "user_id" in rows.columns:
            yield rows["user_id"]


def test_old_exports_do_not_bring_him_back_into_the_lake(texts: Path, world: Path, buyer: str) -> None:
    until = datetime(2024, 6, 4, 12, tzinfo=UTC)
    erase_from_lake(world / "lake", [Erasure.of(buyer, AS_OF)], buyer)
    for name in ("watches", "rooms"):
        table = pl.read_parquet(texts / "events" / f"{name}.parquet")
        (world / "again").mkdir(exist_ok=True)
        table.reverse().write_parquet(world / "again" / f"{name}.parquet")  # other bytes, the same rows
    report = ingest(world / "again", world / "lake")
    his = pl.read_parquet(texts / "events" / "watches.parquet").filter(pl.col("user_id") == buyer)
    late = his.filter(pl.col("entered_at") > until)
    assert 0 < late.height < his.height
    counted = report.tables["watches"]
    assert (counted["erased"], counted["new"]) == (his.height - late.height, 0)
    held = pl.concat(
        pl.read_parquet(world / "lake" / file.path, hive_partitioning=False, columns=["user_id", "entered_at"])
        for file in LakeManifest.read(world / "lake").files
        if file.table == "watches"
    ).filter(pl.col("user_id") == buyer)
    assert held["entered_at"].sort().to_list() == late["entered_at"].sort().to_list()


def test_the_log_takes_erasures_into_the_lake(texts: Path, world: Path, buyer: str) -> None:
    follow = {"user_id": buyer, "host_id": 1, "action": "follow"}
    clock = Clock(AS_OF + 10 * 86_400 * S)
    with Engine.open(world / "bundles", world / "log.db", CONFIG, clock) as engine:
        engine.apply([("old", "follows", follow | {"at": clock.now - S})])
        engine.erase(buyer)
        clock.now += 10 * S
        engine.apply([("late", "follows", follow | {"at": clock.now - 11 * S})])
        engine.apply([("new", "follows", follow | {"at": clock.now})])
    report = ingest_log(world / "log.db", world / "lake")
    rows = sum(int((table == buyer).sum()) for table in of_users(texts / "events"))
    assert sum(report.erased.values()) == rows + 1  # and refunds, if he had any
    assert {name: n for name, n in report.erased.items() if name == "follows"}.get("follows", 0) >= 1
    held = open_events(world / "lake").scans["follows"].filter(user_id=buyer).collect()
    assert held["at"].dt.epoch("us").to_list() == [clock.now]
    assert ingest_log(world / "log.db", world / "lake").erased == {}


@pytest.mark.parametrize("step", ["a file", "the swap", "the removal"])
def test_an_interrupted_erasure_leaves_a_whole_lake_and_is_finished_by_the_next(
    world: Path, buyer: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    erasure, before = [Erasure.of(buyer, 2**60)], LakeManifest.read(world / "lake")
    rows = sum(file.rows for file in before.files)
    with monkeypatch.context() as patched:
        if step == "a file":
            done: list[Path] = []
            write: Callable[..., None] = lake_erasing.write_part
            patched.setattr(
                lake_erasing, "write_part", lambda p, r: stop() if len(done) == 2 else (done.append(p), write(p, r))
            )
        elif step == "the swap":
            patched.setattr(LakeManifest, "write", stop)
        else:
            swept = lake_erasing.sweep
            patched.setattr(lake_erasing, "sweep", lambda at, m: stop() if m.erased else swept(at, m))
        with pytest.raises(KeyboardInterrupt):
            erase_from_lake(world / "lake", erasure, buyer)
    now = LakeManifest.read(world / "lake")
    assert all((world / "lake" / file.path).is_file() for file in now.files)
    if step != "the removal":
        assert now == before and sum(file.rows for file in now.files) == rows
    erase_from_lake(world / "lake", erasure)  # by pseudonym alone
    assert files_with(world / "lake", buyer) == []
