"""A small generated world in which it is known who buys what again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

START = datetime(2024, 1, 1, tzinfo=UTC)
AS_OF = START + timedelta(days=200)


def world(days: int = 240, users: int = 120, seed: int = 5) -> pl.DataFrame:
    """Every customer has a staple he buys every 10 days, a slow product every 50 days, and whims he never repeats."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        phase = rng.uniform(0, 10)
        for number, day in enumerate(np.arange(phase, days, 10.0)):
            basket = [f"staple{user % 7}"]
            if number % 5 == user % 5:
                basket.append(f"slow{user % 3}")
            if number % 3 == 0:
                basket.append(f"whim{number:03d}-{user % 4}")
            rows += [(f"{user}-{number}", user, product, day) for product in basket]
    frame = pl.DataFrame(rows, schema=["order_id", "user_id", "product", "day"], orient="row")
    return frame.select(
        pl.col("order_id"), pl.col("user_id").cast(pl.Int64), "product",
        title=pl.col("product").str.to_uppercase(),
        at=(pl.lit(START) + pl.duration(seconds=(pl.col("day") * 86_400).cast(pl.Int64))).dt.cast_time_unit("us"),
        quantity=pl.lit(2), amount_minor=pl.lit(500), country=pl.lit("UK"),
    )  # fmt: skip


@pytest.fixture(scope="session")
def orders_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rebuy") / "orders.parquet"
    world().write_parquet(path)
    return path
