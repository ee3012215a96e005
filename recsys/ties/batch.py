"""States from facts by the batch: a Polars aggregation per block, one user bucket in memory at a time.

The columns of a block are all computed in one `group_by`; decayed sums need the key's last instant first, which is
added as a window maximum. The result equals applying the facts one by one (`recsys.ties.update`) and equals merging the
states of any split of them (`recsys.ties.algebra`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from recsys.events.facts import FOREVER, NEVER, US_PER_DAY, FactKind
from recsys.ties.algebra import DAY_BITS, Block, BlockState, Column, Kind, identity

_KEYS: dict[str, pl.Expr] = {
    "tie": pl.col("user").cast(pl.Int64) * 2**32 + pl.col("host").cast(pl.Int64),
    "host": pl.col("host").cast(pl.Int64),
    "user": pl.col("user").cast(pl.Int64),
    "room": pl.col("room").cast(pl.Int64),
}
_NEEDED: dict[str, pl.Expr] = {
    "tie": (pl.col("user") >= 0) & (pl.col("host") >= 0),
    "host": pl.col("host") >= 0,
    "user": pl.col("user") >= 0,
    "room": pl.col("room") >= 0,
}


def state_of(block: Block, facts: pl.DataFrame) -> BlockState:
    """The state of one block after all of `facts`.

    Args:
        block: the declaration.
        facts: a fact frame (`recsys.events.facts.FACT_SCHEMA`), in any order;
            kinds the block does not read are skipped.

    Returns:
        Keys ascending; N is the number of keys with at least one fact of the block.
    """
    fed = facts.lazy().filter(_is(block.facts) & _NEEDED[block.level]).with_columns(key=_KEYS[block.level])
    if block.decays or block.days_columns:
        fed = fed.with_columns(ref=pl.col("at").max().over("key"))
    for column in block.columns:
        if column.kind is Kind.DAYS:
            last = pl.when(_is(column.facts)).then(pl.col("at") // US_PER_DAY).max().over("key")
            fed = fed.with_columns(last.alias(f"__{column.name}"))
    aggregates = [pl.col("at").max().alias("ref_at")]
    for column in block.columns:
        aggregates += _aggregates(block, column)
    table = fed.group_by("key").agg(aggregates).sort("key").collect()
    keys = table["key"].to_numpy()
    rows = identity(block, len(keys))
    for i, name in enumerate(block.ints):
        rows.ints[:, i] = table[name].to_numpy()
    for i, name in enumerate(block.decays):
        rows.decayed[:, i] = table[name].to_numpy()
    for name, where in block.latest_slices.items():
        lists = table[name]
        lengths = lists.list.len().to_numpy().astype(np.intp)
        values = lists.explode(empty_as_null=False).to_numpy()
        position = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows.latest[np.repeat(np.arange(len(keys)), lengths), where.start + position] = values
    return BlockState(block, np.ascontiguousarray(keys), rows)


def states_of(declared: Iterable[Block], facts: pl.DataFrame) -> dict[str, BlockState]:
    """The states of several blocks, by block name."""
    return {block.name: state_of(block, facts) for block in declared}


def _is(kinds: frozenset[FactKind]) -> pl.Expr:
    return pl.col("kind").is_in([int(kind) for kind in sorted(kinds)])


def _source(block: Block, column: Column) -> pl.Expr:
    match column.source:
        case "one":
            return pl.lit(1, dtype=pl.Int64)
        case "beyond":
            return (pl.col("value") - 2 * block.slot_ms).clip(lower_bound=0)
        case named:
            return pl.col(named)


def _aggregates(block: Block, column: Column) -> list[pl.Expr]:
    """The group-by expressions of one declared column, named as the block names its stored columns."""
    fed = _is(column.facts)
    only = column.facts == block.facts
    source = _source(block, column)
    taken = source if only else pl.when(fed).then(source)
    match column.kind:
        case Kind.SUM:
            total = pl.len().cast(pl.Int64) if only and column.source == "one" else taken.sum()
            return [total.alias(column.name)]
        case Kind.MIN:
            return [taken.min().fill_null(FOREVER).alias(column.name)]
        case Kind.MAX:
            return [taken.max().fill_null(NEVER).alias(column.name)]
        case Kind.HOURS:
            slot = (pl.col("at") % US_PER_DAY) // (US_PER_DAY // column.size)
            return [(fed & (slot == i)).sum().cast(pl.Int64).alias(f"{column.name}_{i}") for i in range(column.size)]
        case Kind.DAYS:
            back = pl.col(f"__{column.name}") - pl.col("at") // US_PER_DAY
            bit = (
                pl.when(fed & (back < DAY_BITS))
                .then(pl.lit(2, dtype=pl.Int64).pow(back.clip(0, DAY_BITS - 1)))
                .otherwise(0)
            )
            return [
                pl.col(f"__{column.name}").first().fill_null(NEVER).alias(f"{column.name}_last"),
                bit.cast(pl.Int64).bitwise_or().alias(f"{column.name}_bits"),
            ]
        case Kind.LATEST:
            known = source.filter(fed & (source > 0))
            return [known.unique().sort(descending=True).head(column.size).alias(column.name)]
        case Kind.DECAYED:
            age = (pl.col("ref") - pl.col("at")).cast(pl.Float64)
            weight = pl.lit(2.0).pow(-age / (column.half_life_days * US_PER_DAY)) * source.cast(pl.Float64)
            return [(weight if only else pl.when(fed).then(weight).otherwise(0.0)).sum().alias(column.name)]
