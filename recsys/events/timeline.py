"""The live timeline: which rooms are live at any instant.

A room is live at t ⇔ started < t and not (ended < t). Rooms are sorted by their start, so those that have started are a
prefix; the latest end of every block of 64 tells which blocks of the prefix can hold a live room, and only those are
looked at. An instant costs one comparison per block plus 64 per block that is hit: far below a millisecond for millions
of rooms, however long some of them stay on air.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.events.facts import FOREVER

IntArray = npt.NDArray[np.int64]
_BLOCK = 64


class LiveTimeline:
    """Immutable, so any number of threads may ask it.

    Args:
        started: (R,) µs.
        ended: (R,) µs, `FOREVER` where still live; never before `started`.

    Raises:
        ValueError: shapes differ, or a room ends before it starts.
    """

    def __init__(self, started: IntArray, ended: IntArray) -> None:
        started, ended = np.asarray(started, np.int64), np.asarray(ended, np.int64)
        if started.ndim != 1 or started.shape != ended.shape:
            raise ValueError(f"started {started.shape} and ended {ended.shape} must be one-dimensional and equal")
        if (ended < started).any():
            raise ValueError("a room ends before it starts")
        self._position = np.argsort(started, kind="stable").astype(np.int64)
        self._started = started[self._position]
        blocks = -(-len(started) // _BLOCK)
        padded = np.full(blocks * _BLOCK, np.iinfo(np.int64).min, np.int64)
        padded[: len(started)] = ended[self._position]
        self._ended = padded.reshape(blocks, _BLOCK)
        self._block_end = self._ended.max(axis=1) if blocks else np.empty(0, np.int64)
        self._ends = np.sort(ended)

    @classmethod
    def of_rooms(cls, rooms: pl.DataFrame) -> LiveTimeline:
        """From the columns `started_at` and `ended_at` (µs, null: still live); positions are row numbers of `rooms`."""
        return cls(rooms["started_at"].to_numpy(), rooms["ended_at"].fill_null(FOREVER).to_numpy())

    def __len__(self) -> int:
        return len(self._position)

    def live_at(self, t_us: int) -> IntArray:
        """Positions of the rooms live at `t_us`, ascending."""
        return self._alive(int(np.searchsorted(self._started, t_us, "left")), t_us)

    def live_between(self, from_us: int, until_us: int) -> IntArray:
        """Positions of the rooms live at some instant of [from_us, until_us], ascending.

        Instants are whole µs, so a room that ends at its start is never live.
        """
        if until_us < from_us:
            return np.empty(0, np.int64)
        found = self._alive_ranks(int(np.searchsorted(self._started, until_us, "left")), from_us)
        ends = self._ended.reshape(-1)[found]
        return np.sort(self._position[found[ends > self._started[found]]])

    def count_at(self, ts_us: IntArray) -> IntArray:
        """How many rooms are live at each of `ts_us`; (T,) → (T,) int64. O(T log R)."""
        ts = np.asarray(ts_us, np.int64)
        started = np.searchsorted(self._started, ts, "left")
        return (started - np.searchsorted(self._ends, ts, "left")).astype(np.int64)

    def _alive(self, n_started: int, t_us: int) -> IntArray:
        return np.sort(self._position[self._alive_ranks(n_started, t_us)])

    def _alive_ranks(self, n_started: int, t_us: int) -> IntArray:
        """Ranks by start, below `n_started`, whose end is not before `t_us`."""
        blocks = np.flatnonzero(self._block_end[: -(-n_started // _BLOCK)] >= t_us)
        hit, within = np.nonzero(self._ended[blocks] >= t_us)
        ranks = blocks[hit] * _BLOCK + within
        return ranks[ranks < n_started].astype(np.int64)
