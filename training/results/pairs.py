"""Pairs without times: a share of every user's items kept back, every unseen item ranked."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.evaluation.bootstrap import user_bootstrap
from recsys.ids import Vocabulary
from recsys.models.collaborative.als import Als, AlsConfig
from recsys.models.collaborative.ease import Ease
from recsys.models.collaborative.interactions import Interactions
from recsys.models.collaborative.protocol import FittedCollaborative
from recsys.models.collaborative.validation import row_blocks, top_unseen
from training.bench_pairs import bench_pairs

KEPT_BACK = 0.2
SPLIT_SEED = 20_261_122
"""Of the reported split; nothing is tuned on it: `bench-pairs` chooses on a part of the training pairs."""


def pairs_of(path: Path) -> pl.DataFrame:
    """Distinct (user_id, item_id) of a set of pairs: follows, `user_id, item_id`, or a log of clicks on videos."""
    frame = pl.read_parquet(path)
    if "action" in frame.columns:
        frame = frame.filter(pl.col("action") == "follow")
    if "is_click" in frame.columns:
        frame = frame.filter(pl.col("is_click") == 1)
    item = next(name for name in ("item_id", "host_id", "video_id") if name in frame.columns)
    return frame.select("user_id", pl.col(item).alias("item_id")).unique().sort("user_id", "item_id")


def split(pairs: pl.DataFrame, share: float = KEPT_BACK, seed: int = SPLIT_SEED) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Train and kept-back pairs: of each user `share` of his items, rounded down, drawn at random.

    A user with too few to keep one back is asked nothing; items that nobody else has may be kept back too.
    """
    drawn = pairs.with_columns(draw=pl.Series(np.random.default_rng(seed).random(len(pairs))))
    place = pl.col("draw").rank("ordinal").over("user_id")
    held = drawn.with_columns(held=place <= (pl.len().over("user_id") * share).floor())
    return (
        held.filter(~pl.col("held")).select("user_id", "item_id"),
        held.filter("held").select("user_id", "item_id"),
    )


def judged(answers: pl.DataFrame, truth: pl.DataFrame, k: int, *, seed: int = 0) -> dict[str, Any]:
    """Recall@k and NDCG@k over the users of the truth, with user-bootstrap intervals; the ideal has min(k, relevant).

    Args:
        answers: user_id, rank, item_id; a user without answers counts 0.
        truth: user_id, item_id.
    """
    hits = truth.join(answers.filter(pl.col("rank") <= k), on=["user_id", "item_id"], how="left")
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])
    gain = 1.0 / (pl.col("rank") + 1).cast(pl.Float64).log(2.0)
    found = hits.group_by("user_id").agg(
        relevant=pl.len(), found=pl.col("rank").is_not_null().sum(), gain=gain.sum()
    ).sort("user_id")  # fmt: skip
    best = ideal[np.minimum(found["relevant"].to_numpy(), k)]
    per_user = found.select(
        "user_id", recall=pl.col("found") / pl.col("relevant"), ndcg=pl.col("gain") / pl.Series(best)
    )
    table = user_bootstrap(per_user, ["recall", "ndcg"], seed=seed)
    return {"users": len(per_user), "k": k, "metrics": table.to_dicts()}


def measure(path: Path, k: int, engine: bool = True) -> dict[str, Any]:
    """Every method of ours on one set of pairs: popularity, EASE and iALS at their defaults, and `bench-pairs`."""
    train, truth = split(pairs_of(path))
    users, items = Vocabulary(), Vocabulary()
    users.extend(train["user_id"].unique().sort())
    items.extend(train["item_id"].unique().sort())
    interactions = Interactions.from_rows(
        users.rows(train["user_id"]), items.rows(train["item_id"]), n_users=len(users), n_hosts=len(items)
    )
    methods: dict[str, Any] = {}

    def add(name: str, answers: pl.DataFrame, cpu_s: float) -> None:
        methods[name] = judged(answers, truth, k) | {"training_cpu_s": cpu_s}

    add("popularity", _most_popular(train, users, k), 0.0)
    als = Als(AlsConfig.suited_to(interactions.n_hosts, threads=1))
    for name, model in (("EASE, defaults", Ease()), ("iALS, defaults", als)):
        begun = time.process_time()
        fitted: FittedCollaborative = model.fit(interactions, 1)
        spent = time.process_time() - begun
        add(name, _listed(fitted, interactions, users, items, k), spent)
    if engine:
        with tempfile.TemporaryDirectory() as scratch:
            train.write_parquet(Path(scratch) / "train.parquet")
            begun = time.process_time()
            report = bench_pairs(Path(scratch) / "train.parquet", k, Path(scratch) / "out.parquet", seed=1)
            add("bench-pairs", pl.read_parquet(Path(scratch) / "out.parquet"), time.process_time() - begun)
            methods["bench-pairs"]["chosen"] = report.model
    return {
        "users": len(users), "items": len(items), "train": len(train), "kept_back": len(truth), "k": k,
        "methods": methods,
    }  # fmt: skip


def _listed(
    fitted: FittedCollaborative, interactions: Interactions, users: Vocabulary, items: Vocabulary, k: int
) -> pl.DataFrame:
    blocks = []
    for block in row_blocks(interactions.n_users, interactions.n_hosts):
        histories = interactions.matrix[block]
        top = top_unseen(fitted.scores(histories), histories, k)
        user = np.repeat(np.arange(block.start, block.stop), top.shape[1])
        blocks.append(
            pl.DataFrame({
                "user_id": users.ids(user), "rank": np.tile(np.arange(1, top.shape[1] + 1), len(top)),
                "item_id": items.ids(top.ravel()),
            })
        )  # fmt: skip
    return pl.concat(blocks)


def _most_popular(train: pl.DataFrame, users: Vocabulary, k: int) -> pl.DataFrame:
    """The k most popular unseen items of every user."""
    counted = train.group_by("item_id").len().sort("len", "item_id", descending=[True, False])
    longest = int(train.group_by("user_id").len()["len"].max() or 0)  # type: ignore[arg-type]
    best = counted.head(longest + k).with_row_index("place")
    asked = pl.DataFrame({"user_id": users.ids(np.arange(len(users)))})
    listed = asked.join(best.select("item_id", "place"), how="cross") if longest <= 200 else None
    if listed is None:  # long histories: user by user in parts, so that the cross join stays small
        parts = [_unseen(part.join(best.select("item_id", "place"), how="cross"), train, k)
                 for part in asked.iter_slices(500)]  # fmt: skip
        return pl.concat(parts)
    return _unseen(listed, train, k)


def _unseen(listed: pl.DataFrame, train: pl.DataFrame, k: int) -> pl.DataFrame:
    kept = listed.join(train, on=["user_id", "item_id"], how="anti").sort("user_id", "place")
    ranked = kept.with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))
    return ranked.filter(pl.col("rank") <= k).select("user_id", "rank", "item_id")
