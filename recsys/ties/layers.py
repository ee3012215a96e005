"""States in two layers: a base that is never written, and over it the rows that have changed since.

A night touches few of the ties, so the nightly delta neither copies nor rewrites the others: the base stays the file it
was (linked into the next bundle), the layer over it is small and written anew. When the layer has grown beyond a share
of the base the two are written as one (`flat`), which is the compaction.

Shapes: N keys of the base, M of the layer, n keys asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.ties.algebra import Block, BlockState, Ints, Rows, combine, empty_state, identity
from recsys.ties.merging import placed, positions, put


@dataclass
class LayeredState:
    """A block's states: those of `over` by key, and those of `base` for keys that `over` does not hold.

    `at` (M,) int64: the position in the base of each key of `over`, −1 if the base has none.
    """

    base: BlockState
    over: BlockState
    at: Ints

    @property
    def block(self) -> Block:
        """The declaration."""
        return self.base.block

    def __len__(self) -> int:
        return len(self.base) + int((self.at < 0).sum())

    def rows_of(self, keys: Ints) -> Rows:
        """The states (n,) of `keys`, copied; the identity for keys that have none."""
        rows = identity(self.block, len(keys))
        over, at = positions(self.over.keys, keys), positions(self.base.keys, keys)
        in_base = np.flatnonzero((over < 0) & (at >= 0))
        in_over = np.flatnonzero(over >= 0)
        put(rows, in_base, self.base.rows.take(at[in_base]))
        put(rows, in_over, self.over.rows.take(over[in_over]))
        return rows

    def put(self, keys: Ints, rows: Rows) -> LayeredState:
        """The same with other states for `keys` (ascending, each once)."""
        old = np.isin(self.over.keys, keys, assume_unique=True, invert=True)
        over = placed(self.block, [self.over.select(old), BlockState(self.block, keys, rows)])
        return LayeredState(self.base, over, positions(self.base.keys, over.keys))

    def flat(self) -> BlockState:
        """All states in one layer, copied."""
        if not len(self.over):
            return self.base
        kept = np.ones(len(self.base), dtype=np.bool_)
        kept[self.at[self.at >= 0]] = False
        return placed(self.block, [self.base.select(kept), self.over])

    def scan(self, read: Callable[[Rows], npt.NDArray[Any]]) -> tuple[Ints, npt.NDArray[Any]]:
        """Every key, in no order, and what `read` makes of its state; `read` maps states (n,) to an array (n, …)."""
        kept = np.ones(len(self.base), dtype=np.bool_)
        kept[self.at[self.at >= 0]] = False
        values = [read(self.base.rows)[kept], read(self.over.rows)]
        return np.concatenate([self.base.keys[kept], self.over.keys]), np.concatenate(values)


State = BlockState | LayeredState


def layered(state: State) -> LayeredState:
    """The state as a base with a layer over it, empty if there was none."""
    if isinstance(state, LayeredState):
        return state
    return LayeredState(state, empty_state(state.block), np.empty(0, dtype=np.int64))


def added(state: LayeredState, fresh: BlockState) -> tuple[LayeredState, Rows, Rows]:
    """`state` merged with the states of further facts; and the states of those keys before and after, (n,).

    The cost follows the keys of `fresh` and the layer, not the base.
    """
    before = state.rows_of(fresh.keys)
    after = combine(state.block, before, fresh.rows)
    return state.put(fresh.keys, after), before, after
