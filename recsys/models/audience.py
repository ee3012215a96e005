"""What people chose among: how often a host is chosen while on air, by whom lately, and what a viewer tends to choose.

Every entry is read before it is known, in time order; each costs a few µs whatever the number of live rooms. Exposure,
the entries anywhere while a host was on air, is the difference of one running count of all entries between two entries
at the host: nothing is written for the rooms that were not chosen (docs/formulas/audience.md). A host counts as on air
for `PRESENCE_US` after an entry, so no end of a room need be told.

These numbers depend on the order of all entries together, so they do not merge: a build takes them from the replay of
its learning window, which moves them by the same `update` as the service.

Shape letters: h hosts, u users, n candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp2, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.compiled import compiled
from recsys.events.facts import NEVER, US_PER_DAY
from recsys.models.bound import check_shapes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PRESENCE_US = 30 * 60 * 1_000_000
"""A host without a further entry counts as on air for so long, µs."""
_HOUR = US_PER_DAY // 24
_HALF_DAY, _WEEK, _TWO_HOURS, _HALF_HOUR = _HALF_LIVES_US = (12 * _HOUR, 7 * US_PER_DAY, 2 * _HOUR, _HOUR // 2)
assert (_WEEK, _HALF_DAY, _TWO_HOURS) == (14 * _HALF_DAY, 6 * _TWO_HOURS, 4 * _HALF_HOUR)  # the powers in `_read`
_CHOSEN, _RATE, _SEGMENT, _WIDTH = 2, 4, 5, 9
"""Where the columns of a host begin: exposed (half a day, a week), chosen (the same), entries of two hours, entries of
half an hour by segment; and how many there are."""
_SEGMENTS = (1, 3, 10)
"""Users with fewer entries than the first, second, third of these are of segment 0, 1, 2; others of segment 3."""
_PRIOR_CHOICES, _PRIOR_EXPOSURE = 0.175, 5.0
_SLOWEST = 0.15
"""A taste moves by 1/(entries + 1) of the way to each choice, never by less than this."""
TASTES = ("rate", "age", "idle", "conversion")


class Audience:
    """Running numbers of hosts and users; made empty, or from what `to_arrays` saved.

    Threading: one writer; reads may run beside it on other users.

    Args:
        n_hosts, n_users: rows to hold to begin with; both grow.
    """

    def __init__(self, n_hosts: int = 0, n_users: int = 0) -> None:
        self._hosts: Floats = np.zeros((n_hosts, _WIDTH))
        self._last_at: Ints = np.full(n_hosts, NEVER, dtype=np.int64)
        self._seen: Floats = np.zeros((n_hosts, 2))
        self._tastes: Floats = np.full((n_users, len(TASTES)), np.nan)
        self._entries: NDArray[np.int32] = np.zeros(n_users, dtype=np.int32)
        self._count, self._rate, self._rate_at = 0.0, 0.0, NEVER

    def update(self, user: int, host: int, started_at: int, at: int) -> None:
        """Let an entry be known.

        Args:
            user, host: rows.
            started_at: start of the room entered, µs; NEVER if no room is told.
            at: instant, µs. One that lies before the host's last entry counts as if at that one.
        """
        if host >= len(self._last_at):
            self._grow_hosts(host + 1)
        if user >= len(self._entries):
            self._grow_users(user + 1)
        if self._rate_at == NEVER:
            self._rate_at = at
        if at > self._rate_at:
            self._rate *= exp2((self._rate_at - at) / (2 * _HOUR))
            self._rate_at = at
        everyone = (self._count, self._rate)
        _enter(
            user, host, started_at, at, everyone, self._hosts, self._last_at, self._seen, self._tastes, self._entries
        )
        self._rate += 1.0
        self._count += 1.0

    def read(self, hosts: NDArray[np.integer[Any]], at: int) -> tuple[Floats, Floats, Floats, Floats]:
        """Hosts as they are at an instant; a host nobody ever entered is as good as the prior says.

        Returns:
            conversions (2, n): of half-lives 12 h and 7 days, (chosen + a) / (exposed + b);
            segments (4, n): decayed entries of half an hour by the users of each segment;
            rate (n,): log of the host's share of all entries, 2 h; idle (n,): log seconds since the last entry.
        """
        n = len(hosts)
        conversions, segments, rate, idle = (
            np.empty((2, n)),
            np.empty((len(_SEGMENTS) + 1, n)),
            np.empty(n),
            np.empty(n),
        )
        everyone = (self._count, log(self._rate_to(at) + 1.0))
        _read(hosts, at, self._hosts, self._last_at, self._seen, everyone, conversions, segments, rate, idle)
        return conversions, segments, rate, idle

    def taste(self, user: int) -> Floats:
        """The user's mean choice (len(TASTES),): logs of share, room age in s, idle s, conversion; NaN unknown."""
        if 0 <= user < len(self._tastes):
            tastes: Floats = self._tastes[user]
            return tastes
        return np.full(len(TASTES), np.nan)

    def segment_of(self, user: int) -> int:
        """The segment of a user by his entries so far."""
        return segment(self._entries.item(user)) if 0 <= user < len(self._entries) else 0

    def forget(self, user: int) -> None:
        """The user has never chosen anything."""
        if user < len(self._entries):
            self._tastes[user], self._entries[user] = np.nan, 0

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything known, as plain arrays; `from_arrays` reads them back."""
        return {
            "hosts": self._hosts,
            "last_at": self._last_at,
            "seen": self._seen,
            "tastes": self._tastes,
            "entries": self._entries,
            "everyone": np.array([self._count, self._rate]),
            "rate_at": np.array([self._rate_at], dtype=np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Audience:
        """What `to_arrays` saved, copied. BundleRefused: its arrays do not fit each other."""
        n_hosts, n_users = len(arrays["last_at"]), len(arrays["entries"])
        shapes = {"hosts": (n_hosts, _WIDTH), "last_at": (n_hosts,), "seen": (n_hosts, 2)}
        shapes |= {"tastes": (n_users, len(TASTES)), "entries": (n_users,)}
        check_shapes(arrays, shapes, where="models/audience")
        made = cls()
        made._hosts, made._last_at, made._seen, made._tastes, made._entries = (
            np.array(arrays[name], order="C") for name in ("hosts", "last_at", "seen", "tastes", "entries")
        )
        made._count, made._rate = np.asarray(arrays["everyone"]).tolist()
        made._rate_at = int(arrays["rate_at"][0])
        return made

    def _rate_to(self, at: int) -> float:
        if self._rate_at == NEVER:
            return 0.0
        return self._rate * exp2(-max(0, at - self._rate_at) / (2 * _HOUR))

    def _grow_hosts(self, n: int) -> None:
        more = max(n, len(self._last_at) * 3 // 2) - len(self._last_at)
        self._hosts = np.concatenate([self._hosts, np.zeros((more, self._hosts.shape[1]))])
        self._last_at = np.concatenate([self._last_at, np.full(more, NEVER, dtype=np.int64)])
        self._seen = np.concatenate([self._seen, np.zeros((more, 2))])

    def _grow_users(self, n: int) -> None:
        more = max(n, len(self._entries) * 3 // 2) - len(self._entries)
        self._tastes = np.concatenate([self._tastes, np.full((more, len(TASTES)), np.nan)])
        self._entries = np.concatenate([self._entries, np.zeros(more, dtype=np.int32)])


@compiled
def segment(entries: int) -> int:
    """0 for a user without entries, 1 for one or two, 2 for up to nine, 3 for more."""
    for number in range(len(_SEGMENTS)):
        if entries < _SEGMENTS[number]:
            return number
    return len(_SEGMENTS)


@compiled
def _enter(
    user: int, host: int, started_at: int, at: int, everyone: tuple[float, float],
    numbers: Floats, last: Ints, seen: Floats, tastes: Floats, entries: NDArray[np.int32],
) -> None:  # fmt: skip
    """`Audience.update` of a host and a user who have their rows; `everyone` is the count of all entries before this
    one and their rate at its instant."""
    count, all_rate = everyone
    row, last_at = numbers[host], last[host]
    if last_at == NEVER:
        last_at = at
    else:
        passed = count - seen[host, 0]
        if at - last_at > PRESENCE_US:
            passed = min(passed, seen[host, 1])
        if at > last_at:
            back = float(last_at - at)
            for d in range(2):
                kept = np.exp2(back / _HALF_LIVES_US[d])
                row[d] *= kept
                row[_CHOSEN + d] *= kept
            row[_RATE] *= np.exp2(back / _TWO_HOURS)
            lately = np.exp2(back / _HALF_HOUR)
            for s in range(_SEGMENT, _WIDTH):
                row[s] *= lately
        row[0] += passed
        row[1] += passed
        _learn_taste(tastes[user], entries[user], row, all_rate, started_at, last_at, at)
    row[_CHOSEN] += 1.0
    row[_CHOSEN + 1] += 1.0
    row[_RATE] += 1.0
    row[_SEGMENT + segment(entries[user])] += 1.0
    entries[user] += 1
    last[host] = max(at, last_at)
    # a decayed sum of 2 h as entries in half an hour
    seen[host, 0], seen[host, 1] = count, (all_rate + 1.0) * np.log(2.0) * PRESENCE_US / (2 * _HOUR)


@compiled
def _learn_taste(
    taste: Floats, entries: int, row: Floats, all_rate: float, started_at: int, last_at: int, at: int
) -> None:
    """Move a user's taste towards a choice, described as `Audience.read` describes a candidate."""
    choice = (
        np.log(row[_RATE] + 0.05) - np.log(all_rate + 1.0),
        np.log(max(at - started_at, 0) / 1e6 + 30.0) if started_at != NEVER else np.nan,
        np.log(max(at - last_at, 0) / 1e6 + 1.0),
        np.log((row[_CHOSEN + 1] + _PRIOR_CHOICES) / (row[1] + _PRIOR_EXPOSURE)),
    )
    step = max(_SLOWEST, 1.0 / (entries + 1))
    for i in range(len(choice)):
        if not np.isnan(choice[i]):
            taste[i] = choice[i] if np.isnan(taste[i]) else taste[i] + step * (choice[i] - taste[i])


