"""How many users stand in which relation to a host: visitors, returning visitors, fans, buyers, repeat buyers …

Counts of distinct users do not merge by themselves, but they follow from the ties: each tie either stands in a relation
or does not. The batch counts the ties of a host; online, a fact adds the difference it makes to its own tie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.compiled import compiled
from recsys.events.facts import FACT_SCHEMA, NEVER, FactKind
from recsys.ties.algebra import Block, BlockState, Ints, Rows
from recsys.ties.batch import state_of
from recsys.ties.layers import State
from recsys.ties.merging import merge, placed
from recsys.ties.update import Cells

STANDINGS = ("visitors", "returning", "fans", "blockers", "buyers", "repeat_buyers", "commenters")
"""Columns of the counts, in order."""
_OF_BLOCK: dict[str, tuple[str, ...]] = {
    "visits": ("visitors", "returning"),
    "relation": ("fans", "blockers"),
    "commerce": ("buyers", "repeat_buyers"),
    "depth": ("commenters",),
}
BLOCK_OF_FACT: dict[int, str] = {
    FactKind.ENTRY: "visits",
    FactKind.FOLLOW: "relation",
    FactKind.UNFOLLOW: "relation",
    FactKind.BLOCK: "relation",
    FactKind.UNBLOCK: "relation",
    FactKind.ORDER_LINE: "commerce",
    FactKind.COMMENT: "depth",
}
"""The block in which a fact of this kind may change where a tie stands."""


class Relations(NamedTuple):
    """How N ties stand now: who follows, since when, µs, and who has blocked. (N,) each."""

    follows: npt.NDArray[np.bool_]
    since: Ints
    blocks: npt.NDArray[np.bool_]


def relations(block: Block, rows: Rows) -> Relations:
    """How ties of the block `relation` stand now.

    A tie follows while the last follow is later than the last unfollow (an unfollow wins a draw): since the first
    follow, or after an unfollow since the last. It has blocked the host while the last block is not earlier than the
    last unblock (a block wins a draw).
    """
    n, columns = len(rows), [block.int_column(name) for name in _INSTANTS]
    follows, since, blocks = np.empty(n, dtype=np.bool_), np.empty(n, dtype=np.int64), np.empty(n, dtype=np.bool_)
    _stand(rows.ints, columns[0], columns[1], columns[2], columns[3], columns[4], follows, since, blocks)
    return Relations(follows, since, blocks)


_INSTANTS = ("first_follow_at", "last_follow_at", "last_unfollow_at", "last_block_at", "last_unblock_at")


@compiled
def _stand(
    ints: Ints, first_follow: int, last_follow: int, unfollow: int, block: int, unblock: int,
    follows: npt.NDArray[np.bool_], since: Ints, blocks: npt.NDArray[np.bool_],
) -> None:  # fmt: skip
    """`relations`; numbers are columns of `ints`. `standing_at` says the same of one tie that lies in flat views."""
    for i in range(len(ints)):
        left, blocked_at = ints[i, unfollow], ints[i, block]
        follows[i] = ints[i, last_follow] > left
        since[i] = ints[i, first_follow] if left == NEVER else ints[i, last_follow]
        blocks[i] = blocked_at != NEVER and blocked_at >= ints[i, unblock]


def standings(block: Block, rows: Rows) -> npt.NDArray[np.int64]:
    """Whether each tie stands in each relation of its block, (N, 2 or 1) of 0 and 1, in the order of `columns_of`."""
    match block.name:
        case "visits":
            again = rows.latest[:, block.latest_slices["attended"]][:, 1] != NEVER
            bits = rows.ints[:, block.int_column("active_days_bits")]
            several_days = (bits & (bits - 1)) != 0
            flags = [rows.ints[:, block.int_column("n_entries")] > 0, again | several_days]
        case "relation":
            stand = relations(block, rows)
            flags = [stand.follows, stand.blocks]
        case "commerce":
            times = rows.latest[:, block.latest_slices["order_times"]]
            flags = [rows.ints[:, block.int_column("n_lines")] > 0, times[:, 1] != NEVER]
        case "depth":
            flags = [rows.ints[:, block.int_column("n_comments")] > 0]
        case other:
            raise ValueError(f"block {other} has no standings")
    return np.stack(flags, axis=1).astype(np.int64)


def standing_at(block: Block) -> Callable[[Cells, int], tuple[bool, ...]]:
    """`standings` of one tie that lies in flat views: a function of (views, row), some hundred nanoseconds a call."""
    n_ints, n_latest = len(block.ints), block.latest_width
    match block.name:
        case "visits":
            entries, bits = block.int_column("n_entries"), block.int_column("active_days_bits")
            second = block.latest_slices["attended"].start + 1

            def visits(held: Cells, row: int) -> tuple[bool, ...]:
                ints, days = held.ints, held.ints[row * n_ints + bits]
                again = days & (days - 1) != 0 or held.latest[row * n_latest + second] != NEVER
                return ints[row * n_ints + entries] > 0, again

            return visits
        case "relation":
            follow, until, block_at, unblock = (
                block.int_column(f"last_{which}_at") for which in ("follow", "unfollow", "block", "unblock")
            )

            def relation(held: Cells, row: int) -> tuple[bool, ...]:
                ints, at = held.ints, row * n_ints
                since = ints[at + block_at]
                return ints[at + follow] > ints[at + until], since != NEVER and since >= ints[at + unblock]

            return relation
        case "commerce":
            lines, second_order = block.int_column("n_lines"), block.latest_slices["order_times"].start + 1
            return lambda held, row: (
                held.ints[row * n_ints + lines] > 0,
                held.latest[row * n_latest + second_order] != NEVER,
            )
        case "depth":
            comments = block.int_column("n_comments")
            return lambda held, row: (held.ints[row * n_ints + comments] > 0,)
        case other:
            raise ValueError(f"block {other} has no standings")


def columns_of(block_name: str) -> list[int]:
    """Positions in `STANDINGS` of a block's relations."""
    return [STANDINGS.index(name) for name in _OF_BLOCK[block_name]]


