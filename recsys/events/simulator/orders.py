"""Purchases, what becomes of them, and how good and bad orders change the tie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.events.simulator.arrays import DAY_S, F4, F8, I4, I8, MINUTE_S, Bools, repeat_rows
from recsys.events.simulator.config import WorldConfig
from recsys.events.simulator.population import HostTraits
from recsys.events.simulator.tables import ORDERS_PER_USER, REFUNDS, PartWriter

AFTER_WATCH_MINUTES = 30.0
RETURN, REFUND_ONLY, COUNTERFEIT, DISPUTE = (
    REFUNDS.index(k) for k in ("return", "refund_only", "counterfeit", "dispute")
)


@dataclass(frozen=True)
class Buyers:
    """Entries at which somebody might buy, (E,) each; times in seconds."""

    user: I8
    """Row of the user in the market, not in the part."""
    host: I4
    room: I4
    entered_s: F8
    left_s: F8
    bond: F4
    buying: F8
    """The user's inclination to buy; 0 for those who never do."""
    orders: I4
    """Orders this user had at this host before."""
    last_order_s: F8


def buy_chance(config: WorldConfig, hosts: HostTraits, entries: Buyers) -> F8:
    """Chance of an order at each entry, (E,) in [0, 0.9].

    rate · inclination · e^(buy_bond · bond) · trust^need · stay/(stay + 5 min) · due, where `due` climbs from 0.1 right
    after an order to 1 around the category's cycle and is raised by rebuy_boost for customers of the host.
    """
    law = config.commerce
    category = hosts.category[entries.host]
    need = np.array([c.trust_need for c in config.categories])[category]
    cycle_s = np.array([c.cycle_days for c in config.categories])[category] * DAY_S
    stay = (entries.left_s - entries.entered_s) / MINUTE_S
    since = np.where(entries.orders > 0, entries.entered_s - entries.last_order_s, np.inf)
    due = 0.1 + 0.9 * (1.0 - np.exp(-((since / cycle_s) ** 2)))
    customer = np.where(entries.orders > 0, np.exp(law.rebuy_boost), 1.0)
    chance: F8 = (
        law.buy_rate * entries.buying * np.exp(law.buy_bond * entries.bond) * hosts.trust[entries.host] ** need
    ) * (stay / (stay + 5.0))
    return np.minimum(chance * due * customer, 0.9)


def place_orders(
    config: WorldConfig,
    hosts: HostTraits,
    entries: Buyers,
    bought: Bools,
    order_number: I8,
    writer: PartWriter,
    rng: np.random.Generator,
    *,
    genuine: bool = True,
) -> tuple[Bools, F8]:
    """Write orders and refunds of the entries with `bought` (E,); `order_number` (E,) counts a user's orders.

    Orders that are not `genuine` (brushing) are never bad and never sent back: no goods were sent.

    Returns, for the entries that bought, whether the order was bad (n,) and when it was placed (n,).
    """
    law = config.commerce
    rows = np.flatnonzero(bought)
    n = len(rows)
    if n == 0:
        return np.zeros(0, dtype=np.bool_), np.zeros(0)
    user, host = entries.user[rows], entries.host[rows]
    stay = entries.left_s[rows] - entries.entered_s[rows]
    later = rng.random(n) < law.after_watch_share
    at = np.where(
        later,
        entries.left_s[rows] + rng.random(n) * AFTER_WATCH_MINUTES * MINUTE_S,
        entries.entered_s[rows] + (0.2 + 0.8 * rng.random(n)) * stay,
    )
    order_id = user * ORDERS_PER_USER + order_number[rows]
    lines = 1 + np.minimum(rng.poisson(law.extra_lines_mean, n), 6)
    of = repeat_rows(lines)
    first_line = np.cumsum(lines) - lines
    quantity = 1 + rng.poisson(0.2, len(of))
    amount = np.ceil(hosts.price[host[of]] * np.exp(law.basket_sigma * rng.standard_normal(len(of)))) * quantity
    writer.add(
        "purchases",
        order_id=order_id[of],
        line=(np.arange(len(of)) - first_line[of] + 1).astype(np.int32),
        user_id=user[of],
        host_id=host[of],
        room_id=entries.room[rows][of],
        at=at[of],
        amount_minor=amount.astype(np.int64),
        quantity=quantity.astype(np.int32),
        category=hosts.category[host[of]],
    )
    distrust = 1.0 - hosts.trust[host]
    bad = genuine & (rng.random(n) < law.bad_order_scale * distrust)
    plain = genuine & ~bad & (rng.random(n) < law.plain_return_share)
    total = np.add.reduceat(amount, first_line)
    _write_refunds(hosts, host, order_id, at, total, bad, plain, law.refund_delay_days, writer, rng)
    return bad, at


def _write_refunds(
    hosts: HostTraits,
    host: I4,
    order_id: I8,
    at: F8,
    total: F8,
    bad: Bools,
    plain: Bools,
    delay_days: float,
    writer: PartWriter,
    rng: np.random.Generator,
) -> None:
    """One refund for each bad order and each plain return; the less trust, the more of them are counterfeits."""
    rows = np.flatnonzero(bad | plain)
    n = len(rows)
    fake_share = 0.04 + 0.25 * (1.0 - hosts.trust[host[rows]])
    draw = rng.random(n)
    kind = np.select(
        [plain[rows], draw < fake_share, draw < fake_share + 0.1, draw < fake_share + 0.45],
        [RETURN, COUNTERFEIT, DISPUTE, REFUND_ONLY],
        RETURN,
    )
    share = np.where(rng.random(n) < 0.85, 1.0, rng.uniform(0.3, 0.9, n))
    writer.add(
        "refunds",
        order_id=order_id[rows],
        host_id=host[rows],
        at=at[rows] + (0.25 + rng.exponential(delay_days, n)) * DAY_S,
        amount_minor=np.maximum(1, np.floor(total[rows] * share)).astype(np.int64),
        kind=kind,
    )
