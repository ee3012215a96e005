"""Counting host → host transitions: settings, the batch, and rows that grow online.

Used by `recsys.models.transition`, which reads the counts.

Counts are sums referenced to one instant, so users may come in any order and in any number of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from recsys.errors import InputRefused
from recsys.events.facts import US_PER_DAY, US_PER_S

Floats = NDArray[np.float64]
TRANSITION_FEATURES = (
    "transition_last",
    "transition_recent",
    "transition_evidence",
    "transition_lift",
    "transition_lift_last",
)
"""What `TransitionModel.features` tells, in its order."""


class TransitionConfig(BaseModel):
    """Settings of the transition model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lag_weights: tuple[float, ...] = Field(default=(1.0, 0.85, 0.72, 0.61, 0.52), min_length=1)
    """Weight of the last entry, the one before it, …; how many there are is L."""
    gap_half_life_s: float = Field(default=259_200.0, gt=0.0)
    """A transition after this time counts half."""
    max_gap_s: float = Field(default=2_592_000.0, gt=0.0)
    """Entries further apart than this are no transition."""
    half_life_days: float = Field(default=2.0, gt=0.0)
    """A transition this old counts half."""
    prior: float = Field(default=5.0, ge=0.0)
    """α: weighted transitions with which popularity is mixed into every row."""
    row_limit: int = Field(default=256, ge=1)
    """Most transitions kept per host after `fit` and `to_arrays`; online rows may grow to twice as many."""

    def weighted(self, hosts: Sequence[int], ages_s: Sequence[float]) -> list[tuple[int, float]]:
        """Recent hosts that still count, latest first, with lag weight × gap decay."""
        return [
            (int(host), lag_weight * 2.0 ** (-age_s / self.gap_half_life_s))
            for lag_weight, host, age_s in zip(self.lag_weights, hosts, ages_s, strict=False)
            if 0.0 <= age_s <= self.max_gap_s
        ]


_PAIRS = pl.Schema({"previous": pl.Int64(), "next": pl.Int64(), "count": pl.Float64()})


