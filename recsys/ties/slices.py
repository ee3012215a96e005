"""The ties of a published bundle, user by user: one slice of a block's states each, or of two layers put together."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.bundle.mapping import Ahead
from recsys.ties.algebra import BlockState, Rows
from recsys.ties.layers import LayeredState, State

Hosts = npt.NDArray[np.int32]


@dataclass(frozen=True)
class UserTies:
    """The ties of one user in one block: `hosts` (n,) host rows and their states, position by position; not to be
    written."""

    hosts: Hosts
    rows: Rows

    @classmethod
    def sealed(cls, hosts: Hosts, rows: Rows) -> UserTies:
        """Ties whose arrays, made or viewed for this, refuse to be written, like those of a memory-mapped bundle: loops
        compiled for these (`recsys.compiled`) then serve all."""
        for array in (hosts, *rows.parts):
            array.flags.writeable = False
        return cls(hosts, rows)

    def part(self, where: slice) -> UserTies:
        """Some of the ties, one after the other."""
        return UserTies(self.hosts[where], self.rows.take(where))

    def __len__(self) -> int:
        return len(self.hosts)


class Found(NamedTuple):
    """One tie: its position `at` among those of its user, and its state, row `row` of `rows`."""

    at: int
    rows: Rows
    row: int


class _Layer:
    """States of one layer, by user."""

    __slots__ = ("ahead", "hosts", "hosts_seen", "n_users", "offsets", "rows", "ties")

    def __init__(self, state: BlockState) -> None:
        keys = np.asarray(state.keys)
        self.n_users = int(keys[-1] >> 32) + 1 if len(keys) else 0
        self.offsets = np.searchsorted(keys, np.arange(self.n_users + 1, dtype=np.int64) << 32).astype(np.int64).data
        # the lower half of each key, without a copy of all keys in between
        hosts: Hosts = np.ascontiguousarray(keys).astype("<i8", copy=False).view("<i4")[::2].astype(np.int32)
        # plain views of the maps: slicing a memmap costs several times as much
        held = state.rows
        rows = Rows(np.asarray(held.ints), np.asarray(held.decayed), np.asarray(held.latest)).view()
        self.ties = UserTies.sealed(hosts, rows)
        self.hosts, self.rows, self.hosts_seen = hosts, rows, hosts.data
        self.ahead = Ahead(*rows.parts)

    def fetch(self, user: int) -> None:
        """The ties of a user will be read soon."""
        if 0 <= user < self.n_users:
            self.ahead.fetch(self.offsets[user], self.offsets[user + 1])

    def has(self, user: int) -> bool:
        """Whether a user has ties here."""
        return 0 <= user < self.n_users and bool(self.offsets[user] < self.offsets[user + 1])

    def of(self, user: int) -> slice:
        """Where the ties of a user stand."""
        if user < 0 or user >= self.n_users:
            return slice(0, 0)
        return slice(self.offsets[user], self.offsets[user + 1])


class Slices:
    """The ties of users in one block; arrays may be memory-mapped and are never written.

    Of a user whose ties lie in one layer `of` gives views, of others a copy, hosts ascending. The last copy is kept: a
    lookup asks for the same user a dozen times. Threading: any number of readers.
    """

    __slots__ = ("_at", "_base", "_last", "_over")

    def __init__(self, state: State) -> None:
        self._over: _Layer | None = None
        self._last: tuple[int, UserTies] | None = None
        if isinstance(state, LayeredState):
            self._base, self._over, self._at = _Layer(state.base), _Layer(state.over), np.asarray(state.at)
        else:
            self._base = _Layer(state)

    def of(self, user: int) -> UserTies:
        """The ties of one user."""
        last = self._last  # read once: another thread may put its user there
        if last is not None and last[0] == user:
            return last[1]
        base = self._base
        where = base.of(user)
        ties = base.ties.part(where)
        if self._over is None:
            return ties
        mine = self._over.of(user)
        if mine.stop == mine.start:
            return ties
        ties = self._together(ties, where.start, self._over, mine)
        self._last = user, ties
        return ties

    @property
    def largest_host(self) -> int:
        """The largest host row anybody has a tie with, −1 without ties; a negative one counts as larger than any."""
        layers = [layer for layer in (self._base, self._over) if layer is not None and len(layer.hosts)]
        return max((int(layer.hosts.view(np.uint32).max()) for layer in layers), default=-1)

    def fetch(self, user: int) -> None:
        """The ties of a user will be read soon: the system begins to read what is not in memory, nobody waits."""
        self._base.fetch(user)
        if self._over is not None:
            self._over.fetch(user)

    def has(self, user: int) -> bool:
        """Whether a user has any tie."""
        return self._base.has(user) or (self._over is not None and self._over.has(user))

    def find(self, user: int, host: int) -> Found | None:
        """One tie of a user, without reading the others; None: he has none with this host."""
        base = self._base
        where = base.of(user)
        if self._over is not None:
            mine = self._over.of(user)
            if mine.stop > mine.start:
                ties = self.of(user)
                at = int(np.searchsorted(ties.hosts, host))
                return Found(at, ties.rows, at) if at < len(ties) and ties.hosts[at] == host else None
        row = bisect_left(base.hosts_seen, host, where.start, where.stop)
        if row == where.stop or base.hosts_seen[row] != host:
            return None
        return Found(row - where.start, base.rows, row)

    def _together(self, ties: UserTies, first: int, over: _Layer, mine: slice) -> UserTies:
        at = self._at[mine]
        kept = np.ones(len(ties), dtype=np.bool_)
        kept[at[at >= 0] - first] = False
        hosts = np.concatenate([ties.hosts[kept], over.hosts[mine]])
        order = hosts.argsort()
        pairs: Any = zip(ties.rows.parts, over.rows.parts, strict=True)
        return UserTies.sealed(hosts[order], Rows(*(np.concatenate([a[kept], b[mine]])[order] for a, b in pairs)))
