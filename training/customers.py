"""The log of customers' ties: what the head `rebuys` is learnt from.

Buying again takes weeks, longer than the stretch the ranker learns from, so this log reaches further back. It needs few
users to say enough: the whole history of one bucket of users is read, the states of the customers among them as of
twice the horizon before the as-of are made, and their facts are replayed from there. At their entries their ties with
an order are written down, by the same function as online.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.config import EngineConfig
from recsys.events import Events, Vocabularies, fact_stream, room_table, suggested_buckets, tie_facts, user_parts
from recsys.events.facts import FACT_SCHEMA, US_PER_DAY, FactKind
from recsys.live.artefact import ROOM_COLUMNS, WorldParts, assemble
from recsys.live.state import LiveState
from recsys.models.baselines import PriorRanker
from recsys.models.suite import Models
from recsys.pipeline.features import FEATURES
from recsys.pipeline.world import Priors
from recsys.progress import Progress, silent
from recsys.ties.batch import state_of
from recsys.ties.blocks import blocks
from recsys.ties.features import TIE_FEATURES
from recsys.ties.standing import STANDINGS
from training.labels import REBUY_DAYS
from training.log import moved_through
from training.states import announced_leaves, live_rooms, room_starts, states_of_facts
from training.tie_log import TieLog

MOST_ENTRIES = 20_000
"""Entries at which ties are written down at most."""


def log_customers(
    events: Events,
    vocabularies: Vocabularies,
    config: EngineConfig,
    as_of_us: int,
    span_us: int,
    progress: Progress = silent,
) -> tuple[pl.DataFrame, npt.NDArray[np.float32], pl.DataFrame]:
    """Ties with an order as they were at entries between two and one horizons before the as-of.

    Args:
        span_us: length of the data; nothing is read where two horizons do not fit.

    Returns:
        the ties (`TieLog.frame`), their features, and the facts of their users from the log's beginning on; all empty
        without purchases, watches, or entries in that time.
    """
    nothing = TieLog.nothing(), np.empty((0, len(TIE_FEATURES)), dtype=np.float32), pl.DataFrame(schema=FACT_SCHEMA)
    horizon = REBUY_DAYS * US_PER_DAY
    if not {"watches", "purchases"} <= events.tables.keys() or span_us < 2 * horizon:
        return nothing
    begin, end = as_of_us - 2 * horizon, as_of_us - horizon
    n_parts = user_parts(events, suggested_buckets(events, rows_per_bucket=config.heads.customer_facts))
    facts = tie_facts(events, vocabularies, before_us=as_of_us, bucket=(0, n_parts))
    orders = facts.filter(pl.col("kind") == int(FactKind.ORDER_LINE))
    facts = facts.filter(pl.col("user").is_in(orders["user"].unique().implode()))  # only these will have such ties
    later = facts.filter(pl.col("at") >= begin)
    asked = later.filter((pl.col("kind") == int(FactKind.ENTRY)) & (pl.col("at") < end))
    if not len(asked):
        return nothing
    world = _world(events, vocabularies, config, begin, facts.filter(pl.col("at") < begin))
    public = replace(
        events, tables={name: events.tables[name] for name in ("rooms", "notices") if name in events.tables}
    )
    told = fact_stream(public, vocabularies, from_us=begin, before_us=end)
    stream = pl.concat([told, later.filter(pl.col("at") < end)]).sort(list(FACT_SCHEMA))
    rng = np.random.default_rng(config.build.seed)
    share = MOST_ENTRIES / len(asked)
    log = TieLog(world.world, rng, of=("commerce",), strangers=0)
    for i, fact in enumerate(moved_through(world, stream)):
        if fact[1] == FactKind.ENTRY and rng.random() < share:
            log.log(fact[0], fact[2])
        if i % 4096 == 0:
            progress("customers", i / len(stream))
    progress("customers", 1.0)
    return log.frame(), log.rows(), later


def _world(
    events: Events, vocabularies: Vocabularies, config: EngineConfig, at_us: int, facts: pl.DataFrame
) -> LiveState:
    """The state of a bucket of users as of an instant; of hosts it knows their broadcasts only."""
    declared = blocks(round(config.ties.product_slot_s))
    rooms = room_table(events, vocabularies)
    live = live_rooms(rooms, at_us)
    states = states_of_facts(declared, facts, live)
    states["schedule"] = state_of(declared.schedule, room_starts(events, vocabularies, at_us))
    n_hosts = len(vocabularies.hosts)
    parts = WorldParts(
        config=config,
        states=states,
        standings=np.zeros((n_hosts, len(STANDINGS)), dtype=np.int64),
        rooms=live.select(ROOM_COLUMNS),
        leaves=announced_leaves(events, vocabularies, at_us),
        priors=Priors(),
        models=Models(affinity=config.affinity, ranker=PriorRanker(FEATURES)),
        n_hosts=n_hosts,
    )
    state = assemble(parts)
    state.register_rooms(rooms)
    return state
