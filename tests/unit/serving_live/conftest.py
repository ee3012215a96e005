"""One small market and its bundle for all tests of the service."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from recsys.events import open_events
from recsys.events.lake.ingest import ingest

from .served_world import AS_OF, Clock, simulated, write_bundle


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `events` and `bundles`."""
    root = tmp_path_factory.mktemp("market")
    write_bundle(simulated(root / "events"), root / "bundles")
    return root


@pytest.fixture
def clock() -> Clock:
    """A hundred seconds after the bundle's as-of."""
    return Clock(AS_OF + 100_000_000)


def spelt(table: pl.DataFrame) -> pl.DataFrame:
    """Users and orders by text that a search of bytes cannot mistake."""
    return table.with_columns(
        pl.format(f"{of}-<{{}}>", pl.col(f"{of}_id")).alias(f"{of}_id")
        for of in ("user", "order")
        if f"{of}_id" in table.columns
    )


@pytest.fixture(scope="session")
def texts(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`events`, a `lake` of them and `bundles` of two bundles, with text ids."""
    root = tmp_path_factory.mktemp("texts")
    (root / "events").mkdir()
    for table in open_events(market / "events").scans:
        rows = pl.read_parquet(market / "events" / table, hive_partitioning=False)
        spelt(rows).write_parquet(root / "events" / f"{table}.parquet")
    ingest(root / "events", root / "lake", buckets=2)
    for name in ("b1", "b2"):
        write_bundle(root / "events", root / "bundles", name)
    return root


@pytest.fixture
def world(texts: Path, tmp_path: Path) -> Path:
    """A `lake` and `bundles` with text ids to change."""
    for name in ("lake", "bundles"):
        shutil.copytree(texts / name, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="session")
def buyer(texts: Path) -> str:
    """A user with orders before the bundle's as-of."""
    past = pl.read_parquet(texts / "events" / "purchases.parquet").filter(pl.col("at").dt.epoch("us") < AS_OF)
    return str(past["user_id"].mode().sort()[0])
