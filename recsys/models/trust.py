"""Trust in hosts: a shrunk estimate from what buyers did, with order-brushing damped. Formula: docs/formulas/trust.md.

Each buyer has one vote. Its weight grows with the logarithm of the days he ordered on (a day counts once), and only as
far as he also watched: orders nobody watches for are how brushing looks. Votes against come from refunds, disputes and
counterfeits. The posterior mean under a Beta prior fitted to all hosts is the trust; a host of whom little is known is
trusted like the market.

Votes are counted when a bundle is built; refunds and disputes after that count at once, praise with the next build.

Shape letters: H hosts, b buyers (ties with an order), n candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import lgamma
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled
from recsys.events.facts import NEVER, US_PER_DAY
from recsys.models.bound import check_shapes
from recsys.ties.algebra import Block, BlockState, Floats, Ints, Rows
from recsys.ties.layers import LayeredState, State, layered

TRUST_FEATURES = ("host_trust", "host_trust_votes", "host_category")
"""Names of the features, in the order of the rows of `HostTrust.features`."""

WATCHED_MINUTES = 3.0
"""Mean stay, minutes, from which a buyer's orders count in full."""
UNWATCHED_AGAINST = 0.25
"""What orders nobody watched for count against a host, as a share of what they would have counted for him."""
DISPUTE_WEIGHT = 3.0
"""A dispute or counterfeit counts against a host like so many plain refunds."""
LEAST_HOSTS = 10
"""With fewer hosts that have votes the strength of the prior is not fitted but `DEFAULT_STRENGTH`."""
DEFAULT_STRENGTH = 10.0
_COUNTED = ("n_refunds", "n_disputes")


@dataclass(frozen=True)
class HostTrust:
    """Votes for and against the H hosts known when the bundle was built.

    `refunds`, `disputes` (H,) how many the host had then; `category` (H,) its code in `categories`, −1 unknown.
    """

    votes_for: Floats
    votes_against: Floats
    refunds: npt.NDArray[np.int64]
    disputes: npt.NDArray[np.int64]
    category: npt.NDArray[np.int64]
    categories: tuple[str, ...]
    prior_mean: float
    prior_strength: float

    @classmethod
    def fit(
        cls, states: Mapping[str, State], category_of: Sequence[str | None], order: Sequence[str] | None = None
    ) -> Self | None:
        """Count the votes of all ties; None when nobody ever bought.

        Args:
            states: tie blocks `commerce` and `visits`, and `host`, as of one instant.
            category_of: (H,) category of each host, or None.
            order: the categories in the order of an earlier fit; None: by the share of votes against, lowest first.
        """
        commerce, n_hosts = states["commerce"].flat(), len(category_of)
        lines = commerce.rows.ints[:, commerce.block.int_column("n_lines")] if len(commerce) else np.empty(0)
        if not (lines > 0).any():
            return None
        votes_for, votes_against = _votes(commerce, layered(states["visits"]))
        host = (commerce.keys & 0xFFFFFFFF).astype(np.intp)
        good = np.bincount(host, votes_for, minlength=n_hosts).astype(np.float64)
        bad = np.bincount(host, votes_against, minlength=n_hosts).astype(np.float64)
        refunds, disputes = _had(states["host"].flat(), n_hosts)
        names = np.array([name or "" for name in category_of])
        if order is None:
            share = {
                name: bad[names == name].sum() / max((good + bad)[names == name].sum(), 1e-9) for name in set(names)
            }
            order = sorted((name for name in share if name), key=lambda name: (share[name], name))
        code = {name: i for i, name in enumerate(order)}
        mean = float((good.sum() + 1.0) / (good.sum() + bad.sum() + 1.1))
        return cls(
            votes_for=good,
            votes_against=bad,
            refunds=refunds,
            disputes=disputes,
            category=np.array([code.get(name, -1) for name in names.tolist()], dtype=np.int64),
            categories=tuple(order),
            prior_mean=mean,
            prior_strength=_strength(good, bad, mean),
        )

    def of(
        self, hosts: npt.NDArray[np.int64], refunds: npt.NDArray[np.integer], disputes: npt.NDArray[np.integer]
    ) -> tuple[Floats, Floats]:
        """Trust (n,) in [0, 1] and votes (n,) of hosts with so many refunds by now and, among them, disputes (n,)."""
        counts = np.stack([refunds, disputes], axis=1).astype(np.int64)
        found = np.empty((len(TRUST_FEATURES), len(hosts)))
        self._judge(hosts, np.arange(len(hosts)), counts, 0, 1, found)
        return found[0], found[1]

    def features(self, hosts: npt.NDArray[np.int64], host_block: Block, rows: Rows, out: Floats) -> None:
        """Write the rows `TRUST_FEATURES` of candidate hosts (n,) into `out`: trust, votes, code of the category (NaN
        unknown); `rows` are the states of all hosts."""
        refunds, disputes = (host_block.int_column(name) for name in _COUNTED)
        self._judge(hosts, hosts, rows.ints, refunds, disputes, out)

    def _judge(
        self, hosts: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], counts: Ints, n_refunds: int, n_disputes: int,
        out: Floats,
    ) -> None:  # fmt: skip
        """The loop of this name, with what is known of the hosts."""
        pseudo_for = self.prior_strength * self.prior_mean
        _judge(hosts, rows, counts, n_refunds, n_disputes, self._then, pseudo_for, self.prior_strength, out)

    @cached_property
    def _then(self) -> Floats:
        """Votes for and against, refunds, disputes and category by host, and last what is said of later hosts."""
        table = np.zeros((len(self.votes_for) + 1, 5))
        counted = (self.votes_for, self.votes_against, self.refunds, self.disputes)
        table[:-1, :4] = np.stack(counted, axis=1)
        table[:-1, 4], table[-1, 4] = np.where(self.category >= 0, self.category, np.nan), np.nan
        return table

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Plain arrays for a bundle; `from_arrays` reads them back."""
        return {
            "trust_votes": np.stack([self.votes_for, self.votes_against]),
            "trust_counts": np.stack([self.refunds, self.disputes, self.category]),
            "trust_prior": np.array([self.prior_mean, self.prior_strength]),
            "trust_categories": np.array(self.categories, dtype=np.str_),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The trust written by `arrays`. BundleRefused: they tell of different hosts."""
        check_shapes(arrays, {"trust_counts": (3, arrays["trust_votes"].shape[1])}, where="models")
        good, bad = arrays["trust_votes"]
        refunds, disputes, category = arrays["trust_counts"]
        mean, strength = arrays["trust_prior"].tolist()
        names = tuple(str(name) for name in arrays["trust_categories"])
        return cls(good, bad, refunds, disputes, category, names, mean, strength)


