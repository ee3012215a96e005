"""Taking back that a room started: another row of it turned out to say when it began, and whose it is.

The states of a tie cannot forget, but a schedule keeps its latest starts one by one, so a start can leave it again.
"""

from __future__ import annotations

import numpy as np

from recsys.events.facts import FOREVER, NEVER
from recsys.pipeline.world import World


def take_back_start(world: World, room: int, host: int, at: int) -> None:
    """The room (row) of a host (row) did not start at `at`, µs: off the air, and out of the schedule of the host.

    Exact while the host has no more broadcasts than a schedule keeps. Of one with more, a start older than those kept
    cannot move into the place that becomes free, nor become the first one known.
    """
    world.index.end(room)
    store, rooms = world.schedule, world.rooms
    block, state = store.block, store.rows.take(np.array([host]))
    count, first = state.ints[0], block.int_column("first_broadcast_at")
    kept = state.latest[0, block.latest_slices["broadcasts"]]
    of_host = (rooms.host == host) & (rooms.started_at == at)
    if np.count_nonzero(of_host) == int(of_host[room]):  # instants are kept once, whoever else began at this one
        if count[block.int_column("n_broadcasts")] <= len(kept) and count[first] == at:
            count[first] = kept[(kept != at) & (kept != NEVER)].min(initial=FOREVER)
        rest = kept[kept != at]
        kept[:] = np.concatenate([rest, np.full(len(kept) - len(rest), NEVER)])
        count[0] = kept[0]
    count[block.int_column("n_broadcasts")] -= 1
    store.put(np.array([host]), state)
