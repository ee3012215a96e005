"""The feature table of a request: what the ranker and the strength heads read for every candidate.

Rows of the table are features, columns candidates, so that a model reads one feature as one contiguous run. A candidate
is a room together with the host whose tie is meant: the room's own host, or one of its co-hosts.

Shape letters: n candidates, F features, m tied candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.events.facts import US_PER_DAY
from recsys.models.block_network import TIE, VIEWER
from recsys.models.suite import PERSONAL_FEATURES, Viewer
from recsys.models.trust import TRUST_FEATURES
from recsys.pipeline.choice import CHOICE_FEATURES, choice_features
from recsys.pipeline.moment import MOMENT_FEATURES, moment_features
from recsys.pipeline.world import World
from recsys.ties.algebra import Floats
from recsys.ties.features import TIE_FEATURES, tie_features
from recsys.ties.gathering import TiesOfUser, gather

ROOM_TIE_FEATURES = ("tie_in_room", "tie_known")
REQUEST_FEATURES = (
    "user_entries",
    "user_hosts",
    "user_repeat_share",
    "user_hours_since_entry",
    "user_entries_1h",
    "user_hour_share",
    "request_rooms",
    "request_tied_rooms",
    "request_strongest_3d",
    "request_latest_tie_hours",
)
FEATURES = (
    TIE_FEATURES
    + ROOM_TIE_FEATURES
    + MOMENT_FEATURES
    + PERSONAL_FEATURES
    + TRUST_FEATURES
    + REQUEST_FEATURES
    + CHOICE_FEATURES
)
"""Names of all features, in the order of the rows of the table."""
N_TIE = len(TIE_FEATURES)
WITHOUT_TIE = dict.fromkeys(TIE_FEATURES, float("nan")) | dict.fromkeys(ROOM_TIE_FEATURES, 0.0)
"""What is read of a candidate with whose host the viewer has no tie."""
_NOW = ("room_", "host_entries_", "host_arrival", "host_surge")
_STANDING = ("host_entries_per_visitor", "host_entries_per_broadcast")
_TASTE = ("cf_", "transition_", "taste_", "host_peers_")
_OF_VIEWER = ("taste_rate", "taste_age")
BLOCKS: dict[str, tuple[str, ...]] = {
    VIEWER: REQUEST_FEATURES + _OF_VIEWER,
    TIE: TIE_FEATURES + ROOM_TIE_FEATURES,
    "taste": tuple(name for name in FEATURES if name.startswith(_TASTE) and name not in _OF_VIEWER),
    "room": tuple(name for name in FEATURES if name.startswith(_NOW) and name not in _STANDING),
    "host": tuple(
        name
        for name in FEATURES
        if name in _STANDING or not name.startswith(("user_", "request_", "tie_", *_TASTE, *_NOW))
    ),
}
"""What the terms of the ranker are about: the viewer, his tie, what he and others like choose, the room, the host."""
_ENTRIES_3D = TIE_FEATURES.index("tie_entries_3d")
_SINCE = TIE_FEATURES.index("tie_hours_since_entry")
_AGE = FEATURES.index("room_age_min")
_LIFTS = [FEATURES.index("transition_lift"), FEATURES.index("transition_lift_last")]
_KNOWN = len(TIE_FEATURES) + ROOM_TIE_FEATURES.index("tie_known")


@dataclass(frozen=True)
class FeatureTable:
    """`values` (F, n) float64, and the ties they were read from (`ties.asked` are the tied candidates)."""

    values: Floats
    ties: TiesOfUser


def ties_at(
    world: World, user: int, hosts: npt.NDArray[np.int64], started: npt.NDArray[np.int64], at: int
) -> tuple[TiesOfUser, Floats]:
    """The user's ties with `hosts` and their features (F_tie, m).

    Args:
        world: the state; it holds facts before `at` only.
        user: user row, −1 for nobody known.
        hosts: (n,) host rows.
        started: (n,) starts of the rooms in question, NEVER for none: that broadcast is neither missed nor attended.
        at: instant, µs.
    """
    ties = gather(world.ties, user, hosts, len(world.standings))
    tied_hosts = hosts[ties.asked]
    schedule = world.schedule.rows.latest[tied_hosts]
    entries = _user_number(world, user, "n_entries")
    paused: npt.NDArray[np.int64] | int = 0
    if world.leaves:
        visited = ties.rows["visits"].ints[:, world.blocks.visits.int_column("last_entry_at")]
        paused = np.zeros(len(tied_hosts), dtype=np.int64)
        for i, host in enumerate(tied_hosts.tolist()):
            if host in world.leaves:
                paused[i] = _paused(world, host, int(visited[i]), at)
    live = started[ties.asked]
    offered = _offered(world, user, tied_hosts, live)
    return ties, tie_features(world.blocks, ties, schedule, offered, live, paused, entries, at)


def _offered(
    world: World, user: int, hosts: npt.NDArray[np.int64], live_started: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """How many broadcasts of `hosts` (m,) the user could have come to: those since his first visit anywhere.

    Only the latest starts are remembered, so a host's broadcasts count as evenly spread from the first to the latest.
    Of a user who never entered anything nobody knows since when he is there: all count. The one in question does not.
    """
    block, rows = world.blocks.schedule, world.schedule.rows
    held = rows.ints[hosts]
    count, first = held[:, block.int_column("n_broadcasts")], held[:, block.int_column("first_broadcast_at")]
    latest = rows.latest[hosts, block.latest_slices["broadcasts"].start]
    since = _user_number(world, user, "first_entry_at") if _user_number(world, user, "n_entries") else 0.0
    span = np.maximum(latest - first, 1).astype(np.float64)
    share = np.clip((latest - since) / span, 0.0, 1.0)
    offered = np.where(count > 1, 1.0 + (count - 1) * share, count) * (latest >= since)
    offered -= (latest == live_started) & (offered >= 1.0)
    return np.asarray(np.where(count > 0, offered, 0.0))


def feature_table(
    world: World,
    user: int,
    viewer: Viewer,
    rooms: npt.NDArray[np.int64],
    hosts: npt.NDArray[np.int64],
    at: int,
) -> FeatureTable:
    """All features (F, n) of candidates (room, host) for one user, folded in as `viewer`, at instant `at`, µs."""
    n = len(rooms)
    values = np.empty((len(FEATURES), n))
    values[:N_TIE] = np.nan
    started = world.rooms.started_at[rooms]
    ties, known = ties_at(world, user, hosts, started, at)
    values[:N_TIE, ties.asked] = known
    attended = ties.rows["visits"].latest[:, world.blocks.visits.latest_slices["attended"]]
    values[N_TIE] = 0.0
    values[N_TIE, ties.asked] = (attended == started[ties.asked][:, None]).any(axis=1)
    values[_KNOWN] = 0.0
    values[_KNOWN, ties.asked] = ties.rows["visits"].ints[:, world.blocks.visits.int_column("n_entries")] > 0
    row = N_TIE + len(ROOM_TIE_FEATURES)
    values[row : row + len(MOMENT_FEATURES)] = moment_features(world, rooms, hosts, at)
    row += len(MOMENT_FEATURES)
    values[row : row + len(PERSONAL_FEATURES)] = world.models.personal(viewer, hosts)
    row += len(PERSONAL_FEATURES)
    values[row : row + len(TRUST_FEATURES)] = np.nan
    if world.models.trust is not None:
        ints, block = world.hosts.rows.ints, world.blocks.host
        had = (ints[hosts, block.int_column(name)] for name in ("n_refunds", "n_disputes"))
        values[row : row + len(TRUST_FEATURES)] = world.models.trust.features(hosts, *had)
    row += len(TRUST_FEATURES)
    values[row : row + len(REQUEST_FEATURES)] = _request(world, user, known, n, values[_KNOWN], at)[:, None]
    lifts, age_min = values[_LIFTS], values[_AGE]
    values[row + len(REQUEST_FEATURES) :] = choice_features(world.models.audience, user, hosts, age_min, lifts, at)
    return FeatureTable(values, ties)


def _request(world: World, user: int, ties: Floats, n: int, known: Floats, at: int) -> Floats:
    """What is the same for all n candidates of the request; `ties` (F_tie, m) are the features of the tied ones."""
    entries = _user_number(world, user, "n_entries")
    hosts = float(len(world.ties.of("visits", user))) if user >= 0 else 0.0
    hour = (at % US_PER_DAY) // (US_PER_DAY // 24)
    strongest = np.fmax.reduce(ties[_ENTRIES_3D], initial=0.0)
    latest = np.fmin.reduce(ties[_SINCE], initial=1e4)
    last = _user_number(world, user, "last_entry_at")
    recent = 0.0
    if entries:
        block = world.blocks.user
        rows, row = world.users.find(user)
        ref, decayed = rows.ints[row, 0], rows.decayed[row, block.decay_column("entries_1h")]
        recent = float(decayed) * 2.0 ** (-max(0.0, float(at - ref)) / (US_PER_DAY / 24))
    return np.array(
        [
            entries,
            hosts,
            (entries - hosts + 0.5) / (entries + 1.0),
            (at - last) / (US_PER_DAY / 24) if entries else np.nan,
            recent,
            (_user_number(world, user, f"hours_{hour}") + 0.5) / (entries + 12.0),
            n,
            known.sum(),
            strongest,
            latest,
        ]
    )


def _user_number(world: World, user: int, column: str) -> float:
    rows, row = world.users.find(user)
    return float(rows.ints[row, world.blocks.user.int_column(column)])


def _paused(world: World, host: int, last: int, at: int) -> int:
    """How much of (last, at) the host had announced to be away, µs."""
    total, counted = 0, last
    for since, until in sorted(world.leaves.get(host, ())):  # announced twice, or overlapping: each instant counts once
        begin, end = max(since, counted), min(until, at)
        if end > begin:
            total, counted = total + end - begin, end
    return total
