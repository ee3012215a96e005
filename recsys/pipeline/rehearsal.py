"""One round of lookups before the first viewer asks, so that nobody waits for what happens once in a process.

Compiled loops (`recsys.compiled`) are read from their cache, or made, when they are first called for the types they are
called with. The rehearsal asks a bundle's models for rooms, hosts and viewers that do not exist, on a stage of its own:
what the bundle holds is neither read nor moved, so it does not matter which ties or hosts it has.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys.config import SourceSizes
from recsys.events.facts import US_PER_DAY, FactKind
from recsys.index.largest import among_largest
from recsys.index.live_config import LiveIndexConfig
from recsys.index.live_rooms import LiveRoomIndex
from recsys.models.audience import Audience
from recsys.pipeline.heat import Heat
from recsys.pipeline.lookup import lookups
from recsys.pipeline.request import Request
from recsys.pipeline.world import RoomTable, World
from recsys.ties.algebra import Level, identity
from recsys.ties.row_store import RowStore, UserRows
from recsys.ties.standing import STANDINGS
from recsys.ties.store import TieStore

_ROOMS = 12
_ONE_EACH = SourceSizes(nearest=1, transition=1, popular=1, newcomers=1)
"""Few enough that sources choose among the rooms; too few for an answer, so that all rooms are considered next."""
_FACTS = (FactKind.ENTRY, FactKind.STAY, FactKind.COMMENT, FactKind.ORDER_LINE, FactKind.FOLLOW, FactKind.IMPRESSION)
_NOBODY, _VIEWER, _FOLLOWER = -1, 0, 1


def rehearse(world: World, at: int) -> None:
    """Answer a viewer with ties of every kind, a follower and nobody known, alone and together; and let an entry and
    the impressions of an answer move states of nobody.

    Args:
        at: when the rehearsal is played, µs: now, for models are not made for instants long before what they learnt.
    """
    stage = _stage(world, at)
    requests = [Request(user, at, _ROOMS // 2, heads=True) for user in (_VIEWER, _FOLLOWER, _NOBODY)]
    for request in requests:
        (answer,) = lookups(stage, [request])
        np.sum(answer.contributions)
    one_room = replace(requests[0], rooms=np.array([1]), k=1)
    lookups(stage, [one_room])
    for answer in lookups(stage, [*requests, one_room]):
        np.sum(answer.contributions)
    among_largest(np.arange(_ROOMS, dtype=np.float32), 1)  # chances, where no vectors are chosen among
    for updater in world.ties.updaters.values():
        updater.apply_many(identity(updater.block, 1), np.zeros(1, dtype=np.int64), FactKind.IMPRESSION, at)
    if world.models.audience is not None:
        Audience(1, 1).update(0, 0, at, at)


def _stage(world: World, at: int) -> World:
    """A world with the models of another, `_ROOMS` rooms on air and one that has ended, and ties of two viewers."""

    def rows(level: Level) -> list[RowStore]:
        return [RowStore(block, _ROOMS + 1) for block in world.blocks.of(level)]

    hosts, schedule, arrivals = rows("host")
    pipeline = world.config.pipeline.model_copy(update={"sources": _ONE_EACH})
    stage = replace(
        world,
        config=world.config.model_copy(update={"pipeline": pipeline}),
        ties=TieStore(world.blocks.of("tie")),
        hosts=hosts,
        schedule=schedule,
        arrivals=arrivals,
        users=UserRows(world.blocks.user),
        moments=rows("room")[0],
        rooms=RoomTable(),
        index=LiveRoomIndex(world.models.index_vectors, LiveIndexConfig(outlined_from=0)),  # as with many rooms
        standings=np.zeros((_ROOMS + 1, len(STANDINGS)), dtype=np.int64, order="F"),
        heat=Heat(hosts.block, hosts.rows),
        room_ids=None,
        leaves={},
        newcomers_live=None,
    )
    for room in range(_ROOMS + 1):
        stage.rooms.put(room, room, (), at - US_PER_DAY, None)
        stage.index.start(room, room)
    stage.index.end(_ROOMS)
    for kind in _FACTS:
        for host in range(3):
            stage.ties.apply(_VIEWER, host, kind, at - US_PER_DAY, 1, 1)
    stage.ties.apply(_FOLLOWER, 0, FactKind.FOLLOW, at - US_PER_DAY, 1, 0)
    return stage