class TransitionCounter:
    """Adds up transitions frame by frame; holds one frame and the sums.

    Args:
        config: weights.
        reference_at: instant at which a count weighs one, µs.
        as_of: reads entries with at < as_of only.
        n_hosts: at least so many hosts, also without entries.
    """

    def __init__(self, config: TransitionConfig, reference_at: int, *, as_of: int | None, n_hosts: int) -> None:
        self.config, self.reference_at, self.as_of = config, reference_at, as_of
        self._pairs = pl.DataFrame(schema=_PAIRS)
        self._row_total, self._self_total, self._entered = (np.zeros(n_hosts) for _ in range(3))
        self._last_at = reference_at

    def add(self, entries: pl.DataFrame) -> None:
        """Counts all entries of some users: `user`, `host` (rows), `at` (µs), in any order.

        Raises:
            InputRefused: a column is missing or holds nulls.
        """
        missing = {"user", "host", "at"} - set(entries.columns)
        if missing:
            raise InputRefused("entries lack a column", got=entries.columns, expected=sorted(missing))
        narrow = entries.select(pl.col("user", "host", "at").cast(pl.Int64))
        if any(narrow[name].null_count() for name in narrow.columns):
            raise InputRefused("entries hold nulls", expected="user and host rows and µs instants")
        if self.as_of is not None:
            narrow = narrow.filter(pl.col("at") < self.as_of)
        if not len(narrow):
            return
        ordered = narrow.sort("user", "at", "host")
        user, host, at = (ordered[name].to_numpy() for name in ("user", "host", "at"))
        self._last_at = max(self._last_at, int(at.max()))
        self._grow(int(host.max()) + 1)
        n = len(self._entered)
        age = np.exp2((at - self.reference_at) / (self.config.half_life_days * US_PER_DAY))
        self._entered += np.bincount(host, age, n)
        found = [self._pairs]
        recent = distinct_before(user, host, len(self.config.lag_weights))
        for lag_weight, latest in zip(self.config.lag_weights, recent, strict=True):
            gap_s = np.where(latest >= 0, at - at[latest], -1) / US_PER_S
            kept = np.flatnonzero((gap_s > 0.0) & (gap_s <= self.config.max_gap_s))
            previous, following = host[latest[kept]], host[kept]
            weight = lag_weight * age[kept] * np.exp2(-gap_s[kept] / self.config.gap_half_life_s)
            same = previous == following
            self._self_total += np.bincount(previous[same], weight[same], n)
            self._row_total += np.bincount(previous[~same], weight[~same], n)
            pairs = {"previous": previous[~same], "next": following[~same], "count": weight[~same]}
            found.append(pl.DataFrame(pairs, schema=_PAIRS))
        self._pairs = _summed(pl.concat(found))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The sums as `TransitionModel` takes them; see `pack`."""
        return pack(
            self._pairs,
            {"row_total": self._row_total, "self_total": self._self_total, "entered": self._entered},
            row_limit=self.config.row_limit,
            reference_at=self.reference_at,
            last_at=self._last_at,
        )

    def _grow(self, n_hosts: int) -> None:
        more = np.zeros(max(0, n_hosts - len(self._entered)))
        self._row_total = np.concatenate((self._row_total, more))
        self._self_total = np.concatenate((self._self_total, more))
        self._entered = np.concatenate((self._entered, more))


def _summed(pairs: pl.DataFrame) -> pl.DataFrame:
    """One row a pair, added up in the order of the rows: a parallel group-by adds in another order from run to run."""
    if pairs.is_empty():
        return pairs
    ordered = pairs.sort("previous", "next", maintain_order=True)
    previous, following, counts = (ordered[name].to_numpy() for name in ("previous", "next", "count"))
    differs = (previous[1:] != previous[:-1]) | (following[1:] != following[:-1])
    first = np.concatenate(([0], np.flatnonzero(differs) + 1))
    sums = {"previous": previous[first], "next": following[first], "count": np.add.reduceat(counts, first)}
    return pl.DataFrame(sums, schema=_PAIRS)


def distinct_before(user: NDArray[np.int64], host: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
    """Where each entry's user was before: the position of his latest entry at each of his last distinct hosts.

    Args:
        user, host: (n,) of all entries of some users, sorted by user and time.
        depth: how many hosts back.

    Returns:
        (depth, n) positions, latest host first, −1 where there is none. The host of the entry itself counts too.
    """
    n = len(user)
    before = np.arange(n) - 1
    same_user = np.zeros(n, dtype=np.bool_)
    same_user[1:] = user[1:] == user[:-1]
    before[~same_user] = -1
    repeats = same_user.copy()
    repeats[1:] &= host[1:] == host[:-1]
    run_starts = np.maximum.accumulate(np.where(repeats, 0, np.arange(n)))
    other = np.append(before[run_starts], -1)  # the latest earlier entry at another host; −1 has none before it
    found = np.full((depth, n), -1, dtype=np.int64)
    latest = before
    for lag in range(depth):
        found[lag] = latest
        latest = other[latest]
        open_ = np.flatnonzero(latest >= 0)
        while len(open_):  # skip hosts already found
            known = (host[found[: lag + 1, open_]] == host[latest[open_]]).any(axis=0)
            open_ = open_[known]
            latest[open_] = other[latest[open_]]
            open_ = open_[latest[open_] >= 0]
    return found


def pack(
    pairs: pl.DataFrame, totals: dict[str, Floats], *, row_limit: int, reference_at: int, last_at: int
) -> dict[str, NDArray[Any]]:
    """Pairs as compressed rows, each cut to its largest counts (ties by smaller host row).

    Returns:
        `starts` (h + 1,) int64, `nexts` (z,) int32, `counts` (z,) float64; `row_total`, `self_total`, `entered`, each
        (h,) float64; `reference_at`, `last_at`, each (1,) int64, µs.
    """
    ordered = pairs.sort("previous", "count", "next", descending=[False, True, False])
    previous = ordered["previous"].to_numpy()
    n = len(totals["entered"])
    kept = np.arange(len(previous)) - _starts(previous, n)[previous] < row_limit
    return {
        "starts": _starts(previous[kept], n),
        "nexts": ordered["next"].to_numpy()[kept].astype(np.int32),
        "counts": ordered["count"].to_numpy()[kept].astype(np.float64),
        **{name: np.array(total, dtype=np.float64) for name, total in totals.items()},
        "reference_at": np.array([reference_at], dtype=np.int64),
        "last_at": np.array([last_at], dtype=np.int64),
    }


def _starts(previous: NDArray[np.int64], n_hosts: int) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(np.bincount(previous, minlength=n_hosts)))).astype(np.int64)


class TransitionRow(NamedTuple):
    """What follows one host, as counts at the reference instant: `nexts` (z,) host rows, each once, in no promised
    order; `counts` (z,) weighted transitions to each; `total`: to any other host, also those cut off by the row limit.
    """

    nexts: NDArray[np.int32]
    counts: Floats
    total: float


class NextHosts(NamedTuple):
    """Where somebody may go next, as `TransitionModel.next_hosts` tells."""

    hosts: NDArray[np.int32]
    """(t,) hosts to whom the rows of his last hosts lead, and these themselves; they may repeat."""
    added: Floats
    """(t, 3) what the rows add to each: to the chance from the last host, from all recent hosts, and to evidence."""
    shared_last: float
    """Of the chance from the last host, the part that popularity shares out among all."""
    shared_recent: float
    """The same from all recent hosts."""
    one: float
    """What one entry amounts to among all of them: ε of docs/formulas/transition.md."""


class GrowingRow:
    """One row of counts that online updates have changed; `place` says where the count of a host is."""

    __slots__ = ("_counts", "counts", "nexts", "place", "size")

    def __init__(self, nexts: NDArray[np.int32], counts: Floats) -> None:
        self.size = len(nexts)
        room = max(8, 2 * self.size)
        self.nexts, self.counts = np.full(room, -1, dtype=np.int32), np.zeros(room)
        self.nexts[: self.size], self.counts[: self.size] = nexts, counts
        self.place = {host: i for i, host in enumerate(nexts.tolist())}
        self._counts: Any = self.counts.data

    def add(self, host: int, weight: float) -> None:
        place = self.place.get(host)
        if place is not None:
            self._counts[place] += weight  # through a flat view: a third of the time
            return
        if self.size == len(self.nexts):
            self.nexts = np.concatenate((self.nexts, np.full(self.size, -1, dtype=np.int32)))
            self.counts = np.concatenate((self.counts, np.zeros(self.size)))
            self._counts = self.counts.data
        self.nexts[self.size], self.counts[self.size] = host, weight
        self.place[host] = self.size
        self.size += 1
