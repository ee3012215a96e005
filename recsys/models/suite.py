"""The models a request reads, together: collaborative graph and factors, transitions, strength, ranker.

Each may be absent (`None`): a bundle without watches has no transitions, one without enough history no ranker. Absent
models leave NaN in their features and are named in the manifest's stages as `skipped`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recsys.config import AffinityConfig
from recsys.events.facts import NEVER
from recsys.models.additive import AdditiveModel
from recsys.models.affinity import history
from recsys.models.audience import Audience
from recsys.models.baselines import PriorRanker
from recsys.models.block_network import BlockNetwork
from recsys.models.factors import HostFactors
from recsys.models.graph import HostGraph
from recsys.models.strength import StrengthHead
from recsys.models.transition import TransitionModel
from recsys.models.trust import HostTrust
from recsys.models.two_tower import TwoTower
from recsys.ties.algebra import Floats
from recsys.ties.blocks import Blocks
from recsys.ties.store import TieStore

PERSONAL_FEATURES = (
    "cf_graph",
    "cf_graph_share",
    "cf_graph_rank",
    "cf_factor",
    "cf_factor_cosine",
    "cf_factor_rank",
    "transition_last",
    "transition_recent",
    "transition_evidence",
    "transition_lift",
    "transition_lift_last",
    "transition_rank",
)
"""Names of the collaborative features, in the order of the rows of `Models.personal`."""
RECENT_HOSTS = 5
"""How many of the viewer's last hosts transitions start from."""
LatestEntered = list[tuple[int, int]]
"""(instant, host row) of a user's last entries, at most `RECENT_HOSTS`, each host once, latest first."""
_FEW = 64


