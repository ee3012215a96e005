"""The collaborative models of a build: host factors for search, a host graph for scores, transitions between hosts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from recsys.bundle import Bundle, StageResult
from recsys.config import BuildConfig, EngineConfig
from recsys.events import Events, Vocabularies, tie_facts, user_parts
from recsys.events.facts import FactKind
from recsys.ids import Vocabulary
from recsys.models.affinity import confidence_matrix
from recsys.models.collaborative.als import Als, AlsConfig
from recsys.models.collaborative.ease import Ease, EaseConfig, dense_dimension
from recsys.models.collaborative.interactions import FloatArray, Interactions
from recsys.models.collaborative.neighbours import Neighbours, NeighboursConfig
from recsys.models.factors import HostFactors
from recsys.models.graph import HostGraph
from recsys.models.transition import TransitionModel
from recsys.progress import Progress, silent
from recsys.ties.layers import State

COLD_ITERATIONS, WARM_ITERATIONS = 8, 4
"""Of ALS from a random start, and from the factors of the night before."""
FEW_HOSTS = 1_000
"""Up to so many, EASE keeps every entry: there would be little to save."""
LEAST_PAIRS = 50
"""Fewer ties than this teach a collaborative model nothing."""


def factors_of(base: Bundle, hosts: Vocabulary) -> FloatArray | None:
    """The host factors of a bundle in the rows of `hosts`, (n_hosts, f), NaN for hosts it does not know."""
    if not base.json("world")["factors"]:
        return None
    held = base.array("models/factors_vectors")
    known = Vocabulary.load(base.file("hosts.ids"))
    rows = known.rows(hosts.ids(np.arange(len(hosts))))
    found = rows >= 0
    start = np.full((len(hosts), held.shape[1]), np.nan, dtype=np.float32)
    start[found] = held[rows[found]]
    return start


def fit_collaborative(
    states: Mapping[str, State], config: EngineConfig, n_users: int, n_hosts: int, start: FloatArray | None = None
) -> tuple[HostFactors | None, HostGraph | None, list[StageResult]]:
    """Factors (iALS) and graph (EASE, or neighbours in a wide market) from the confidences of all ties.

    Args:
        start: factors (n_hosts, f) to begin from, NaN for hosts without; few iterations are enough then.
    """
    matrix = confidence_matrix(states, config.affinity, n_users, n_hosts)
    if matrix.nnz < LEAST_PAIRS:
        why = f"{matrix.nnz} ties with a confidence, {LEAST_PAIRS} needed"
        return None, None, [StageResult(name=name, status="skipped", why=why) for name in ("factors", "graph")]
    interactions = Interactions(matrix)
    n_factors = max(4, min(config.build.factors, n_hosts))
    warm = start is not None and start.shape == (n_hosts, n_factors)
    iterations = WARM_ITERATIONS if warm else COLD_ITERATIONS
    settings = AlsConfig.suited_to(n_hosts, factors=n_factors, iterations=iterations, threads=config.build.threads)
    fitted = Als(settings).fit(interactions, config.build.seed, start if warm else None)
    factors = HostFactors.of(
        fitted.host_factors,
        confidence=settings.confidence,
        regularization=settings.regularization,
        exponent=settings.frequency_exponent,
    )
    model, why = _graph_model(interactions, config.build)
    graph = HostGraph.of(model.fit(interactions, config.build.seed).weights)
    said = {"factors": "", "graph": why}
    return factors, graph, [StageResult(name=name, status="passed", why=words) for name, words in said.items()]


def _graph_model(interactions: Interactions, config: BuildConfig) -> tuple[Ease | Neighbours, str]:
    """EASE, or neighbours where the dense matrix it solves would be too large, and why."""
    kept, side = config.graph_neighbours, dense_dimension(interactions.n_users, interactions.n_hosts)
    if side <= config.graph_solved:
        return Ease(EaseConfig(neighbours=kept, dense_hosts=FEW_HOSTS)), ""
    why = f"by neighbours: {side} hosts or viewers, solved (EASE) are at most {config.graph_solved}"
    return Neighbours(NeighboursConfig.by_itself(kept)), why


def fit_transitions(
    events: Events,
    vocabularies: Vocabularies,
    config: EngineConfig,
    as_of_us: int,
    progress: Progress = silent,
) -> tuple[TransitionModel | None, StageResult]:
    """Transitions between hosts from all entries before `as_of_us`."""
    if "watches" not in events.tables:
        return None, StageResult(name="transition", status="skipped", why="no table watches")
    n_buckets = user_parts(events, config.ties.user_buckets if len(vocabularies.users) > 20_000 else 1)
    frames: list[pl.DataFrame] = []
    for bucket in range(n_buckets):
        facts = tie_facts(events, vocabularies, before_us=as_of_us, bucket=(bucket, n_buckets), only=("watches",))
        frames.append(facts.filter(pl.col("kind") == int(FactKind.ENTRY)).select("user", "host", "at"))
        progress("transitions", (bucket + 1) / n_buckets)
    if not sum(len(frame) for frame in frames):
        return None, StageResult(name="transition", status="skipped", why="no entries before the as-of")
    model = TransitionModel.fit(frames, n_hosts=len(vocabularies.hosts), as_of=as_of_us)
    return model, StageResult(name="transition", status="passed")
