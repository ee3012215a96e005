"""The moment of a room and its host: what anybody could see at this instant, whoever asks.

Rates are compared in three ways: raw, as a share among the candidates of the request, and against the host's own past.

Shape letters: n candidates, F features.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.events.facts import NEVER, US_PER_DAY
from recsys.models.suite import rank
from recsys.pipeline.world import World
from recsys.ties.algebra import Block, Floats, Ints, Rows, decay_to
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

PRIOR_BUYERS = 10.0
PRIOR_RETURNING = 5.0
PRIOR_SPEND_MINOR = 5_000.0


def moment_features(world: World, rooms: npt.NDArray[np.int64], hosts: npt.NDArray[np.int64], at: int) -> Floats:
    """Features (F, n) of candidate rooms and their hosts at instant `at`, µs."""
    host_block, room_block, blocks = world.blocks.host, world.blocks.room, world.blocks
    host_rows, schedule = world.hosts.rows.take(hosts), world.schedule.rows
    room_rows = world.moments.rows.take(rooms)

    def host(name: str) -> Floats:
        return host_rows.ints[:, host_block.int_column(name)].astype(np.float64)

    def room(name: str) -> Floats:
        return room_rows.ints[:, room_block.int_column(name)].astype(np.float64)

    def users(standing: str) -> Floats:
        return world.standings[:, STANDINGS.index(standing)][hosts].astype(np.float64)

    host_rates, room_rates = _decayed(host_block, host_rows, at), _decayed(room_block, room_rows, at)
    rates = host_rates[_side_by_side(host_block, "entries", _WINDOWS)]
    in_room = room_rates[_side_by_side(room_block, "entries", _ROOM_WINDOWS)]
    arrivals = _decayed(blocks.arrivals, world.arrivals.rows.take(hosts), at)
    age_min = _minutes_since(at, world.rooms.started_at[rooms])
    idle_s = 60.0 * _minutes_since(at, room_rows.ints[:, room_block.int_column("last_entry_at")])
    entries, room_entries, visitors = host("n_entries"), room("n_entries"), users("visitors")
    comments, stays = host("n_comments"), room("n_stays")
    broadcasts = schedule.ints[hosts, blocks.schedule.int_column("n_broadcasts")].astype(np.float64)
    first_seen = schedule.ints[hosts, blocks.schedule.int_column("first_broadcast_at")]
    hour = (at % US_PER_DAY) // (US_PER_DAY // 24)
    values = np.empty((len(MOMENT_FEATURES), len(rooms)))
    shares = np.concatenate((rates, arrivals, in_room))
    values[: len(rates)] = rates
    values[len(rates) : len(rates) + len(shares)] = _shares(shares)
    others = (
        (arrivals[2] + 0.1) / (arrivals[3] + 1.0),
        age_min,
        room_entries,
        room_entries / (age_min + 10.0),
        idle_s,
        rank(idle_s),
        rank(-rates[2]),
        (in_room[1] + 0.1) / (in_room[2] + 0.5),
        room_rates[room_block.decay_column("comments_10m")],
        room_rates[room_block.decay_column("lines_10m")],
        room("stay_ms") / 60_000.0 / np.where(stays > 0, stays, np.nan),
        (rates[2] + 0.1) / (rates[4] + 0.5),
        (rates[1] + 0.05) / (rates[3] + 0.2),
        visitors,
        shrunk(users("returning"), visitors, world.priors.returning_share, PRIOR_RETURNING),
        entries / np.maximum(visitors, 1.0),
        users("fans"),
        shrunk(users("repeat_buyers"), users("buyers"), world.priors.repeat_buyer_share, PRIOR_BUYERS),
        shrunk(host("refunded_minor"), host("spend_minor"), world.priors.refund_share, PRIOR_SPEND_MINOR),
        (comments + 1.0) / (comments + host("n_likes") + 9.0),
        host_rates[host_block.decay_column("lines_1d")],
        (host(f"hours_{hour}") + 1.0) / (entries + 24.0) * 24.0,
        broadcasts,
        (entries + 1.0) / (broadcasts + 1.0),
        np.where(first_seen < at, (at - np.minimum(first_seen, at)) / US_PER_DAY, 0.0),
        world.rooms.n_cohosts[rooms],
    )
    for row, feature in zip(values[len(rates) + len(shares) :], others, strict=True):
        row[:] = feature
    return values


def _side_by_side(block: Block, name: str, windows: tuple[str, ...]) -> slice:
    """Where the decayed columns of these windows lie; they are declared one after the other."""
    first = block.decay_column(f"{name}_{windows[0]}")
    return slice(first, first + len(windows))


def _decayed(block: Block, rows: Rows, at: int) -> Floats:
    """Decayed sums at one instant, (D, n): `decay_to`, a column after the other in memory."""
    return np.ascontiguousarray(decay_to(block, rows, at).T)


def shrunk(hits: Floats, trials: Floats, prior_rate: float, prior_weight: float) -> Floats:
    """A rate shrunk to the mean: (hits + weight · prior) / (trials + weight); the posterior mean under a Beta prior."""
    return (hits + prior_weight * prior_rate) / (trials + prior_weight)


def _shares(rates: Floats) -> Floats:
    """Each row (n,) as shares of its sum."""
    return np.asarray((rates + 1e-3) / (rates.sum(axis=1, keepdims=True) + 1e-3 * max(rates.shape[1], 1)))


def _minutes_since(at: int, instant: Ints) -> Floats:
    known = instant != NEVER
    return np.where(known, (at - np.where(known, instant, at)) / US_PER_MINUTE, np.nan)