@dataclass(frozen=True)
class Viewer:
    """What the collaborative models know of one user at one instant, computed once a request.

    `hosts` (h,), `confidences` (h,) his history; `vector` (d,) folded in, or None; `graph_scores` over
    all hosts (n_hosts,), or None. `recent` are the hosts transitions start from, entered `ages_s` ago.
    `search` is what he asks the index of live rooms for, or None.
    """

    at: int
    hosts: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.float32]
    recent: npt.NDArray[np.int64]
    ages_s: Floats
    vector: npt.NDArray[np.float32] | None
    graph_scores: npt.NDArray[np.float32] | None
    search: npt.NDArray[np.float32] | None = None


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
    tower: TwoTower | None = None

    @property
    def index_vectors(self) -> npt.NDArray[np.float32]:
        """Vectors of hosts for the index of live rooms: of the tower where it was found better, else the factors."""
        if self.tower is not None:
            return self.tower.hosts
        return self.factors.vectors if self.factors is not None else np.zeros((0, 1), dtype=np.float32)

    def viewer(self, ties: TieStore, blocks: Blocks, user: int, n_hosts: int, at: int) -> Viewer:
        """Fold a user in at instant `at`, µs; nobody known (−1) has an empty history."""
        hosts, confidences = history(ties, blocks, user, self.affinity)
        recent, ages_s = recent_hosts(ties, blocks, user, at)
        vector = self.factors.viewer(hosts, confidences) if self.factors is not None else None
        graph = self.graph.scores(hosts, confidences, n_hosts) if self.graph is not None and len(hosts) else None
        search = vector
        if self.tower is not None:
            search = self.tower.search_vector(self.tower.viewer_of(ties, blocks, user, at))
        return Viewer(at, hosts, confidences, recent, ages_s, vector, graph, search)

    def next_chances(self, viewer: Viewer, hosts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """P(next host is this one) for `hosts` (n,), from the viewer's recent hosts; None: transitions say nothing."""
        if self.transition is None or not len(viewer.recent):
            return None
        return self.transition.scores(viewer.recent.tolist(), viewer.ages_s.tolist(), hosts, at=viewer.at)

    def personal(self, viewer: Viewer, hosts: npt.NDArray[np.int64]) -> Floats:
        """Collaborative features (len(PERSONAL_FEATURES), n) of candidate hosts; NaN where a model has no say."""
        values = np.full((len(PERSONAL_FEATURES), len(hosts)), np.nan)
        if viewer.graph_scores is not None:
            graph = viewer.graph_scores[hosts].astype(np.float64)
            values[0], values[1], values[2] = graph, graph / max(float(np.abs(graph).sum()), 1e-9), rank(-graph)
        if viewer.vector is not None and self.factors is not None:
            known = hosts < len(self.factors.vectors)
            vectors = self.factors.vectors[hosts[known]]
            factor = (vectors @ viewer.vector).astype(np.float64)
            norms = self.factors.lengths[hosts[known]] * float(np.linalg.norm(viewer.vector))
            values[3, known], values[4, known], values[5, known] = (
                factor,
                factor / np.maximum(norms, 1e-9),
                rank(-factor),
            )
        chances = self.next_chances(viewer, hosts)
        if chances is not None and self.transition is not None:
            recent, ages_s = viewer.recent.tolist(), viewer.ages_s.tolist()
            moves = chances.astype(np.float64)
            last = self.transition.scores(recent[:1], ages_s[:1], hosts, at=viewer.at)
            values[6] = last
            values[7], values[11] = moves, rank(-moves)
            values[8] = self.transition.evidence(recent, ages_s, hosts, at=viewer.at)
            values[9] = self.transition.over_popularity(chances, hosts, at=viewer.at)
            values[10] = self.transition.over_popularity(last, hosts, at=viewer.at)
        return values

    def observe_entry(self, latest: LatestEntered, user: int, host: int, at: int, started_at: int = NEVER) -> None:
        """Learn from an entry into a room started at `started_at`; `latest` are the user's entries before it."""
        if self.audience is not None:
            self.audience.update(user, host, started_at, at)
        if self.transition is not None:
            self.transition.update([one for _, one in latest], [(at - then) / 1e6 for then, _ in latest], host, at)


def recent_hosts(ties: TieStore, blocks: Blocks, user: int, at: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """The user's last hosts, latest first, and how long ago he entered them, s; at most `RECENT_HOSTS`.

    Of hosts entered at one instant the larger row is the later one, as facts of one instant are applied.
    """
    visits = ties.of("visits", user)
    last = visits.rows.ints[:, blocks.visits.int_column("last_entry_at")]
    seen = np.flatnonzero(last != NEVER)
    latest = seen[np.lexsort((visits.hosts[seen], last[seen]))][::-1][:RECENT_HOSTS]
    return visits.hosts[latest].astype(np.int64), (at - last[latest]) / 1e6


def latest_entered(ties: TieStore, blocks: Blocks, user: int) -> LatestEntered:
    """`recent_hosts` with the instants of the entries; for a few ties sorting a list is faster than an array."""
    visits = ties.of("visits", user)
    last, hosts = visits.rows.ints[:, blocks.visits.int_column("last_entry_at")], visits.hosts
    if len(hosts) > _FEW:
        last = np.ascontiguousarray(last)
        least = np.partition(last, -RECENT_HOSTS)[-RECENT_HOSTS]
        found = np.flatnonzero(last >= least)  # all of the instant at which they end
        pairs = zip(last[found].tolist(), hosts[found].tolist(), strict=True)
    else:
        times = last.tolist()
        least = sorted(times)[-RECENT_HOSTS] if len(times) > RECENT_HOSTS else NEVER
        pairs = zip(times, hosts.tolist(), strict=True)
    latest = sorted([one for one in pairs if one[0] >= least and one[0] != NEVER], reverse=True)
    return latest[:RECENT_HOSTS]


def entered(latest: LatestEntered, host: int, at: int) -> LatestEntered:
    """What `latest_entered` is after one more entry."""
    if any(one == host and then >= at for then, one in latest):
        return latest
    return sorted([(at, host), *(one for one in latest if one[1] != host)], reverse=True)[:RECENT_HOSTS]


def rank(values: Floats) -> Floats:
    """0 for the smallest, 1 for the next …; equal values in the order given."""
    order = np.empty(len(values))
    order[np.argsort(values, kind="stable")] = np.arange(len(values))
    return order
