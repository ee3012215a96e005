"""States of hosts, users and rooms in memory, by row, as the online path reads and changes them.

`RowStore` copies its base: hosts and rooms are few, most of them change, and requests read many at once. Of viewers
there are millions and a request reads one, so `UserRows` leaves the base where it is (memory-mapped) and keeps the rows
that facts have changed.

Threading: one writer; readers are serialised with it by the caller.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.bundle.mapping import Ahead
from recsys.ties.algebra import Block, BlockState, Rows, identity
from recsys.ties.layers import LayeredState, State
from recsys.ties.update import Cells, Updater, cells

IntRows = npt.NDArray[np.int64]
_SPARE, _MOST_SPARE = 16, 200_000  # rows held in advance: a share of those known, and at most so many at once
_SLAB_BITS = 11


class RowStore:
    """States of hosts or rooms, by row; rows beyond the end have the identity state."""

    def __init__(self, block: Block, n: int, base: BlockState | None = None) -> None:
        """
        Args:
            block: a block of level `host` or `room`.
            n: number of rows to hold to begin with.
            base: known states, keys = rows; copied.
        """
        self.block = block
        self.updater = Updater(block)
        self._programs = self.updater.programs
        last = int(base.keys[-1]) + 1 if base is not None and len(base) else 0
        self.rows = identity(block, max(n, last + last // _SPARE))
        if base is not None and len(base):
            dense = last == len(base)  # keys are distinct and ascending
            where = slice(0, last) if dense else base.keys
            self.rows.ints[where], self.rows.decayed[where] = base.rows.ints, base.rows.decayed
            self.rows.latest[where] = base.rows.latest
        self.cells = cells(self.rows)
        self._n = len(self.rows)
        self._moved = bytearray(self._n)

    def __len__(self) -> int:
        return self._n

    def moved(self) -> tuple[IntRows, Rows]:
        """Rows (m,) that differ from the base, or did, and their states."""
        rows = np.flatnonzero(np.frombuffer(self._moved, dtype=np.uint8)).astype(np.int64)
        return rows, self.rows.take(rows)

    def put(self, rows: IntRows, states: Rows) -> None:
        """Give rows (m,) these states, as `moved` of another store told them."""
        if len(rows):
            self.grow(int(rows[-1]) + 1)
            self.rows.ints[rows], self.rows.decayed[rows] = states.ints, states.decayed
            self.rows.latest[rows] = states.latest
            np.frombuffer(self._moved, dtype=np.uint8)[rows] = 1

    def grow(self, n: int) -> None:
        """Hold at least `n` rows."""
        if n > self._n:
            held = self._n
            grown = identity(self.block, max(n, held + min(max(held // 2, 64), _MOST_SPARE)))
            where = slice(0, held)
            grown.ints[where], grown.decayed[where] = self.rows.ints, self.rows.decayed
            grown.latest[where] = self.rows.latest
            self.rows, self.cells, self._n = grown, cells(grown), len(grown)
            self._moved = self._moved + bytes(self._n - held)

    def apply(self, row: int, kind: int, at: int, count: int, value: int) -> None:
        """Let the state of one row know one fact."""
        program = self._programs[kind]
        if program is not None:
            if row >= self._n:
                self.grow(row + 1)
            self._moved[row] = 1
            ints, decayed, latest = self.cells
            program(ints, decayed, latest, row, at, count, value)


class UserRows:
    """States of users, by row: a base that is never written, and the rows that changed."""

    def __init__(self, block: Block, base: State | None = None) -> None:
        """
        Args:
            block: a block of level `user`.
            base: known states, keys = rows; may be memory-mapped.
        """
        self.block = block
        self.updater = Updater(block)
        self._programs = self.updater.programs
        self._nothing = identity(block, 1)
        self._base, self._over, self._ahead = self._nothing, self._nothing, Ahead()
        self._in_base = self._n = 0
        self._at: npt.NDArray[np.int32] | None = None  # of row: position in the base, or −2 − position in the layer
        if base is not None and len(base):
            self._lay_out(base)
        self._n = self._in_base
        self._slots: dict[int, int] = {}
        self._slabs: list[tuple[Rows, Cells]] = []

    def __len__(self) -> int:
        """All rows with a state are below this."""
        return self._n

    def _lay_out(self, base: State) -> None:
        lower = base.base if isinstance(base, LayeredState) else base
        held = lower.rows
        self._base = Rows(np.asarray(held.ints), np.asarray(held.decayed), np.asarray(held.latest))
        self._ahead = Ahead(self._base.ints, self._base.decayed, self._base.latest)
        layers = [lower.keys, base.over.keys] if isinstance(base, LayeredState) else [lower.keys]
        self._in_base = 1 + max(int(keys[-1]) for keys in layers if len(keys))
        if len(layers) == 1 and self._in_base == len(lower):
            return  # keys are distinct and ascending: each stands at its own place
        self._at = np.full(self._in_base, -1, dtype=np.int32)
        self._at[lower.keys] = np.arange(len(lower), dtype=np.int32)
        if isinstance(base, LayeredState):
            self._over = base.over.rows
            self._at[base.over.keys] = -2 - np.arange(len(base.over), dtype=np.int32)

    def find(self, row: int) -> tuple[Rows, int]:
        """Where the state of a row stands: states, and its position in them; the identity of a row nobody knows."""
        slot = self._slots.get(row)
        if slot is not None:
            return self._slabs[slot >> _SLAB_BITS][0], slot & (1 << _SLAB_BITS) - 1
        return self._found(row)

    def fetch(self, row: int) -> None:
        """The state of a row will be read soon: fetched from disk, nobody waits."""
        if row not in self._slots:
            held, at = self._found(row)
            if held is self._base:
                self._ahead.fetch(at, at + 1)

    def _found(self, row: int) -> tuple[Rows, int]:
        if not 0 <= row < self._in_base:
            return self._nothing, 0
        at = row if self._at is None else self._at.item(row)
        if at >= 0:
            return self._base, at
        return (self._nothing, 0) if at == -1 else (self._over, -2 - at)

    def moved(self) -> tuple[IntRows, Rows]:
        """Rows (m,) that differ from the base, or did, in the order of their first change, and their states."""
        rows = np.fromiter(self._slots, dtype=np.int64, count=len(self._slots))
        held = [identity(self.block, 0), *(slab for slab, _ in self._slabs)]
        n = len(rows)
        ints, decayed = np.concatenate([slab.ints for slab in held]), np.concatenate([slab.decayed for slab in held])
        return rows, Rows(ints[:n], decayed[:n], np.concatenate([slab.latest for slab in held])[:n])

    def put(self, rows: IntRows, states: Rows) -> None:
        """Give rows (m,) these states, as `moved` of another store told them."""
        for position, row in enumerate(rows.tolist()):
            self._write(self._slots.get(row, -1), row, states, position)

    def forget(self, row: int) -> None:
        """The state of one row is the identity again."""
        self._write(self._slots.get(row, -1), row, self._nothing, 0)

    def apply(self, row: int, kind: int, at: int, count: int, value: int) -> None:
        """Let the state of one row know one fact."""
        program = self._programs[kind]
        if program is not None:
            slot = self._slots.get(row)
            if slot is None:
                slot = self._write(-1, row, *self._found(row))
            ints, decayed, latest = self._slabs[slot >> _SLAB_BITS][1]
            program(ints, decayed, latest, slot & (1 << _SLAB_BITS) - 1, at, count, value)

    def _write(self, slot: int, row: int, source: Rows, position: int) -> int:
        """Copy a state into a slot (−1: the next free one) and name it the row's; the slot."""
        if slot < 0:
            slot = len(self._slots)
            if slot >> _SLAB_BITS == len(self._slabs):
                slab = identity(self.block, 1 << _SLAB_BITS)
                self._slabs.append((slab, cells(slab)))
            self._slots[row] = slot
            self._n = max(self._n, row + 1)
        target, into = self._slabs[slot >> _SLAB_BITS][0], slot & (1 << _SLAB_BITS) - 1
        target.ints[into], target.decayed[into] = source.ints[position], source.decayed[position]
        target.latest[into] = source.latest[position]
        return slot
