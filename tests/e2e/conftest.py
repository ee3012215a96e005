"""What several tests ask of the generated market."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import Built
from tests.e2e.commands import tables


@pytest.fixture(scope="module")
def events(market: Path) -> dict[str, pl.DataFrame]:
    return tables(market)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Event tables of a market of 80 users and twelve days."""
    from recsys.events.simulator import load_world, simulate

    out = tmp_path_factory.mktemp("small") / "events"
    simulate(load_world("private_domain"), users=80, hosts=20, days=12, seed=5, out=out)
    return out


@pytest.fixture(scope="module")
def requests(built: Built, events: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Every twentieth entry after the as-of as a request, with the rooms live then."""
    as_of = datetime.fromtimestamp(built.as_of_us / 1e6, UTC)
    watches = events["watches"].filter(pl.col("entered_at") >= as_of).sort("entered_at", "user_id", "room_id")
    asked = watches.gather_every(20).select("user_id", pl.col("entered_at").alias("at"))
    rooms = events["rooms"]
    live = [
        rooms.filter((pl.col("started_at") < at) & ~(pl.col("ended_at") < at).fill_null(False))["room_id"].to_list()
        for at in asked["at"]
    ]
    frame = asked.with_columns(live_room_ids=pl.Series(live, dtype=pl.List(pl.Int64)))
    return frame.with_columns(request_id=pl.Series([f"r{i}" for i in range(len(frame))])).select(
        "request_id", "user_id", "at", "live_room_ids"
    )
