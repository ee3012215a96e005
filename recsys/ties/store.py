"""States in memory, as the online path reads them: an immutable, memory-mapped base and fresh copies of what changed.

`TieStore` holds the tie blocks, one slice of the base per user; the first fact of a user copies his slice, so a base of
tens of millions of ties stays shared and untouched. `RowStore` holds the states of hosts, users or rooms by row.

Threading: one writer. A reader may read a user while the writer works on another; readers of the same user must be
serialised with the writer by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.ties.algebra import Block, BlockState, Rows, identity
from recsys.ties.update import Updater

Hosts = npt.NDArray[np.int32]
_NO_HOSTS: Hosts = np.empty(0, dtype=np.int32)


@dataclass(frozen=True)
class UserTies:
    """The ties of one user in one block: `hosts` (n,) host rows and their states, position by position."""

    hosts: Hosts
    rows: Rows

    def __len__(self) -> int:
        return len(self.hosts)


class _Fresh:
    """A user's ties in one block, copied to grow."""

    __slots__ = ("hosts", "n", "position", "rows")

    def __init__(self, block: Block, base: UserTies) -> None:
        self.n = len(base)
        room = max(4, self.n + self.n // 2)
        self.hosts = np.empty(room, dtype=np.int32)
        self.hosts[: self.n] = base.hosts
        self.rows = identity(block, room)
        _copy(base.rows, self.rows, self.n)
        self.position = {int(host): i for i, host in enumerate(base.hosts)}

    def row_of(self, block: Block, host: int) -> int:
        at = self.position.get(host)
        if at is None:
            if self.n == len(self.hosts):
                grown = identity(block, 2 * self.n)
                _copy(self.rows, grown, self.n)
                self.rows = grown
                self.hosts = np.concatenate([self.hosts, np.empty(self.n, dtype=np.int32)])
            at = self.position[host] = self.n
            self.hosts[at] = host
            self.n += 1
        return at

    def view(self) -> UserTies:
        return UserTies(self.hosts[: self.n], self.rows.take(slice(0, self.n)))


class TieStore:
    """The tie blocks of all users."""

    def __init__(self, tie_blocks: tuple[Block, ...], base: dict[str, BlockState] | None = None) -> None:
        """
        Args:
            tie_blocks: the declared blocks of level `tie`.
            base: states by block name, keys ascending; arrays may be memory-mapped and are never written.
        """
        self.blocks = {block.name: block for block in tie_blocks}
        self.updaters = {block.name: Updater(block) for block in tie_blocks}
        self._fresh: dict[str, dict[int, _Fresh]] = {block.name: {} for block in tie_blocks}
        self._base: dict[str, tuple[npt.NDArray[np.int64], Hosts, Rows]] = {}
        self._empty = {block.name: UserTies(_NO_HOSTS, identity(block, 0)) for block in tie_blocks}
        for name, state in (base or {}).items():
            users = state.keys >> 32
            n_users = int(users[-1]) + 1 if len(users) else 0
            offsets = np.searchsorted(users, np.arange(n_users + 1)).astype(np.int64)
            # plain views of the maps: slicing a memmap costs several times as much
            held = state.rows
            rows = Rows(np.asarray(held.ints), np.asarray(held.decayed), np.asarray(held.latest))
            self._base[name] = (offsets, np.asarray(state.keys & 0xFFFFFFFF).astype(np.int32), rows)

    def of(self, block: str, user: int) -> UserTies:
        """The ties of one user in one block; views, valid until the user's next fact."""
        fresh = self._fresh[block].get(user)
        return fresh.view() if fresh is not None else self._base_of(block, user)

    def row(self, block: str, user: int, host: int) -> Rows | None:
        """The state of one tie in one block, or None if it has none."""
        fresh = self._fresh[block].get(user)
        if fresh is not None:
            at = fresh.position.get(host)
            return None if at is None else fresh.rows.take(slice(at, at + 1))
        ties = self._base_of(block, user)
        found = np.flatnonzero(ties.hosts == host)
        return ties.rows.take(slice(found[0], found[0] + 1)) if len(found) else None

    def apply(self, user: int, host: int, kind: int, at: int, count: int, value: int) -> None:
        """Let the tie (user, host) know one fact."""
        for name, updater in self.updaters.items():
            if updater.reads(kind):
                fresh = self._fresh[name].get(user)
                if fresh is None:
                    fresh = self._fresh[name][user] = _Fresh(self.blocks[name], self._base_of(name, user))
                position = fresh.row_of(self.blocks[name], host)
                updater.apply(fresh.rows, position, kind, at, count, value)

    def forget(self, user: int) -> None:
        """The user has no ties any more; his slice of the base is never read again."""
        for name, block in self.blocks.items():
            self._fresh[name][user] = _Fresh(block, self._empty[name])

    @property
    def fresh_users(self) -> int:
        """How many users have ties that differ from the base, over all blocks."""
        return len(set().union(*self._fresh.values())) if self._fresh else 0

    def _base_of(self, block: str, user: int) -> UserTies:
        held = self._base.get(block)
        if held is None or user < 0 or user + 1 >= len(held[0]):
            return self._empty[block]
        offsets, hosts, rows = held
        where = slice(int(offsets[user]), int(offsets[user + 1]))
        return UserTies(hosts[where], rows.take(where))


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
        self.rows = identity(block, n)
        if base is not None and len(base):
            self.grow(int(base.keys[-1]) + 1)
            self.rows.ints[base.keys], self.rows.decayed[base.keys] = base.rows.ints, base.rows.decayed
            self.rows.latest[base.keys] = base.rows.latest

    def __len__(self) -> int:
        return len(self.rows)

    def grow(self, n: int) -> None:
        """Hold at least `n` rows."""
        if n > len(self.rows):
            grown = identity(self.block, max(n, len(self.rows) * 3 // 2))
            _copy(self.rows, grown, len(self.rows))
            self.rows = grown

    def forget(self, row: int) -> None:
        """The state of one row is the identity again."""
        if row < len(self.rows):
            _copy(identity(self.block, 1), self.rows.take(slice(row, row + 1)), 1)

    def apply(self, row: int, kind: int, at: int, count: int, value: int) -> None:
        """Let the state of one row know one fact."""
        if self.updater.reads(kind):
            if row >= len(self.rows):
                self.grow(row + 1)
            self.updater.apply(self.rows, row, kind, at, count, value)


def _copy(source: Rows, target: Rows, n: int) -> None:
    target.ints[:n], target.decayed[:n], target.latest[:n] = source.ints[:n], source.decayed[:n], source.latest[:n]
