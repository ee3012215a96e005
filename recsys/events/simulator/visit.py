"""What happens from entering a room to leaving it, and what it does to the tie."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from recsys.events.simulator.arrays import (
    DAY_S,
    F4,
    F8,
    HOUR_S,
    I4,
    I8,
    MINUTE_S,
    NO_SLOT,
    Bools,
    logistic,
    repeat_rows,
)
from recsys.events.simulator.circle import Circle
from recsys.events.simulator.config import WorldConfig
from recsys.events.simulator.orders import AFTER_WATCH_MINUTES, Buyers, buy_chance, place_orders
from recsys.events.simulator.population import HostTraits, UserTraits, affinity
from recsys.events.simulator.schedule import Schedule
from recsys.events.simulator.tables import ACTIONS, ENGAGEMENTS, FEEDBACK, PartWriter

LIKE, COMMENT, GIFT, SHARE = (ENGAGEMENTS.index(kind) for kind in ("like", "comment", "gift", "share"))
FOLLOW, UNFOLLOW = (ACTIONS.index(action) for action in ("follow", "unfollow"))
NOT_INTERESTED, BLOCK, REPORT, UNBLOCK = (FEEDBACK.index(k) for k in ("not_interested", "block", "report", "unblock"))
MOST_EVENTS_A_STAY = 60
SHORTEST_STAY_S = 2.0


@dataclass
class Part:
    """Everything that moves while the users of one part live through the window."""

    config: WorldConfig
    hosts: HostTraits
    schedule: Schedule
    users: UserTraits
    circle: Circle
    writer: PartWriter
    rng: np.random.Generator
    free_s: F8 = field(init=False)
    """(U,) when each user has left the last room."""
    order_count: I8 = field(init=False)

    def __post_init__(self) -> None:
        self.free_s = np.full(len(self.users.row), -np.inf)
        self.order_count = np.zeros(len(self.users.row), dtype=np.int64)


@dataclass(frozen=True)
class _Stay:
    """Entries under way, users distinct; all (E,)."""

    user: I8
    host: I4
    room: I4
    entered_s: F8
    left_s: F8
    affinity: F4
    bond: F4

    @property
    def minutes(self) -> F8:
        minutes: F8 = (self.left_s - self.entered_s) / MINUTE_S
        return minutes


def enter_rooms(part: Part, user: I8, room: I4, entered_s: F8, source: I4) -> None:
    """Let users (E,), all distinct, enter rooms (E,) at given times; writes all events and moves the state.

    The rooms must be live at `entered_s` and their hosts not blocked.
    """
    if len(user) == 0:
        return
    circle, rng, law = part.circle, part.rng, part.config.visits
    host = part.schedule.host[room]
    slot = circle.slot_of(user, host)
    kept = slot != NO_SLOT
    liking = affinity(part.users, part.hosts, user, host.astype(np.int64))
    bond = np.where(kept, circle.bond[user, slot], 0.0).astype(np.float32)
    median = law.stay_median_minutes * np.exp(law.stay_affinity * liking + law.stay_bond * bond)
    minutes = median * np.exp(law.stay_sigma * rng.standard_normal(len(user)))
    left_s = np.minimum(entered_s + np.maximum(minutes * MINUTE_S, SHORTEST_STAY_S), part.schedule.end_s[room])
    stay = _Stay(user, host, room, entered_s, left_s, liking, bond)
    part.free_s[user] = left_s
    part.writer.add(
        "watches",
        user_id=part.users.row[user],
        host_id=host,
        room_id=room,
        entered_at=entered_s,
        left_at=left_s,
        source=source,
    )
    circle.attended[user[kept], slot[kept]] = True
    _interact(part, stay)
    follows = _wants_to_follow(part, stay, kept, slot)
    bought = _wants_to_buy(part, stay, kept, slot)
    worth_keeping = ~kept & (follows | bought[0] | (stay.minutes >= part.config.relations.memorable_minutes))
    slot = slot.copy()
    rows = np.flatnonzero(worth_keeping)
    slot[rows] = circle.admit(user[rows], host[rows], liking[rows])
    kept = slot != NO_SLOT
    _follow(part, stay, follows & kept, slot)
    _grow_bond(part, stay, kept, slot)
    bad = _buy(part, stay, bought[1], bought[0] & kept, slot)
    _turn_away(part, stay, kept, slot, bad)


def _interact(part: Part, stay: _Stay) -> None:
    """Likes, comments, gifts and shares, at times spread over the stay."""
    law, users, rng = part.config.visits, part.users, part.rng
    minutes = stay.minutes
    chat = users.chattiness[stay.user]
    comments = law.comments_per_minute * chat * np.exp(law.depth_bond * stay.bond)
    likes = law.likes_per_minute * (0.5 + 0.5 * chat)
    gifts = law.gift_rate * (users.gifting[stay.user] > 0) * np.exp(law.gift_bond * stay.bond) / 10.0
    means = {
        LIKE: likes * minutes,
        COMMENT: comments * minutes,
        SHARE: law.shares_per_minute * minutes,
        GIFT: gifts * np.minimum(minutes / 10.0, 2.0),
    }
    for kind, mean in means.items():
        count = np.minimum(rng.poisson(mean), MOST_EVENTS_A_STAY)
        of = repeat_rows(count)
        n = len(of)
        if n == 0:
            continue
        times, value = np.ones(n, dtype=np.int32), np.zeros(n, dtype=np.int64)
        if kind == LIKE:
            times = rng.geometric(1.0 / law.taps_per_like, n).astype(np.int32)
        if kind == GIFT:
            level = law.gift_value_median_minor * users.gifting[stay.user[of]]
            value = np.ceil(level * np.exp(law.gift_sigma * rng.standard_normal(n))).astype(np.int64)
        part.writer.add(
            "engagements",
            user_id=users.row[stay.user[of]],
            host_id=stay.host[of],
            room_id=stay.room[of],
            at=stay.entered_s[of] + rng.random(n) * (stay.left_s - stay.entered_s)[of],
            kind=np.full(n, kind, dtype=np.int32),
            count=times,
            value_minor=value,
        )


def _wants_to_follow(part: Part, stay: _Stay, kept: Bools, slot: I8) -> Bools:
    followed = kept & part.circle.followed[stay.user, slot]
    chance = (
        part.config.visits.follow_rate * logistic(stay.affinity + 3.0 * stay.bond) * np.minimum(stay.minutes / 5.0, 3.0)
    )
    return ~followed & (part.rng.random(len(stay.user)) < chance)


def _follow(part: Part, stay: _Stay, follows: Bools, slot: I8) -> None:
    rows = np.flatnonzero(follows)
    if len(rows) == 0:
        return
    user = stay.user[rows]
    at = stay.entered_s[rows] + part.rng.random(len(rows)) * (stay.left_s - stay.entered_s)[rows]
    part.circle.followed[user, slot[rows]] = True
    part.circle.followed_s[user, slot[rows]] = at
    write_follows(part, user, stay.host[rows], at, FOLLOW)


def write_follows(part: Part, user: I8, host: I4, at: F8, action: int) -> None:
    """Write follow or unfollow rows; all arrays (n,)."""
    action_code = np.full(len(user), action, dtype=np.int32)
    part.writer.add("follows", user_id=part.users.row[user], host_id=host, at=at, action=action_code)


def _wants_to_buy(part: Part, stay: _Stay, kept: Bools, slot: I8) -> tuple[Bools, Buyers]:
    circle = part.circle
    entries = Buyers(
        user=part.users.row[stay.user],
        host=stay.host,
        room=stay.room,
        entered_s=stay.entered_s,
        left_s=stay.left_s,
        bond=stay.bond,
        buying=part.users.buying[stay.user],
        orders=np.where(kept, circle.orders[stay.user, slot], 0).astype(np.int32),
        last_order_s=np.where(kept, circle.last_order_s[stay.user, slot], -np.inf),
    )
    chance = buy_chance(part.config, part.hosts, entries)
    return part.rng.random(len(chance)) < chance, entries


def _buy(part: Part, stay: _Stay, entries: Buyers, bought: Bools, slot: I8) -> Bools:
    """Place the orders and let them change the tie. Returns (E,) whether a bad order was had."""
    number = part.order_count[stay.user]
    bad, at = place_orders(part.config, part.hosts, entries, bought, number, part.writer, part.rng)
    had_bad = np.zeros(len(bought), dtype=np.bool_)
    rows = np.flatnonzero(bought)
    if len(rows) == 0:
        return had_bad
    law, circle, user, where = part.config.relations, part.circle, stay.user[rows], slot[rows]
    part.order_count[user] += 1
    circle.orders[user, where] += 1
    circle.last_order_s[user, where] = at
    bond = circle.bond[user, where]
    circle.bond[user, where] = np.where(bad, bond * (1 - law.bad_order_loss), bond + law.good_order_growth * (1 - bond))
    had_bad[rows] = bad
    return had_bad


def _grow_bond(part: Part, stay: _Stay, kept: Bools, slot: I8) -> None:
    """bond += growth · loyalty · warmth · liking · depth of the stay · (1 − bond), the step capped at the whole way."""
    rows = np.flatnonzero(kept)
    user, host = stay.user[rows], stay.host[rows]
    depth = 0.2 + 0.8 * np.minimum(stay.minutes[rows] / 20.0, 1.0)
    step = part.config.relations.growth * part.users.loyalty[user] * part.hosts.warmth[host] * depth
    step = np.minimum(step * logistic(stay.affinity[rows].astype(np.float64)), 1.0)
    bond = part.circle.bond[user, slot[rows]]
    part.circle.bond[user, slot[rows]] = bond + step * (1.0 - bond)


def _turn_away(part: Part, stay: _Stay, kept: Bools, slot: I8, bad: Bools) -> None:
    """Not-interested after short stays; blocks, with reports and unfollows, mostly after bad orders."""
    law, rng, circle, n = part.config.visits, part.rng, part.circle, len(stay.user)
    dull = (stay.minutes < 1.0) & (stay.bond < 0.2)
    bored = np.flatnonzero(dull & (rng.random(n) < law.not_interested_share * np.exp(-stay.affinity)))
    _write_feedback(part, stay.user[bored], stay.host[bored], stay.left_s[bored], NOT_INTERESTED)
    # A block is remembered, so a stranger who is to be blocked needs a slot.
    blocks = rng.random(n) < law.block_share * np.exp(-stay.affinity) * (1.0 - stay.bond) * np.where(bad, 40.0, 1.0)
    strangers = np.flatnonzero(blocks & ~kept)
    slot = slot.copy()
    slot[strangers] = circle.admit(stay.user[strangers], stay.host[strangers], stay.affinity[strangers])
    rows = np.flatnonzero(blocks & (slot != NO_SLOT))
    if len(rows) == 0:
        return
    user, host, where = stay.user[rows], stay.host[rows], slot[rows]
    # Later than any order placed shortly after leaving.
    at = stay.left_s[rows] + (AFTER_WATCH_MINUTES + 1.0 + 60.0 * rng.random(len(rows))) * MINUTE_S
    reports = np.flatnonzero(rng.random(len(rows)) < 0.2 + 0.5 * bad[rows])
    _write_feedback(part, user[reports], host[reports], at[reports] - 20.0, REPORT)
    fans = np.flatnonzero(circle.followed[user, where])
    write_follows(part, user[fans], host[fans], at[fans] - 5.0, UNFOLLOW)
    _write_feedback(part, user, host, at, BLOCK)
    circle.followed[user, where] = False
    circle.blocked[user, where] = True
    circle.bond[user, where] = 0.0
    relents = rng.random(len(rows)) < law.unblock_share
    circle.unblock_s[user, where] = np.where(relents, at + HOUR_S + rng.exponential(6.0, len(rows)) * DAY_S, np.inf)


def _write_feedback(part: Part, user: I8, host: I4, at: F8, kind: int) -> None:
    kind_code = np.full(len(user), kind, dtype=np.int32)
    part.writer.add("feedback", user_id=part.users.row[user], host_id=host, at=at, kind=kind_code)


def unblock(part: Part, day_start_s: float) -> None:
    """Lift the blocks whose time came before the day; written at the time they were lifted."""
    user, slot = np.nonzero(part.circle.blocked & (part.circle.unblock_s < day_start_s))
    if len(user) == 0:
        return
    _write_feedback(part, user, part.circle.host[user, slot], part.circle.unblock_s[user, slot], UNBLOCK)
    part.circle.blocked[user, slot] = False
    part.circle.unblock_s[user, slot] = np.inf
