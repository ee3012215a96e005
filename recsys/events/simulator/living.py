"""The users of one part live through the window, day by day: the only loop over time in the simulator."""

from __future__ import annotations

import numpy as np

from recsys.events.simulator.arrays import DAY_S, F8, I4, I8, NO_ROOM, Bools
from recsys.events.simulator.circle import initial_circle, strength_of
from recsys.events.simulator.config import WorldConfig
from recsys.events.simulator.feed import DayFeed, day_feed
from recsys.events.simulator.population import HostTraits, draw_users
from recsys.events.simulator.schedule import DayProgramme, Schedule, Window, day_programme
from recsys.events.simulator.sessions import Sessions, draw_sessions
from recsys.events.simulator.slate import LAST_MINUTE_S, RAIL, offer_slate
from recsys.events.simulator.tables import SOURCES, PartWriter
from recsys.events.simulator.visit import FOLLOW, UNFOLLOW, Part, enter_rooms, unblock, write_follows

FROM_FOLLOW, FROM_FEED, FROM_SEARCH = (SOURCES.index(source) for source in ("follow", "recommend", "search"))
MOST_STEPS = 40
"""Slates and appointments of one user in one day."""


def live_through(
    config: WorldConfig,
    hosts: HostTraits,
    schedule: Schedule,
    window: Window,
    rows: I8,
    total_users: int,
    writer: PartWriter,
    rng: np.random.Generator,
) -> Part:
    """Simulate the users with the given row numbers over the whole window; writes their events.

    Returns the part as it is at the end, from which the planted truth is read.
    """
    users = draw_users(config, rows, total_users, hosts, window.horizon_s, rng)
    circle, old_user, old_slot = initial_circle(config.relations, users, hosts, rng)
    part = Part(config, hosts, schedule, users, circle, writer, rng)
    write_follows(part, old_user, circle.host[old_user, old_slot], circle.followed_s[old_user, old_slot], FOLLOW)
    for day in range(window.days):
        circle.attended[:] = False
        unblock(part, window.day_start(day))
        if schedule.day_rows[day] == schedule.day_rows[day + 1]:
            continue
        programme = day_programme(schedule, day, len(hosts))
        feed = day_feed(config, hosts, schedule, window, day)
        sessions = draw_sessions(part, window, day, programme)
        _live_one_day(part, window, sessions, programme, feed)
        _cool(part, window, day, programme)
    return part


def _live_one_day(part: Part, window: Window, sessions: Sessions, programme: DayProgramme, feed: DayFeed) -> None:
    """All sessions of a day. In each step every user does one thing: keeps an appointment, or sees one slate, so a
    user's own events come in order while different users are at different hours."""
    rng, horizon = part.rng, window.horizon_s
    users, first = np.unique(sessions.user, return_index=True)
    following = first.astype(np.int64)
    """Next session of each user, a row of `sessions`; `end` is one past the last."""
    end = np.r_[first[1:], len(sessions.user)].astype(np.int64)
    idle = np.arange(len(users), dtype=np.int64)
    user, time = np.zeros(0, dtype=np.int64), np.zeros(0)
    place = np.full(len(part.users.row), -1, dtype=np.int64)
    place[users] = np.arange(len(users))
    for _ in range(MOST_STEPS):
        idle = idle[following[idle] < end[idle]]
        rows = following[idle]
        following[idle] += 1
        if len(rows) + len(user) == 0:
            return
        opening, browses = sessions.user[rows], sessions.room[rows] == NO_ROOM
        opened = np.maximum(sessions.opened_s[rows], part.free_s[opening] + 5.0)
        met = _meet(part, opening, sessions.room[rows], opened, ~browses & (opened < horizon))
        goes_on = browses | (met & (rng.random(len(rows)) < part.config.exposure.stay_on_share))
        opened = np.where(browses, opened, part.free_s[opening] + rng.uniform(5.0, 40.0, len(rows)))
        user, time = np.concatenate([user, opening[goes_on]]), np.concatenate([time, opened[goes_on]])
        inside = time < horizon
        user, time = user[inside], time[inside]
        browsing = user
        if len(user):
            user, time = _browse_once(part, feed, programme, user, time)
        resting = np.zeros(len(users), dtype=np.bool_)
        resting[place[opening[~goes_on]]] = True
        resting[place[browsing]] = True
        resting[place[user]] = False
        idle = np.flatnonzero(resting)


def _meet(part: Part, user: I8, room: I4, time_s: F8, wanted: Bools) -> Bools:
    """Keep the `wanted` appointments (S,) that still can be kept; returns which were."""
    rows = np.flatnonzero(wanted)
    rows = rows[_can_meet(part, user[rows], room[rows], time_s[rows])]
    if len(rows):
        _keep_appointments(part, user[rows], room[rows], time_s[rows])
    met = np.zeros(len(user), dtype=np.bool_)
    met[rows] = True
    return met


