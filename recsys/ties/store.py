"""Ties in memory, as the online path reads them: an immutable, memory-mapped base and over it what changed.

`TieStore` holds the tie blocks of all users; a fact copies the one tie it changes, so a base of tens of millions of
ties stays shared and untouched. States of hosts, users and rooms: `recsys.ties.row_store`.

Threading: one writer. A reader may read a user while the writer works on another; readers of the same user must be
serialised with the writer by the caller.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from recsys.events.facts import FactKind
from recsys.ties.algebra import Block, Rows, empty_state, identity
from recsys.ties.fresh import FreshTies
from recsys.ties.layers import State
from recsys.ties.slices import Slices, UserTies
from recsys.ties.space import Space
from recsys.ties.update import Cells, Updater

__all__ = ["TieStore", "UserTies"]

Arrays = dict[str, npt.NDArray[np.generic]]


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
        held = base or {}
        slices = {b.name: Slices(held.get(b.name, empty_state(b))) for b in tie_blocks}
        self.space = Space()
        """Where the ties that differ from the base are kept."""
        self._fresh = {b.name: FreshTies(b, slices[b.name], self.space) for b in tie_blocks}
        self.largest_host = max((one.largest_host for one in slices.values()), default=-1)
        """The largest host row of the base, −1 without ties."""
        self._blocks_of = [
            [name for name, updater in self.updaters.items() if updater.reads(kind)] for kind in range(len(FactKind))
        ]
        self._nothing = {block.name: identity(block, 1) for block in tie_blocks}
        self._scratch = threading.local()

    def of(self, block: str, user: int) -> UserTies:
        """The ties of one user in one block; valid until the user's next fact."""
        return self._fresh[block].of(user)

    def fetch(self, user: int, *blocks: str) -> None:
        """The ties of a user in these blocks (none named: all) will be read soon: fetched from disk, nobody waits."""
        for name in blocks or self.blocks:
            self._fresh[name].fetch(user)

    def held(self, user: int) -> dict[str, UserTies]:
        """The ties of one user by block, as `of` gives them."""
        return {name: self.of(name, user) for name in self.blocks}

    def row(self, block: str, user: int, host: int) -> Rows | None:
        """The state of one tie in one block, or None if it has none."""
        return self._fresh[block].row(user, host)

    def placing(self, block: str) -> Callable[[int, int], tuple[Cells, int]]:
        """Where the state of a tie (user, host) of a block lies, to be changed by a program of its updater: a function.

        A tie that is not there yet is made, in identity state.
        """
        return self._fresh[block].place

    def nothing(self, block: str, n: int) -> Rows:
        """The states (n,) of ties of which a block knows nothing; not to be written."""
        held = self._nothing[block]
        if len(held) < n:
            held = self._nothing[block] = identity(self.blocks[block], 2 * n)
        return held.take(slice(n))

    def scratch(self, n_hosts: int) -> npt.NDArray[np.int32]:
        """This thread's own (≥ n_hosts,) array of −1, to be left as it was found."""
        held: npt.NDArray[np.int32] | None = getattr(self._scratch, "of_host", None)
        if held is None or len(held) < n_hosts:
            held = self._scratch.of_host = np.full(n_hosts + n_hosts // 4, -1, dtype=np.int32)
        return held

    def apply(self, user: int, host: int, kind: int, at: int, count: int, value: int) -> None:
        """Let the tie (user, host) know one fact."""
        for name in self._blocks_of[kind]:
            held, row = self._fresh[name].place(user, host)
            self.updaters[name].programs[kind](*held, row, at, count, value)  # type: ignore[misc]

    def apply_many(self, user: int, hosts: list[int], kind: FactKind, at: int) -> None:
        """`apply` for the ties with several distinct hosts, with count 1 each; all cost little more than one."""
        for name in self._blocks_of[kind]:
            rows, positions = self._fresh[name].place_many(user, hosts)
            self.updaters[name].apply_many(rows, positions, kind, at)

    def forget(self, user: int) -> None:
        """The user has no ties any more; what the base holds of him is never read again."""
        for fresh in self._fresh.values():
            fresh.forget(user)

    def moved(self, block: str) -> Arrays:
        """The ties of a block that differ from the base, as arrays (`FreshTies.moved`)."""
        return self._fresh[block].moved()

    def put(self, block: str, told: Arrays) -> None:
        """Differ from the base by what `moved` of another store told."""
        self._fresh[block].put(told)

    @property
    def fresh_users(self) -> int:
        """How many users have ties that differ from the base, over all blocks."""
        return len(set().union(*(fresh.users() for fresh in self._fresh.values())))
