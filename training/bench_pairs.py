"""The collaborative source alone, on plain (user, item) pairs: choose, train on everything, list unseen items."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from recsys.errors import InputRefused
from recsys.id_kinds import id_kind
from recsys.ids import Vocabulary
from recsys.models.collaborative.interactions import Interactions
from recsys.models.collaborative.protocol import FittedCollaborative
from recsys.models.collaborative.search import Trial
from recsys.models.collaborative.select import SelectionConfig, select_model
from recsys.models.collaborative.validation import Quality, row_blocks, top_unseen
from recsys.progress import Progress, silent

_COLUMNS = ("user_id", "item_id")


@dataclass(frozen=True, slots=True)
class BenchPairsReport:
    """What was trained and written. `quality` was measured on pairs the command itself kept back while choosing."""

    users: int
    items: int
    pairs: int
    duplicate_rows: int
    rows_written: int
    model: str
    quality: Quality | None
    trials: tuple[Trial, ...]
    choosing_s: float
    training_s: float
    writing_s: float

    def text(self) -> str:
        """What people should see; every trial is in the fields."""
        lines = [
            f"{self.pairs} pairs of {self.users} users and {self.items} items; {self.duplicate_rows} repeated rows",
            f"chosen among {len(self.trials)} trials: {self.model}",
        ]
        if self.quality is not None:
            kept_back = f"Recall {self.quality.recall:.4f}, NDCG {self.quality.ndcg:.4f}"
            lines.append(f"on pairs kept back while choosing: {kept_back}")
        times = f"choosing {self.choosing_s:.0f} s, training {self.training_s:.0f} s, writing {self.writing_s:.0f} s"
        return "\n".join([*lines, f"{self.rows_written} rows written; {times}"])


def bench_pairs(
    train: Path,
    k: int,
    out: Path,
    *,
    seed: int = 0,
    config: SelectionConfig | None = None,
    progress: Progress | None = None,
) -> BenchPairsReport:
    """Train on the pairs of `train` and write the best `k` unseen items of every user.

    Model and settings are chosen on pairs kept back from `train`, then trained on all of it. The same file, `k` and
    `seed` give the same lists on the same machine.

    Args:
        train: parquet with `user_id`, `item_id` (int64 or strings); other columns are ignored, a repeated pair counts
            once.
        k: places per user.
        out: parquet to write: `user_id`, `rank` (1…k, Int64), `item_id`, `score` (Float32), users ascending. A user
            who knows nearly every item gets fewer rows. Appears only when complete.
        config: bounds of the search; its `k` is replaced by `k`.

    Raises:
        InputRefused: the file cannot be read, lacks a column, is empty, or holds null ids.
    """
    report = progress or silent
    started = time.perf_counter()
    pairs = _read(train)
    distinct = pairs.unique()
    users, items = Vocabulary(), Vocabulary()
    users.extend(distinct["user_id"].unique().sort())
    items.extend(distinct["item_id"].unique().sort())
    interactions = Interactions.from_rows(
        users.rows(distinct["user_id"]), items.rows(distinct["item_id"]), n_users=len(users), n_hosts=len(items)
    )
    bounds = (config or SelectionConfig(threads=_cores())).model_copy(update={"k": k})
    selection = select_model(interactions, bounds, seed=seed, progress=report)
    chosen = time.perf_counter()
    report("training", 0.0)
    fitted = selection.model.fit(interactions, seed, selection.fitted)
    report("training", 1.0)
    trained = time.perf_counter()
    rows = _write(out, fitted, interactions, users, items, k, report)
    return BenchPairsReport(
        users=len(users),
        items=len(items),
        pairs=distinct.height,
        duplicate_rows=pairs.height - distinct.height,
        rows_written=rows,
        model=repr(selection.model),
        quality=selection.quality,
        trials=selection.trials,
        choosing_s=chosen - started,
        training_s=trained - chosen,
        writing_s=time.perf_counter() - trained,
    )


def _read(path: Path) -> pl.DataFrame:
    try:
        schema = pl.read_parquet_schema(path)
        missing = [name for name in _COLUMNS if name not in schema]
        frame = pl.DataFrame() if missing else pl.read_parquet(path, columns=list(_COLUMNS))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputRefused(
            "the file cannot be read as parquet", where=path, got=str(error).splitlines()[0], expected="a parquet file"
        ) from error
    if missing:
        raise InputRefused(
            f"column {', '.join(missing)} is missing",
            where=path,
            got=", ".join(schema) or "no columns",
            expected="user_id, item_id",
            hint="rename the columns of the pairs; any others are ignored",
        )
    if not frame.height:
        raise InputRefused("there are no pairs", where=path, got="0 rows", expected="at least one pair")
    for name in _COLUMNS:
        try:
            id_kind(frame.schema[name])
        except InputRefused as error:
            raise InputRefused(
                error.what, where=f"{path}, column {name}", got=error.got, expected=error.expected,
                hint="ids as floats have lost digits: write them as Int64",
            ) from None  # fmt: skip
        if nulls := frame[name].null_count():
            raise InputRefused(
                "an id is null", where=f"{path}, column {name}", got=f"{nulls} nulls", expected="an id in every row",
                hint="drop rows without an id first",
            )  # fmt: skip
    return frame.select(_COLUMNS)


def _write(
    out: Path,
    fitted: FittedCollaborative,
    interactions: Interactions,
    users: Vocabulary,
    items: Vocabulary,
    k: int,
    progress: Progress,
) -> int:
    """Stream the lists block by block into a temporary neighbour of `out`, then rename it; rows written."""
    written = 0

    def blocks(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        nonlocal written
        if with_columns is not None or predicate is not None or n_rows is not None:
            raise AssertionError("the sink asks for whole blocks")
        for block in row_blocks(interactions.n_users, interactions.n_hosts):
            histories = interactions.matrix[block]
            scores = fitted.scores(histories)
            top = top_unseen(scores, histories, k)
            shown = np.arange(top.shape[1]) < (interactions.n_hosts - np.diff(histories.indptr))[:, None]
            user, place = np.nonzero(shown)
            written += len(user)
            yield pl.DataFrame(
                {
                    "user_id": users.ids(user + block.start),
                    "rank": place + 1,
                    "item_id": items.ids(top[user, place]),
                    "score": scores[user, top[user, place]],
                },
                schema=schema,
            )
            progress("writing", block.stop / interactions.n_users)

    schema = pl.Schema({"user_id": _dtype(users), "rank": pl.Int64(), "item_id": _dtype(items), "score": pl.Float32()})
    partial = out.with_name(out.name + ".tmp")
    try:
        register_io_source(io_source=blocks, schema=schema).sink_parquet(partial)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return written


def _dtype(vocabulary: Vocabulary) -> pl.DataType:
    return pl.String() if vocabulary.kind == "str" else pl.Int64()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
