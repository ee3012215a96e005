"""Two histories as one: states by key are merged key by key, with the algebra of their block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recsys.ties.algebra import Block, BlockState, Ints, Rows, combine, empty_state, identity


def merge(a: BlockState, b: BlockState) -> BlockState:
    """The state of both histories together; exact for integers, to rounding for decayed sums."""
    if a.block != b.block:
        raise ValueError(f"states of different blocks cannot be merged: {a.block.name} and {b.block.name}")
    if not len(a) or not len(b):
        return a if len(a) else b
    at = positions(a.keys, b.keys)
    known = at >= 0
    both = combine(a.block, a.rows.take(at[known]), b.rows.take(np.flatnonzero(known)))
    merged = placed(a.block, [a, b.select(~known)])
    put(merged.rows, positions(merged.keys, b.keys[known]), both)
    return merged


def merge_all(block: Block, states: Sequence[BlockState]) -> BlockState:
    """Merge any number of states of one block: in one step if no two share a key, else in a balanced tree."""
    queue = [state for state in states if len(state)]
    if len(queue) < 2:
        return queue[0] if queue else empty_state(block)
    keys = np.sort(np.concatenate([state.keys for state in queue]))
    if (keys[1:] != keys[:-1]).all():
        return placed(block, queue)
    while len(queue) > 1:
        queue = [
            merge(*pair) if len(pair) == 2 else pair[0] for pair in (queue[i : i + 2] for i in range(0, len(queue), 2))
        ]
    return queue[0]


def placed(block: Block, states: Sequence[BlockState]) -> BlockState:
    """States of which no two share a key, as one, keys ascending."""
    keys = np.concatenate([state.keys for state in states])
    order = np.argsort(keys, kind="stable")
    place = np.empty(len(keys), dtype=np.int64)
    place[order] = np.arange(len(keys))
    rows, filled = identity(block, len(keys)), 0
    for state in states:
        put(rows, place[filled : filled + len(state)], state.rows)
        filled += len(state)
    return BlockState(block, keys[order], rows)


def put(rows: Rows, where: npt.NDArray[np.integer], new: Rows) -> None:
    """Overwrite the states at `where` (n,) with `new` (n)."""
    rows.ints[where], rows.decayed[where], rows.latest[where] = new.ints, new.decayed, new.latest


def positions(keys: Ints, wanted: Ints) -> Ints:
    """Where each of `wanted` (n,) stands in ascending `keys`, −1 if it does not."""
    if not len(keys):
        return np.full(len(wanted), -1, dtype=np.int64)
    at = np.searchsorted(keys, wanted)
    return np.where(keys[np.minimum(at, len(keys) - 1)] == wanted, at, -1)
