"""Features by hand on a few orders, and independence of the future."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from training.rebuy.features import pair_features, rebought
from training.rebuy.model import blend_within, split_columns
from training.rebuy.orders import Orders, read_orders

from .conftest import START, world

DAY0 = 1_000.0


def orders(rows: list[tuple[int, int, int, float]], cancelled: list[tuple[int, int, float]] | None = None) -> Orders:
    """`rows`: u, p, o, days after DAY0."""
    purchases = pl.DataFrame(
        rows, schema={"u": pl.UInt32, "p": pl.UInt32, "o": pl.UInt32, "day": pl.Float64}, orient="row"
    )
    purchases = purchases.with_columns(pl.col("day") + DAY0, quantity=pl.lit(1.0), amount=pl.lit(100.0)).sort(
        "u", "p", "day", "o"
    )
    gone = pl.DataFrame(cancelled or [], schema={"u": pl.UInt32, "p": pl.UInt32, "day": pl.Float64}, orient="row")
    ids = pl.Series(range(10))
    return Orders(purchases, gone.with_columns(pl.col("day") + DAY0), ids, ids, {}, ())


def test_by_hand() -> None:
    facts = orders([(0, 0, 0, 0), (0, 0, 1, 10), (0, 1, 1, 10), (0, 0, 2, 40), (1, 1, 3, 35)], [(0, 1, 12)])
    table = pair_features(facts, DAY0 + 50, 30, 90)
    row = table.row(by_predicate=(pl.col("u") == 0) & (pl.col("p") == 0), named=True)
    assert table.select("u", "p").rows() == [(0, 0), (0, 1), (1, 1)]
    assert (row["n"], row["last"], row["first"], row["last2"], row["last3"]) == (3, 10, 50, 40, 50)
    assert (row["gap_mean"], row["gap_last"], row["gap_min"], row["gap_max"]) == (20, 30, 10, 30)
    assert row["decayed20"] == pytest.approx(0.5**0.5 + 0.5**2 + 0.5**2.5)
    assert (row["baskets_since"], row["baskets_first"], row["u_n"], row["basket_share"]) == (0, 2, 3, 1)
    assert row["gap_shrunk"] == pytest.approx((20 * 2 + 1.5 * 20 + 1.5 * 20) / 5)
    assert row["cancelled"] is None
    other = table.row(by_predicate=(pl.col("u") == 0) & (pl.col("p") == 1), named=True)
    assert (other["baskets_since"], other["cancelled"], other["cancelled_age"]) == (1, 1, 38)
    assert (other["p_n"], other["p_users"], other["p_last"]) == (2, 2, 15)


def test_inactive_customers_are_left_out_but_teach_products() -> None:
    facts = orders([(0, 0, 0, 0), (1, 0, 1, 150)])
    table = pair_features(facts, DAY0 + 160, 30, 90)
    assert table["u"].to_list() == [1]
    assert table["p_users"].to_list() == [2]


def test_labels_are_distinct_pairs_in_the_half_open_horizon() -> None:
    facts = orders([(0, 0, 0, 0), (0, 0, 1, 30), (0, 1, 1, 0.5), (0, 1, 2, 29.9), (0, 2, 3, -0.1)])
    assert rebought(facts, DAY0, 30).sort("u", "p").select("u", "p").rows() == [(0, 0), (0, 1)]


def test_features_ignore_later_facts(orders_path: Path) -> None:
    cut = float(pl.Series([START]).dt.epoch("us").item()) / 8.64e10 + 120
    whole, cropped = read_orders(orders_path, cut + 100), read_orders(orders_path, cut)
    names = [c for c in pair_features(cropped, cut, 30, 90).columns if c not in ("u", "p")]

    def named(facts: Orders) -> pl.DataFrame:
        table = pair_features(facts, cut, 30, 90)
        return table.select(
            *names, user=facts.users.gather(table["u"]), product=facts.products.gather(table["p"])
        ).sort("user", "product")

    assert_frame_equal(named(whole), named(cropped))


def test_split_columns_keeps_most_customer_facts_out_of_the_product_stage() -> None:
    product, customer = split_columns(["n", "u_n", "u_due", "w_u_rate", "p_n", "w_p_rate"])
    assert product.tolist() == [0, 1, 4, 5]
    assert customer.tolist() == [1, 2, 3]


def test_blend_keeps_the_mean_of_each_customer() -> None:
    rng = np.random.default_rng(0)
    z, score, group = rng.normal(size=30), rng.normal(size=30), np.repeat([0, 1, 2], [1, 9, 20])
    mixed = blend_within(z, score, group, 0.5)
    np.testing.assert_allclose(np.bincount(group, mixed), np.bincount(group, z))
    assert mixed[0] == pytest.approx(z[0])
    order = np.argsort(blend_within(z, score, group, 1.0)[10:])
    assert order.tolist() == np.argsort(score[10:]).tolist()
    np.testing.assert_array_equal(blend_within(z, np.ones(30), group, 0.5), z)


def test_the_generated_world_has_its_rhythm() -> None:
    staples = world(days=60, users=2).filter(pl.col("product") == "staple0").sort("at")
    assert staples["at"].diff().drop_nulls().dt.total_days().unique().to_list() in ([10], [9, 10])
