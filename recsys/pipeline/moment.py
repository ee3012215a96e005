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
from recsys.ties.algebra import Floats, Ints, decay_to
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
    host_block, room_block = world.blocks.host, world.blocks.room
    host_rows, schedule = world.hosts.rows.take(hosts), world.schedule.rows.take(hosts)
    column = {name: host_rows.ints[:, i].astype(np.float64) for i, name in enumerate(host_block.ints)}
    decayed = dict(zip(host_block.decays, decay_to(host_block, host_rows, at).T, strict=True))
    world.moments.grow(int(rooms.max(initial=-1)) + 1)
    room_rows = world.moments.rows.take(rooms)
    room = {name: room_rows.ints[:, i].astype(np.float64) for i, name in enumerate(room_block.ints)}
    moment = dict(zip(room_block.decays, decay_to(room_block, room_rows, at).T, strict=True))
    standing = dict(zip(STANDINGS, world.standings[hosts].T.astype(np.float64), strict=True))
    started = world.rooms.started_at[rooms]
    age_min = _minutes_since(at, started)
    idle_s = 60.0 * _minutes_since(at, room_rows.ints[:, room_block.int_column("last_entry_at")])
    entries = column["n_entries"]
    broadcasts = schedule.ints[:, world.blocks.schedule.int_column("n_broadcasts")].astype(np.float64)
    first_seen = schedule.ints[:, world.blocks.schedule.int_column("first_broadcast_at")]
    hour = (at % US_PER_DAY) // (US_PER_DAY // 24)
    arrival_rows = world.arrivals.rows.take(hosts)
    arrivals = list(decay_to(world.blocks.arrivals, arrival_rows, at).T)
    rates = [decayed[f"entries_{w}"] for w in _WINDOWS]
    room_rates = [moment[f"entries_{w}"] for w in _ROOM_WINDOWS]
    stays = np.where(room["n_stays"] > 0, room["n_stays"], np.nan)
    return np.stack(
        [
            *rates,
            *(_share(rate) for rate in rates),
            *(_share(rate) for rate in arrivals),
            *(_share(rate) for rate in room_rates),
            (arrivals[2] + 0.1) / (arrivals[3] + 1.0),
            age_min,
            room["n_entries"],
            room["n_entries"] / (age_min + 10.0),
            idle_s,
            rank(idle_s),
            rank(-rates[2]),
            (room_rates[1] + 0.1) / (room_rates[2] + 0.5),
            moment["comments_10m"],
            moment["lines_10m"],
            room["stay_ms"] / 60_000.0 / stays,
            (rates[2] + 0.1) / (rates[4] + 0.5),
            (rates[1] + 0.05) / (rates[3] + 0.2),
            standing["visitors"],
            shrunk(standing["returning"], standing["visitors"], world.priors.returning_share, PRIOR_RETURNING),
            entries / np.maximum(standing["visitors"], 1.0),
            standing["fans"],
            shrunk(standing["repeat_buyers"], standing["buyers"], world.priors.repeat_buyer_share, PRIOR_BUYERS),
            shrunk(column["refunded_minor"], column["spend_minor"], world.priors.refund_share, PRIOR_SPEND_MINOR),
            (column["n_comments"] + 1.0) / (column["n_comments"] + column["n_likes"] + 9.0),
            decayed["lines_1d"],
            (column[f"hours_{hour}"] + 1.0) / (entries + 24.0) * 24.0,
            broadcasts,
            (entries + 1.0) / (broadcasts + 1.0),
            np.where(first_seen < at, (at - np.minimum(first_seen, at)) / US_PER_DAY, 0.0),
            np.array([len(world.rooms.cohosts.get(int(r), ())) for r in rooms], dtype=np.float64)
            if world.rooms.cohosts
            else np.zeros(len(rooms)),
        ]
    )


def shrunk(hits: Floats, trials: Floats, prior_rate: float, prior_weight: float) -> Floats:
    """A rate shrunk to the mean: (hits + weight · prior) / (trials + weight); the posterior mean under a Beta prior."""
    return (hits + prior_weight * prior_rate) / (trials + prior_weight)


def _share(rate: Floats) -> Floats:
    return (rate + 1e-3) / (float(rate.sum()) + 1e-3 * max(len(rate), 1))


def _minutes_since(at: int, instant: Ints) -> Floats:
    known = instant != NEVER
    return np.where(known, (at - np.where(known, instant, at)) / US_PER_MINUTE, np.nan)
