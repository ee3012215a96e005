"""Ties that changed since the bundle was built: copies that may grow, one run of rows per user.

Runs lie in slabs, arrays of some thousand rows that are made once and never moved, so the flat views an update works
on are made once too. A run that is full moves to a longer one; its old place is not used again, and a reader who still
looks at it sees the state of before.

Threading: one writer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.ties.algebra import Block, Rows, identity
from recsys.ties.update import Cells, cells

Hosts = npt.NDArray[np.int32]
_SLAB_ROWS = 8_192


@dataclass(frozen=True)
class UserTies:
    """The ties of one user in one block: `hosts` (n,) host rows and their states, position by position."""

    hosts: Hosts
    rows: Rows

    def __len__(self) -> int:
        return len(self.hosts)


class _Slab:
    """Rows in identity state, of which the first `used` are given out."""

    __slots__ = ("cells", "hosts", "rows", "used")

    def __init__(self, block: Block, n: int) -> None:
        self.hosts: Hosts = np.zeros(n, dtype=np.int32)
        self.rows = identity(block, n)
        self.cells = cells(self.rows)
        self.used = 0


class _Run:
    """The ties of one user: `n` rows of a slab from `start`, with space for `space`; `position` of hosts asked for."""

    __slots__ = ("n", "position", "slab", "space", "start")

    def __init__(self, slab: _Slab, start: int, space: int) -> None:
        self.slab, self.start, self.space = slab, start, space
        self.n = 0
        self.position: dict[int, int] = {}

    def view(self) -> UserTies:
        where = slice(self.start, self.start + self.n)
        return UserTies(self.slab.hosts[where], self.slab.rows.take(where))

    def fill(self, ties: UserTies) -> None:
        self.n = len(ties.hosts)
        if not self.n:
            return
        where, rows = slice(self.start, self.start + self.n), self.slab.rows
        self.slab.hosts[where] = ties.hosts
        rows.ints[where], rows.decayed[where] = ties.rows.ints, ties.rows.decayed
        rows.latest[where] = ties.rows.latest


class FreshTies:
    """The changed ties of one block."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self._runs: dict[int, _Run] = {}
        self._slab = _Slab(block, _SLAB_ROWS)

    def __len__(self) -> int:
        """How many users have any."""
        return len(self._runs)

    def __contains__(self, user: int) -> bool:
        return user in self._runs

    def users(self) -> Iterable[int]:
        """Who has any."""
        return self._runs.keys()

    def of(self, user: int) -> UserTies | None:
        """The ties of a user, views that hold until his next new tie; None: nothing of his has changed."""
        run = self._runs.get(user)
        return None if run is None else run.view()

    def all(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], UserTies]:
        """Users (u,), how many ties each has (u,), and all their ties one after the other; copies."""
        views = [run.view() for run in self._runs.values()]
        counts = np.array([len(view.hosts) for view in views], dtype=np.int64)
        none = UserTies(np.zeros(0, dtype=np.int32), identity(self.block, 0))
        held = [none, *views]
        rows = Rows(
            np.concatenate([view.rows.ints for view in held]),
            np.concatenate([view.rows.decayed for view in held]),
            np.concatenate([view.rows.latest for view in held]),
        )
        users = np.fromiter(self._runs, dtype=np.int64, count=len(self._runs))
        return users, counts, UserTies(np.concatenate([view.hosts for view in held]), rows)

    def find(self, user: int, host: int) -> Rows | None:
        """The state of one tie of a user who has changed ones; None: he has no such tie."""
        run = self._runs[user]
        at = run.position.get(host)
        if at is None:
            found = np.flatnonzero(run.slab.hosts[run.start : run.start + run.n] == host)
            if not len(found):
                return None
            at = int(found[0])
        return run.slab.rows.take(slice(run.start + at, run.start + at + 1))

    def put(self, user: int, ties: UserTies) -> None:
        """From now on these are the ties of the user; they are copied."""
        n = len(ties.hosts)
        run = self._runs[user] = self._run(max(4, n + n // 2))
        run.fill(ties)

    def place(self, user: int, host: int) -> tuple[Cells, int]:
        """Where the tie of a user who was `put` lies, to be changed; made in identity state if it is not there."""
        run = self._runs[user]
        at = run.position.get(host)
        if at is None:
            known = run.slab.hosts[run.start : run.start + run.n].tolist()
            if host in known:
                at = known.index(host)
            else:
                if run.n == run.space:
                    run = self._longer(user, run)
                at = run.n
                run.slab.hosts[run.start + at] = host
                run.n += 1
            run.position[host] = at
        return run.slab.cells, run.start + at

    def _run(self, space: int) -> _Run:
        slab = self._slab
        if slab.used + space > len(slab.hosts):
            slab = _Slab(self.block, max(_SLAB_ROWS, space))
            if space < _SLAB_ROWS:
                self._slab = slab
        run = _Run(slab, slab.used, space)
        slab.used += space
        return run

    def _longer(self, user: int, run: _Run) -> _Run:
        longer = self._run(2 * run.space)
        longer.fill(run.view())
        longer.position = run.position
        self._runs[user] = longer
        return longer
