"""The command as a whole: planted rhythms, no look ahead, other shapes of input, reported fallbacks."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from recsys.errors import InputRefused
from training.rebuy.bench import Backtest, bench_rebuy, level_from, training_cuts
from training.rebuy.config import RebuyConfig, TreeConfig

from .conftest import AS_OF, START, world

SMALL = TreeConfig(rounds=25, min_leaf_rows=20, l2=1.0, leaves=7, learning_rate=0.15)
QUICK = RebuyConfig(orders_trees=SMALL, product_trees=SMALL, rank_trees=SMALL, cut_step_days=20.0, backtests=1)


def run(path: Path, out: Path, as_of: datetime = AS_OF, horizon: int = 30, **kwargs: object) -> pl.DataFrame:
    bench_rebuy(path, as_of, horizon, out, config=QUICK, **kwargs)  # type: ignore[arg-type]
    return pl.read_parquet(out)


def test_planted_cadence_is_found(orders_path: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    report = bench_rebuy(
        orders_path, AS_OF, 30, tmp_path / "p.parquet", config=QUICK, progress=lambda step, _: steps.append(step)
    )
    p = pl.read_parquet(tmp_path / "p.parquet")
    kind = p.with_columns(kind=pl.col("product").str.extract("^([a-z]+)")).group_by("kind").agg(pl.col("p").mean())
    mean = dict(kind.iter_rows())
    assert report.method == "boosting"
    assert report.reason is None
    assert len(report.backtests) == 1
    assert mean["staple"] > 0.9 > 0.4 > mean["whim"]
    assert mean["whim"] < 0.05
    assert mean["whim"] < mean["slow"] < mean["staple"]
    assert {"orders", "features", "model", "backtest"} <= set(steps)
    assert report.pairs == len(p)
    assert p["p"].is_between(0, 1).all()


def test_pairs_are_active_customers_times_everything_they_bought(orders_path: Path, tmp_path: Path) -> None:
    p = run(orders_path, tmp_path / "p.parquet")
    before = pl.read_parquet(orders_path).filter(pl.col("at") < AS_OF)
    assert p.columns == ["user_id", "product", "p"]
    assert p.drop("p").equals(before.select("user_id", "product").unique().sort("user_id", "product"))


def test_the_future_changes_nothing(orders_path: Path, tmp_path: Path) -> None:
    """Facts at or after as-of are shuffled, altered, removed; rows come in another order: the same bytes of p."""
    facts = pl.read_parquet(orders_path)
    late = pl.col("at") >= AS_OF
    future = facts.filter(late)
    nonsense = future.with_columns(
        pl.col("user_id").shuffle(1), pl.col("product").shuffle(2), quantity=pl.lit(-5),
        order_id="C" + pl.col("order_id"),
    )  # fmt: skip
    stranger = future.head(1).with_columns(user_id=pl.lit(-7, dtype=pl.Int64), product=pl.lit("aaa"), at=pl.lit(AS_OF))
    answers = []
    for number, table in enumerate(
        (
            facts,
            facts.filter(~late),
            pl.concat(
                [stranger, nonsense, facts.filter(~late).sample(fraction=1, shuffle=True, seed=3)],
                how="vertical_relaxed",
            ),
        )
    ):
        path = tmp_path / f"{number}.parquet"
        table.write_parquet(path)
        answers.append(run(path, tmp_path / f"out{number}.parquet"))
    assert len(answers[0]) > 500
    assert answers[1].equals(answers[0])
    assert answers[2].equals(answers[0])


def test_string_ids_and_absent_optional_columns(orders_path: Path, tmp_path: Path) -> None:
    table = pl.read_parquet(orders_path).select(
        "order_id",
        "product",
        user_id="buyer " + pl.col("user_id").cast(pl.String),
        at=pl.col("at").dt.replace_time_zone(None),
    )
    table.write_parquet(tmp_path / "o.parquet")
    report = bench_rebuy(tmp_path / "o.parquet", AS_OF.replace(tzinfo=None), 14, tmp_path / "p.parquet", config=QUICK)
    p = pl.read_parquet(tmp_path / "p.parquet")
    assert p.schema["user_id"] == pl.String
    assert report.missing_columns == ("quantity", "amount_minor")
    assert report.method == "boosting"
    assert p.filter(pl.col("product").str.starts_with("staple"))["p"].mean() > 0.8  # type: ignore[operator]


def test_cancelled_orders_are_no_purchases_and_null_customers_are_counted(orders_path: Path, tmp_path: Path) -> None:
    facts = pl.read_parquet(orders_path)
    extra = facts.filter(pl.col("at") < AS_OF).head(3).with_columns(product=pl.Series(["gone", "back", "nobody"]))
    extra = extra.with_columns(
        order_id=pl.Series(["C1", "x2", "x3"]), quantity=pl.Series([1, -1, 1], dtype=facts.schema["quantity"]),
        user_id=pl.Series([0, 0, None], dtype=pl.Int64),
    )  # fmt: skip
    pl.concat([facts, extra]).write_parquet(tmp_path / "o.parquet")
    report = bench_rebuy(tmp_path / "o.parquet", AS_OF, 30, tmp_path / "p.parquet", config=QUICK)
    assert not set(pl.read_parquet(tmp_path / "p.parquet")["product"]) & {"gone", "back", "nobody"}
    assert report.dropped_rows == {"user_id": 1}


def test_little_history_falls_back_and_says_so(orders_path: Path, tmp_path: Path) -> None:
    report = bench_rebuy(orders_path, START + timedelta(days=70), 30, tmp_path / "p.parquet", config=QUICK)
    assert report.method == "counting"
    assert report.reason is not None
    assert "70 days of history" in report.reason
    assert "calibrated on one window" in report.notes[0]
    shorter = bench_rebuy(orders_path, START + timedelta(days=20), 30, tmp_path / "q.parquet", config=QUICK)
    assert "not calibrated" in shorter.notes[0]
    p = pl.read_parquet(tmp_path / "p.parquet").with_columns(staple=pl.col("product").str.starts_with("staple"))
    mean = dict(p.group_by("staple").agg(pl.col("p").mean()).iter_rows())
    assert mean[True] > 2 * mean[False]


def test_few_rebuys_fall_back(orders_path: Path, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"min_rebuys": 10**6})
    report = bench_rebuy(orders_path, AS_OF, 30, tmp_path / "p.parquet", config=config)
    assert report.method == "counting"
    assert "repurchases in the training windows" in str(report.reason)


def test_nobody_active(orders_path: Path, tmp_path: Path) -> None:
    report = bench_rebuy(orders_path, AS_OF + timedelta(days=500), 30, tmp_path / "p.parquet", config=QUICK)
    assert report.method == "nothing to score"
    assert "90 days" in str(report.reason)
    assert pl.read_parquet(tmp_path / "p.parquet").is_empty()


def test_large_tables_are_sampled_and_it_is_noted(orders_path: Path, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"max_training_pairs": 5_000})
    report = bench_rebuy(orders_path, AS_OF, 30, tmp_path / "p.parquet", config=config)
    assert report.training_pairs < 6_000
    assert "trained on" in report.notes[0]


def test_refusals(orders_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.parquet"
    with pytest.raises(InputRefused, match="no purchase before"):
        bench_rebuy(orders_path, START - timedelta(days=1), 30, out)
    pl.read_parquet(orders_path).clear().write_parquet(tmp_path / "empty")
    with pytest.raises(InputRefused, match=r"got: 0 rows.*hint: the table is empty"):
        bench_rebuy(tmp_path / "empty", AS_OF, 30, out)
    with pytest.raises(InputRefused, match="horizon"):
        bench_rebuy(orders_path, AS_OF, 0, out)
    with pytest.raises(InputRefused, match="cannot be read"):
        bench_rebuy(tmp_path / "absent.parquet", AS_OF, 30, out)
    facts = world(days=20, users=3)
    for table, message in (
        (facts.drop("product"), "lacks required"),
        (facts.with_columns(at=pl.col("at").cast(pl.String)), "is not a time"),
        (facts.with_columns(quantity=pl.col("quantity").cast(pl.String)), "is not a number"),
    ):
        table.write_parquet(tmp_path / "bad.parquet")
        with pytest.raises(InputRefused, match=message):
            bench_rebuy(tmp_path / "bad.parquet", AS_OF, 30, out)
    assert not out.exists()


def test_training_cuts_leave_room_for_history_and_labels() -> None:
    config = RebuyConfig(min_history_days=60, cut_step_days=10)
    cuts = training_cuts(0.0, 200.0, 30.0, config)
    assert cuts[-1] == 170
    assert cuts[0] == 60
    assert set(np.diff(cuts)) == {10.0}
    assert training_cuts(0.0, 80.0, 30.0, config) == []


def test_level_is_the_shrunk_mean_of_the_backtests() -> None:
    one = Backtest(START, 10, 0.1, 0.1, 0.0, 0.0, shift=0.4)
    config = RebuyConfig(level_sd=0.1, level_noise_sd=0.2)
    assert level_from((), config).intercept == 0
    assert level_from((one,), config).intercept == pytest.approx(0.4 / 5)
    assert level_from((one, one, one, one), config).intercept == pytest.approx(0.4 * 4 / 8)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError):
        RebuyConfig(cut_steps=3)  # type: ignore[call-arg]