def count_standings(states: Mapping[str, State], n_hosts: int) -> Ints:
    """Users per host in each relation, (n_hosts, len(STANDINGS))."""
    counts = np.zeros((n_hosts, len(STANDINGS)), dtype=np.int64)
    for name in _OF_BLOCK:
        if name in states and len(states[name]):
            keys, flags = states[name].scan(partial(standings, states[name].block))
            _count(counts, name, keys, flags)
    return counts


def moved_standings(counts: Ints, block: Block, keys: Ints, before: Rows, after: Rows) -> None:
    """Bring `counts` (n_hosts, len(STANDINGS)) up to date when the ties `keys` (n,) have changed, in place."""
    if block.name in _OF_BLOCK and len(keys):
        _count(counts, block.name, keys, standings(block, after) - standings(block, before))


def _count(counts: Ints, name: str, keys: Ints, flags: Ints) -> None:
    hosts = keys & 0xFFFFFFFF
    for column, flag in zip(columns_of(name), flags.T, strict=True):
        found = np.bincount(hosts, weights=flag, minlength=len(counts))
        counts[:, column] += np.rint(found).astype(np.int64)[: len(counts)]


def first_entries(visits: State) -> tuple[Ints, Ints]:
    """The ties that have an entry, (n,) keys, and the instants of their first ones, µs."""
    block = visits.block
    columns = [block.int_column("first_entry_at"), block.int_column("n_entries")]
    keys, found = visits.scan(lambda rows: rows.ints[:, columns])
    known = found[:, 1] > 0
    return keys[known], found[known, 0]


def first_entry_facts(keys: Ints, at: Ints) -> pl.DataFrame:
    """First entries of ties as facts: what the block `arrivals` is fed with."""
    constant = {"kind": int(FactKind.ENTRY), "room": -1, "count": 1, "value": 0, "aux": 0}
    return (
        pl.DataFrame({"at": at, "user": keys >> 32, "host": keys & 0xFFFFFFFF})
        .with_columns(pl.lit(value).alias(name) for name, value in constant.items())
        .select(pl.col(name).cast(kind) for name, kind in FACT_SCHEMA.items())
    )


def arrivals_after(arrivals: BlockState, visits: State, keys: Ints, before: Rows, after: Rows) -> BlockState:
    """The block `arrivals` when the visits of the ties `keys` (n,) have changed, from what it was.

    New ties add their first entries. Of hosts at whom a late entry proves to be earlier than the first one known, the
    arrivals are made anew from all ties in `visits`: taking one off a decayed sum would cost digits.
    """
    first, n_entries = (visits.block.int_column(name) for name in ("first_entry_at", "n_entries"))
    had, has = before.ints[:, n_entries] > 0, after.ints[:, n_entries] > 0
    fresh = ~had & has
    moved = np.unique((keys & 0xFFFFFFFF)[had & (after.ints[:, first] < before.ints[:, first])])
    added = state_of(arrivals.block, first_entry_facts(keys[fresh], after.ints[fresh, first]))
    merged = merge(arrivals, added)
    if not len(moved):
        return merged
    every, at = first_entries(visits)
    theirs = np.isin(every & 0xFFFFFFFF, moved)
    anew = state_of(arrivals.block, first_entry_facts(every[theirs], at[theirs]))
    return placed(arrivals.block, [merged.select(~np.isin(merged.keys, moved)), anew])
