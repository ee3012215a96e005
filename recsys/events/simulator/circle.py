"""The hosts a user keeps in mind, and the latent tie to each: the planted truth that behaviour follows.

A user has K slots. A slot holds a host, the static affinity and a bond in [0, 1] that grows with satisfying visits and
good orders, shrinks with bad orders, and cools by a share with each broadcast missed (not with days).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from recsys.events.simulator.arrays import F4, F8, I4, I8, NO_HOST, NO_SLOT, Bools, draw_from, logistic
from recsys.events.simulator.config import Relations
from recsys.events.simulator.population import HostTraits, UserTraits, affinity


def strength_of(law: Relations, affinity_: F4 | F8, bond: F4 | F8) -> F8:
    """Latent strength in (0, 1), any shape: logistic(base + affinity_weight · affinity + bond_weight · bond)."""
    score = law.strength_base + law.affinity_weight * affinity_.astype(np.float64)
    return logistic(score + law.bond_weight * bond.astype(np.float64))


@dataclass
class Forgotten:
    """Ties that lost their slot, as they were then: arrays to be concatenated, (n,) each."""

    user: list[I8] = field(default_factory=list)
    host: list[I4] = field(default_factory=list)
    affinity: list[F4] = field(default_factory=list)
    bond: list[F4] = field(default_factory=list)


@dataclass
class Circle:
    """State of all users of a part; every array (U, K). Empty slots have host NO_HOST."""

    host: I4
    affinity: F4
    bond: F4
    followed: Bools
    followed_s: F8
    blocked: Bools
    unblock_s: F8
    orders: I4
    last_order_s: F8
    attended: Bools
    """Whether today's broadcast of the host was visited."""
    forgotten: Forgotten = field(default_factory=Forgotten)

    @staticmethod
    def empty(users: int, slots: int) -> Circle:
        """No relations yet."""
        shape = (users, slots)
        return Circle(
            host=np.full(shape, NO_HOST, dtype=np.int32),
            affinity=np.zeros(shape, dtype=np.float32),
            bond=np.zeros(shape, dtype=np.float32),
            followed=np.zeros(shape, dtype=np.bool_),
            followed_s=np.full(shape, -np.inf),
            blocked=np.zeros(shape, dtype=np.bool_),
            unblock_s=np.full(shape, np.inf),
            orders=np.zeros(shape, dtype=np.int32),
            last_order_s=np.full(shape, -np.inf),
            attended=np.zeros(shape, dtype=np.bool_),
        )

    def slot_of(self, user: I8, host: I4) -> I8:
        """Slot of each host, (S,) or (S, J), for users (S,); NO_SLOT where the user does not keep the host."""
        kept = self.host[user]
        if host.ndim == 1:
            same = kept == host[:, None]
        else:
            same = kept[:, None, :] == host[:, :, None]
        found = same.any(axis=-1) & (host != NO_HOST)
        slots: I8 = np.where(found, same.argmax(axis=-1), NO_SLOT)
        return slots

    def admit(self, user: I8, host: I4, affinity_: F4) -> I8:
        """Give each (user, host), users distinct, a slot: a free one, else that of the weakest tie that is neither
        followed, blocked nor a customer's. (E,) slots; NO_SLOT where none can be had."""
        free = self.host[user] == NO_HOST
        firm = self.followed[user] | self.blocked[user] | (self.orders[user] > 0)
        weakness = np.where(free, -1.0, np.where(firm, np.inf, self.bond[user]))
        slot = weakness.argmin(axis=1)
        possible = weakness[np.arange(len(user)), slot] < np.inf
        evicted = possible & ~free[np.arange(len(user)), slot]
        if evicted.any():
            who, where = user[evicted], slot[evicted]
            self.forgotten.user.append(who)
            self.forgotten.host.append(self.host[who, where])
            self.forgotten.affinity.append(self.affinity[who, where])
            self.forgotten.bond.append(self.bond[who, where])
        who, where = user[possible], slot[possible]
        self.host[who, where] = host[possible]
        self.affinity[who, where] = affinity_[possible]
        self.bond[who, where] = 0.0
        self.followed[who, where] = False
        self.followed_s[who, where] = -np.inf
        self.orders[who, where] = 0
        self.last_order_s[who, where] = -np.inf
        self.attended[who, where] = True
        slots: I8 = np.where(possible, slot, NO_SLOT)
        return slots


def initial_circle(
    law: Relations, users: UserTraits, hosts: HostTraits, rng: np.random.Generator
) -> tuple[Circle, I8, I8]:
    """Relations that began before the window, all followed. Returns the circle and (user, slot) of each, (n,) both.

    Candidates are drawn by popularity within the user's interests; the better half by affinity is kept.
    """
    count = len(users.row)
    circle = Circle.empty(count, law.slots)
    old = users.registered_s < 0
    wanted = np.minimum(rng.poisson(law.initial_mean, count), law.slots - 1) * (old & (users.fake_for == NO_HOST))
    tries = 2 * law.slots
    known = np.where(hosts.registered_s < 0, hosts.popularity, 0.0)
    known = np.where(hosts.cheat, 0.0, known)
    if not (known > 0).any():
        return circle, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    candidate = draw_from(rng, known, count * tries).reshape(count, tries)
    user = np.broadcast_to(np.arange(count)[:, None], candidate.shape)
    liking = affinity(users, hosts, user, candidate)
    score = liking + rng.gumbel(size=candidate.shape)
    # The same host twice: the first keeps its score, later ones are last in the order.
    order = np.argsort(candidate, axis=1, kind="stable")
    ordered = np.take_along_axis(candidate, order, axis=1)
    again = np.zeros(candidate.shape, dtype=np.bool_)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    score = np.where(again, -np.inf, score)
    best = np.argsort(-score, axis=1, kind="stable")[:, : law.slots]
    taken = (np.arange(law.slots) < wanted[:, None]) & np.isfinite(np.take_along_axis(score, best, axis=1))
    circle.host[taken] = np.take_along_axis(candidate, best, axis=1)[taken]
    circle.affinity[taken] = np.take_along_axis(liking, best, axis=1)[taken]
    mean, concentration = law.initial_bond_mean, law.initial_bond_concentration
    if mean > 0:
        bond = rng.beta(mean * concentration, max((1 - mean) * concentration, 1e-3), circle.bond.shape)
        circle.bond[taken] = bond[taken].astype(np.float32)
    circle.followed[taken] = True
    users_taken, slots_taken = np.nonzero(taken)
    began = np.maximum(users.registered_s[users_taken], hosts.registered_s[circle.host[taken]])
    circle.followed_s[taken] = began * rng.random(len(users_taken))
    return circle, users_taken, slots_taken
