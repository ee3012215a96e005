"""Yesterday's states ⊕ what came since = a rebuild of everything, however the rows were split between the two."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.config import EngineConfig
from recsys.events import Vocabularies, build_vocabularies, clean, last_fact_us, open_events
from recsys.events.facts import FACT_SCHEMA, US_PER_DAY
from recsys.events.lake.ingest import ingest
from recsys.events.lake.manifest import LakeManifest
from recsys.events.schemas import TABLES
from recsys.events.simulator import WorldConfig, simulate
from recsys.ties.algebra import BlockState
from training.delta import KnownStates, added_facts, advance
from training.states import Snapshot, snapshot

START = datetime(2026, 1, 5, tzinfo=UTC)
NOW_US = 1_800_000_000_000_000
NOW = datetime.fromtimestamp(NOW_US / 1e6, UTC)
TIME = {"rooms": "started_at", "watches": "entered_at"}
CONFIG = EngineConfig()


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    folder = tmp_path_factory.mktemp("delta-market") / "events"
    simulate(WorldConfig(), users=60, hosts=8, days=5, seed=11, out=folder, start=START)
    return {
        table: pl.concat([pl.read_parquet(path) for path in sorted(folder.glob(f"{table}/**/*.parquet"))])
        for table in TABLES
        if list(folder.glob(f"{table}/**/*.parquet"))
    }


def write(folder: Path, tables: dict[str, pl.DataFrame]) -> Path:
    folder.mkdir(parents=True)
    for table, rows in tables.items():
        if rows.height:
            rows.write_parquet(folder / f"{table}.parquet")
    return folder


def split(
    market: dict[str, pl.DataFrame], cut: datetime, late: float, seed: int
) -> tuple[dict[str, pl.DataFrame], dict[str, pl.DataFrame]]:
    """What an export at `cut` gives, but for a share of late rows, and what the next one brings.

    Rooms and stays that end after the cut are open in the first and completed by a second row of the same key.
    """
    rng = np.random.default_rng(seed)
    first, then = {}, {}
    for table, rows in market.items():
        time = TIME.get(table, "at")
        if time not in rows.columns:
            first[table] = rows
            continue
        known = pl.col(time) < cut
        arrives = known & (pl.Series(rng.random(rows.height)) >= (0 if table == "rooms" else late))
        mine, rest = rows.filter(arrives), rows.filter(~arrives)
        if end := {"rooms": "ended_at", "watches": "left_at"}.get(table):
            still = pl.col(end) >= cut
            rest = pl.concat([rest, mine.filter(still)])
            mine = mine.with_columns(pl.when(still).then(None).otherwise(pl.col(end)).alias(end))
        first[table], then[table] = mine, rest
    return first, then


def states_at(lake: Path, as_of_us: int) -> tuple[Snapshot, Vocabularies]:
    events = clean(open_events(lake), now=NOW)
    vocabularies = build_vocabularies(events, as_of_us=as_of_us)
    return snapshot(events, vocabularies, CONFIG, as_of_us), vocabularies


def assert_same(delta: Snapshot, ours: Vocabularies, full: Snapshot, theirs: Vocabularies) -> None:
    for name, expected in full.states.items():
        got = in_rows_of(delta.states[name], ours, theirs)
        np.testing.assert_array_equal(got.keys, expected.keys, err_msg=name)
        np.testing.assert_array_equal(got.rows.ints, expected.rows.ints, err_msg=name)
        np.testing.assert_array_equal(got.rows.latest, expected.rows.latest, err_msg=name)
        np.testing.assert_allclose(got.rows.decayed, expected.rows.decayed, rtol=1e-9, atol=1e-300, err_msg=name)
    hosts = ours.hosts.rows(theirs.hosts.ids(np.arange(len(theirs.hosts))))
    np.testing.assert_array_equal(delta.standings[hosts], full.standings)
    assert sorted(ours.rooms.ids(delta.rooms["room"].to_numpy())) == sorted(
        theirs.rooms.ids(full.rooms["room"].to_numpy())
    )
    assert delta.priors == full.priors


def in_rows_of(state: BlockState, ours: Vocabularies, theirs: Vocabularies) -> BlockState:
    """The state with its keys in the rows of other vocabularies."""

    def row(name: str, rows: np.ndarray) -> np.ndarray:
        return getattr(theirs, name).rows(getattr(ours, name).ids(rows))

    level = state.block.level
    if level == "tie":
        keys = row("users", state.keys >> 32) << 32 | row("hosts", state.keys & 0xFFFFFFFF)
    else:
        keys = row(f"{level}s", state.keys)
    order = np.argsort(keys)
    return BlockState(state.block, keys[order], state.rows.take(order))


def known_at(lake: Path, as_of_us: int) -> KnownStates:
    shot, vocabularies = states_at(lake, as_of_us)
    rooms = Vocabularies().rooms
    live = vocabularies.rooms.ids(shot.rooms["room"].to_numpy())
    rooms.extend(live)  # as a bundle does: its rooms are those live at its as-of
    state = shot.states["room"]
    numbered = BlockState(state.block, rooms.rows(vocabularies.rooms.ids(state.keys)), state.rows)
    kept = Vocabularies(vocabularies.users, vocabularies.hosts, rooms, vocabularies.orders)
    return KnownStates(shot.states | {"room": numbered}, kept, as_of_us, LakeManifest.read(lake).seq, NOW_US)


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    days=st.floats(0.3, 4.5), late=st.sampled_from([0.0, 0.02, 0.5]), back=st.sampled_from([0, 7, 40]),
    buckets=st.sampled_from([1, 4]), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_delta_equals_the_rebuild(
    market: dict[str, pl.DataFrame], tmp_path_factory: pytest.TempPathFactory, days: float, late: float, back: int,
    buckets: int, seed: int,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("delta")
    cut_us = int(START.timestamp() * 1e6 + days * US_PER_DAY)
    first, then = split(market, datetime.fromtimestamp(cut_us / 1e6, UTC), late, seed)
    ingest(write(folder / "first", first), folder / "lake", buckets=buckets)
    known = known_at(folder / "lake", cut_us - back * US_PER_DAY // 24)
    ingest(write(folder / "then", then), folder / "lake")
    events = clean(open_events(folder / "lake"), now=NOW)
    assert events.lake is not None
    as_of = (last_fact_us(events) or 0) + 1
    advanced = advance(known, events.lake, CONFIG, as_of, NOW_US)
    assert advanced is not None, "rows that only add need no rebuild"
    full, theirs = states_at(folder / "lake", as_of)
    assert_same(advanced.shot, advanced.vocabularies, full, theirs)


def test_what_takes_a_fact_back_asks_for_a_rebuild(market: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    cut_us = int(START.timestamp() * 1e6 + 3 * US_PER_DAY)
    first, then = split(market, datetime.fromtimestamp(cut_us / 1e6, UTC), 0.0, 0)
    rooms = first["rooms"]
    ingest(write(tmp_path / "first", first | {"rooms": rooms[:-1]}), tmp_path / "lake")
    known = known_at(tmp_path / "lake", cut_us)
    visited = first["watches"].filter(pl.col("room_id") == rooms["room_id"][0])
    assert visited.height
    moved = rooms[:1].with_columns(pl.col("started_at") - pl.duration(hours=1))  # an earlier row of a known room
    ingest(write(tmp_path / "then", then | {"rooms": pl.concat([then["rooms"], moved])}), tmp_path / "lake")
    events = clean(open_events(tmp_path / "lake"), now=NOW)
    assert events.lake is not None
    assert advance(known, events.lake, CONFIG, cut_us, NOW_US) is None
    assert advance(known, events.lake, CONFIG, cut_us - 1, NOW_US) is None  # an earlier as-of: states do not forget


def test_added_facts_are_counted_with_repetitions() -> None:
    rows = {name: [1, 1, 1, 2] for name in FACT_SCHEMA}
    has = pl.DataFrame(rows, schema=FACT_SCHEMA)
    assert added_facts(has[:1], has).sort("at")["at"].to_list() == [1, 1, 2]  # type: ignore[union-attr]
    assert added_facts(has[:3], has)["at"].to_list() == [2]  # type: ignore[union-attr]
    assert added_facts(has, has[1:]) is None
