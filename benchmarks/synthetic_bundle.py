"""A served bundle of any size in a minute: random ties, and models of the sizes that training gives, filled at random.

What a lookup costs depends on how many ties, rooms, features, bins, pairs and neighbours there are, not on what the
numbers say. Bins lie at quantiles of the features of this very bundle, so candidates fall into all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.bundle import BundleWriter, DataWindow, ManifestFields, publish
from recsys.config import BuildConfig, EngineConfig
from recsys.events import Vocabularies, build_vocabularies, clean, from_frames
from recsys.events.facts import NEVER
from recsys.instants import from_datetime
from recsys.live.artefact import ROOM_COLUMNS, WorldParts, assemble, save
from recsys.models.additive import AdditiveModel, PairTerm
from recsys.models.audience import Audience
from recsys.models.baselines import PriorRanker
from recsys.models.calibration import IsotonicMap
from recsys.models.choice_network import fit_choice_network
from recsys.models.factors import HostFactors
from recsys.models.graph import HostGraph
from recsys.models.strength import HEADS, STRENGTH, StrengthHead
from recsys.models.suite import Models
from recsys.models.transition import TransitionModel
from recsys.models.trust import HostTrust
from recsys.pipeline.features import BLOCKS, FEATURES, WITHOUT_TIE, feature_table
from recsys.ties.features import TIE_FEATURES
from training.bond import BINDS
from training.states import snapshot

START = datetime(2024, 6, 1, tzinfo=UTC)
AS_OF = from_datetime(START + timedelta(days=14))
EDGES, PAIRS = 15, 120
"""Thresholds a feature and joint terms of a head, as in those trained with the default settings."""


def synthetic(
    shelf: Path, *, users: int, hosts: int, ties: int, neighbours: int = BuildConfig().graph_neighbours,
    models: bool = True, seed: int = 1, name: str = "synthetic", as_of: int = AS_OF,
    offsets: dict[str, int] | None = None,
) -> Path:  # fmt: skip
    """A bundle of random ties: each viewer has `ties` hosts, a third of them followed, a tenth bought from.

    Args:
        neighbours: entries a host has in the collaborative graph; by default as many as training keeps.
        models: False: no models, rooms are ranked by stated weights.
        name, as_of, offsets: what the manifest says; the ties are of the same fortnight whatever the instant.
    """
    rng = np.random.default_rng(seed)
    n = users * ties
    user, host = np.repeat(np.arange(users), ties), rng.integers(0, hosts, n)
    spread = pl.Series(rng.integers(0, 14 * 86_400_000_000, n)) + from_datetime(START)
    when = spread.cast(pl.Datetime("us", "UTC"))
    pairs = pl.DataFrame({"user_id": user, "host_id": host})
    watches = pairs.with_columns(
        room_id=pl.lit(0), entered_at=when, left_at=(spread + 600_000_000).cast(pl.Datetime("us", "UTC"))
    )
    follows = pairs.with_columns(at=when, action=pl.lit("follow")).gather_every(3)
    purchases = pairs.with_row_index("order_id").select(
        pl.col("order_id").cast(pl.Int64), "user_id", "host_id", at=when, amount_minor=pl.lit(1_000)
    ).gather_every(10)  # fmt: skip
    known = pl.DataFrame({"host_id": np.arange(hosts)})
    events = clean(from_frames({"watches": watches, "follows": follows, "purchases": purchases, "hosts": known}))
    vocabularies = build_vocabularies(events, as_of_us=AS_OF)
    config = EngineConfig()
    shot = snapshot(events, vocabularies, config, AS_OF)
    n_hosts = len(vocabularies.hosts)
    vectors = rng.normal(size=(n_hosts, config.build.factors)).astype(np.float32)
    entries = pl.DataFrame({"user": user, "host": host, "at": spread})
    made = Models(
        affinity=config.affinity,
        ranker=PriorRanker(FEATURES),
        factors=HostFactors.of(vectors, confidence=10.0, regularization=0.1, exponent=1.0),
        graph=_graph(rng, n_hosts, min(neighbours, n_hosts)) if models else None,
        transition=TransitionModel.fit(entries, n_hosts=n_hosts, as_of=AS_OF) if models else None,
        audience=_audience(user, host, spread, users, n_hosts) if models else None,
        trust=HostTrust.fit(shot.states, [None] * n_hosts) if models else None,
    )
    parts = WorldParts(
        config, shot.states, shot.standings, shot.rooms.select(ROOM_COLUMNS), shot.leaves, shot.priors, made, n_hosts
    )
    if models:
        _learnt(parts, rng)
    fields = ManifestFields(
        created_at_us=as_of,
        config=config.model_dump(mode="json"),
        window=DataWindow(as_of_us=as_of),
        offsets=offsets or {},
    )
    with BundleWriter(shelf, name) as writer:
        save(writer, parts, Vocabularies(vocabularies.users, vocabularies.hosts))
        writer.finish(fields)
    publish(shelf, name)
    return shelf


def _audience(
    user: npt.NDArray[np.int64], host: npt.NDArray[np.int64], at: pl.Series, users: int, hosts: int
) -> Audience:
    """What the entries of the last day, at most 20,000, leave behind."""
    audience, order = Audience(hosts, users), at.arg_sort().to_list()
    for i in order[-20_000:]:
        audience.update(int(user[i]), int(host[i]), NEVER, int(at[i]))
    return audience


def _graph(rng: np.random.Generator, hosts: int, neighbours: int) -> HostGraph:
    first = np.sort(rng.integers(0, hosts, (hosts, neighbours), dtype=np.int32), axis=1)
    data = rng.normal(size=(hosts, neighbours)).astype(np.float32)
    return HostGraph(np.arange(hosts + 1, dtype=np.int64) * neighbours, first.ravel(), data.ravel())


def _learnt(parts: WorldParts, rng: np.random.Generator) -> None:
    """Ranker and strength head, their bins at quantiles of what the features are in this bundle."""
    world = assemble(parts).world
    rooms = np.arange(min(parts.n_hosts, 400))
    for room in rooms.tolist():
        world.announce(room, room, (), AS_OF - 3_600_000_000, None)
    seen, chosen = [], []
    for user in range(min(len(world.users), 30)):
        viewer = world.models.viewer(world.ties, world.blocks, user, parts.n_hosts, AS_OF)
        hosts = np.concatenate([world.ties.of("visits", user).hosts, rng.integers(0, parts.n_hosts, 200)])
        where = rooms[np.arange(len(hosts)) % len(rooms)]
        seen.append(feature_table(world, user, viewer, where, hosts.astype(np.int64), AS_OF).values)
        chosen.append(np.eye(1, len(hosts), dtype=np.int8)[0])  # one he knows, so that most of those are shown
    values, labels = np.concatenate(seen, axis=1), np.concatenate(chosen)
    groups = np.array([len(one) for one in chosen])
    rows = values.T.astype(np.float32)
    still = ~(np.nanstd(np.vstack([rows, np.zeros((1, rows.shape[1]))]), axis=0) > 0)
    rows[:, still] = rng.random((len(rows), int(still.sum())))  # what never varies here would be left out
    network = fit_choice_network(rows, groups, labels, np.zeros(len(labels)), None, epochs=5, networks=1)
    parts.models.ranker = network.served(FEATURES, BLOCKS, WITHOUT_TIE)
    tied = values[: len(TIE_FEATURES)]
    binds = tuple(BINDS)  # what strength reads, without joint terms (docs/formulas/strength.md)
    plain = _tables(binds, tied[[TIE_FEATURES.index(name) for name in binds]], 0, rng).bound_to(TIE_FEATURES)
    head = _tables(TIE_FEATURES, tied, PAIRS, rng)
    calibration = IsotonicMap(np.array([0.0, 0.5, 1.0]), np.array([0.01, 0.1, 0.9]))
    parts.models.strength = {
        name: StrengthHead(name, plain if name == STRENGTH else head, calibration, 0.05) for name in HEADS
    }


def _tables(
    names: Sequence[str], values: npt.NDArray[np.float64], pairs: int, rng: np.random.Generator
) -> AdditiveModel:
    quantiles = np.linspace(0, 1, EDGES + 2)[1:-1]
    edges = []
    for row in values:
        known = row[np.isfinite(row)]
        edges.append(np.unique(np.quantile(known, quantiles)) if len(known) else np.array([0.0]))
    mains = tuple(rng.normal(0, 0.05, len(e) + 2) for e in edges)
    terms = []
    for _ in range(pairs):
        first, second = sorted(rng.choice(len(names), 2, replace=False).tolist())
        bins = [np.minimum(np.arange(len(edges[j]) + 2), 6).astype(np.int32) for j in (first, second)]
        terms.append(PairTerm(first, second, *bins, rng.normal(0, 0.05, (7, 7))))
    return AdditiveModel(tuple(names), tuple(edges), mains, tuple(terms), 0.0).bound_to(names)
