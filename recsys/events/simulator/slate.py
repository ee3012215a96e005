"""One slate: what is shown to users who browse, and which room, if any, each of them enters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.events.simulator.arrays import F8, I4, I8, MINUTE_S, NO_HOST, NO_ROOM, NO_SLOT, Bools, rank_within
from recsys.events.simulator.feed import SLOTS, DayFeed, draw_feed, first_showings
from recsys.events.simulator.population import affinity
from recsys.events.simulator.schedule import DayProgramme
from recsys.events.simulator.visit import Part

RAIL = SLOTS.index("follow")
LAST_MINUTE_S = MINUTE_S
"""Rooms known to end within a minute are not shown."""


@dataclass(frozen=True)
class Choice:
    """What S browsing users did with a slate: the room entered (S,), NO_ROOM for none, and its slot (S,)."""

    room: I4
    slot: I4


def offer_slate(part: Part, feed: DayFeed, programme: DayProgramme, user: I8, time_s: F8) -> Choice:
    """Show a slate to users (S,) at (S,), write the impressions, and let each user choose at most one room."""
    law, rng = part.config.exposure, part.rng
    rail_room, rail_kept = _rail(part, programme, user, time_s)
    draws = draw_feed(feed, law, part.users.interest[user], time_s, rng)
    host = np.where(draws.room == NO_ROOM, NO_HOST, part.schedule.host[draws.room]).astype(np.int32)
    kept = part.circle.slot_of(user, host)
    blocked = (kept != NO_SLOT) & part.circle.blocked[user[:, None], kept]
    feed_shown = (draws.room != NO_ROOM) & ~blocked & _live(part, draws.room, time_s)

    room = np.concatenate([rail_room, draws.room], axis=1)
    kept = np.concatenate([rail_kept, kept], axis=1)
    shown = first_showings(room, np.concatenate([rail_room != NO_ROOM, feed_shown], axis=1))
    slot = np.concatenate([np.full(rail_room.shape, RAIL, dtype=np.int32), draws.slot], axis=1)
    propensity = np.concatenate([np.full(rail_room.shape, law.rail_share), draws.propensity], axis=1)
    position: I8 = np.cumsum(shown, axis=1, dtype=np.int64)
    _write_impressions(part, user, time_s, room, shown, slot, propensity, position)

    liking, bond = _tie(part, user, room, shown, kept)
    appeal = law.enter_base + law.enter_affinity * liking + law.enter_bond * bond + law.enter_rail * (slot == RAIL)
    appeal = np.where(shown, appeal - law.position_decay * (position - 1), -np.inf)
    # Multinomial logit: the best of appeal + Gumbel noise, against a "none of these" of appeal 0.
    noisy = appeal + rng.gumbel(size=appeal.shape)
    best = noisy.argmax(axis=1)
    row = np.arange(len(user))
    enters = noisy[row, best] > rng.gumbel(size=len(user))
    return Choice(np.where(enters, room[row, best], NO_ROOM).astype(np.int32), slot[row, best])


def _live(part: Part, room: I4, time_s: F8) -> Bools:
    start, end = part.schedule.start_s[room], part.schedule.end_s[room]
    live: Bools = (start < time_s[:, None]) & (end > time_s[:, None] + LAST_MINUTE_S)
    return live


def _rail(part: Part, programme: DayProgramme, user: I8, time_s: F8) -> tuple[I4, I8]:
    """The rail: each live followed host with chance rail_share. Rooms and circle slots (S, width of the widest rail),
    packed to the left; NO_ROOM and NO_SLOT beyond a user's own."""
    circle = part.circle
    room = programme.own_room[circle.host[user]]
    session, slot = np.nonzero((room != NO_ROOM) & circle.followed[user])
    put = part.rng.random(len(session)) < part.config.exposure.rail_share
    session, slot = session[put], slot[put]
    rooms = room[session, slot]
    live = _live(part, rooms[:, None], time_s[session])[:, 0] & ~circle.blocked[user[session], slot]
    session, slot, rooms = session[live], slot[live], rooms[live]
    column = rank_within(session)
    shape = (len(user), int(column.max(initial=-1)) + 1)
    rail_room, rail_slot = np.full(shape, NO_ROOM, dtype=np.int32), np.full(shape, NO_SLOT, dtype=np.int64)
    rail_room[session, column] = rooms
    rail_slot[session, column] = slot
    return rail_room, rail_slot


def _tie(part: Part, user: I8, room: I4, shown: Bools, keeping: I8) -> tuple[F8, F8]:
    """Affinity and bond of every shown position, (S, J); zero where nothing is shown."""
    liking, bond = np.zeros(room.shape), np.zeros(room.shape)
    session, position = np.nonzero(shown)
    who = user[session]
    slot = keeping[session, position]
    host = part.schedule.host[room[session, position]].astype(np.int64)
    liking[session, position] = affinity(part.users, part.hosts, who, host)
    bond[session, position] = np.where(slot == NO_SLOT, 0.0, part.circle.bond[who, slot])
    return liking, bond


def _write_impressions(
    part: Part, user: I8, time_s: F8, room: I4, shown: Bools, slot: I4, propensity: F8, position: I8
) -> None:
    session, place = np.nonzero(shown)
    rooms = room[session, place]
    part.writer.add(
        "impressions",
        user_id=part.users.row[user[session]],
        room_id=rooms,
        host_id=part.schedule.host[rooms],
        at=time_s[session],
        position=position[session, place].astype(np.int32),
        slot=slot[session, place],
        propensity=propensity[session, place],
    )
