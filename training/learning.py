"""What a build learns by replaying the latest stretch of the past: the ranker and the strength heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.bundle import StageResult
from recsys.config import EngineConfig
from recsys.events import Events, Vocabularies, fact_stream, room_table
from recsys.events.facts import NEVER, US_PER_DAY, FactKind
from recsys.live.artefact import ROOM_COLUMNS, WorldParts, assemble
from recsys.live.state import LiveState
from recsys.models.audience import Audience
from recsys.models.baselines import PriorRanker
from recsys.models.demand import Demand
from recsys.models.strength import StrengthHead
from recsys.models.suite import Models
from recsys.models.trust import HostTrust
from recsys.pipeline.breakdown import Ranker
from recsys.pipeline.features import FEATURES
from recsys.progress import Progress, silent
from training.at_rest import RestLog
from training.collaborative import fit_collaborative, fit_transitions
from training.compare import Scorer, fit_rivals
from training.customers import log_customers
from training.demand import learn_demand
from training.drift import no_candidates
from training.heads import learn_heads, learn_horizon_head
from training.history import Base, history, load_history, save_history
from training.labels import LoggedTies, next_broadcast
from training.latest import tiers_of
from training.learn import learn_ranker
from training.log import TrainingLog, replay_and_log
from training.stages import Stages, key_of
from training.states import Snapshot, ties_after
from training.tie_log import TieLog
from training.towers import Trial, fit_tower, nearest_trial
from training.trust import fit_trust, trust_metrics

WARM_ENTRIES = 500_000
"""At most so many entries before the replayed stretch are told to the audience, a few seconds' worth."""


@dataclass
class Learnt:
    """What was learnt, and how it went; `audience` as the replay left it at the as-of.

    `from_us`: start of the first broadcast, µs. `head_documents`: every judged head with its reliability curve.
    `categories`: in the order by whose number the ranker knows them; None without trust.
    `history`: the stage in which the states at the beginning of the stretch are kept; empty: nowhere.
    `latest`: for whom the ranker works, on the latest requests (`training.latest.judged_latest`);
    `candidates`: a sample of theirs (`training.drift.sampled_candidates`).
    """

    ranker: Ranker
    audience: Audience | None = None
    strength: dict[str, StrengthHead] = field(default_factory=dict)
    demand: Demand | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    stages: list[StageResult] = field(default_factory=list)
    from_us: int | None = None
    head_documents: list[dict[str, Any]] = field(default_factory=list)
    categories: tuple[str, ...] | None = None
    rivals: dict[str, Scorer] = field(default_factory=dict)
    latest: dict[str, Any] = field(default_factory=dict)
    candidates: npt.NDArray[np.float32] = field(default_factory=no_candidates)
    tower: bool = False
    history: str = ""

    def models(self) -> dict[str, Any]:
        """What was learnt of the models a bundle holds, by their names in `recsys.models.suite.Models`."""
        return {name: getattr(self, name) for name in ("ranker", "strength", "audience", "demand")}


@dataclass
class Replayed:
    """The latest stretch before an as-of, replayed.

    `facts` are those of the stretch; requests before `later_us` train, those after it judge and calibrate. `trial` says
    whether a tower of its beginning found unknown hosts better than the factors. `rest` holds ties at rest. `history`:
    the stage its first states are kept in; `stages`: how they came about.
    """

    log: TrainingLog
    facts: pl.DataFrame
    trust: HostTrust | None
    audience: Audience
    later_us: int
    trial: Trial
    rest: TieLog
    history: str = ""
    stages: tuple[StageResult, ...] = ()


