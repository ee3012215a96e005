"""The algebra of the state: what a block may hold and how two states of one key become one.

A *block* is a table of states by key: (user, host) for ties, host, user or room for aggregates. Its columns are of five
kinds, and each kind merges exactly under any split of the history, so `merge` is associative and commutative:

| kind | holds | merge |
|---|---|---|
| `SUM` | count or integer amount | a + b |
| `MIN`, `MAX` | first or last instant, µs | min, max |
| `DAYS` | bitmap of active days, bit i = «i days before the last active day» | shift the older one, or |
| `LATEST` | the K largest distinct instants, descending | K largest of the union |
| `DECAYED` | Σ w·2^(−(ref − at)/h), ref = the key's own last instant in the block | both brought to the later ref, + |

A decayed sum refers to its key's own last fact, is carried forward only when it is read (`decayed_at`), and so never
needs rewriting as time passes and never overflows. `DAYS` forgets days more than 63 before the last active one; that
forgetting commutes with merging because the last active day only grows.

Shapes used below: N keys, I integer columns, D decayed columns, K instants over all `LATEST` columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from recsys.events.facts import FOREVER, NEVER, US_PER_DAY, FactKind

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Level = Literal["tie", "host", "user", "room"]
Source = Literal["one", "count", "value", "at", "beyond"]

DAY_BITS = 63
"""How many days back from the last active day a bitmap reaches (bit 63 would be the sign)."""


class Kind(Enum):
    """How a column merges; see the table above."""

    SUM = "sum"
    MIN = "min"
    MAX = "max"
    DAYS = "days"
    HOURS = "hours"
    LATEST = "latest"
    DECAYED = "decayed"


@dataclass(frozen=True)
class Column:
    """One declared quantity of a block.

    Args:
        name: column name; `HOURS` expands to name_0 … name_{bins−1}, `DAYS` to name_last and name_bits.
        kind: how it merges.
        facts: the kinds of facts that feed it.
        source: which number of the fact it takes: `one`, `count`, `value`, `at`, or `beyond` (the part of a stay in ms
            that goes beyond two product slots).
        half_life_days: of a `DECAYED` column.
        size: how many instants a `LATEST` column keeps, or how many equal slots of the UTC day `HOURS` counts.
    """

    name: str
    kind: Kind
    facts: frozenset[FactKind]
    source: Source = "one"
    half_life_days: float = 0.0
    size: int = 0


@dataclass(frozen=True)
class Block:
    """A declared table of states: its key level and its columns.

    The first integer column is always `ref_at`, the last instant of any fact that fed the key, µs.
    """

    name: str
    level: Level
    columns: tuple[Column, ...]
    slot_ms: int = 360_000
    ints: tuple[str, ...] = field(init=False)
    decays: tuple[str, ...] = field(init=False)
    latest: tuple[str, ...] = field(init=False)
    half_lives_us: Floats = field(init=False, compare=False)
    sum_columns: npt.NDArray[np.intp] = field(init=False, compare=False)
    min_columns: npt.NDArray[np.intp] = field(init=False, compare=False)
    max_columns: npt.NDArray[np.intp] = field(init=False, compare=False)
    days_columns: tuple[int, ...] = field(init=False)
    latest_slices: dict[str, slice] = field(init=False, compare=False)
    _places: dict[str, int] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        ints: list[tuple[str, Kind]] = [("ref_at", Kind.MAX)]
        decays: list[Column] = []
        latest: dict[str, slice] = {}
        days: list[int] = []
        width = 0
        for column in self.columns:
            if column.kind is Kind.DECAYED:
                decays.append(column)
            elif column.kind is Kind.LATEST:
                latest[column.name] = slice(width, width + column.size)
                width += column.size
            elif column.kind is Kind.HOURS:
                ints += [(f"{column.name}_{i}", Kind.SUM) for i in range(column.size)]
            elif column.kind is Kind.DAYS:
                days.append(len(ints))
                ints += [(f"{column.name}_last", Kind.DAYS), (f"{column.name}_bits", Kind.DAYS)]
            else:
                ints.append((column.name, column.kind))
        put = object.__setattr__
        put(self, "ints", tuple(name for name, _ in ints))
        put(self, "decays", tuple(column.name for column in decays))
        put(self, "latest", tuple(latest))
        put(self, "half_lives_us", np.array([c.half_life_days * US_PER_DAY for c in decays]))
        for kind in (Kind.SUM, Kind.MIN, Kind.MAX):
            put(
                self,
                f"{kind.value}_columns",
                np.array([i for i, (_, k) in enumerate(ints) if k is kind], dtype=np.intp),
            )
        put(self, "days_columns", tuple(days))
        put(self, "latest_slices", latest)
        put(self, "_places", {name: i for i, (name, _) in enumerate(ints)} | {c.name: i for i, c in enumerate(decays)})

    @property
    def latest_width(self) -> int:
        """Instants kept per key over all `LATEST` columns."""
        return max((s.stop for s in self.latest_slices.values()), default=0)

    @property
    def facts(self) -> frozenset[FactKind]:
        """Kinds of facts that feed any column."""
        return frozenset().union(*(column.facts for column in self.columns))

    def int_column(self, name: str) -> int:
        """Position of an integer column."""
        return self._places[name]

    def decay_column(self, name: str) -> int:
        """Position of a decayed column."""
        return self._places[name]


@dataclass
class Rows:
    """States of N keys of one block, position by position.

    `ints` (N, I) int64, `decayed` (N, D) float64 at each key's own `ref_at`, `latest` (N, K) int64 descending, padded
    with `NEVER`.
    """

    ints: Ints
    decayed: Floats
    latest: Ints

    def __len__(self) -> int:
        return len(self.ints)

    @property
    def parts(self) -> tuple[Ints, Floats, Ints]:
        """`ints`, `decayed`, `latest`."""
        return self.ints, self.decayed, self.latest

    def view(self) -> Rows:
        """The same states through arrays of their own."""
        return Rows(self.ints.view(), self.decayed.view(), self.latest.view())

    def copy(self) -> Rows:
        """The same states in arrays of their own."""
        return Rows(self.ints.copy(), self.decayed.copy(), self.latest.copy())

    def take(self, positions: npt.NDArray[np.integer] | slice) -> Rows:
        """The states at `positions`."""
        return Rows(self.ints[positions], self.decayed[positions], self.latest[positions])


def identity(block: Block, n: int) -> Rows:
    """N states of keys of which nothing is known; merging with it changes nothing."""
    ints = np.zeros((n, len(block.ints)), dtype=np.int64)
    ints[:, block.min_columns] = FOREVER
    ints[:, block.max_columns] = NEVER
    for at in block.days_columns:
        ints[:, at] = NEVER
    return Rows(ints, np.zeros((n, len(block.decays))), np.full((n, block.latest_width), NEVER, dtype=np.int64))


def combine(block: Block, a: Rows, b: Rows) -> Rows:
    """Merge position by position: the state of `a`'s facts and `b`'s together."""
    ints = np.empty_like(a.ints)
    ints[:, block.sum_columns] = a.ints[:, block.sum_columns] + b.ints[:, block.sum_columns]
    ints[:, block.min_columns] = np.minimum(a.ints[:, block.min_columns], b.ints[:, block.min_columns])
    ints[:, block.max_columns] = np.maximum(a.ints[:, block.max_columns], b.ints[:, block.max_columns])
    for at in block.days_columns:
        last = np.maximum(a.ints[:, at], b.ints[:, at])
        ints[:, at] = last
        ints[:, at + 1] = _shifted(a.ints, at, last) | _shifted(b.ints, at, last)
    decayed = decay_to(block, a, ints[:, 0]) + decay_to(block, b, ints[:, 0])
    latest = np.empty_like(a.latest)
    for where in block.latest_slices.values():
        latest[:, where] = _largest_distinct(np.concatenate([a.latest[:, where], b.latest[:, where]], axis=1))
    return Rows(ints, decayed, latest)


def latest_columns(block: Block) -> list[str]:
    """Names of the K columns of `Rows.latest`: `order_times_0` is the latest order, and so on."""
    return [f"{name}_{i}" for name, where in block.latest_slices.items() for i in range(where.stop - where.start)]


def decay_to(block: Block, rows: Rows, at_us: Ints | int) -> Floats:
    """Decayed sums (N, D) carried from each key's `ref_at` forward to `at_us` (N,) or one instant, µs."""
    age = np.asarray(at_us, dtype=np.float64) - rows.ints[:, 0].astype(np.float64)
    factor: Floats = np.exp2(-np.maximum(age, 0.0)[:, None] / block.half_lives_us)
    return rows.decayed * factor