@compiled
def _judge(
    hosts: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], counts: Ints, n_refunds: int, n_disputes: int,
    then: Floats, prior_for: float, prior_votes: float, out: Floats,
) -> None:  # fmt: skip
    """Trust, votes and category of `hosts` (n,) whose refunds and disputes by now stand in `rows` (n,) of `counts`;
    `then` is what was counted by host, its last row what is said of hosts beyond it."""
    for i in range(len(hosts)):
        known = then[min(hosts[i], len(then) - 1)]
        votes_for, against, had, argued, category = known[0], known[1], known[2], known[3], known[4]
        refunds, disputes = counts[rows[i], n_refunds], counts[rows[i], n_disputes]
        bad = against + max(refunds - had, 0.0) + (DISPUTE_WEIGHT - 1.0) * max(disputes - argued, 0.0)
        votes = votes_for + bad
        out[0, i], out[1, i], out[2, i] = (votes_for + prior_for) / (votes + prior_votes), votes, category


def _votes(commerce: BlockState, visits: LayeredState) -> tuple[Floats, Floats]:
    """Votes for and against a host by each of its buyers, (b,) and (b,)."""
    times = commerce.rows.latest[:, commerce.block.latest_slices["order_times"]]
    days = np.where(times == NEVER, NEVER, times // US_PER_DAY)
    order_days = (days[:, :1] != NEVER).sum(axis=1) + ((days[:, 1:] != days[:, :-1]) & (days[:, 1:] != NEVER)).sum(
        axis=1
    )
    weight = np.log2(1.0 + order_days)
    visited = visits.rows_of(commerce.keys).ints
    stays = visited[:, visits.block.int_column("n_stays")]
    minutes = visited[:, visits.block.int_column("stay_ms")] / 60_000.0 / np.maximum(stays, 1)
    watched = np.where(stays > 0, np.minimum(1.0, minutes / WATCHED_MINUTES) ** 2, 1.0)
    ints = commerce.rows.ints
    refunds, disputes = (ints[:, commerce.block.int_column(name)] for name in _COUNTED)
    against = np.log2(1.0 + refunds + (DISPUTE_WEIGHT - 1.0) * disputes)
    return watched * weight, against + UNWATCHED_AGAINST * (1.0 - watched) * weight


def _had(host: BlockState, n_hosts: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Refunds and disputes of every host so far, (H,) and (H,)."""
    counts = np.zeros((2, n_hosts), dtype=np.int64)
    for row, name in zip(counts, _COUNTED, strict=True):
        row[host.keys] = host.rows.ints[:, host.block.int_column(name)]
    return counts[0], counts[1]


def _strength(good: Floats, bad: Floats, mean: float) -> float:
    """The prior's weight in votes: maximum likelihood of the beta-binomial over a grid, mean held fixed."""
    voted = good + bad > 0
    if voted.sum() < LEAST_HOSTS:
        return DEFAULT_STRENGTH
    grid = np.exp(np.linspace(np.log(1.0), np.log(200.0), 40))
    likelihood = [_likelihood(good[voted], bad[voted], mean * m, (1.0 - mean) * m) for m in grid]
    return float(grid[int(np.argmax(likelihood))])


def _likelihood(good: Floats, bad: Floats, a: float, b: float) -> float:
    """Σ log B(a + good, b + bad) − log B(a, b), the log-likelihood of the votes up to a constant."""
    gamma = np.vectorize(lgamma, otypes=[np.float64])
    each = gamma(a + good) + gamma(b + bad) - gamma(a + b + good + bad)
    return float(each.sum() - len(good) * (lgamma(a) + lgamma(b) - lgamma(a + b)))
