"""The moment of a room and its host: what anybody could see at this instant, whoever asks.

Rates are compared in three ways: raw, as a share among the candidates of the request, and against the host's own past.

Shape letters: n candidates, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled
from recsys.events.facts import NEVER, US_PER_DAY
from recsys.pipeline.spans import Spans
from recsys.pipeline.world import World
from recsys.ties.algebra import Block, Floats, Ints, Rows
from recsys.ties.blocks import blocks as declared_blocks
from recsys.ties.standing import STANDINGS

US_PER_MINUTE = 60_000_000

_WINDOWS = ("1m", "5m", "30m", "2h", "12h", "2d", "7d")
_ARRIVAL_WINDOWS = ("5m", "30m", "2h", "2d", "7d")
_ROOM_WINDOWS = ("2m", "10m", "1h")
MOMENT_FEATURES = (
    *(f"host_entries_{w}" for w in _WINDOWS),
    *(f"host_entries_{w}_share" for w in _WINDOWS),
    *(f"host_arrivals_{w}_share" for w in _ARRIVAL_WINDOWS),
    *(f"room_entries_{w}_share" for w in _ROOM_WINDOWS),
    "host_arrival_surge",
    "room_age_min",
    "room_entries",
    "room_entries_per_min",
    "room_idle_s",
    "room_idle_rank",
    "room_popularity_rank",
    "room_surge",
    "room_comments_10m",
    "room_lines_10m",
    "room_stay_mean_min",
    "host_surge",
    "host_surge_5m",
    "host_visitors",
    "host_returning_share",
    "host_entries_per_visitor",
    "host_fans",
    "host_repeat_buyer_share",
    "host_refund_share",
    "host_comment_share",
    "host_lines_1d",
    "host_hour_share",
    "host_broadcasts",
    "host_entries_per_broadcast",
    "host_age_days",
    "cohosts",
)
"""Names of the features, in the order of the rows of `moment_features`."""

_N_RATES, _N_HOST_SHARES = len(_WINDOWS), len(_WINDOWS) + len(_ARRIVAL_WINDOWS)
_N_SHARES = _N_HOST_SHARES + len(_ROOM_WINDOWS)
_GONE = 1_000.0
"""What has halved so often is nothing; a number as small as that takes many times as long to work out."""
_NOTHING = 2.0**-_GONE
PRIOR_BUYERS = 10.0
PRIOR_RETURNING = 5.0
PRIOR_SPEND_MINOR = 5_000.0


class _Columns(NamedTuple):
    """Where the columns lie that `_others` reads: integers of hosts, of rooms (`room_…`) and of schedules, standings
    (`n_…`)."""

    n_entries: int
    n_comments: int
    n_likes: int
    refunded_minor: int
    spend_minor: int
    hours_0: int
    room_entries: int
    room_stays: int
    room_stay_ms: int
    room_last_entry_at: int
    n_broadcasts: int
    first_broadcast_at: int
    n_visitors: int
    n_returning: int
    n_fans: int
    n_buyers: int
    n_repeat_buyers: int


class _Sums(NamedTuple):
    """Decayed sums: columns and half-lives, µs."""

    columns: Ints
    half_lives: Floats


@dataclass(frozen=True)
class _Plan:
    columns: _Columns
    host: _Sums
    """Order lines of a day, then entries: what is read as a share stands together."""
    arrivals: _Sums
    room: _Sums
    """Entries, then comments and order lines of ten minutes."""


@cache
def _plan(slot_ms: int) -> _Plan:
    blocks = declared_blocks(slot_ms // 1000)
    host, room, schedule = blocks.host, blocks.room, blocks.schedule

    def sums(block: Block, *names: str) -> _Sums:
        columns = np.array([block.decay_column(name) for name in names])
        return _Sums(columns, block.half_lives_us[columns])

    places = [
        *(host.int_column(name) for name in _Columns._fields[:6]),
        *(room.int_column(name) for name in ("n_entries", "n_stays", "stay_ms", "last_entry_at")),
        *(schedule.int_column(name) for name in ("n_broadcasts", "first_broadcast_at")),
        *(STANDINGS.index(name) for name in ("visitors", "returning", "fans", "buyers", "repeat_buyers")),
    ]
    return _Plan(
        _Columns(*places),
        host=sums(host, "lines_1d", *(f"entries_{w}" for w in _WINDOWS)),
        arrivals=sums(blocks.arrivals, *(f"arrivals_{w}" for w in _ARRIVAL_WINDOWS)),
        room=sums(room, *(f"entries_{w}" for w in _ROOM_WINDOWS), "comments_10m", "lines_10m"),
    )


def moment_features(world: World, rooms: Ints, hosts: Ints, at: int, spans: Spans, out: Floats) -> None:
    """Write the features (F, n) of candidate rooms and their hosts at instant `at`, µs, into `out`, except
    the two ranks."""
    host, arrivals, room = world.hosts.rows, world.arrivals.rows, world.moments.rows
    plan, priors = _plan(world.blocks.host.slot_ms), world.priors
    rates, shares, others = out[:_N_RATES], out[_N_RATES : _N_RATES + _N_SHARES], out[_N_RATES + _N_SHARES :]
    sums = _decayed((hosts, host, plan.host), (hosts, arrivals, plan.arrivals), (rooms, room, plan.room), at=at)
    lines, entries, acts = sums[0], sums[1 : 1 + _N_SHARES], sums[1 + _N_SHARES :]
    of_host, of_arrivals, of_room = entries[:_N_RATES], entries[_N_RATES:_N_HOST_SHARES], entries[_N_HOST_SHARES:]
    others[8:10], others[20] = acts, lines
    rates[:] = of_host
    spans.shares(entries, shares)
    _others(
        rooms, hosts, at, plan.columns, of_host, of_arrivals, of_room, host.ints, room.ints, world.schedule.rows.ints,
        world.standings.T, world.rooms.started_at, world.rooms.n_cohosts,
        (priors.returning_share, priors.repeat_buyer_share, priors.refund_share), others,
    )  # fmt: skip


def _decayed(*parts: tuple[Ints, Rows, _Sums], at: int) -> Floats:
    """Decayed sums (S, n) of some rows (n,) of several blocks at instant `at`, one block after the other: what
    `decay_to` says, but for the last bits."""
    ends = list(accumulate((len(sums.columns) for _, _, sums in parts), initial=0))
    found = np.empty((ends[-1], len(parts[0][0])))
    for (rows, held, sums), (start, stop) in zip(parts, pairwise(ends), strict=True):
        _halvings(rows, held.ints, sums.half_lives, at, found[start:stop])
    np.exp2(found, out=found)  # several at a time, which a compiled loop would not do
    for (rows, held, sums), (start, stop) in zip(parts, pairwise(ends), strict=True):
        _weigh(rows, held.decayed, sums.columns, found[start:stop])
    return found


@compiled
def _halvings(rows: Ints, ints: Ints, half_lives: Floats, at: int, out: Floats) -> None:
    """How often sums of some rows (n,) have halved since they were written, negative."""
    ages = out[-1]
    for i in range(len(ages)):
        ages[i] = max(float(at) - float(ints[rows[i], 0]), 0.0)
    for s in range(len(half_lives)):
        halvings, half_life = out[s], half_lives[s]
        for i in range(len(halvings)):
            halvings[i] = -min(ages[i] / half_life, _GONE)


@compiled
def _weigh(rows: Ints, decayed: Floats, columns: Ints, out: Floats) -> None:
    """Sums of some rows (n,), times what is left of them, which stands in `out`."""
    for s in range(len(columns)):
        left, column = out[s], columns[s]
        for i in range(len(left)):
            left[i] = decayed[rows[i], column] * (left[i] if left[i] > _NOTHING else 0.0)


@compiled
def _shrunk(hits: float, trials: float, prior_rate: float, prior_weight: float) -> float:
    """A rate shrunk to the mean: (hits + weight · prior) / (trials + weight); the posterior mean under a Beta prior."""
    return (hits + prior_weight * prior_rate) / (trials + prior_weight)


@compiled
def _others(
    rooms: Ints, hosts: Ints, at: int, of: _Columns, rates: Floats, arrivals: Floats, in_room: Floats, host_ints: Ints,
    room_ints: Ints, schedule: Ints, standings: Ints, started_at: Ints, n_cohosts: npt.NDArray[np.int32],
    priors: tuple[float, float, float], out: Floats,
) -> None:  # fmt: skip
    """The features after rates and shares, but for ranks and decayed sums."""
    hour = at % US_PER_DAY // (US_PER_DAY // 24)
    returning_share, repeat_share, refund_share = priors
    for i in range(len(rooms)):
        room = rooms[i]
        age_min = np.nan if started_at[room] == NEVER else (at - started_at[room]) / US_PER_MINUTE
        entries, last_entry = room_ints[room, of.room_entries], room_ints[room, of.room_last_entry_at]
        stays = room_ints[room, of.room_stays]
        out[0, i] = (arrivals[2, i] + 0.1) / (arrivals[3, i] + 1.0)
        out[1, i] = age_min
        out[2, i] = entries
        out[3, i] = entries / (age_min + 10.0)
        out[4, i] = np.nan if last_entry == NEVER else 60.0 * ((at - last_entry) / US_PER_MINUTE)
        out[7, i] = (in_room[1, i] + 0.1) / (in_room[2, i] + 0.5)
        out[10, i] = room_ints[room, of.room_stay_ms] / 60_000.0 / stays if stays > 0 else np.nan
        out[11, i] = (rates[2, i] + 0.1) / (rates[4, i] + 0.5)
        out[12, i] = (rates[1, i] + 0.05) / (rates[3, i] + 0.2)
        out[25, i] = n_cohosts[room]
    for i in range(len(hosts)):
        host = hosts[i]
        visitors, buyers = standings[of.n_visitors, host], standings[of.n_buyers, host]
        entries, broadcasts = host_ints[host, of.n_entries], schedule[host, of.n_broadcasts]
        comments, likes = host_ints[host, of.n_comments], host_ints[host, of.n_likes]
        refunded, spent = host_ints[host, of.refunded_minor], host_ints[host, of.spend_minor]
        out[13, i] = visitors
        out[14, i] = _shrunk(standings[of.n_returning, host], visitors, returning_share, PRIOR_RETURNING)
        out[15, i] = entries / max(visitors, 1)
        out[16, i] = standings[of.n_fans, host]
        out[17, i] = _shrunk(standings[of.n_repeat_buyers, host], buyers, repeat_share, PRIOR_BUYERS)
        out[18, i] = _shrunk(refunded, spent, refund_share, PRIOR_SPEND_MINOR)
        out[19, i] = (comments + 1.0) / (comments + likes + 9.0)
        out[21, i] = (host_ints[host, of.hours_0 + hour] + 1.0) / (entries + 24.0) * 24.0
        out[22, i] = broadcasts
        out[23, i] = (entries + 1.0) / (broadcasts + 1.0)
        out[24, i] = (at - min(schedule[host, of.first_broadcast_at], at)) / US_PER_DAY
