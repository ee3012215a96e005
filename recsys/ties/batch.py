"""States from facts by the batch: rows sorted by key once, then one pass per column over the rows that feed it.

The facts of a block are sorted by key; the rows that feed a column are a subset in the same order, so every aggregate
is a reduction over runs of equal keys (`numpy.ufunc.reduceat`), and no row is touched for a column it says nothing to.
The result equals applying the facts one by one (`recsys.ties.update`) and equals merging the states of any split of
them (`recsys.ties.algebra`).

Shapes: n facts of the block, N keys, m facts that feed a column, g runs among these (keys with at least one).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.events.facts import US_PER_DAY, FactKind
from recsys.ties.algebra import DAY_BITS, Block, BlockState, Column, Floats, Ints, Kind, Rows, empty_state, identity

_LEVEL_COLUMN = {"host": "host", "user": "user", "room": "room"}


def state_of(block: Block, facts: pl.DataFrame) -> BlockState:
    """The state of one block after all of `facts`.

    Args:
        block: the declaration.
        facts: a fact frame (`recsys.events.facts.FACT_SCHEMA`), in any order;
            kinds the block does not read are skipped.

    Returns:
        Keys ascending; N is the number of keys with at least one fact of the block.
    """
    facts = facts.rechunk()
    kinds = facts["kind"].to_numpy()
    reads = np.zeros(len(FactKind), dtype=np.bool_)
    reads[[int(kind) for kind in block.facts]] = True
    keys, known = _keys(block, facts)
    at_facts = np.flatnonzero(reads[kinds] & known)
    if not len(at_facts):
        return empty_state(block)
    key = keys[at_facts]
    order = np.argsort(key, kind="stable")
    key, at_facts = key[order], at_facts[order]
    is_first = np.empty(len(key), dtype=np.bool_)
    is_first[0] = True
    np.not_equal(key[1:], key[:-1], out=is_first[1:])
    starts = np.flatnonzero(is_first)
    position = np.cumsum(is_first, dtype=np.int64) - 1
    at = facts["at"].to_numpy()[at_facts]
    rows = identity(block, len(starts))
    rows.ints[:, 0] = np.maximum.reduceat(at, starts)
    kind = kinds[at_facts]
    for fed_by in dict.fromkeys(column.facts for column in block.columns):
        columns = [column for column in block.columns if column.facts == fed_by]
        if fed_by == block.facts:
            fed = _Fed(facts, at_facts, at, position, starts)
        else:
            mine = np.flatnonzero(_one_of(fed_by)[kind])
            if not len(mine):
                continue
            of = position[mine]
            fed = _Fed(facts, at_facts[mine], at[mine], of, np.flatnonzero(np.diff(of, prepend=-1)))
        for column in columns:
            _fill(block, column, fed, rows)
    return BlockState(block, key[starts], rows)


def states_of(declared: Iterable[Block], facts: pl.DataFrame) -> dict[str, BlockState]:
    """The states of several blocks, by block name."""
    return {block.name: state_of(block, facts) for block in declared}


@dataclass(frozen=True)
class _Fed:
    """The facts that feed a column, by key.

    `at_facts` (m,): where they stand in the frame; `at` (m,): their instants; `of` (m,): the position of their key of
    N, ascending; `starts` (g,): where a new key begins.
    """

    facts: pl.DataFrame
    at_facts: npt.NDArray[np.intp]
    at: Ints
    of: Ints
    starts: npt.NDArray[np.intp]

    @property
    def keys(self) -> Ints:
        """Positions (g,) of the keys that have such facts."""
        return self.of[self.starts]

    def amounts(self, block: Block, column: Column) -> Ints:
        """What each fact adds, (m,)."""
        match column.source:
            case "one":
                return np.ones(len(self.at), dtype=np.int64)
            case "at":
                return self.at
            case "beyond":
                beyond: Ints = np.maximum(self.facts["value"].to_numpy()[self.at_facts] - 2 * block.slot_ms, 0)
                return beyond
            case named:
                amounts: Ints = self.facts[named].to_numpy()[self.at_facts]
                return amounts


def _keys(block: Block, facts: pl.DataFrame) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The key of every fact, and whether it has one."""
    if block.level == "tie":
        user, host = facts["user"].to_numpy(), facts["host"].to_numpy()
        return (user.astype(np.int64) << 32) | np.maximum(host, 0), (user >= 0) & (host >= 0)
    keys = facts[_LEVEL_COLUMN[block.level]].to_numpy().astype(np.int64)
    return keys, keys >= 0


