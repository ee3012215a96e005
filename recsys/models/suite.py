"""The models a request reads, together: collaborative graph and factors, transitions, strength, ranker.

Each may be absent (`None`): a bundle without watches has no transitions, one without enough history no ranker. Absent
models leave NaN in their features and are named in the manifest's stages as `skipped`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled
from recsys.config import AffinityConfig
from recsys.events.facts import NEVER
from recsys.models.additive import AdditiveModel
from recsys.models.affinity import history
from recsys.models.audience import Audience
from recsys.models.baselines import PriorRanker
from recsys.models.block_network import BlockNetwork
from recsys.models.demand import Demand
from recsys.models.factors import HostFactors
from recsys.models.graph import HostGraph
from recsys.models.strength import StrengthHead
from recsys.models.transition import TransitionModel
from recsys.models.transition_counts import TRANSITION_FEATURES, NextHosts
from recsys.models.trust import HostTrust
from recsys.models.two_tower import TwoTower
from recsys.ties.algebra import Floats
from recsys.ties.blocks import Blocks
from recsys.ties.standing import Relations, relations
from recsys.ties.store import TieStore, UserTies

PERSONAL_FEATURES = (
    "cf_graph",
    "cf_graph_share",
    "cf_graph_rank",
    "cf_factor",
    "cf_factor_cosine",
    "cf_factor_rank",
    *TRANSITION_FEATURES,
    "transition_rank",
)
"""Names of the collaborative features, in the order of the rows of `Models.personal`."""
RECENT_HOSTS = 5
"""How many of the viewer's last hosts transitions start from."""
LatestEntered = list[tuple[int, int]]
"""(instant, host row) of a user's last entries, at most `RECENT_HOSTS`, each host once, latest first."""


@dataclass
class Viewer:
    """What the collaborative models know of one user at one instant, computed once a request.

    `ties` are his ties by block, `stand` how those of the block `relation` stand, `blocked` (b,) the hosts he has
    blocked. `hosts` (h,), `confidences` (h,) are his history; `vector` (d,) folded in, or None; `graph_scores` over all
    hosts (n_hosts,), or None. `recent` are the hosts transitions start from, entered `ages_s` ago. `search` is what he
    asks the index of live rooms for, or None; `next_hosts` where transitions from his recent hosts lead, or None.
    """

    at: int
    ties: dict[str, UserTies]
    stand: Relations
    blocked: npt.NDArray[np.int32]
    hosts: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.float32]
    recent: npt.NDArray[np.int64]
    ages_s: Floats
    vector: npt.NDArray[np.float32] | None
    graph_scores: npt.NDArray[np.float32] | None
    search: npt.NDArray[np.float32] | None = None
    next_hosts: NextHosts | None = None