def _shifted(ints: Ints, at: int, last: Ints) -> Ints:
    """Bitmaps brought to the anchor day `last`; days that fall off the far end are forgotten."""
    known: npt.NDArray[np.bool_] = ints[:, at] != NEVER
    shift = np.where(known, last - np.where(known, ints[:, at], last), DAY_BITS)
    moved = np.left_shift(ints[:, at + 1], np.minimum(shift, DAY_BITS - 1)) & np.int64(2**DAY_BITS - 1)
    return np.where(shift < DAY_BITS, moved, 0)


def _largest_distinct(candidates: Ints) -> Ints:
    """The larger half of each row's distinct values, descending, padded with NEVER. (N, 2K) → (N, K)."""
    ordered = np.sort(candidates, axis=1)[:, ::-1].copy()
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = NEVER
    return np.sort(ordered, axis=1)[:, ::-1][:, : candidates.shape[1] // 2]


@dataclass
class BlockState:
    """A block's states by key, sorted by key.

    `keys` (N,) int64: host, user or room row, or for ties `user << 32 | host` (rows are below 2³¹).
    """

    block: Block
    keys: Ints
    rows: Rows

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, kept: npt.NDArray[np.bool_]) -> BlockState:
        """The states of the keys (N,) that are kept."""
        return self if kept.all() else BlockState(self.block, self.keys[kept], self.rows.take(np.flatnonzero(kept)))

    def flat(self) -> BlockState:
        """All states in one layer (see `recsys.ties.layers`): these are."""
        return self

    def scan(self, read: Callable[[Rows], npt.NDArray[Any]]) -> tuple[Ints, npt.NDArray[Any]]:
        """Every key and what `read` makes of its state; `read` maps states (N,) to an array (N, …)."""
        return self.keys, read(self.rows)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The plain arrays of the state, by name, for a bundle."""
        return {
            "keys": self.keys,
            "ints": self.rows.ints,
            "decayed": self.rows.decayed,
            "latest": self.rows.latest,
        }


def empty_state(block: Block) -> BlockState:
    """The state of no facts: no keys."""
    return BlockState(block, np.empty(0, dtype=np.int64), identity(block, 0))
