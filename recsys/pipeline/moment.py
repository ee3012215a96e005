"""The moment of a room and its host: what anybody could see at this instant, whoever asks.

Rates are compared in three ways: raw, as a share among the candidates of the request, and against the host's own past.

Shape letters: n candidates, F features.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from recsys.events.facts import NEVER, US_PER_DAY
from recsys.pipeline.spans import Spans, taken
from recsys.pipeline.world import World
from recsys.ties.algebra import Floats
from recsys.ties.blocks import Blocks
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

PRIOR_BUYERS = 10.0
PRIOR_RETURNING = 5.0
PRIOR_SPEND_MINOR = 5_000.0


class _Plan:
    """Where the columns lie that features read, looked up once per declaration of blocks; rows of decayed sums are in
    the order hosts, arrivals, rooms."""

    def __init__(self, blocks: Blocks) -> None:
        host, room = blocks.host, blocks.room
        names = ("ref_at", "n_entries", "n_comments", "n_likes", "refunded_minor", "spend_minor", "hours_0")
        self.host = _column(host.int_column(name) for name in names)
        self.hour_row = len(names) - 1
        self.host_sums = _column(host.decay_column(name) for name in ("lines_1d", *(f"entries_{w}" for w in _WINDOWS)))
        self.arrival_sums = _column(blocks.arrivals.decay_column(f"arrivals_{w}") for w in _ARRIVAL_WINDOWS)
        of_room = ("ref_at", "n_entries", "n_stays", "stay_ms", "last_entry_at")
        self.room = _column(room.int_column(name) for name in of_room)
        sums = (*(f"entries_{w}" for w in _ROOM_WINDOWS), "comments_10m", "lines_10m")
        self.room_sums = _column(room.decay_column(name) for name in sums)
        self.schedule = _column(blocks.schedule.int_column(name) for name in ("n_broadcasts", "first_broadcast_at"))
        columns = (self.host_sums, self.arrival_sums, self.room_sums)
        lives = [
            block.half_lives_us[where] for block, where in zip((host, blocks.arrivals, room), columns, strict=True)
        ]
        self.half_lives = np.concatenate(lives)
        self.age_of = np.repeat(np.arange(3), [len(where) for where in columns])


def _column(places: Iterable[int]) -> npt.NDArray[np.intp]:
    return np.array(list(places), dtype=np.intp)[:, None]


@lru_cache(maxsize=4)
def _plan(slot_ms: int) -> _Plan:
    return _Plan(declared_blocks(slot_ms // 1000))


def moment_features(
    world: World, rooms: npt.NDArray[np.int64], hosts: npt.NDArray[np.int64], at: int, spans: Spans, out: Floats
) -> None:
    """Write the features (F, n) of candidate rooms and their hosts at instant `at`, µs, into `out`, except
    the two ranks."""
    plan = _plan(world.blocks.host.slot_ms)
    hour = (at % US_PER_DAY) // (US_PER_DAY // 24)
    host_columns = plan.host.copy()
    host_columns[plan.hour_row] += hour
    host = taken(world.hosts.rows.ints, hosts, host_columns).astype(np.float64)  # instants in µs are exact
    room = taken(world.moments.rows.ints, rooms, plan.room).astype(np.float64)
    ages = np.empty((3, len(rooms)))
    ages[0], ages[1], ages[2] = host[0], world.arrivals.rows.ints[hosts, 0], room[0]
    np.subtract(at, ages, out=ages)
    np.maximum(ages, 0.0, out=ages)
    ages = ages[plan.age_of]
    ages /= -plan.half_lives
    sums = np.exp2(ages, out=ages)
    split = (len(plan.host_sums), len(plan.host_sums) + len(plan.arrival_sums))
    sums[: split[0]] *= taken(world.hosts.rows.decayed, hosts, plan.host_sums)
    sums[split[0] : split[1]] *= taken(world.arrivals.rows.decayed, hosts, plan.arrival_sums)
    sums[split[1] :] *= taken(world.moments.rows.decayed, rooms, plan.room_sums)
    rates, arrivals, in_room = sums[1 : split[0]], sums[split[0] : split[1]], sums[split[1] :]
    by_column = world.standings.T.reshape(-1)  # columns lie one after the other
    users = by_column.take(hosts + _STANDINGS * len(world.standings)).astype(np.float64)
    visitors, returning, fans, buyers, repeat = users
    entries, comments, likes, refunded, spent, in_hour = host[1:]
    room_entries, stays, stay_ms, last_entry = room[1:]
    started = world.rooms.started_at.take(rooms)
    age_min = np.where(started != NEVER, (at - started.astype(np.float64)) / US_PER_MINUTE, np.nan)
    idle_s = np.where(last_entry != NEVER, 60.0 * ((at - last_entry) / US_PER_MINUTE), np.nan)
    broadcasts, first_seen = taken(world.schedule.rows.ints, hosts, plan.schedule).astype(np.float64)
    n, shared = len(_WINDOWS), len(sums) - 3
    out[:n] = rates
    out[n : n + shared] = spans.shares(sums[1 : 1 + shared])
    others = out[n + shared :]
    others[0] = (arrivals[2] + 0.1) / (arrivals[3] + 1.0)
    others[1], others[2], others[4] = age_min, room_entries, idle_s
    np.divide(room_entries, age_min + 10.0, out=others[3])
    others[7] = (in_room[1] + 0.1) / (in_room[2] + 0.5)
    others[8:10] = in_room[3:]
    np.divide(stay_ms / 60_000.0, np.where(stays > 0, stays, np.nan), out=others[10])
    others[11] = (rates[2] + 0.1) / (rates[4] + 0.5)
    others[12] = (rates[1] + 0.05) / (rates[3] + 0.2)
    others[13], others[16] = visitors, fans
    priors = world.priors
    others[14] = shrunk(returning, visitors, priors.returning_share, PRIOR_RETURNING)
    np.divide(entries, np.maximum(visitors, 1.0), out=others[15])
    others[17] = shrunk(repeat, buyers, priors.repeat_buyer_share, PRIOR_BUYERS)
    others[18] = shrunk(refunded, spent, priors.refund_share, PRIOR_SPEND_MINOR)
    others[19] = (comments + 1.0) / (comments + likes + 9.0)
    others[20] = sums[0]
    others[21] = (in_hour + 1.0) / (entries + 24.0) * 24.0
    others[22] = broadcasts
    others[23] = (entries + 1.0) / (broadcasts + 1.0)
    np.divide(at - np.minimum(first_seen, at), US_PER_DAY, out=others[24])
    others[25] = world.rooms.n_cohosts.take(rooms)


_STANDINGS = _column(STANDINGS.index(name) for name in ("visitors", "returning", "fans", "buyers", "repeat_buyers"))


def shrunk(hits: Floats, trials: Floats, prior_rate: float, prior_weight: float) -> Floats:
    """A rate shrunk to the mean: (hits + weight · prior) / (trials + weight); the posterior mean under a Beta prior."""
    return (hits + prior_weight * prior_rate) / (trials + prior_weight)