def _one_of(kinds: frozenset[FactKind]) -> npt.NDArray[np.bool_]:
    table = np.zeros(len(FactKind), dtype=np.bool_)
    table[[int(kind) for kind in kinds]] = True
    return table


def _fill(block: Block, column: Column, fed: _Fed, rows: Rows) -> None:
    """Write one declared column of the N states."""
    match column.kind:
        case Kind.SUM if column.source == "one":
            rows.ints[fed.keys, block.int_column(column.name)] = np.diff(fed.starts, append=len(fed.of))
        case Kind.SUM:
            total = np.add.reduceat(fed.amounts(block, column), fed.starts)
            rows.ints[fed.keys, block.int_column(column.name)] = total
        case Kind.MIN:
            least = np.minimum.reduceat(fed.amounts(block, column), fed.starts)
            rows.ints[fed.keys, block.int_column(column.name)] = least
        case Kind.MAX:
            most = np.maximum.reduceat(fed.amounts(block, column), fed.starts)
            rows.ints[fed.keys, block.int_column(column.name)] = most
        case Kind.HOURS:
            first = block.int_column(f"{column.name}_0")
            slot = (fed.at % US_PER_DAY) // (US_PER_DAY // column.size)
            np.add.at(rows.ints.reshape(-1), fed.of * rows.ints.shape[1] + first + slot, 1)
        case Kind.DAYS:
            first = block.int_column(f"{column.name}_last")
            day = fed.at // US_PER_DAY
            last = np.maximum.reduceat(day, fed.starts)
            back = np.repeat(last, np.diff(fed.starts, append=len(fed.of))) - day
            bits = np.where(back < DAY_BITS, np.left_shift(np.int64(1), np.minimum(back, DAY_BITS - 1)), 0)
            rows.ints[fed.keys, first] = last
            rows.ints[fed.keys, first + 1] = np.bitwise_or.reduceat(bits, fed.starts)
        case Kind.LATEST:
            _fill_latest(fed.of, fed.amounts(block, column), rows.latest[:, block.latest_slices[column.name]])
        case Kind.DECAYED:
            age = (rows.ints[fed.of, 0] - fed.at).astype(np.float64)
            weight: Floats = np.exp2(age * (-1.0 / (column.half_life_days * US_PER_DAY)))
            if column.source != "one":
                weight *= fed.amounts(block, column)
            rows.decayed[fed.keys, block.decay_column(column.name)] = np.add.reduceat(weight, fed.starts)


def _fill_latest(of: Ints, instants: Ints, latest: Ints) -> None:
    """Write the K largest distinct positive instants of every key into `latest` (N, K), descending."""
    known = instants > 0
    if not known.all():
        of, instants = of[known], instants[known]
    if not len(of):
        return
    same = of[1:] == of[:-1]
    if ((instants[1:] < instants[:-1]) & same).any():
        order = np.lexsort((instants, of))
        instants = instants[order]  # `of` is ascending already
    distinct = np.append(~same | (instants[1:] != instants[:-1]), True)  # the last of equal ones
    of, instants = of[distinct], instants[distinct]
    ends = np.flatnonzero(np.append(of[1:] != of[:-1], True))
    rank = np.repeat(ends, np.diff(ends, prepend=-1)) - np.arange(len(of))
    kept = rank < latest.shape[1]
    latest[of[kept], rank[kept]] = instants[kept]
