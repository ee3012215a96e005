"""States in memory, as the online path reads them: an immutable, memory-mapped base and fresh copies of what changed.

`TieStore` holds the tie blocks, one slice of the base per user; the first fact of a user copies his slice, so a base of
tens of millions of ties stays shared and untouched. `RowStore` holds the states of hosts, users or rooms by row.

Threading: one writer. A reader may read a user while the writer works on another; readers of the same user must be
serialised with the writer by the caller.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from recsys.events.facts import FactKind
from recsys.ties.algebra import Block, BlockState, Rows, identity
from recsys.ties.fresh import FreshTies, Hosts, UserTies
from recsys.ties.layers import State
from recsys.ties.slices import Slices
from recsys.ties.update import Cells, Updater, cells

__all__ = ["RowStore", "TieStore", "UserTies"]

IntRows = npt.NDArray[np.int64]
_NO_HOSTS: Hosts = np.empty(0, dtype=np.int32)
_SPARE, _MOST_SPARE = 16, 200_000  # rows held in advance: a share of those known, and at most so many at once


class TieStore:
    """The tie blocks of all users."""

    def __init__(self, tie_blocks: tuple[Block, ...], base: dict[str, State] | None = None) -> None:
        """
        Args:
            tie_blocks: the declared blocks of level `tie`.
            base: states by block name, keys ascending; arrays may be memory-mapped and are never written.
        """
        self.blocks = {block.name: block for block in tie_blocks}
        self.updaters = {block.name: Updater(block) for block in tie_blocks}
        self._fresh = {block.name: FreshTies(block) for block in tie_blocks}
        self._blocks_of = [
            [name for name, updater in self.updaters.items() if updater.reads(kind)] for kind in range(len(FactKind))
        ]
        self.nothing = {block.name: identity(block, 1) for block in tie_blocks}
        self._scratch = threading.local()
        self._empty = {block.name: UserTies(_NO_HOSTS, identity(block, 0)) for block in tie_blocks}
        self._base = {name: Slices(state) for name, state in (base or {}).items()}

    def of(self, block: str, user: int) -> UserTies:
        """The ties of one user in one block; views, valid until the user's next fact."""
        fresh = self._fresh[block].of(user)
        return fresh if fresh is not None else self._base_of(block, user)

    def row(self, block: str, user: int, host: int) -> Rows | None:
        """The state of one tie in one block, or None if it has none."""
        if user in self._fresh[block]:
            return self._fresh[block].find(user, host)
        ties = self._base_of(block, user)
        found = np.flatnonzero(ties.hosts == host)
        return ties.rows.take(slice(found[0], found[0] + 1)) if len(found) else None

    def place(self, block: str, user: int, host: int) -> tuple[Cells, int]:
        """Where the state of one tie lies, to be changed by a program of the block's updater (its views and row).

        A tie that is not there yet is made, in identity state.
        """
        fresh = self._fresh[block]
        if user not in fresh:
            fresh.put(user, self._base_of(block, user))
        return fresh.place(user, host)

    def scratch(self, n_hosts: int) -> npt.NDArray[np.int32]:
        """This thread's own (≥ n_hosts,) array of −1, to be left as it was found."""
        held: npt.NDArray[np.int32] | None = getattr(self._scratch, "of_host", None)
        if held is None or len(held) < n_hosts:
            held = self._scratch.of_host = np.full(n_hosts + n_hosts // 4, -1, dtype=np.int32)
        return held

    def apply(self, user: int, host: int, kind: int, at: int, count: int, value: int) -> None:
        """Let the tie (user, host) know one fact."""
        for name in self._blocks_of[kind]:
            held, row = self.place(name, user, host)
            self.updaters[name].programs[kind](*held, row, at, count, value)  # type: ignore[misc]

    def forget(self, user: int) -> None:
        """The user has no ties any more; his slice of the base is never read again."""
        for name in self.blocks:
            self._fresh[name].put(user, self._empty[name])

    def moved(self, block: str) -> tuple[IntRows, IntRows, UserTies]:
        """Users (u,) whose ties differ from the base, how many each has (u,), and all of these one after the other."""
        return self._fresh[block].all()

    def put(self, block: str, users: IntRows, counts: IntRows, ties: UserTies) -> None:
        """Give users the ties that `moved` of another store told."""
        end = 0
        for user, n in zip(users.tolist(), counts.tolist(), strict=True):
            part = slice(end, end := end + n)
            self._fresh[block].put(user, UserTies(ties.hosts[part], ties.rows.take(part)))

    @property
    def fresh_users(self) -> int:
        """How many users have ties that differ from the base, over all blocks."""
        return len(set().union(*(fresh.users() for fresh in self._fresh.values())))

    def _base_of(self, block: str, user: int) -> UserTies:
        held = self._base.get(block)
        return self._empty[block] if held is None else held.of(user)


class RowStore:
    """States of hosts, users or rooms, by row; rows beyond the end have the identity state."""

    def __init__(self, block: Block, n: int, base: BlockState | None = None) -> None:
        """
        Args:
            block: a block of level `host`, `user` or `room`.
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
        self._cells = cells(self.rows)
        self._moved = bytearray(len(self.rows))

    def __len__(self) -> int:
        return len(self.rows)

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
        if n > len(self.rows):
            held = len(self.rows)
            grown = identity(self.block, max(n, held + min(max(held // 2, 64), _MOST_SPARE)))
            _copy(self.rows, grown, held)
            self.rows, self._cells = grown, cells(grown)
            self._moved = self._moved + bytes(len(grown) - held)

    def forget(self, row: int) -> None:
        """The state of one row is the identity again."""
        if row < len(self.rows):
            self._moved[row] = 1
            _copy(identity(self.block, 1), self.rows.take(slice(row, row + 1)), 1)

    def apply(self, row: int, kind: int, at: int, count: int, value: int) -> None:
        """Let the state of one row know one fact."""
        program = self._programs[kind]
        if program is not None:
            if row >= len(self.rows):
                self.grow(row + 1)
            self._moved[row] = 1
            program(*self._cells, row, at, count, value)


def _copy(source: Rows, target: Rows, n: int) -> None:
    target.ints[:n], target.decayed[:n], target.latest[:n] = source.ints[:n], source.decayed[:n], source.latest[:n]
