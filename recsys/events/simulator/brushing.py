"""Order brushing: fake buyers who drop into the broadcasts of the host that pays them, order, and leave."""

from __future__ import annotations

import numpy as np

from recsys.events.simulator.arrays import I4, I8, NO_HOST, repeat_rows
from recsys.events.simulator.orders import Buyers, place_orders
from recsys.events.simulator.tables import SOURCES
from recsys.events.simulator.visit import Part

SEARCH = SOURCES.index("search")


def brush_orders(part: Part) -> None:
    """Write the visits and orders of the part's fake buyers over the whole window.

    They come through search within half an hour of the start, stay 20 to 100 seconds and order without a word. They
    hold no tie: their planted strength is nil.
    """
    fakes = np.flatnonzero(part.users.fake_for != NO_HOST)
    if len(fakes) == 0:
        return
    user, room = _assignments(part, fakes)
    rng, schedule, law = part.rng, part.schedule, part.config.brushing
    works = rng.random(len(user)) < law.orders_per_broadcast
    user, room = user[works], room[works]
    length = schedule.end_s[room] - schedule.start_s[room]
    entered = schedule.start_s[room] + 1.0 + rng.random(len(user)) * np.minimum(1_800.0, 0.5 * length)
    left = np.minimum(entered + rng.uniform(20.0, 100.0, len(user)), schedule.end_s[room])
    known = (entered > part.users.registered_s[user]) & (entered < part.writer.clock.horizon_s)
    user, room, entered, left = user[known], room[known], entered[known], left[known]
    order = np.lexsort((entered, user))
    user, room, entered, left = user[order], room[order], entered[order], left[order]
    host = schedule.host[room]
    part.writer.add(
        "watches",
        user_id=part.users.row[user],
        host_id=host,
        room_id=room,
        entered_at=entered,
        left_at=left,
        source=np.full(len(user), SEARCH, dtype=np.int32),
    )
    number = np.arange(len(user)) - np.searchsorted(user, user, side="left")
    entries = Buyers(
        user=part.users.row[user],
        host=host,
        room=room,
        entered_s=entered,
        left_s=left,
        bond=np.zeros(len(user), dtype=np.float32),
        buying=np.ones(len(user)),
        orders=np.zeros(len(user), dtype=np.int32),
        last_order_s=np.full(len(user), -np.inf),
    )
    place_orders(
        part.config, part.hosts, entries, np.ones(len(user), dtype=np.bool_), number, part.writer, rng, genuine=False
    )


def _assignments(part: Part, fakes: I8) -> tuple[I8, I4]:
    """(user, room) of every broadcast of the host each fake buyer works for, (n,) both."""
    rooms = np.flatnonzero(part.hosts.cheat[part.schedule.host]).astype(np.int32)
    rooms = rooms[np.argsort(part.schedule.host[rooms], kind="stable")]
    hosts = part.schedule.host[rooms]
    first = np.searchsorted(hosts, part.users.fake_for[fakes], side="left")
    last = np.searchsorted(hosts, part.users.fake_for[fakes], side="right")
    of = repeat_rows(last - first)
    offset = np.arange(len(of)) - np.searchsorted(of, of, side="left")
    return fakes[of], rooms[first[of] + offset]
