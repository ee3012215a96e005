"""When users open the app: appointments kept with a host, and browsing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.events.simulator.arrays import (
    DAY_S,
    F8,
    HOUR_S,
    I4,
    I8,
    MINUTE_S,
    NO_ROOM,
    draw_from,
    rank_within,
    repeat_rows,
)
from recsys.events.simulator.circle import strength_of
from recsys.events.simulator.schedule import DayProgramme, Window, hour_of_broadcast_day
from recsys.events.simulator.visit import Part

MOST_BROWSING_SESSIONS = 4
MOST_SESSIONS = 7
APPOINTMENT_DELAY_MINUTES = 6.0


@dataclass(frozen=True)
class Sessions:
    """Sessions of one day, in order of user and time; all (s,).

    `room` is the broadcast an appointment is kept with, NO_ROOM for browsing.
    """

    user: I8
    opened_s: F8
    room: I4


def draw_sessions(part: Part, window: Window, day: int, programme: DayProgramme) -> Sessions:
    """Sessions of one broadcast day, at most MOST_SESSIONS for a user."""
    appointment_user, appointment_s, appointment_room = _appointments(part, programme)
    browsing_user, browsing_s = _browsing(part, window.day_start(day))
    user = np.concatenate([appointment_user, browsing_user])
    opened = np.concatenate([appointment_s, browsing_s])
    room = np.concatenate([appointment_room, np.full(len(browsing_user), NO_ROOM, dtype=np.int32)])
    known = (opened > np.maximum(part.users.registered_s[user], 0.0)) & (opened < window.horizon_s)
    user, opened, room = user[known], opened[known], room[known]
    order = np.lexsort((opened, user))
    user, opened, room = user[order], opened[order], room[order]
    kept = rank_within(user) < MOST_SESSIONS
    return Sessions(user[kept], opened[kept], room[kept])


def _appointments(part: Part, programme: DayProgramme) -> tuple[I8, F8, I4]:
    """Each user comes to a broadcast of a host in mind with strength × availability (× discount for a guest)."""
    circle, rng = part.circle, part.rng
    own = programme.own_room[circle.host]
    guest = np.where(own == NO_ROOM, programme.guest_room[circle.host], NO_ROOM)
    room = np.where(own == NO_ROOM, guest, own).astype(np.int32)
    user, slot = np.nonzero((room != NO_ROOM) & ~circle.blocked)
    if len(user) == 0:
        return user, np.zeros(0), np.zeros(0, dtype=np.int32)
    strength = strength_of(part.config.relations, circle.affinity[user, slot], circle.bond[user, slot])
    pull = np.where(own[user, slot] == NO_ROOM, part.config.relations.guest_discount, 1.0)
    comes = rng.random(len(user)) < strength * pull * part.users.availability[user]
    user, slot = user[comes], slot[comes]
    target = room[user, slot]
    start, end = part.schedule.start_s[target], part.schedule.end_s[target]
    delay = np.minimum(rng.exponential(APPOINTMENT_DELAY_MINUTES * MINUTE_S, len(user)) + 2.0, 0.6 * (end - start))
    return user, start + delay, target


def _browsing(part: Part, day_start_s: float) -> tuple[I8, F8]:
    users, rng = part.users, part.rng
    count = np.minimum(rng.poisson(users.sessions_per_day), MOST_BROWSING_SESSIONS)
    user = repeat_rows(count)
    n = len(user)
    hour = draw_from(rng, np.array(part.config.rhythm.viewing), n) + rng.random(n)
    own = users.usual_hour[user] + part.config.users.regular_jitter_hours * rng.standard_normal(n)
    # Regulars keep their hour with the first session of the day only.
    first = np.r_[True, user[1:] != user[:-1]] if n else np.zeros(0, dtype=np.bool_)
    hour = np.where(users.regular[user] & first, own, hour)
    offset = hour_of_broadcast_day(hour)
    return user, day_start_s + np.minimum(offset, DAY_S - HOUR_S / 2)
