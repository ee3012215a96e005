"""The benchmark command's function: what it writes and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.errors import InputRefused
from recsys.models.collaborative.select import SelectionConfig
from training.bench_pairs import bench_pairs

QUICK = SelectionConfig(low_pass_fits=2, ease_fits=2, als_fits=0, cosine_fits=1)


@pytest.fixture
def pairs(blocks) -> pl.DataFrame:
    matrix = blocks[0].matrix.tocoo()
    return pl.DataFrame({"user_id": matrix.row.astype(np.int64) * 10 + 5, "item_id": matrix.col.astype(np.int64) - 3})


def written(frame: pl.DataFrame, folder: Path, k: int = 4, **options) -> pl.DataFrame:
    frame.write_parquet(folder / "train.parquet")
    bench_pairs(folder / "train.parquet", k, folder / "out.parquet", config=QUICK, **options)
    return pl.read_parquet(folder / "out.parquet")


def test_lists_are_complete_ordered_and_unseen(pairs, tmp_path) -> None:
    out = written(pairs, tmp_path)
    assert out.schema == {"user_id": pl.Int64, "rank": pl.Int64, "item_id": pl.Int64, "score": pl.Float32}
    assert out.join(pairs, on=["user_id", "item_id"]).height == 0
    assert out["user_id"].unique().sort().equals(pairs["user_id"].unique().sort())
    per_user = out.group_by("user_id").agg("rank", pl.col("item_id").n_unique(), pl.col("score"))
    assert per_user["rank"].to_list() == [[1, 2, 3, 4]] * per_user.height
    assert (per_user["item_id"] == 4).all()
    assert all(scores == sorted(scores, reverse=True) for scores in per_user["score"].to_list())
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out.parquet"]


def test_first_places_stay_in_the_users_block(pairs, tmp_path) -> None:
    out = written(pairs, tmp_path).filter(pl.col("rank") == 1)
    inside = (out["user_id"] - 5) // 10 % 4 == (out["item_id"] + 3) % 4
    assert inside.mean() > 0.95


def test_strings_and_repeated_rows_give_the_same_lists(pairs, tmp_path) -> None:
    numbers = written(pairs, tmp_path)
    named = pl.format("u{}", pl.col("user_id").cast(pl.String).str.zfill(5)).alias("user_id")
    text = pairs.select(named, pl.format("i{}", (pl.col("item_id") + 3).cast(pl.String).str.zfill(5)).alias("item_id"))
    frame = pl.concat([text, text.head(7)]).with_columns(ignored=1.0)
    frame.write_parquet(tmp_path / "text.parquet")
    report = bench_pairs(tmp_path / "text.parquet", 4, tmp_path / "out.parquet", config=QUICK)
    assert (report.pairs, report.duplicate_rows) == (pairs.height, 7)
    assert report.text().startswith(f"{pairs.height} pairs of 60 users and 40 items; 7 repeated rows")
    assert report.text().count("\n") == 3
    strings = pl.read_parquet(tmp_path / "out.parquet")
    assert strings.schema["item_id"] == pl.String
    assert (strings["item_id"].str.slice(1).cast(pl.Int64) - 3).equals(numbers["item_id"])


def test_same_seed_same_file_and_progress_is_told(pairs, tmp_path) -> None:
    steps: list[str] = []
    first = written(pairs, tmp_path, seed=3, progress=lambda step, share: steps.append(step) if share == 1 else None)
    assert_frame_equal(first, written(pairs, tmp_path, seed=3))
    assert steps[-2:] == ["training", "writing"]


def test_more_places_than_items(pairs, tmp_path) -> None:
    out = written(pairs, tmp_path, k=1000)
    known = pairs.group_by("user_id").len()
    n_items = pairs["item_id"].n_unique()
    lengths = out.group_by("user_id").len("written").join(known, on="user_id")
    assert (lengths["written"] + lengths["len"] == n_items).all()


def test_everybody_knows_everything(tmp_path) -> None:
    frame = pl.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [1, 2, 1, 2]})
    assert written(frame, tmp_path).height == 0


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pl.DataFrame({"user_id": [1], "host_id": [2]}), "column item_id is missing.*got: user_id, host_id"),
        (pl.DataFrame({"user_id": [1, None], "item_id": [2, 3]}), "an id is null.*column user_id.*1 nulls"),
        (
            pl.DataFrame({"user_id": [1.5], "item_id": [2]}),
            "cannot hold ids.*column user_id.*Float64.*hint",
        ),
        (pl.DataFrame(schema={"user_id": pl.Int64, "item_id": pl.Int64}), "no pairs"),
    ],
)
def test_refuses_with_a_reason(frame, message, tmp_path) -> None:
    with pytest.raises(InputRefused, match=message):
        written(frame, tmp_path)
    assert not (tmp_path / "out.parquet").exists()


def test_refuses_what_is_no_parquet(tmp_path) -> None:
    (tmp_path / "train.parquet").write_text("user_id,item_id\n1,2\n")
    with pytest.raises(InputRefused, match="cannot be read as parquet"):
        bench_pairs(tmp_path / "train.parquet", 4, tmp_path / "out.parquet")
    with pytest.raises(InputRefused, match="cannot be read as parquet"):
        bench_pairs(tmp_path / "absent.parquet", 4, tmp_path / "out.parquet")
