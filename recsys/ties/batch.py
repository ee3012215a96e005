"""States from facts by the batch: rows sorted by key once, then one pass per column over the rows that feed it.

The facts of a block are sorted by key; the rows that feed a column are a subset in the same order, so every aggregate
is a reduction over runs of equal keys (`numpy.ufunc.reduceat`), and no row is touched for a column it says nothing to.
The result equals applying the facts one by one (`recsys.ties.update`) and equals merging the states of any split of
them (`recsys.ties.algebra`).

Shapes: n facts of the block, N keys, m facts that feed a column, g runs among these (keys with at least one).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.events.facts import US_PER_DAY, FactKind
from recsys.ties.algebra import DAY_BITS, Block, BlockState, Column, Ints, Kind, Rows, empty_state, identity
from recsys.ties.sorting import sorted_by_key

Number = TypeVar("Number", bound=np.generic)
READ_COLUMNS = ("at", "kind", "user", "host", "room", "count", "value")
"""Columns of a fact frame that states are made of; `room` only by blocks of that level."""


def state_of(block: Block, facts: pl.DataFrame) -> BlockState:
    """The state of one block after all of `facts`.

    Args:
        block: the declaration.
        facts: a fact frame (`recsys.events.facts.FACT_SCHEMA`; the columns `READ_COLUMNS` are enough), in any order;
            kinds the block does not read are skipped.

    Returns:
        Keys ascending; N is the number of keys with at least one fact of the block.
    """
    return states_of((block,), facts)[block.name]


def states_of(declared: Iterable[Block], facts: pl.DataFrame) -> dict[str, BlockState]:
    """The states of several blocks, by block name."""
    facts = facts.rechunk()
    kinds = facts["kind"].to_numpy()
    return {block.name: _state_of(block, facts, kinds) for block in declared}


def _state_of(block: Block, facts: pl.DataFrame, kinds: npt.NDArray[np.uint8]) -> BlockState:
    at_facts = np.flatnonzero(_one_of(block.facts)[kinds])
    key, known = _keys(block, facts, at_facts)
    if not known.all():
        key, at_facts = key[known], at_facts[known]
    if not len(at_facts):
        return empty_state(block)
    key, order = sorted_by_key(key)
    fed = _Fed(facts, at_facts[order], _starts(key))
    rows = identity(block, len(fed.starts))
    rows.ints[:, 0] = ref = fed.most(fed.amounts(block, "at"))
    kind = kinds[fed.at_facts]
    for fed_by in dict.fromkeys(column.facts for column in block.columns):
        part = fed if fed_by == block.facts else fed.only(_one_of(fed_by)[kind])
        if len(part.at_facts):
            for column in block.columns:
                if column.facts == fed_by:
                    _fill(block, column, part, ref, rows)
    return BlockState(block, key[fed.starts], rows)


class _Fed:
    """The facts that feed a column, by key.

    `at_facts` (m,): where they stand in the frame; `starts` (g,): where a new key begins; `keys` (g,): the positions of
    these keys among all N; `counts` (g,): facts per key.
    """

    def __init__(
        self,
        facts: pl.DataFrame,
        at_facts: npt.NDArray[np.intp],
        starts: npt.NDArray[np.intp],
        keys: npt.NDArray[np.intp] | None = None,
    ) -> None:
        self.facts, self.at_facts, self.starts = facts, at_facts, starts
        self.keys: slice | npt.NDArray[np.intp] = slice(0, len(starts)) if keys is None else keys
        self.counts = np.diff(starts, append=len(at_facts))
        self._amounts: dict[str, Ints] = {}
        self._age: npt.NDArray[np.float64] | None = None

    def only(self, kept: npt.NDArray[np.bool_]) -> _Fed:
        """Those facts (m,) that are kept."""
        mine = np.flatnonzero(kept)
        of = self.each(np.arange(len(self.starts)))[mine]
        starts = _starts(of)
        return _Fed(self.facts, self.at_facts[mine], starts, of[starts])

    def each(self, of_key: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """What a key has (g,), for each of its facts (m,)."""
        return np.repeat(of_key, self.counts)

    def most(self, amounts: Ints) -> Ints:
        """The largest amount (m,) of each key, (g,)."""
        found: Ints = np.maximum.reduceat(amounts, self.starts)
        return found

    def amounts(self, block: Block, source: str) -> Ints:
        """What each fact adds, (m,)."""
        if source not in self._amounts:
            match source:
                case "one":
                    self._amounts[source] = np.ones(len(self.at_facts), dtype=np.int64)
                case "beyond":
                    self._amounts[source] = np.maximum(self.amounts(block, "value") - 2 * block.slot_ms, 0)
                case named:
                    self._amounts[source] = self.facts[named].to_numpy()[self.at_facts]
        return self._amounts[source]

    def age(self, block: Block, ref: Ints) -> npt.NDArray[np.float64]:
        """How long before its key's last fact each fact was, µs (m,); `ref` (N,)."""
        if self._age is None:
            self._age = (self.each(ref[self.keys]) - self.amounts(block, "at")).astype(np.float64)
        return self._age