@dataclass
class Models:
    """All models of a bundle. `transition` and `audience` learn online; the others are fixed."""

    affinity: AffinityConfig
    ranker: BlockNetwork | AdditiveModel | PriorRanker
    graph: HostGraph | None = None
    factors: HostFactors | None = None
    transition: TransitionModel | None = None
    strength: dict[str, StrengthHead] = field(default_factory=dict)
    trust: HostTrust | None = None
    audience: Audience | None = None
    demand: Demand | None = None
    tower: TwoTower | None = None

    @property
    def index_vectors(self) -> npt.NDArray[np.float32]:
        """Vectors of hosts for the index of live rooms: of the tower where it was found better, else the factors."""
        if self.tower is not None:
            return self.tower.hosts
        return self.factors.vectors if self.factors is not None else np.zeros((0, 1), dtype=np.float32)

    def viewer(self, ties: TieStore, blocks: Blocks, user: int, n_hosts: int, at: int) -> Viewer:
        """Fold a user in at instant `at`, µs; nobody known (−1) has an empty history."""
        held = ties.held(user)
        stand = relations(blocks.relation, held["relation"].rows)
        hosts, confidences = history(ties, blocks, held, stand, self.affinity, n_hosts)
        recent, ages_s = recent_hosts(held["visits"], blocks, at)
        vector = self.factors.viewer(hosts, confidences) if self.factors is not None else None
        graph = self.graph.scores(hosts, confidences, n_hosts) if self.graph is not None and len(hosts) else None
        search = vector
        if self.tower is not None:
            search = self.tower.search_vector(self.tower.viewer_of(ties, blocks, user, at))
        blocked = held["relation"].hosts[stand.blocks]
        following = None
        if self.transition is not None and len(recent):
            following = self.transition.next_hosts(recent.tolist(), ages_s.tolist(), at=at)
        return Viewer(at, held, stand, blocked, hosts, confidences, recent, ages_s, vector, graph, search, following)

    def transitions(self, viewer: Viewer, hosts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """`TRANSITION_FEATURES` (5, n) of `hosts` (n,) from the viewer's recent hosts; None: they say nothing."""
        if self.transition is None or viewer.next_hosts is None:
            return None
        return self.transition.features(viewer.next_hosts, hosts)

    def personal(self, viewer: Viewer, hosts: npt.NDArray[np.int64], out: Floats) -> None:
        """Write the collaborative features (len(PERSONAL_FEATURES), n) of candidate hosts into `out`.

        `out` holds NaN and keeps it where a model has no say, and in the ranks.
        """
        if viewer.graph_scores is not None:
            graph = out[0]
            graph[:] = viewer.graph_scores.take(hosts)
            np.divide(graph, max(float(np.abs(graph).sum()), 1e-9), out=out[1])
        if viewer.vector is not None and self.factors is not None:
            vectors = self.factors.vectors.take(hosts, axis=0, mode="clip")
            np.dot(vectors, viewer.vector, out=(products := np.empty(len(hosts), np.float32)))
            length = np.sqrt(viewer.vector.dot(viewer.vector))
            _cosines(hosts, products, self.factors.lengths, length, out[3:5])
        transitions = self.transitions(viewer, hosts)
        if transitions is not None:
            out[6:11] = transitions

    def observe_entry(self, latest: LatestEntered, user: int, host: int, at: int, started_at: int = NEVER) -> None:
        """Learn from an entry into a room started at `started_at`; `latest` are the user's entries before it."""
        if self.audience is not None:
            self.audience.update(user, host, started_at, at)
        if self.transition is not None:
            self.transition.update(latest, host, at)


@compiled
def _cosines(
    hosts: npt.NDArray[np.int64], products: npt.NDArray[np.float32], lengths: npt.NDArray[np.float32],
    length: np.float32, out: Floats,
) -> None:  # fmt: skip
    """The `products` of hosts' vectors with one of a `length`, and the same over both lengths; hosts beyond `lengths`
    are left out."""
    for i in range(len(hosts)):
        if hosts[i] < len(lengths):
            out[0, i] = products[i]
            out[1, i] = out[0, i] / max(lengths[hosts[i]] * length, np.float32(1e-9))


def recent_hosts(visits: UserTies, blocks: Blocks, at: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """The user's last hosts, latest first, and how long ago he entered them, s; at most `RECENT_HOSTS`.

    Of hosts entered at one instant the larger row is the later one, as facts of one instant are applied.
    """
    last, hosts = _last_of(visits, blocks)
    return hosts, (at - last) / 1e6


def latest_entered(ties: TieStore, blocks: Blocks, user: int) -> LatestEntered:
    """`recent_hosts` with the instants of the entries."""
    last, hosts = _last_of(ties.of("visits", user), blocks)
    return list(zip(last.tolist(), hosts.tolist(), strict=True))


def _last_of(visits: UserTies, blocks: Blocks) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The instants of the last entries of a user and the hosts, latest first."""
    at, hosts = np.empty(RECENT_HOSTS, dtype=np.int64), np.empty(RECENT_HOSTS, dtype=np.int64)
    n = _latest(visits.rows.ints, blocks.visits.int_column("last_entry_at"), visits.hosts, at, hosts)
    return at[:n], hosts[:n]


@compiled
def _latest(
    ints: npt.NDArray[np.int64], column: int, host_of: npt.NDArray[np.int32],
    at: npt.NDArray[np.int64], hosts: npt.NDArray[np.int64],
) -> int:  # fmt: skip
    """The rows with the latest instants in a column and the hosts they are of, as many as `at` and `hosts` hold; how
    many there are."""
    n, most = 0, len(at)
    for row in range(len(host_of)):
        then, host = ints[row, column], host_of[row]
        place = n
        while place > 0 and (then > at[place - 1] or (then == at[place - 1] and host > hosts[place - 1])):
            place -= 1
        if then == NEVER or place == most:
            continue
        n = min(n + 1, most)
        for later in range(n - 1, place, -1):
            at[later], hosts[later] = at[later - 1], hosts[later - 1]
        at[place], hosts[place] = then, host
    return n


def entered(latest: LatestEntered, host: int, at: int) -> LatestEntered:
    """What `latest_entered` is after one more entry."""
    others = [one for one in latest if one[1] != host]
    if not latest or at > latest[0][0]:
        return [(at, host), *others[: RECENT_HOSTS - 1]]
    if len(others) < len(latest) and any(one == host and then >= at for then, one in latest):
        return latest
    return sorted([(at, host), *others], reverse=True)[:RECENT_HOSTS]
