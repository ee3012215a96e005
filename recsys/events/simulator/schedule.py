"""The programme of the market: which host is on air when, who is a guest, and which leaves are announced.

Drawn once, before any user, from a seed stream of its own; every part of the users sees the same programme. A
*broadcast day* runs from 05:00 to 05:00 local time, and no broadcast crosses its end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.events.simulator.arrays import DAY_S, F8, HOUR_S, I4, I8, MINUTE_S, NO_HOST, NO_ROOM, repeat_rows
from recsys.events.simulator.config import WorldConfig
from recsys.events.simulator.population import HostTraits

DAY_BREAK_HOUR = 5.0
SHORTEST_BROADCAST_S = 20 * MINUTE_S


@dataclass(frozen=True)
class Window:
    """The simulated stretch of time. Seconds count from its start; `first_day_s` <= 0 is the first day break."""

    horizon_s: float
    first_day_s: float
    days: int

    @staticmethod
    def over(local_hour: float, days: int) -> Window:
        """`days` × 24 h that start at `local_hour` (0 ≤ h < 24) of the local day."""
        since_break = ((local_hour - DAY_BREAK_HOUR) % 24.0) * HOUR_S
        horizon = days * DAY_S
        return Window(horizon, -since_break, int(np.ceil((horizon + since_break) / DAY_S)))

    def day_start(self, day: int) -> float:
        """Start of a broadcast day in seconds."""
        return self.first_day_s + day * DAY_S


def hour_of_broadcast_day(local_hour: F8) -> F8:
    """Seconds after the day break at which a local hour falls; any shape."""
    seconds: F8 = ((local_hour - DAY_BREAK_HOUR) % 24.0) * HOUR_S
    return seconds


@dataclass(frozen=True)
class Leaves:
    """Stretches without broadcasts; (L,) each. A leave is told to the fans at `announced_s`, NaN when it is not."""

    host: I4
    first_day: I4
    last_day: I4
    announced_s: F8


@dataclass(frozen=True)
class Schedule:
    """All broadcasts in order of their start: arrays (R,), `guests` (R, 2) host rows or NO_HOST.

    Broadcasts of day d are rows day_rows[d]:day_rows[d + 1]. `end_s` may lie beyond the window: still live then.
    """

    host: I4
    start_s: F8
    end_s: F8
    guests: I4
    day_rows: I8
    leaves: Leaves

    def __len__(self) -> int:
        return len(self.host)


def draw_schedule(config: WorldConfig, hosts: HostTraits, window: Window, rng: np.random.Generator) -> Schedule:
    """Draw the programme. Cost and memory follow hosts × days."""
    leaves = _draw_leaves(config, hosts, window, rng)
    away_rows = repeat_rows(leaves.last_day - leaves.first_day + 1)
    away_day = leaves.first_day[away_rows] + _offset_in_run(away_rows)
    order = np.argsort(away_day, kind="stable")
    away_host = leaves.host[away_rows][order]
    away_edges = np.searchsorted(away_day[order], np.arange(window.days + 1))
    days = [
        _draw_day(config, hosts, window, day, away_host[away_edges[day] : away_edges[day + 1]], rng)
        for day in range(window.days)
    ]
    host, start, end, guests = (np.concatenate(column) for column in zip(*days, strict=True))
    counts = np.array([len(day[0]) for day in days], dtype=np.int64)
    return Schedule(host, start, end, guests, np.r_[0, np.cumsum(counts)], leaves)


def _offset_in_run(rows: I8) -> I8:
    first = np.searchsorted(rows, rows, side="left")
    offsets: I8 = np.arange(len(rows)) - first
    return offsets


def _draw_leaves(config: WorldConfig, hosts: HostTraits, window: Window, rng: np.random.Generator) -> Leaves:
    law = config.hosts
    counts = rng.poisson(law.leaves_per_30_days * window.days / 30.0, len(hosts))
    host = repeat_rows(counts)
    first = rng.integers(1, max(2, window.days), len(host))
    last = first + rng.poisson(max(0.0, law.leave_days_mean - 1.0), len(host))
    order = np.lexsort((first, host))
    host, first, last = host[order], first[order], last[order]
    # Leaves of one host neither overlap nor touch: one that begins before all earlier ones are over is dropped.
    apart = host * (2 * window.days + 1_000)  # keeps the running maximum inside a host
    over = np.maximum.accumulate(apart + last)
    keep = np.ones(len(host), dtype=np.bool_)
    keep[1:] = (host[1:] != host[:-1]) | (apart[1:] + first[1:] > over[:-1] + 1)
    host, first, last = host[keep], first[keep], np.minimum(last[keep], window.days + 30)
    lead_s = rng.uniform(0.5, 3.0, len(host)) * DAY_S
    announced = window.first_day_s + first * DAY_S - lead_s
    told = (rng.random(len(host)) < law.announced_share) & (announced > hosts.registered_s[host])
    return Leaves(
        host.astype(np.int32),
        first.astype(np.int32),
        last.astype(np.int32),
        np.where(told, announced, np.nan),
    )


def _draw_day(
    config: WorldConfig, hosts: HostTraits, window: Window, day: int, away: I4, rng: np.random.Generator
) -> tuple[I4, F8, F8, I4]:
    """Broadcasts of one day, by start: host (r,), start (r,), end (r,), guests (r, 2)."""
    law, n = config.hosts, len(hosts)
    day_start = window.day_start(day)
    jitter = law.start_jitter_hours * HOUR_S * rng.standard_normal(n)
    offset = np.clip(hour_of_broadcast_day(hosts.usual_hour) + jitter, 0.0, DAY_S - SHORTEST_BROADCAST_S - 1.0)
    start = day_start + offset
    duration = law.duration_median_hours * HOUR_S * np.exp(law.duration_sigma * rng.standard_normal(n))
    # Over before the day is, so that a host's next broadcast never begins before this one ends.
    end = np.minimum(start + np.maximum(duration, SHORTEST_BROADCAST_S), day_start + DAY_S - 1.0)
    on_air = rng.random(n) < hosts.broadcast_share
    on_air[away] = False
    on_air &= (start >= 0.0) & (start < window.horizon_s) & (start > hosts.registered_s + HOUR_S)
    host = np.flatnonzero(on_air)
    host = host[np.argsort(start[host], kind="stable")]
    guests = np.full((len(host), 2), NO_HOST, dtype=np.int32)
    resting = ~on_air & (hosts.registered_s + HOUR_S < day_start) & ~hosts.cheat
    resting[away] = False
    free = rng.permutation(np.flatnonzero(resting))
    wanted = np.where(rng.random(len(host)) < law.joint_share, rng.integers(1, 3, len(host)), 0)
    wanted[np.cumsum(wanted) > len(free)] = 0
    room_of_guest = repeat_rows(wanted)
    guests[room_of_guest, _offset_in_run(room_of_guest)] = free[: len(room_of_guest)]
    return host.astype(np.int32), start[host], end[host], guests


@dataclass(frozen=True)
class DayProgramme:
    """One day as a viewer's app sees it. Room rows are market-wide; entry H of both maps stands for no host."""

    own_room: I4
    """(H + 1,) the room a host runs today, or NO_ROOM."""
    guest_room: I4
    """(H + 1,) the room a host is a guest in today, or NO_ROOM."""


def day_programme(schedule: Schedule, day: int, hosts: int) -> DayProgramme:
    """Index the broadcasts of one day by host."""
    rows = np.arange(schedule.day_rows[day], schedule.day_rows[day + 1], dtype=np.int32)
    own = np.full(hosts + 1, NO_ROOM, dtype=np.int32)
    own[schedule.host[rows]] = rows
    guest = np.full(hosts + 1, NO_ROOM, dtype=np.int32)
    for column in range(2):
        guests = schedule.guests[rows, column]
        guest[guests[guests != NO_HOST]] = rows[guests != NO_HOST]
    return DayProgramme(own, guest)
