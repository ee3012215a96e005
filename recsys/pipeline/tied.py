"""What binds a viewer to candidates: the features of his ties with their hosts, as a request reads them.

Shape letters: n candidates, F_tie features of a tie, m tied candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled
from recsys.pipeline.world import World
from recsys.ties.algebra import Floats, Ints
from recsys.ties.features import tie_features
from recsys.ties.gathering import GatheredTies, gather

ROOM_TIE_FEATURES = ("tie_in_room", "tie_known")
"""Whether the viewer is or was in the room, and whether he ever came to its host."""


def ties_at(
    world: World, user: int, hosts: npt.NDArray[np.int64], started: npt.NDArray[np.int64], at: int
) -> tuple[GatheredTies, Floats]:
    """The user's ties with `hosts` and their features (F_tie, m).

    Args:
        world: the state; it holds facts before `at` only.
        user: user row, −1 for nobody known.
        hosts: (n,) host rows.
        started: (n,) starts of the rooms in question, NEVER for none: that broadcast is neither missed nor attended.
        at: instant, µs.
    """
    ties = gather(world.ties, world.ties.held(user), hosts, len(world.standings))
    return ties, features_of(world, ties, hosts[ties.asked], started[ties.asked], [user], at)


def features_of(
    world: World, ties: GatheredTies, hosts: Ints, live_started: Ints, users: Sequence[int], at: int
) -> Floats:
    """Features (F_tie, m) of ties with `hosts` (m,) and rooms started at `live_started` (m,), of one user or of several
    side by side."""
    entries, since = np.empty(len(hosts)), np.empty(len(hosts))
    for user, start, stop in zip(users, ties.bounds, ties.bounds[1:], strict=False):
        n_entries = user_number(world, user, "n_entries")
        entries[start:stop] = n_entries
        since[start:stop] = user_number(world, user, "first_entry_at") if n_entries else 0.0
    block, rows = world.blocks.schedule, world.schedule.rows
    columns = block.int_column("n_broadcasts"), block.int_column("first_broadcast_at")
    broadcasts, offered = np.empty((len(hosts), rows.latest.shape[1]), dtype=np.int64), np.empty(len(hosts))
    latest = block.latest_slices["broadcasts"].start
    _offer(hosts, since, live_started, rows.ints, *columns, rows.latest, latest, broadcasts, offered)
    paused = _paused_of(world, ties, hosts, at) if world.leaves else 0
    return tie_features(world.blocks, ties, broadcasts, offered, live_started, paused, entries, at)


@compiled
def _offer(
    hosts: Ints, since: Floats, live_started: Ints, ints: Ints, n_broadcasts: int, first_broadcast_at: int,
    latest: Ints, newest: int, broadcasts: Ints, offered: Floats,
) -> None:  # fmt: skip
    """How many broadcasts of `hosts` (m,) their users could have come to: those `since` the first visit anywhere; and
    the latest `broadcasts` of these hosts (m, K), of which column `newest` is the last.

    Only the latest starts are remembered, so a host's broadcasts count as evenly spread from the first to the latest.
    Of a user who never entered anything nobody knows since when he is there: all count. The one in question does not.
    """
    for i in range(len(hosts)):
        host = hosts[i]
        broadcasts[i] = latest[host]
        count, first, last = ints[host, n_broadcasts], ints[host, first_broadcast_at], latest[host, newest]
        offered[i] = 0.0
        if count > 0 and float(last) >= since[i]:
            share = min(max((float(last) - since[i]) / max(last - first, 1), 0.0), 1.0)
            offered[i] = 1.0 + (count - 1) * share if count > 1 else count
            offered[i] -= last == live_started[i] and offered[i] >= 1.0


def put_features(world: World, ties: GatheredTies, known: Floats, live_started: Ints, out: Floats) -> None:
    """Write the features `known` (F_tie, m) of ties and `ROOM_TIE_FEATURES` to their candidates in `out` (F, n); others
    have NaN, and 0 of the latter."""
    visits, block = ties.rows["visits"], world.blocks.visits
    attended = visits.latest[:, block.latest_slices["attended"]]
    _put(ties.asked, known, attended, live_started, visits.ints, block.int_column("n_entries"), out)


@compiled
def _put(
    asked: npt.NDArray[np.intp], known: Floats, attended: Ints, live_started: Ints, visits: Ints, n_entries: int,
    out: Floats,
) -> None:  # fmt: skip
    """`put_features`; `attended` (m, K) starts of the broadcasts a viewer was in; `n_entries` a column of `visits`."""
    n_tie = len(known)
    out[:n_tie], out[n_tie:] = np.nan, 0.0
    for f in range(n_tie):
        feature, of_ties = out[f], known[f]
        for j in range(len(asked)):
            feature[asked[j]] = of_ties[j]
    for j in range(len(asked)):
        out[n_tie, asked[j]] = np.any(attended[j] == live_started[j])
        out[n_tie + 1, asked[j]] = visits[j, n_entries] > 0


def user_number(world: World, user: int, column: str) -> float:
    """An integer of the block `user`; 0, or what stands for never, of nobody known."""
    rows, row = world.users.find(user)
    return float(rows.ints.item(row, world.blocks.user.int_column(column)))


def _paused_of(world: World, ties: GatheredTies, hosts: Ints, at: int) -> Ints:
    """How much of the time since the last visit each of `hosts` (m,) had announced to be away, µs."""
    visited = ties.rows["visits"].ints[:, world.blocks.visits.int_column("last_entry_at")]
    paused = np.zeros(len(hosts), dtype=np.int64)
    for i, host in enumerate(hosts.tolist()):
        if host in world.leaves:
            paused[i] = _paused(world, host, int(visited[i]), at)
    return paused


def _paused(world: World, host: int, last: int, at: int) -> int:
    """How much of (last, at) the host had announced to be away, µs."""
    total, counted = 0, last
    for since, until in sorted(world.leaves.get(host, ())):  # announced twice, or overlapping: each instant counts once
        begin, end = max(since, counted), min(until, at)
        if end > begin:
            total, counted = total + end - begin, end
    return total