def learn_models(
    events: Events,
    vocabularies: Vocabularies,
    config: EngineConfig,
    as_of: int,
    progress: Progress = silent,
    stages: Stages | None = None,
    of_rows: str = "",
    compare: bool = False,
    base: Base | None = None,
) -> Learnt:
    """Ranker and heads, learnt by replaying the latest stretch before the as-of on states as of its beginning.

    Args:
        stages: where the states as of that beginning are kept; None: nowhere.
        of_rows: identifies the vocabularies.
        compare: other rankers too (`training.compare`).
        base: the states as of that beginning are brought forward from those of its build, if they can be.
    """
    why = "needs watches and rooms"
    started = None
    if "watches" in events.tables and "rooms" in events.tables:
        why = "no broadcast before the as-of"
        rooms = room_table(events, vocabularies)
        started = rooms.filter(pl.col("started_at") < as_of)["started_at"].min()
    if started is None:
        skipped = [StageResult(name=name, status="skipped", why=why) for name in ("ranker", "strength")]
        return Learnt(PriorRanker(FEATURES), stages=skipped)
    first = int(started)  # type: ignore[arg-type]
    span = as_of - first
    past = replayed(events, vocabularies, config, rooms, first, as_of, progress, stages, of_rows, base)
    log, facts, later = past.log, past.facts, past.later_us
    came = came_back(log, rooms, facts, as_of)
    ranked = learn_ranker(log, later, config, came, tiers_of(events, vocabularies))
    heads = learn_heads(LoggedTies(log.ties, log.tie_rows, rooms, facts, later, as_of), config)
    learn_horizon_head(heads, "turns_away", log.ties, log.tie_rows, facts, span, as_of, config)
    customers = log_customers(events, vocabularies, config, as_of, span, progress)
    learn_horizon_head(heads, "rebuys", *customers, span, as_of, config)
    at_rest = LoggedTies(past.rest.frame(), past.rest.rows(), rooms, facts, later, as_of)
    demand = learn_demand(at_rest, len(vocabularies.hosts), config)
    rivals = fit_rivals(log, came, config) if compare else {}
    return Learnt(
        ranker=ranked.model if ranked.model is not None else PriorRanker(FEATURES),
        strength=heads.heads,
        demand=demand.demand,
        audience=past.audience,
        tower=past.trial.better,
        metrics=ranked.metrics
        | past.trial.metrics
        | heads.metrics()
        | demand.metrics()
        | trust_metrics(past.trust, facts),
        stages=[*past.stages, past.trial.stage, ranked.stage, *heads.stages, *demand.stages],
        from_us=first,
        head_documents=heads.documents(),
        categories=past.trust.categories if past.trust is not None else None,
        rivals=rivals,
        latest=ranked.latest,
        candidates=ranked.candidates,
        history=past.history,
    )


