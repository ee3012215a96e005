"""Who is in the market: hosts (drawn once) and the users of one part, with the traits that are planted truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.events.simulator.arrays import DAY_S, F4, F8, I4, I8, NO_HOST, Bools, draw_from
from recsys.events.simulator.config import WorldConfig

ESTABLISHED_DAYS = 720.0
"""Those registered before the window did so within this many days before it."""


@dataclass(frozen=True)
class HostTraits:
    """Hosts; all arrays (H,), `style` (H, D). `registered_s` is seconds since the start of the window."""

    category: I4
    tier: I4
    registered_s: F8
    newcomer: Bools
    popularity: F8
    ad_budget: F8
    warmth: F8
    trust: F8
    price: F8
    style: F4
    usual_hour: F8
    broadcast_share: F8
    cheat: Bools

    def __len__(self) -> int:
        return len(self.category)


@dataclass(frozen=True)
class UserTraits:
    """Users of one part; all arrays (U,), `taste` (U, D), `interest` (U, C) with rows that sum to 1, `leaning` (U, C)
    its share in the affinity.

    `row` is the user's number in the market; `fake_for` is the host row a fake buyer works for, else NO_HOST.
    """

    row: I8
    tier: I4
    registered_s: F8
    newcomer: Bools
    taste: F4
    interest: F8
    leaning: F4
    loyalty: F8
    availability: F8
    sessions_per_day: F8
    regular: Bools
    usual_hour: F8
    chattiness: F8
    buying: F8
    gifting: F8
    fake_for: I4

    def __len__(self) -> int:
        return len(self.row)


def _registration(rng: np.random.Generator, newcomer: Bools, horizon_s: float) -> F8:
    """Newcomers register at an even pace over the first 9/10 of the window, the others before it."""
    span = np.where(newcomer, 0.9 * horizon_s, -ESTABLISHED_DAYS * DAY_S)
    return span * rng.uniform(0.003, 1.0, len(newcomer))


def draw_hosts(config: WorldConfig, hosts: int, horizon_s: float, rng: np.random.Generator) -> HostTraits:
    """Draw all hosts of the market."""
    law = config.hosts
    newcomer = rng.random(hosts) < law.newcomer_share
    cheat = np.zeros(hosts, dtype=np.bool_)
    cheats = min(hosts, int(np.ceil(config.brushing.cheat_host_share * hosts)))
    cheat[rng.permutation(hosts)[:cheats]] = True
    trust = rng.beta(
        max(law.trust_mean * law.trust_concentration, 1e-3),
        max((1 - law.trust_mean) * law.trust_concentration, 1e-3),
        hosts,
    )
    share = rng.beta(
        max(law.broadcast_share_mean * law.broadcast_share_spread, 1e-3),
        max((1 - law.broadcast_share_mean) * law.broadcast_share_spread, 1e-3),
        hosts,
    )
    category = draw_from(rng, np.array([c.share for c in config.categories]), hosts)
    median = np.array([c.price_median_minor for c in config.categories])[category]
    popularity = np.exp(law.popularity_sigma * rng.standard_normal(hosts))
    return HostTraits(
        category=category.astype(np.int32),
        tier=(1 + draw_from(rng, np.array(law.tier_shares), hosts)).astype(np.int32),
        registered_s=_registration(rng, newcomer, horizon_s),
        newcomer=newcomer,
        popularity=np.where(newcomer, np.minimum(popularity, 1.0), popularity),
        ad_budget=np.exp(1.5 * rng.standard_normal(hosts)),
        warmth=np.exp(law.warmth_sigma * rng.standard_normal(hosts)),
        trust=np.where(cheat, trust * 0.4, trust),
        price=median * np.exp(law.price_sigma * rng.standard_normal(hosts)),
        style=rng.standard_normal((hosts, config.relations.taste_dimensions)).astype(np.float32),
        usual_hour=draw_from(rng, np.array(config.rhythm.broadcast_start), hosts) + rng.random(hosts),
        broadcast_share=share,
        cheat=cheat,
    )


def draw_users(
    config: WorldConfig, rows: I8, total: int, hosts: HostTraits, horizon_s: float, rng: np.random.Generator
) -> UserTraits:
    """Draw the users with the given row numbers, a part of `total`."""
    law, n = config.users, len(rows)
    categories = len(config.categories)
    newcomer = rng.random(n) < law.newcomer_share
    interest = np.exp(law.interest_sharpness * rng.standard_normal((n, categories)))
    interest *= np.array([c.share for c in config.categories])
    interest /= interest.sum(axis=1, keepdims=True)
    # Every category stays reachable, so that no propensity of the feed is zero.
    interest = 0.95 * interest + 0.05 / categories
    fake_for = np.full(n, NO_HOST, dtype=np.int32)
    cheats = np.flatnonzero(hosts.cheat)
    fakes = int(np.ceil(config.brushing.fake_user_share * total)) if len(cheats) else 0
    stride = total // fakes if fakes else 0
    if stride:
        is_fake = (rows % stride == stride - 1) & (rows // stride < fakes)
        fake_for[is_fake] = cheats[(rows[is_fake] // stride) % len(cheats)]
    gift_level = np.exp(config.visits.giver_sigma * rng.standard_normal(n))
    sessions = law.sessions_per_day_median * np.exp(law.sessions_sigma * rng.standard_normal(n))
    return UserTraits(
        row=rows,
        tier=(1 + draw_from(rng, np.array(law.tier_shares), n)).astype(np.int32),
        registered_s=_registration(rng, newcomer, horizon_s),
        newcomer=newcomer,
        taste=(rng.standard_normal((n, config.relations.taste_dimensions))).astype(np.float32),
        interest=interest,
        leaning=(0.5 * np.log(categories * interest)).astype(np.float32),
        loyalty=np.exp(law.loyalty_sigma * rng.standard_normal(n)),
        availability=rng.uniform(law.availability_min, 1.0, n),
        sessions_per_day=np.where(fake_for == NO_HOST, sessions, 0.0),
        regular=rng.random(n) < law.regular_share,
        usual_hour=draw_from(rng, np.array(config.rhythm.viewing), n) + rng.random(n),
        chattiness=rng.gamma(0.7, 1 / 0.7, n),
        buying=np.where(rng.random(n) < law.buyer_share, rng.gamma(2.0, 0.5, n), 0.0),
        gifting=np.where(rng.random(n) < law.gifter_share, gift_level, 0.0),
        fake_for=fake_for,
    )


def affinity(users: UserTraits, hosts: HostTraits, user: I8, host: I8) -> F4:
    """Static liking of user rows for host rows (both of one shape): taste match, interest in the category, same tier.

    About standard normal over pairs of a feed: (taste · style)/√D + ln(C · interest)/2 + 0.3 when the city tiers agree.
    """
    dimensions = users.taste.shape[1]
    match = np.einsum("...d,...d->...", users.taste[user], hosts.style[host]) / np.float32(np.sqrt(dimensions))
    same_tier = np.float32(0.3) * (users.tier[user] == hosts.tier[host])
    liking: F4 = match + users.leaning[user, hosts.category[host]] + same_tier
    return liking
