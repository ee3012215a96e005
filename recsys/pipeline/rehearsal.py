"""One round of lookups before the first viewer asks, so that nobody waits for what happens once in a process.

Compiled loops (`recsys.compiled`) are read from their cache, or made, when they are first called for the types they are
called with. The rehearsal asks for rooms that do not exist of hosts that do, on a stage of its own: no state moves.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys.events.facts import FactKind
from recsys.index.live_rooms import LiveRoomIndex
from recsys.pipeline.lookup import lookups
from recsys.pipeline.request import Request
from recsys.pipeline.world import RoomTable, World
from recsys.ties.algebra import identity
from recsys.ties.row_store import RowStore

_ROOMS = 48
_SEARCHED_USERS = 4_096


def rehearse(world: World, at: int) -> None:
    """Answer viewers with ties of every kind, and one without any, alone and together; instant `at`, µs.

    Without hosts there is no answer to rehearse. What an answer's impressions move is rehearsed on states of nobody.
    """
    for updater in world.ties.updaters.values():
        updater.apply_many(identity(updater.block, 1), np.zeros(1, dtype=np.int64), FactKind.IMPRESSION, at)
    users = _with_ties(world)
    hosts = {int(host) for user in users for ties in world.ties.held(user).values() for host in ties.hosts[:_ROOMS]}
    hosts |= set(range(min(_ROOMS, len(world.standings))))
    if not hosts:
        return
    rooms = RoomTable()
    stage = replace(
        world,
        rooms=rooms,
        index=LiveRoomIndex(world.models.index_vectors),
        moments=RowStore(world.blocks.room, len(hosts)),
        room_ids=None,
    )
    for room, host in enumerate(sorted(hosts)):
        rooms.put(room, host, (), at, None)
        stage.index.start(room, host)
    requests = [Request(user, at, max(len(hosts) // 2, 1)) for user in [*users, -1]]
    for request in requests:
        (answer,) = lookups(stage, [request])
        np.sum(answer.contributions)
    lookups(stage, requests)


def _with_ties(world: World) -> list[int]:
    """Of every block of ties the first user who has any, as far as users are searched; each once."""
    found: set[int] = set()
    for name in world.ties.blocks:
        for user in range(_SEARCHED_USERS):
            if len(world.ties.of(name, user)):
                found.add(user)
                break
    return sorted(found)
