"""Ties that changed since the bundle was built: single ones, laid over those of the bundle when a user is read.

Of a user only the ties that facts have touched are kept here, in a run of rows; an event of a viewer with hundreds of
ties copies one. Runs lie in slabs, arrays of some thousand rows that are made once and never moved, so the flat views
an update works on are made once too; where slabs lie is for `recsys.ties.space`. A run that is full moves to a longer
one; its old place is not used again.

Threading: one writer; readers of a user are serialised with it by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.ties.algebra import Block, Rows, identity
from recsys.ties.slices import Hosts, Slices, UserTies
from recsys.ties.space import Space
from recsys.ties.update import Cells, cells

IntRows = npt.NDArray[np.int64]
_SLAB_ROWS = 8_192
_SEARCHED = 256
"""A run with more ties than this remembers where each host stands, instead of searching."""


class _Slab:
    """Rows in identity state, of which the first `used` are given out."""

    __slots__ = ("at", "cells", "hosts", "hosts_seen", "rows", "seen", "used")

    def __init__(self, block: Block, n: int, space: Space) -> None:
        nothing = identity(block, n)
        self.hosts: Hosts
        self.at: npt.NDArray[np.int32]
        """Where the tie stands among those of the base, −1: it is new."""
        self.hosts, self.at, *parts = space.hold(
            [np.zeros(n, dtype=np.int32), np.full(n, -1, dtype=np.int32), *nothing.parts]
        )
        self.hosts_seen = self.hosts.data
        self.rows = Rows(*parts)
        self.cells = cells(self.rows)
        self.seen = UserTies.sealed(self.hosts.view(), self.rows.view())
        self.used = 0


class _Run:
    """The changed ties of one user: `n` rows of a slab from `start`, with space for `space`.

    `whole`: these are all his ties, those of the base are not read.
    """

    __slots__ = ("n", "position", "slab", "space", "start", "whole")

    def __init__(self, slab: _Slab, start: int, space: int, whole: bool) -> None:
        self.slab, self.start, self.space, self.whole = slab, start, space, whole
        self.n = 0
        self.position: dict[int, int] | None = None

    @property
    def where(self) -> slice:
        return slice(self.start, self.start + self.n)

    def view(self) -> UserTies:
        return self.slab.seen.part(self.where)

    def find(self, host: int) -> int:
        """The row of a host's tie in the slab, −1 if it is not here."""
        if self.n > _SEARCHED:
            if self.position is None:
                hosts = self.slab.hosts_seen[self.start : self.start + self.n].tolist()
                self.position = {host: self.start + i for i, host in enumerate(hosts)}
            return self.position.get(host, -1)
        hosts = self.slab.hosts_seen[self.start : self.start + self.n].tolist()
        return self.start + hosts.index(host) if host in hosts else -1

    def take_over(self, other: _Run) -> None:
        """Hold what another run holds."""
        self.n, self.position = other.n, None
        into, where = self.where, other.where
        self.slab.hosts[into], self.slab.at[into] = other.slab.hosts[where], other.slab.at[where]
        _copy(other.slab.rows, where, self.slab.rows, into)


