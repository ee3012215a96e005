"""The feature table of a request: what the ranker and the strength heads read for every candidate.

Rows of the table are features, columns candidates, so that a model reads one feature as one contiguous run. A candidate
is a room together with the host whose tie is meant: the room's own host, or one of its co-hosts.

Shape letters: n candidates, F features, m tied candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.events.facts import US_PER_DAY
from recsys.models.block_network import TIE, VIEWER
from recsys.models.suite import PERSONAL_FEATURES, Viewer
from recsys.models.trust import TRUST_FEATURES
from recsys.pipeline.choice import CHOICE_FEATURES, choice_features
from recsys.pipeline.moment import MOMENT_FEATURES, moment_features
from recsys.pipeline.spans import Ranking, Spans
from recsys.pipeline.tied import ROOM_TIE_FEATURES, features_of, put_features, user_number
from recsys.pipeline.world import World
from recsys.ties.algebra import Floats
from recsys.ties.features import TIE_FEATURES
from recsys.ties.gathering import GatheredTies, gather, side_by_side

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
_KNOWN = N_TIE + ROOM_TIE_FEATURES.index("tie_known")
_KNOWN_BY = [_KNOWN, FEATURES.index("tie_followed"), FEATURES.index("tie_order_lines")]
_GROUPS = (MOMENT_FEATURES, PERSONAL_FEATURES, TRUST_FEATURES, REQUEST_FEATURES, CHOICE_FEATURES)
_ENDS = np.cumsum([N_TIE + len(ROOM_TIE_FEATURES), *(len(group) for group in _GROUPS)]).tolist()
_MOMENT, _PERSONAL, _TRUST, _REQUEST, _CHOICE = (slice(*ends) for ends in pairwise(_ENDS))
_PLACES = (
    ("room_idle_s", False, True, "room_idle_rank"),
    ("host_entries_30m", True, False, "room_popularity_rank"),
    ("cf_graph", True, False, "cf_graph_rank"),
    ("cf_factor", True, False, "cf_factor_rank"),
    ("transition_recent", True, False, "transition_rank"),
    ("transition_chance", True, False, "transition_chance_rank"),
)
"""What candidates are ranked by, whether the largest is the best, whether those without stand behind the others (rooms
nobody entered), and where the place goes."""
_RANKING = Ranking(
    of=np.array([FEATURES.index(of) for of, _, _, _ in _PLACES]),
    down=np.array([down for _, down, _, _ in _PLACES]),
    last=np.array([last for _, _, last, _ in _PLACES]),
    into=np.array([FEATURES.index(into) for _, _, _, into in _PLACES]),
)


class Asking(NamedTuple):
    """The candidates (rooms and the hosts meant, (n,) each) of one viewer, folded in as `viewer`."""

    user: int
    viewer: Viewer
    rooms: npt.NDArray[np.int64]
    hosts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class FeatureTable:
    """`values` (F, n) float64 of candidates of several requests side by side, those of each where `spans` says; and
    `of_request` the ties they were read from (`asked` are positions among the candidates of that request)."""

    values: Floats
    spans: Spans
    of_request: tuple[GatheredTies, ...]


def feature_table(
    world: World,
    user: int,
    viewer: Viewer,
    rooms: npt.NDArray[np.int64],
    hosts: npt.NDArray[np.int64],
    at: int,
) -> FeatureTable:
    """All features (F, n) of candidates (room, host) for one user, folded in as `viewer`, at instant `at`, µs."""
    return feature_tables(world, [Asking(user, viewer, rooms, hosts)], at)


def feature_tables(world: World, askings: Sequence[Asking], at: int) -> FeatureTable:
    """All features (F, n) of the candidates of several requests at one instant, side by side; each has at least one."""
    spans = Spans([len(asking.rooms) for asking in askings])
    rooms, hosts = _joined([asking.rooms for asking in askings]), _joined([asking.hosts for asking in askings])
    values = np.empty((len(FEATURES), len(rooms)))
    entries = [user_number(world, asking.user, "n_entries") for asking in askings]
    gathered = [gather(world.ties, asking.viewer.ties, asking.hosts, len(world.standings)) for asking in askings]
    ties = side_by_side(gathered, spans.bounds[:-1])
    started = world.rooms.started_at.take(rooms.take(ties.asked))
    known = features_of(world, ties, hosts.take(ties.asked), started, [asking.user for asking in askings], at)
    put_features(world, ties, known, started, values[: _MOMENT.start])
    moment_features(world, rooms, hosts, at, spans, values[_MOMENT])
    values[_PERSONAL] = np.nan
    for asking, part in zip(askings, spans.parts(), strict=True):
        world.models.personal(asking.viewer, asking.hosts, values[_PERSONAL, part])
    if world.models.trust is None:
        values[_TRUST] = np.nan
    else:
        world.models.trust.features(hosts, world.blocks.host, world.hosts.rows, values[_TRUST])
    same = np.empty((len(REQUEST_FEATURES), len(spans)))
    for i, (asking, part) in enumerate(zip(askings, spans.parts(), strict=True)):
        mine = known[:, ties.bounds[i] : ties.bounds[i + 1]]
        same[:, i] = _request(world, asking, entries[i], mine, values[_KNOWN, part], at)
    values[_REQUEST] = spans.spread(same)
    users = [asking.user for asking in askings]
    choice_features(world.models.audience, users, hosts, values[_AGE], values[_LIFTS], at, spans, values[_CHOICE])
    spans.rank(values, _RANKING)
    return FeatureTable(values, spans, tuple(gathered))


def of_known_hosts(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    """Which candidates (n,) with features (F, n) are of hosts the viewer knows: he came there, follows or bought.

    Wider than the private domain of `recsys.pipeline.sources`, where visits do not count. A host that was merely shown
    to him, or whom he reported, he does not know.
    """
    came, follows, lines = _KNOWN_BY
    return np.asarray((values[came] > 0) | (values[follows] > 0) | (values[lines] > 0))


def _joined(parts: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _request(world: World, asking: Asking, entries: float, ties: Floats, known: Floats, at: int) -> list[float]:
    """What is the same for all n candidates of the request; `ties` (F_tie, m) are the features of the tied ones."""
    user, hosts, n = asking.user, float(len(asking.viewer.ties["visits"])), len(asking.rooms)
    hour = (at % US_PER_DAY) // (US_PER_DAY // 24)
    strongest = np.fmax.reduce(ties[_ENTRIES_3D], initial=0.0)
    latest = np.fmin.reduce(ties[_SINCE], initial=1e4)
    last = user_number(world, user, "last_entry_at")
    recent = 0.0
    if entries:
        block = world.blocks.user
        rows, row = world.users.find(user)
        ref, decayed = rows.ints.item(row, 0), rows.decayed.item(row, block.decay_column("entries_1h"))
        recent = decayed * 2.0 ** (-max(0.0, float(at - ref)) / (US_PER_DAY / 24))
    return [
        entries,
        hosts,
        (entries - hosts + 0.5) / (entries + 1.0),
        (at - last) / (US_PER_DAY / 24) if entries else np.nan,
        recent,
        (user_number(world, user, f"hours_{hour}") + 0.5) / (entries + 12.0),
        n,
        known.sum(),
        strongest,
        latest,
    ]