def replayed(
    events: Events,
    vocabularies: Vocabularies,
    config: EngineConfig,
    rooms: pl.DataFrame,
    first_us: int,
    as_of: int,
    progress: Progress = silent,
    stages: Stages | None = None,
    of_rows: str = "",
    base: Base | None = None,
) -> Replayed:
    """Replay the latest stretch on states as of its beginning; what models learn from.

    Args:
        rooms: all broadcasts (`room_table`), the first of which started at `first_us`.
        stages, of_rows, base: as for `learn_models`.
    """
    span = as_of - first_us
    learn_from = as_of - int(min(span * config.build.learn_share, config.build.learn_days * US_PER_DAY))
    later = as_of - int((as_of - learn_from) * config.build.later_share)
    stages = Stages() if stages is None else stages
    with stages.scratch("history") as scratch:
        beginning, held = stages.run(
            "history",
            [of_rows, learn_from, config.ties.model_dump()],
            partial(history, events, vocabularies, config, learn_from, base, progress, scratch),
            partial(save_history, base, vocabularies),
            partial(load_history, config),
        )
    shot = beginning.shot
    trust, _ = fit_trust(events, vocabularies, shot)
    live = _at_start_of_learning(events, vocabularies, config, shot, trust, progress)
    live.register_rooms(rooms)
    facts = fact_stream(events, vocabularies, from_us=learn_from, before_us=as_of)
    audience = live.world.models.audience = _audience_before(
        events, vocabularies, learn_from, as_of - learn_from, rooms
    )
    steps = config.build.refits + 1
    instants = [learn_from + (as_of - learn_from) * step // steps for step in range(1, steps)]
    refits = [(at, partial(_refit, live, shot, facts, vocabularies, config, at)) for at in instants]
    tower, stage = fit_tower(events, vocabularies, config, learn_from, progress)
    rng = np.random.default_rng(config.build.seed)
    rest = RestLog(live.world, rng, learn_from, as_of, len(vocabularies.users), config.demand)
    due: list[tuple[int, Callable[[], None]]] = [*refits, *rest.due()]
    due.sort(key=lambda one: one[0])
    log = replay_and_log(live, facts, config.build, config.build.seed, progress, due, tower)
    trial = nearest_trial(log.nearest, stage, config.build.seed)
    return Replayed(log, facts, trust, audience, later, trial, rest.ties, key_of(held), beginning.stages)


def came_back(log: TrainingLog, rooms: pl.DataFrame, facts: pl.DataFrame, as_of: int) -> pl.DataFrame:
    """Logged ties of which it is known whether the user entered the host's next broadcast (`next_broadcast`)."""
    finished = (pl.col("ended_at") < as_of).fill_null(False)
    broadcasts = rooms.filter(pl.col("started_at") < as_of).with_columns(finished=finished)
    entries = facts.filter(pl.col("kind") == int(FactKind.ENTRY)).select(pl.col("user").cast(pl.Int64), "room")
    return next_broadcast(log.ties, broadcasts, entries).filter(pl.col("tied"))


def _at_start_of_learning(
    events: Events,
    vocabularies: Vocabularies,
    config: EngineConfig,
    shot: Snapshot,
    trust: HostTrust | None,
    progress: Progress,
) -> LiveState:
    n_users, n_hosts = len(vocabularies.users), len(vocabularies.hosts)
    factors, graph, _ = fit_collaborative(shot.states, config, n_users, n_hosts)
    transition, _ = fit_transitions(events, vocabularies, config, shot.as_of_us, progress)
    models = Models(
        affinity=config.affinity,
        ranker=PriorRanker(FEATURES),
        graph=graph,
        factors=factors,
        transition=transition,
        trust=trust,
    )
    parts = WorldParts(
        config,
        shot.states,
        shot.standings,
        shot.rooms.select(ROOM_COLUMNS),
        shot.leaves,
        shot.priors,
        models,
        len(vocabularies.hosts),
    )
    return assemble(parts)


def _audience_before(
    events: Events, vocabularies: Vocabularies, before_us: int, span_us: int, rooms: pl.DataFrame
) -> Audience:
    """The audience from the entries of a stretch as long as the replayed one, up to where the replay begins."""
    audience = Audience(len(vocabularies.hosts), len(vocabularies.users))
    facts = fact_stream(events, vocabularies, from_us=before_us - span_us, before_us=before_us, only=("watches",))
    entries = facts.filter((pl.col("kind") == int(FactKind.ENTRY)) & (pl.col("user") >= 0) & (pl.col("host") >= 0))
    started = rooms.select(pl.col("room").cast(entries.schema["room"]), "started_at")
    told = entries.tail(WARM_ENTRIES).join(started, on="room", how="left", maintain_order="left")
    columns = told.select("user", "host", pl.col("started_at").fill_null(NEVER), "at")
    for user, host, started_at, at in columns.iter_rows():
        audience.update(user, host, started_at, at)
    return audience


def _refit(
    live: LiveState, shot: Snapshot, facts: pl.DataFrame, vocabularies: Vocabularies, config: EngineConfig, at: int
) -> None:
    """Collaborative models as of `at` take the place of older ones, as they do in the service every night.

    Args:
        facts: all from the snapshot on.
    """
    states = ties_after(shot, facts.filter(pl.col("at") < at), config)
    factors, graph, _ = fit_collaborative(states, config, len(vocabularies.users), len(vocabularies.hosts))
    models = live.world.models
    if factors is not None and models.factors is not None:
        models.factors, models.graph = factors, graph
        live.world.index.refresh(factors.vectors)
