"""A small simulated market as the service meets it: a bundle, and what happens afterwards as events."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.bundle import BundleWriter, DataWindow, GateResult, ManifestFields, publish
from recsys.config import EngineConfig
from recsys.events import Events, Vocabularies, build_vocabularies, clean, known_before, open_events
from recsys.events.facts import FactKind
from recsys.events.simulator import WorldConfig, simulate
from recsys.ids import Vocabulary
from recsys.instants import format_instant, from_datetime
from recsys.live.artefact import ROOM_COLUMNS, WorldParts, save
from recsys.models.audience import Audience
from recsys.models.baselines import PriorRanker
from recsys.models.factors import HostFactors
from recsys.models.suite import Models
from recsys.models.transition import TransitionModel
from recsys.pipeline.features import FEATURES
from recsys.ties.algebra import BlockState
from training.states import snapshot

START = datetime(2024, 6, 1, tzinfo=UTC)
AS_OF = from_datetime(datetime(2024, 6, 4, 12, tzinfo=UTC))
Event = tuple[str, str, dict[str, Any]]

_KIND = {"rooms": FactKind.ROOM_START, "watches": FactKind.ENTRY, "engagements": FactKind.LIKE,
         "purchases": FactKind.ORDER_LINE, "refunds": FactKind.REFUND, "follows": FactKind.FOLLOW,
         "feedback": FactKind.UNBLOCK, "impressions": FactKind.IMPRESSION,
         "notices": FactKind.LEAVE_NOTICE}  # fmt: skip


def simulated(out: Path, *, users: int = 120, hosts: int = 30, seed: int = 4) -> Path:
    """Event tables of a market of five days."""
    simulate(WorldConfig(), users=users, hosts=hosts, days=5, seed=seed, out=out, start=START)
    return out


def write_bundle(
    events_path: Path,
    bundles: Path,
    name: str = "b1",
    *,
    as_of: int = AS_OF,
    created: int | None = None,
    offsets: dict[str, int] | None = None,
    last: int | None = None,
    failed_gate: bool = False,
    current: bool = True,
    learning: bool = False,
) -> Path:
    """A bundle with all states and random factors; its ranker is the one of stated weights.

    With `learning` it has the models that learn online too, with nothing learnt yet.
    """
    config = EngineConfig()
    events = clean(open_events(events_path))
    vocabularies = build_vocabularies(events, as_of_us=as_of)
    shot = snapshot(events, vocabularies, config, as_of)
    n_hosts = len(vocabularies.hosts)
    vectors = np.random.default_rng(1).normal(size=(n_hosts, 16)).astype(np.float32)
    factors = HostFactors.of(vectors, confidence=10.0, regularization=0.1, exponent=1.0)
    models = Models(affinity=config.affinity, ranker=PriorRanker(FEATURES), factors=factors)
    if learning:
        nothing = pl.DataFrame(schema={"user": pl.Int64, "host": pl.Int64, "at": pl.Int64})
        models.transition = TransitionModel.fit(nothing, n_hosts=n_hosts, as_of=as_of)
        models.audience = Audience(n_hosts, len(vocabularies.users))
    rooms = Vocabulary()
    live_ids = vocabularies.rooms.ids(shot.rooms["room"].to_numpy())
    if len(live_ids):
        rooms.extend(live_ids)
    numbered = shot.rooms.select(ROOM_COLUMNS).with_columns(room=pl.Series(np.arange(len(live_ids)), dtype=pl.Int64))
    state = shot.states["room"]
    moved = BlockState(state.block, np.searchsorted(shot.rooms["room"].to_numpy(), state.keys), state.rows)
    parts = WorldParts(
        config, {**shot.states, "room": moved}, shot.standings, numbered, shot.leaves, shot.priors, models, n_hosts
    )
    gates = (GateResult(name="g", metric="m", status="failed", value=0.0, minimum=1.0),) if failed_gate else ()
    fields = ManifestFields(
        created_at_us=as_of if created is None else created,
        config=config.model_dump(mode="json"),
        window=DataWindow(from_us=None, to_us=as_of - 1, as_of_us=as_of, last_us=last),
        offsets=offsets or {},
        gates=gates,
    )
    with BundleWriter(bundles, name) as writer:
        save(writer, parts, Vocabularies(vocabularies.users, vocabularies.hosts, rooms, vocabularies.orders))
        known_before(events, before_us=as_of).save(writer.path("known_rooms.arrow").parent)
        path = writer.finish(fields)
    if current and not failed_gate:
        publish(bundles, name)
    return path


def events_after(events_path: Path, as_of: int, *, tables: tuple[str, ...] = tuple(_KIND)) -> list[tuple[int, Event]]:
    """What happens from `as_of` on, in time order: a row is sent when it opens and again when it ends."""
    told: list[tuple[int, int, Event]] = []
    good = clean(open_events(events_path))
    for table in tables:
        if table not in good.tables:
            continue
        for n, row in enumerate(_rows(good, table)):
            for part, (at, kind, shown) in enumerate(_instants(table, row)):
                if at >= as_of:
                    told.append((at, kind, (f"{table}-{n}-{part}", table, _json(shown))))
    told.sort(key=lambda one: one[:2])
    return [(at, event) for at, _, event in told]


def _rows(good: Events, table: str) -> list[dict[str, Any]]:
    rows = good.tables[table].collect()
    return rows.drop([name for name in ("room_started_at",) if name in rows.columns]).to_dicts()


def _instants(table: str, row: dict[str, Any]) -> list[tuple[int, int, dict[str, Any]]]:
    kind = int(_KIND[table])
    if table == "rooms":
        told = [(row["started_at"], kind, {**row, "ended_at": None})]
        return told + ([(row["ended_at"], int(FactKind.ROOM_END), row)] if row["ended_at"] is not None else [])
    if table == "watches":
        told = [(row["entered_at"], kind, {**row, "left_at": None})]
        return told + ([(row["left_at"], int(FactKind.STAY), row)] if row["left_at"] is not None else [])
    return [(row["at"], kind, row)]


def _json(row: dict[str, Any]) -> dict[str, Any]:
    """As JSON would hold it."""
    times = ("at", "started_at", "ended_at", "entered_at", "left_at", "from", "to", "registered_at")
    return {name: format_instant(v) if name in times and v is not None else v for name, v in row.items()}


class Clock:
    """A clock the test moves."""

    def __init__(self, now: int = AS_OF) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


__all__ = ["AS_OF", "START", "Clock", "Event", "events_after", "replace", "simulated", "write_bundle"]