class FreshTies:
    """The ties of one block: what changed, over a base.

    Args:
        base: the ties of the bundle.
        space: where slabs are kept.
    """

    def __init__(self, block: Block, base: Slices, space: Space) -> None:
        self.block = block
        self._base, self._space = base, space
        self._runs: dict[int, _Run] = {}
        self._slab: _Slab | None = None
        self._last: tuple[int, UserTies] | None = None

    def users(self) -> Iterable[int]:
        """Whose ties have changed."""
        return self._runs.keys()

    def fetch(self, user: int) -> None:
        """The ties of a user will be read soon (`Slices.fetch`)."""
        run = self._runs.get(user)
        if run is None or not run.whole:
            self._base.fetch(user)

    def of(self, user: int) -> UserTies:
        """The ties of a user, valid until his next fact: those of the base in their order, then new ones.

        The last ones put together are kept: a lookup asks for the same user a dozen times.
        """
        run = self._runs.get(user)
        if run is None:
            return self._base.of(user)
        if run.whole:
            return run.view()
        last = self._last  # read once: another thread may put its user there
        if last is not None and last[0] == user:
            return last[1]
        ties = _together(self._base.of(user), run)
        self._last = user, ties
        return ties

    def row(self, user: int, host: int) -> Rows | None:
        """The state of one tie; None: there is none."""
        run = self._runs.get(user)
        if run is not None:
            at = run.find(host)
            if at >= 0:
                return run.slab.rows.take(slice(at, at + 1))
            if run.whole:
                return None
        found = self._base.find(user, host)
        return None if found is None else found.rows.take(slice(found.row, found.row + 1))

    def place(self, user: int, host: int) -> tuple[Cells, int]:
        """Where the state of one tie lies, to be changed; made if it is not here: a copy of the base's, or identity."""
        run = self._runs.get(user)
        if run is None or self._last is not None:
            run = self._begun(user)
        at = run.find(host) if run.n else -1
        if at < 0:
            if run.n == run.space:
                run = self._longer(user, run)
            at = self._made(user, run, host)
        return run.slab.cells, at

    def place_many(self, user: int, hosts: list[int]) -> tuple[Rows, IntRows]:
        """`place` for several distinct hosts: states, and the position of each host's in them (n,)."""
        run = self._begun(user)
        known = dict(zip(run.slab.hosts[run.where].tolist(), range(run.n), strict=True))
        at = list(map(known.get, hosts))
        if None in at:
            needed = run.n + at.count(None)
            if needed > run.space:
                run = self._longer(user, run, needed)
            at = [
                self._made(user, run, host) - run.start if i is None else i for host, i in zip(hosts, at, strict=True)
            ]
        return run.slab.rows, np.array(at, dtype=np.int64) + run.start

    def _begun(self, user: int) -> _Run:
        """The user's run, about to be changed."""
        if self._last is not None and self._last[0] == user:
            self._last = None
        run = self._runs.get(user)
        if run is None:
            run = self._runs[user] = self._run(1, not self._base.has(user))
        return run

    def _made(self, user: int, run: _Run, host: int) -> int:
        """A new row at the end of a run that has space for it."""
        slab, row = run.slab, run.start + run.n
        slab.hosts_seen[row] = host
        if not run.whole:
            found = self._base.find(user, host)
            if found is not None:
                slab.at[row] = found.at
                ints, decayed, latest = found.rows.ints, found.rows.decayed, found.rows.latest
                slab.rows.ints[row], slab.rows.decayed[row] = ints[found.row], decayed[found.row]
                slab.rows.latest[row] = latest[found.row]
        if run.position is not None:
            run.position[host] = row
        run.n += 1
        return row

    def forget(self, user: int) -> None:
        """The user has no ties any more; those of the base are never read again."""
        self._runs[user] = self._run(1, whole=True)
        self._last = None

    def moved(self) -> dict[str, npt.NDArray[np.generic]]:
        """What differs from the base, as arrays: `users` (u,), how many ties each has here `counts` (u,), whether they
        are `whole` (u,), and of all ties one after the other `hosts`, `ints`, `decayed`, `latest`; copies.
        """
        runs = list(self._runs.values())
        none = identity(self.block, 0)
        rows = [none, *(run.slab.rows.take(run.where) for run in runs)]
        hosts = [np.zeros(0, dtype=np.int32), *(run.slab.hosts[run.where] for run in runs)]
        return {
            "users": np.fromiter(self._runs, dtype=np.int64, count=len(runs)),
            "counts": np.array([run.n for run in runs], dtype=np.int64),
            "whole": np.array([run.whole for run in runs], dtype=np.bool_),
            "hosts": np.concatenate(hosts),
            "ints": np.concatenate([part.ints for part in rows]),
            "decayed": np.concatenate([part.decayed for part in rows]),
            "latest": np.concatenate([part.latest for part in rows]),
        }

    def put(self, told: dict[str, npt.NDArray[np.generic]]) -> None:
        """Differ from the base by what `moved` of another one told."""
        end = 0
        rows = Rows(told["ints"], told["decayed"], told["latest"])  # type: ignore[arg-type]
        hosts: list[int] = told["hosts"].tolist()
        self._last = None
        whole: list[bool] = told["whole"].tolist()
        for user, n, is_whole in zip(told["users"].tolist(), told["counts"].tolist(), whole, strict=True):
            part = slice(end, end := end + n)
            run = self._runs[user] = self._run(max(n, 1), is_whole)
            run.n = n
            into, slab = run.where, run.slab
            slab.hosts[into] = told["hosts"][part]
            _copy(rows, part, slab.rows, into)
            if not is_whole:
                found = [self._base.find(user, host) for host in hosts[part]]
                slab.at[into] = [-1 if one is None else one.at for one in found]

    def _run(self, space: int, whole: bool) -> _Run:
        slab = self._slab
        if slab is None or slab.used + space > len(slab.hosts):
            slab = _Slab(self.block, max(_SLAB_ROWS, space), self._space)
            if space < _SLAB_ROWS:
                self._slab = slab
        run = _Run(slab, slab.used, space, whole)
        slab.used += space
        return run

    def _longer(self, user: int, run: _Run, least: int = 4) -> _Run:
        longer = self._run(max(least, 2 * run.space), run.whole)
        longer.take_over(run)
        self._runs[user] = longer
        return longer


def _together(base: UserTies, run: _Run) -> UserTies:
    """The ties of a base with changed ones in their places, and new ones behind them; copies."""
    slab, where = run.slab, run.where
    at = slab.at[where]
    new = np.flatnonzero(at < 0)
    old = base.rows
    if not len(new):
        ints, decayed, latest = old.ints.copy(), old.decayed.copy(), old.latest.copy()
        ints[at], decayed[at], latest[at] = slab.rows.ints[where], slab.rows.decayed[where], slab.rows.latest[where]
        return UserTies.sealed(base.hosts, Rows(ints, decayed, latest))
    changed, n = slab.rows.take(where), len(base)
    at = at.copy()
    at[new] = np.arange(n, n + len(new))
    hosts = np.concatenate([base.hosts, slab.hosts[where][new]])
    pairs = ((old.ints, changed.ints), (old.decayed, changed.decayed), (old.latest, changed.latest))
    return UserTies.sealed(hosts, Rows(*(_placed(held, fresh, at, n + len(new)) for held, fresh in pairs)))


def _placed(held: npt.NDArray[Any], fresh: npt.NDArray[Any], at: npt.NDArray[np.int32], n: int) -> npt.NDArray[Any]:
    made = np.empty((n, held.shape[1]), dtype=held.dtype)
    made[: len(held)] = held
    made[at] = fresh
    return made


def _copy(source: Rows, where: slice, target: Rows, into: slice) -> None:
    target.ints[into], target.decayed[into], target.latest[into] = (
        source.ints[where], source.decayed[where], source.latest[where],
    )  # fmt: skip
