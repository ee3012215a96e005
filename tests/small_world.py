"""A world told by hand, fact by fact: for tests whose right answer is known before the code runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from recsys.config import EngineConfig
from recsys.events.facts import FACT_SCHEMA, US_PER_DAY, FactKind
from recsys.live.artefact import WorldParts, assemble
from recsys.live.state import LiveState
from recsys.models.baselines import PriorRanker
from recsys.models.suite import Models
from recsys.pipeline.features import FEATURES
from recsys.pipeline.lookup import lookup
from recsys.pipeline.request import OUTCOMES, Answer, Request
from recsys.pipeline.world import Priors, World
from recsys.ties.batch import state_of
from recsys.ties.blocks import blocks
from recsys.ties.standing import STANDINGS

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = US_PER_DAY
T0 = 19_800 * DAY
"""Midnight UTC of some day."""


def empty_parts(n_hosts: int, config: EngineConfig | None = None, models: Models | None = None) -> WorldParts:
    """The parts of a world in which nothing has happened yet."""
    config = config or EngineConfig()
    nothing = pl.DataFrame(schema=FACT_SCHEMA)
    states = {b.name: state_of(b, nothing) for b in blocks(round(config.ties.product_slot_s)).all}
    rooms = {"room": pl.Int64, "host": pl.Int64, "cohosts": pl.List(pl.Int64), "started_at": pl.Int64}
    return WorldParts(
        config=config,
        states=states,
        standings=np.zeros((n_hosts, len(STANDINGS)), dtype=np.int64),
        rooms=pl.DataFrame(schema={**rooms, "category": pl.String}),
        leaves=pl.DataFrame(schema={"host": pl.Int64, "since": pl.Int64, "until": pl.Int64}),
        priors=Priors(),
        models=models or Models(affinity=config.affinity, ranker=PriorRanker(FEATURES)),
        n_hosts=n_hosts,
    )


class Scene:
    """Hosts, rooms and viewers by row. Every method is one fact, or says what several would."""

    def __init__(self, n_hosts: int = 4, config: EngineConfig | None = None, models: Models | None = None) -> None:
        self.live: LiveState = assemble(empty_parts(n_hosts, config, models))
        self.started: dict[int, tuple[int, int]] = {}

    @property
    def world(self) -> World:
        """The world as it is now."""
        return self.live.world

    def fact(self, at: int, kind: FactKind, user: int, host: int, room: int = -1, **numbers: int) -> Scene:
        """One fact; `count`, `value` and `aux` by name."""
        count, value, aux = numbers.get("count", 1), numbers.get("value", 0), numbers.get("aux", 0)
        self.live.apply(at, int(kind), user, host, room, count, value, aux)
        return self

    def room(
        self, room: int, host: int, at: int = T0, cohosts: tuple[int, ...] = (), category: str | None = None
    ) -> Scene:
        """A broadcast starts."""
        row = {"room": [room], "host": [host], "cohosts": [list(cohosts)], "started_at": [at], "category": [category]}
        schema = {"cohosts": pl.List(pl.Int64), "category": pl.String}
        self.live.register_rooms(pl.DataFrame(row, schema_overrides=schema))
        self.started[room] = (host, at)
        return self.fact(at, FactKind.ROOM_START, -1, host, room, count=0)

    def end(self, room: int, at: int) -> Scene:
        """A broadcast ends."""
        return self.fact(at, FactKind.ROOM_END, -1, self.started[room][0], room, count=0)

    def enter(self, user: int, room: int, at: int, stay_min: float = 0) -> Scene:
        """A user enters a room and, after `stay_min`, leaves it."""
        host, started = self.started[room]
        self.fact(at, FactKind.ENTRY, user, host, room, value=started)
        if stay_min:
            stay_ms = int(stay_min * 60_000)
            self.fact(at + stay_ms * 1000, FactKind.STAY, user, host, room, value=stay_ms, aux=at)
        return self

    def buy(self, user: int, host: int, at: int, amount_minor: int = 1000) -> Scene:
        """An order of one line."""
        return self.fact(at, FactKind.ORDER_LINE, user, host, value=amount_minor)

    def follow(self, user: int, host: int, at: int = T0) -> Scene:
        """A follow."""
        return self.fact(at, FactKind.FOLLOW, user, host)

    def block(self, user: int, host: int, at: int = T0) -> Scene:
        """A block."""
        return self.fact(at, FactKind.BLOCK, user, host)

    def ask(self, user: int, at: int, k: int = 20, **wishes: Any) -> Answer:
        """The answer to one request."""
        for name in ("rooms", "exclude"):
            if wishes.get(name) is not None:
                wishes[name] = np.array(wishes[name], dtype=np.int64)
        return lookup(self.world, Request(user, at, k, **wishes))


def outcomes_of(answer: Answer) -> dict[int, str]:
    """Candidate → what became of it; fails when a candidate has several outcomes."""
    pairs = list(zip(answer.candidates.tolist(), (str(OUTCOMES[i]) for i in answer.outcomes), strict=True))
    assert len({room for room, _ in pairs}) == len(pairs), "a candidate has two outcomes"
    return dict(pairs)
