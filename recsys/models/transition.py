"""Host → host transitions: where a user goes who was with these hosts a moment ago.

Every entry of a user at host h adds to the count of (p → h) for each of his last L entries p, weighted by lag, by the
time between the two entries and by age (docs/formulas/transition.md). Counts are float64 referenced to a fixed instant
and decayed when read, so they are sums: batch, bucket by bucket and event by event give the same.

Self transitions (p = h) are kept apart, as `self_share`: coming back to the same host is modelled by the tie.

Shape letters: h hosts, c candidates, z stored transitions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import exp2
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.events.facts import US_PER_DAY, US_PER_S
from recsys.models import transition_loops as loops
from recsys.models.bound import check_rows
from recsys.models.transition_counts import (
    TRANSITION_FEATURES,
    Floats,
    GrowingRow,
    NextHosts,
    TransitionConfig,
    TransitionCounter,
    TransitionRow,
    pack,
)

_NOBODY = np.empty(0, dtype=np.int32)
_MOST_HALVINGS = 900.0  # this many half-lives from the reference, either way, is as far as any; a double ends at 1,023


class TransitionModel:
    """Weighted host → host counts with online updates; made by `fit`, or from what `to_arrays` saved (BundleRefused:
    its rows lead out of it).

    Threading: reads may run together (scratch memory is per thread), but not while `update` runs.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], config: TransitionConfig) -> None:
        self.config = config
        self.reference_at = int(arrays["reference_at"][0])
        self._starts = arrays["starts"].astype(np.int64)
        self._nexts: NDArray[np.int32] = arrays["nexts"].astype(np.int32)
        self._counts: Floats = arrays["counts"].astype(np.float64)
        self.n_hosts = len(arrays["entered"])
        check_rows(self._starts, self._nexts, len(self._counts), self.n_hosts, where="models/transition")
        beyond = np.zeros(1)  # the place of hosts not counted yet
        self._row_total: Floats = np.concatenate((arrays["row_total"], beyond))
        self._self_total: Floats = np.concatenate((arrays["self_total"], beyond))
        self._entered: Floats = np.concatenate((arrays["entered"], beyond))
        self._all_entered = float(self._entered.sum())
        self.last_at = int(arrays["last_at"][0])
        """As-of of the fit or latest entry since, µs; the instant asked from when none is given."""
        self._changed: dict[int, GrowingRow] = {}
        self._scratch = threading.local()

    @classmethod
    def fit(
        cls,
        entries: pl.DataFrame | Iterable[pl.DataFrame],
        config: TransitionConfig | None = None,
        *,
        n_hosts: int = 0,
        as_of: int | None = None,
    ) -> TransitionModel:
        """Counts the transitions of all users.

        Args:
            entries: `user`, `host` (rows) and `at` (µs) of every entry, in any order; or several such frames, each with
                all entries of its users. Entries of one user at one instant count in the order of their host rows and
                never as a transition of each other.
            n_hosts: at least so many hosts, also without entries.
            as_of: reads entries with at < as_of only and is the reference instant; by default all of them.

        Raises:
            InputRefused: a column is missing or holds nulls.
        """
        frames = iter((entries,) if isinstance(entries, pl.DataFrame) else entries)
        first = next(frames, None)
        latest = None if first is None or "at" not in first.columns else first["at"].cast(pl.Int64).max()
        reference_at = as_of if as_of is not None else latest if isinstance(latest, int) else 0
        counter = TransitionCounter(config or TransitionConfig(), reference_at, as_of=as_of, n_hosts=n_hosts)
        for frame in chain(() if first is None else (first,), frames):
            counter.add(frame)
        return cls(counter.arrays(), counter.config)

    def update(self, latest: Sequence[tuple[int, int]], host: int, at: int) -> None:
        """Counts one entry, as `fit` would have; a few µs a lag.

        Args:
            latest: (instant in µs, host) of the user's last entries before, latest first; those beyond L are ignored.
            host: host row entered, may be new.
            at: instant of the entry, µs; late events are welcome.
        """
        self._reserve(host)
        config, age = self.config, self._decay_to(at)
        self._entered[host] += age
        self._all_entered += age
        self.last_at = max(self.last_at, at)
        for lag_weight, (then, previous) in zip(config.lag_weights, latest, strict=False):
            self._reserve(previous)
            if not 0.0 < (gap_s := (at - then) / US_PER_S) <= config.max_gap_s:
                continue
            weight = lag_weight * age * 2.0 ** (-gap_s / config.gap_half_life_s)
            if previous == host:
                self._self_total[host] += weight
                continue
            row = self._changed.get(previous)
            if row is None:
                row = self._changed[previous] = GrowingRow(*self._stored(previous))
            elif row.size >= 2 * config.row_limit and host not in row.place:
                kept = np.lexsort((row.nexts[: row.size], -row.counts[: row.size]))[: config.row_limit]
                row = self._changed[previous] = GrowingRow(row.nexts[kept], row.counts[kept])
            row.add(host, weight)
            self._row_total[previous] += weight

    def row(self, host: int) -> TransitionRow:
        """What follows one host; empty for a host never left."""
        changed = self._changed.get(host)
        if changed is None:
            nexts, counts = self._stored(host)
        else:
            size = changed.size
            nexts, counts = changed.nexts[:size], changed.counts[:size]
        return TransitionRow(nexts, counts, float(self._row_total[host]) if host < self.n_hosts else 0.0)

    def next_hosts(
        self, recent_hosts: Sequence[int], recent_ages_s: Sequence[float], *, at: int | None = None
    ) -> NextHosts:
        """Where somebody may go next; `features` reads it. «The last host» is that of the last entry that counts: one
        ahead of `at` does not.

        Args:
            recent_hosts: the user's last entries, latest first; those beyond L are ignored.
            recent_ages_s: seconds since each.
            at: the instant asked from, µs: old counts weigh less against the prior. By default `last_at`.
        """
        weighted = self.config.weighted(recent_hosts, recent_ages_s)
        whole = sum(weight for _, weight in weighted)
        age = self._decay_to(at)
        prior, everyone = self.config.prior * age, self._all_entered or 1.0
        dense, touched = self._dense(), [_NOBODY]
        shared_last = shared_recent = 0.0 if whole > 0.0 else 1.0
        for i, (host, weight) in enumerate(weighted if whole > 0.0 else ()):
            last, share = float(i == 0), weight / whole
            nexts, counts, total = self.row(host)
            mass = total + prior
            own = self._entered.item(min(host, self.n_hosts)) / everyone
            if mass <= 0.0 or own >= 1.0:
                shared_last, shared_recent = shared_last + last, shared_recent + share
                continue
            loops.add_row(nexts, counts, last / mass, share / mass, weight / age, dense)
            rest = max(0.0, mass - float(counts.sum())) / mass / (1.0 - own)
            if host < self.n_hosts:
                dense[host, :2] -= last * rest * own, share * rest * own  # the host itself is not a next host
                touched.append(np.array([host], dtype=np.int32))
            touched.append(nexts)
            shared_last, shared_recent = shared_last + last * rest, shared_recent + share * rest
        hosts = np.concatenate(touched)
        loops.take(hosts, dense, added := np.empty((len(hosts), loops.SUMS)))
        one = 1.0 / (self._all_entered / age + max(1, self.n_hosts))
        return NextHosts(hosts, added, shared_last, shared_recent, one)

    def features(self, following: NextHosts, candidates: NDArray[np.integer[Any]] | None = None) -> NDArray[np.float32]:
        """`TRANSITION_FEATURES` of candidates; (5, c) float32.

        P(next | last host); P(next | recent hosts), a mixture weighted by lag and age; Σ lag · gap · count[recent →
        next] now, neither smoothed nor normalised; how many times likelier than by popularity the second is, and the
        first: (P + ε)/(π + ε) with ε the weight of one entry now, so a new host has 1. Over all hosts both P sum to
        one; without a recent host (none younger than `max_gap_s`) they are popularity π.

        Args:
            following: of this model, which has learnt nothing since.
            candidates: (c,) host rows, may be new; all hosts in row order by default.
        """
        asked = np.arange(self.n_hosts) if candidates is None else candidates
        found = np.empty((len(TRANSITION_FEATURES), len(asked)), dtype=np.float32)
        everyone = self._all_entered or 1.0
        loops.features(asked, self.n_hosts, self._entered, everyone, *following, self._dense(), found)
        return found

    def self_share(self, hosts: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """(c,) share of what follows each host that is the same host again; 0 for a host never left."""
        places = np.minimum(hosts, self.n_hosts)  # all new hosts share one place, where nothing is ever counted
        own = self._self_total[places]
        everything = own + self._row_total[places]
        share = np.divide(own, everything, out=np.zeros_like(own), where=everything > 0)
        return np.asarray(share, dtype=np.float32)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything learnt, updates included, rows cut to `row_limit`; `TransitionModel(arrays, config)` reads it."""
        rows = [self.row(host) for host in range(self.n_hosts)]
        sizes = [len(row.nexts) for row in rows]
        pairs = pl.DataFrame(
            {
                "previous": np.repeat(np.arange(self.n_hosts), sizes),
                "next": np.concatenate([*(row.nexts for row in rows), np.empty(0, np.int32)]).astype(np.int64),
                "count": np.concatenate([*(row.counts for row in rows), np.empty(0)]),
            }
        )
        n = self.n_hosts
        totals = {"row_total": self._row_total[:n], "self_total": self._self_total[:n], "entered": self._entered[:n]}
        return pack(
            pairs, totals, row_limit=self.config.row_limit, reference_at=self.reference_at, last_at=self.last_at
        )

    def changes(self) -> dict[str, NDArray[Any]]:
        """What `update` has changed since the model was made, as plain arrays; `take_over` brings it into another."""
        n, rows = self.n_hosts, list(self._changed.items())
        return {
            "previous": np.array([host for host, _ in rows], dtype=np.int64),
            "sizes": np.array([row.size for _, row in rows], dtype=np.int64),
            "nexts": np.concatenate([np.empty(0, np.int32), *(row.nexts[: row.size] for _, row in rows)]),
            "counts": np.concatenate([np.empty(0), *(row.counts[: row.size] for _, row in rows)]),
            "totals": np.stack([self._row_total[:n], self._self_total[:n], self._entered[:n]]),
            "all": np.array([self._all_entered, self.last_at]),
        }

    def take_over(self, changes: Mapping[str, NDArray[Any]]) -> None:
        """Become the model that told its `changes`; both were made from the same arrays."""
        n = changes["totals"].shape[1]
        self._reserve(n - 1)
        for array, total in zip((self._row_total, self._self_total, self._entered), changes["totals"], strict=True):
            array[:n] = total
        self._all_entered, self.last_at = float(changes["all"][0]), int(changes["all"][1])
        ends = np.cumsum(changes["sizes"]).tolist()
        for host, size, end in zip(changes["previous"].tolist(), changes["sizes"].tolist(), ends, strict=True):
            part = slice(end - size, end)
            self._changed[host] = GrowingRow(changes["nexts"][part], changes["counts"][part])

    def _decay_to(self, at: int | None) -> float:
        """What a count of one made now amounts to at the reference instant."""
        past_us = (self.last_at if at is None else at) - self.reference_at
        return exp2(max(-_MOST_HALVINGS, min(_MOST_HALVINGS, past_us / (self.config.half_life_days * US_PER_DAY))))

    def _stored(self, host: int) -> tuple[NDArray[np.int32], Floats]:
        stored = slice(*self._starts[host : host + 2]) if host + 1 < len(self._starts) else slice(0)
        return self._nexts[stored], self._counts[stored]

    def _dense(self) -> Floats:
        """This thread's scratch sums, all zero."""
        dense: Floats | None = getattr(self._scratch, "dense", None)
        if dense is None or len(dense) < len(self._entered):
            dense = self._scratch.dense = np.zeros((len(self._entered), loops.SUMS))
        return dense

    def _reserve(self, host: int) -> None:
        if host >= self.n_hosts:
            if host + 1 >= len(self._entered):
                size = 2 * (host + 1)
                self._entered, self._row_total, self._self_total = (
                    np.concatenate((array, np.zeros(size - len(array))))
                    for array in (self._entered, self._row_total, self._self_total)
                )
            self.n_hosts = host + 1