@compiled
def _read(
    hosts: NDArray[np.integer[Any]], at: int, numbers: Floats, last: Ints, seen: Floats, everyone: tuple[float, float],
    conversions: Floats, segments: Floats, rate: Floats, idle: Floats,
) -> None:  # fmt: skip
    """`Audience.read` of hosts as they were at their last entry; `everyone` is the count of all entries and the log of
    their rate."""
    count, log_rate = everyone
    for i in range(len(hosts)):
        host = hosts[i]
        if host >= len(last) or last[host] == NEVER:
            for d in range(2):
                conversions[d, i] = _PRIOR_CHOICES / _PRIOR_EXPOSURE
            for s in range(len(segments)):
                segments[s, i] = 0.0
            rate[i], idle[i] = np.log(0.05) - log_rate, np.nan
            continue
        age = max(float(at) - float(last[host]), 0.0)
        passed = count - seen[host, 0]
        if age > PRESENCE_US:
            passed = min(passed, seen[host, 1])
        of_week = np.exp2(-age / _WEEK)  # its powers are the shorter half-lives
        of_half_day = of_week**14
        of_two_hours = of_half_day**6
        lately = of_two_hours**4
        for d, kept in enumerate((of_half_day, of_week)):
            chosen, exposed = numbers[host, _CHOSEN + d] * kept, numbers[host, d] * kept
            conversions[d, i] = (chosen + _PRIOR_CHOICES) / (exposed + passed + _PRIOR_EXPOSURE)
        rate[i] = np.log(numbers[host, _RATE] * of_two_hours + 0.05) - log_rate
        for s in range(len(segments)):
            segments[s, i] = numbers[host, _SEGMENT + s] * lately
        idle[i] = np.log(age / 1e6 + 1.0)