def _can_meet(part: Part, user: I8, room: I4, time_s: F8) -> Bools:
    """Whether an appointment still can be kept: the room goes on for a minute and its host is not blocked."""
    host = part.schedule.host[room]
    blocked = ((part.circle.host[user] == host[:, None]) & part.circle.blocked[user]).any(axis=1)
    in_time = part.schedule.end_s[room] > time_s + LAST_MINUTE_S
    possible: Bools = in_time & ~blocked
    return possible


def _keep_appointments(part: Part, user: I8, room: I4, time_s: F8) -> None:
    followed = ((part.circle.host[user] == part.schedule.host[room][:, None]) & part.circle.followed[user]).any(axis=1)
    enter_rooms(part, user, room, time_s, np.where(followed, FROM_FOLLOW, FROM_SEARCH).astype(np.int32))


def _browse_once(part: Part, feed: DayFeed, programme: DayProgramme, user: I8, time_s: F8) -> tuple[I8, F8]:
    """One slate and what follows from it. Returns the users (S',) who go on and when."""
    law, rng = part.config.exposure, part.rng
    choice = offer_slate(part, feed, programme, user, time_s)
    entered = choice.room != NO_ROOM
    source = np.where(choice.slot == RAIL, FROM_FOLLOW, FROM_FEED).astype(np.int32)
    entered_s = time_s + rng.uniform(1.0, 20.0, len(user))
    enter_rooms(part, user[entered], choice.room[entered], entered_s[entered], source[entered])
    part.free_s[user[~entered]] = entered_s[~entered] + 10.0
    next_s = np.where(entered, part.free_s[user] + rng.uniform(3.0, 30.0, len(user)), entered_s + 20.0)
    on = rng.random(len(user)) < np.where(entered, law.stay_on_share, law.scroll_on_share)
    return user[on], next_s[on]


def _cool(part: Part, window: Window, day: int, programme: DayProgramme) -> None:
    """Bonds cool by one missed broadcast; some fans whose bond is weak unfollow before the day is over."""
    circle, rng, law = part.circle, part.rng, part.config
    room = programme.own_room[circle.host]
    missed = (room != NO_ROOM) & ~circle.attended
    circle.bond[missed] *= 1.0 - law.relations.cooling
    user, slot = np.nonzero(missed & circle.followed)
    leaves = rng.random(len(user)) < law.visits.unfollow_daily * (1.0 - circle.bond[user, slot])
    user, slot = user[leaves], slot[leaves]
    day_end = window.day_start(day) + DAY_S - 1.0
    day_start = np.full(len(user), day_end - DAY_S)
    earliest = np.maximum.reduce([part.free_s[user], circle.followed_s[user, slot], day_start]) + 1.0
    at = earliest + rng.random(len(user)) * np.maximum(day_end - earliest, 1.0)
    inside = at < window.horizon_s
    user, slot, at = user[inside], slot[inside], at[inside]
    write_follows(part, user, circle.host[user, slot], at, UNFOLLOW)
    circle.followed[user, slot] = False


def strengths(part: Part) -> dict[str, np.ndarray[tuple[int], np.dtype[np.generic]]]:
    """The planted ties at the end of the window: every host in mind, and those that lost their slot before (each as it
    was then; the latest where a pair was forgotten more than once). Equal lengths (n,)."""
    circle, law = part.circle, part.config.relations
    user, slot = np.nonzero(circle.host >= 0)
    host, liking, bond = circle.host[user, slot], circle.affinity[user, slot], circle.bond[user, slot]
    followed, blocked = circle.followed[user, slot], circle.blocked[user, slot]
    gone = circle.forgotten
    count = sum(len(piece) for piece in gone.user)
    no = np.zeros(count, dtype=np.bool_)
    columns = {
        "user_id": np.concatenate([*gone.user, user]),
        "host_id": np.concatenate([*gone.host, host]),
        "affinity": np.concatenate([*gone.affinity, liking]),
        "bond": np.concatenate([*gone.bond, bond]),
        "following": np.concatenate([no, followed]),
        "blocked": np.concatenate([no, blocked]),
        "forgotten": np.concatenate([~no, np.zeros(len(user), dtype=np.bool_)]),
    }
    pair = columns["user_id"] * (1 << 32) + columns["host_id"]
    _, last = np.unique(pair[::-1], return_index=True)
    columns = {name: values[len(pair) - 1 - last] for name, values in columns.items()}
    latent = strength_of(law, columns["affinity"], columns["bond"])
    columns["strength"] = np.where(columns["blocked"], 0.0, latent)
    columns["user_id"] = part.users.row[columns["user_id"]]
    return columns