def _starts(key: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
    """Where a new key begins in sorted ones."""
    is_first = np.empty(len(key), dtype=np.bool_)
    is_first[:1] = True
    np.not_equal(key[1:], key[:-1], out=is_first[1:])
    return np.flatnonzero(is_first)


def _keys(block: Block, facts: pl.DataFrame, at: npt.NDArray[np.intp]) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The key of each fact at `at` (n,), and whether it has one."""
    if block.level == "tie":
        user, host = facts["user"].to_numpy()[at], facts["host"].to_numpy()[at]
        key = user.astype(np.int64)
        key <<= 32
        key |= np.maximum(host, 0)
        return key, (user >= 0) & (host >= 0)
    keys = facts[block.level].to_numpy()[at].astype(np.int64)
    return keys, keys >= 0


def _one_of(kinds: frozenset[FactKind]) -> npt.NDArray[np.bool_]:
    table = np.zeros(len(FactKind), dtype=np.bool_)
    table[[int(kind) for kind in kinds]] = True
    return table


def _fill(block: Block, column: Column, fed: _Fed, ref: Ints, rows: Rows) -> None:
    """Write one declared column of the N states."""
    match column.kind:
        case Kind.SUM if column.source == "one":
            rows.ints[fed.keys, block.int_column(column.name)] = fed.counts
        case Kind.SUM:
            total = np.add.reduceat(fed.amounts(block, column.source), fed.starts)
            rows.ints[fed.keys, block.int_column(column.name)] = total
        case Kind.MIN:
            least = np.minimum.reduceat(fed.amounts(block, column.source), fed.starts)
            rows.ints[fed.keys, block.int_column(column.name)] = least
        case Kind.MAX:
            rows.ints[fed.keys, block.int_column(column.name)] = fed.most(fed.amounts(block, column.source))
        case Kind.HOURS:
            first, n = block.int_column(f"{column.name}_0"), len(fed.starts)
            slot = (fed.amounts(block, "at") % US_PER_DAY) // (US_PER_DAY // column.size)
            slot += fed.each(np.arange(n, dtype=np.int64) * column.size)
            counts = np.bincount(slot, minlength=n * column.size)
            rows.ints[fed.keys, first : first + column.size] = counts.reshape(n, column.size)
        case Kind.DAYS:
            first = block.int_column(f"{column.name}_last")
            day = fed.amounts(block, "at") // US_PER_DAY
            last = fed.most(day)
            back: Ints = fed.each(last) - day
            bits = np.where(back < DAY_BITS, np.left_shift(np.int64(1), np.minimum(back, DAY_BITS - 1)), 0)
            rows.ints[fed.keys, first] = last
            rows.ints[fed.keys, first + 1] = np.bitwise_or.reduceat(bits, fed.starts)
        case Kind.LATEST:
            _fill_latest(fed, fed.amounts(block, column.source), rows.latest[:, block.latest_slices[column.name]])
        case Kind.DECAYED:
            weight = fed.age(block, ref) * (-1.0 / (column.half_life_days * US_PER_DAY))
            np.exp2(weight, out=weight)
            if column.source != "one":
                weight *= fed.amounts(block, column.source)
            rows.decayed[fed.keys, block.decay_column(column.name)] = np.add.reduceat(weight, fed.starts)


def _fill_latest(fed: _Fed, instants: Ints, latest: Ints) -> None:
    """Write the K largest distinct positive instants of every key into `latest` (N, K), descending."""
    of: npt.NDArray[np.intp] = fed.each(np.arange(len(latest))[fed.keys])
    known = instants > 0
    if not known.all():
        of, instants = of[known], instants[known]
    if not len(of):
        return
    same = of[1:] == of[:-1]
    falls = (instants[1:] < instants[:-1]) & same
    if falls.any():
        unsorted = np.zeros(len(latest), dtype=np.bool_)
        unsorted[of[1:][falls]] = True
        mine = np.flatnonzero(unsorted[of])
        instants = instants.copy()
        instants[mine] = instants[mine][np.lexsort((instants[mine], of[mine]))]  # `of` is ascending already
    distinct = np.append(~same | (instants[1:] != instants[:-1]), True)  # the last of equal ones
    of, instants = of[distinct], instants[distinct]
    ends = np.flatnonzero(np.append(of[1:] != of[:-1], True))
    rank = np.repeat(ends, np.diff(ends, prepend=-1)) - np.arange(len(of))
    kept = rank < latest.shape[1]
    latest[of[kept], rank[kept]] = instants[kept]
