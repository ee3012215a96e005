"""Yesterday's states ⊕ what came since = a rebuild of everything, however the rows were split between the two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from benchmarks.executors import Remote, Result
from recsys.config import EngineConfig, TiesConfig
from recsys.events import (
    Vocabularies,
    build_vocabularies,
    clean,
    extend_vocabularies,
    last_fact_us,
    open_events,
)
from recsys.events.facts import US_PER_DAY
from recsys.events.lake.ingest import ingest
from recsys.events.lake.manifest import LakeManifest
from recsys.events.schemas import TABLES
from recsys.events.simulator import WorldConfig, simulate
from recsys.ties.algebra import BlockState
from recsys.ties.blocks import blocks
from recsys.ties.layers import LayeredState
from recsys.ties.store import TieStore
from training.delta import KnownStates, _partitions, advance
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
    tables = {
        table: pl.concat([pl.read_parquet(path) for path in sorted(folder.glob(f"{table}/**/*.parquet"))])
        for table in TABLES
        if list(folder.glob(f"{table}/**/*.parquet"))
    }
    return tables | {
        table: pl.concat([tables[table], rows.cast({k: tables[table].schema[k] for k in rows.columns})], how="diagonal")
        for table, rows in happenings(tables["watches"]).items()
    }


def happenings(watches: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """What so small a market has too little of: orders, refunds up to three days after them, feedback and leaves."""
    rng = np.random.default_rng(5)
    n = watches.height
    minutes = [pl.Series(rng.integers(1, most, n)) for most in (30, 3 * 1440, 600)]
    sold = watches.with_columns(
        pl.int_range(1_000_000, 1_000_000 + n).alias("order_id"),
        at=pl.col("entered_at") + pl.duration(minutes=minutes[0]),
        amount_minor=pl.Series(rng.integers(100, 9_000, n)),
    )
    kinds = np.array(["return", "refund_only", "counterfeit", "dispute"])
    refunds = sold.select(
        "order_id",
        pl.when(pl.Series(rng.random(n) < 0.5)).then("host_id").alias("host_id"),  # named or not, and all or a part
        at=pl.col("at") + pl.duration(minutes=minutes[1]),
        amount_minor=pl.when(pl.Series(rng.random(n) < 0.5)).then(pl.col("amount_minor") // 3),
        kind=pl.Series(kinds[rng.integers(0, 4, n)]),
    )
    said = np.array(["not_interested", "block", "report", "unblock"])
    at = pl.col("entered_at") + pl.duration(minutes=minutes[2])
    feedback = watches.select("user_id", "host_id", at=at, kind=pl.Series(said[rng.integers(0, 4, n)]))
    leaves = watches.select(
        "host_id", at=at, to=at + pl.duration(days=2), kind=pl.lit("leave"), **{"from": at + pl.duration(days=1)}
    )
    purchases = sold.select("order_id", "user_id", "host_id", "room_id", "at", "amount_minor")
    return {"purchases": purchases, "refunds": refunds[::2], "feedback": feedback[::3], "notices": leaves[::40]}


def write(folder: Path, tables: dict[str, pl.DataFrame]) -> Path:
    folder.mkdir(parents=True)
    for table, rows in tables.items():
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
    for name, state in full.states.items():
        expected = state.flat()
        got = in_rows_of(delta.states[name].flat(), ours, theirs)
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
    leaves = (shot.leaves.with_columns(host=of.hosts.ids(shot.leaves["host"].to_numpy()))
              for shot, of in ((delta, ours), (full, theirs)))  # fmt: skip
    assert_frame_equal(*leaves, check_row_order=False)


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
    return as_base(*states_at(lake, as_of_us), as_of_us, LakeManifest.read(lake).seq)


def as_base(shot: Snapshot, vocabularies: Vocabularies, as_of_us: int, seq: int) -> KnownStates:
    """As a bundle keeps it: its rooms are those live at its as-of."""
    rooms = Vocabularies().rooms
    rooms.extend(vocabularies.rooms.ids(shot.rooms["room"].to_numpy()))
    state = shot.states["room"].flat()
    numbered = BlockState(state.block, rooms.rows(vocabularies.rooms.ids(state.keys)), state.rows)
    kept = Vocabularies(vocabularies.users, vocabularies.hosts, rooms, vocabularies.orders)
    return KnownStates(shot.states | {"room": numbered}, shot.standings, kept, as_of_us, seq, NOW_US)


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@example(
    days=4.75, late=0.0, back=0, buckets=1, share=1.0, seed=0
)  # nothing comes after the base: the last fact lies before it
@given(
    days=st.floats(0.3, 4.99), late=st.sampled_from([0.0, 0.02, 0.5]), back=st.sampled_from([0, 7, 40]),
    buckets=st.sampled_from([1, 4]), share=st.sampled_from([0.0, 1.0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_delta_equals_the_rebuild(
    market: dict[str, pl.DataFrame], tmp_path_factory: pytest.TempPathFactory, days: float, late: float, back: int,
    buckets: int, share: float, seed: int,
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
    config = EngineConfig(ties=TiesConfig(layer_share=share))
    advanced = advance(known, events.lake, config, as_of, NOW_US)
    assert advanced is not None, "rows that only add need no rebuild"
    full, theirs = states_at(folder / "lake", as_of)
    assert_same(advanced.shot, advanced.vocabularies, full, theirs)
    commerce = full.states["commerce"].flat()
    refunded = [commerce.rows.ints[:, commerce.block.int_column(name)].sum() for name in ("n_refunds", "n_disputes")]
    assert min(refunded) > 20 and len(full.leaves) > 3


class Counted(Remote):
    """An executor elsewhere, and how many parts it was given."""

    parts = 0

    def run(self, work: Callable[[int], Result], n_parts: int) -> Iterator[Result]:
        self.parts += n_parts
        return super().run(work, n_parts)


def test_night_after_night_by_an_executor_elsewhere(
    market: dict[str, pl.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers over layers, with late rows: every night equals a rebuild, and a user's ties read from both layers do."""
    monkeypatch.setattr("training.delta.user_parts", lambda *_: 2)
    elsewhere = Counted()
    config = EngineConfig(ties=TiesConfig(layer_share=1.0))
    known: KnownStates | None = None
    sizes = []
    for night, day in enumerate((2.0, 2.5, 3.1, 4.0)):
        cut_us = int(START.timestamp() * 1e6 + day * US_PER_DAY)
        export, _ = split(market, datetime.fromtimestamp(cut_us / 1e6, UTC), 0.1, night)
        ingest(write(tmp_path / f"night{night}", export), tmp_path / "lake", buckets=2)
        if known is None:
            known = known_at(tmp_path / "lake", cut_us)
            continue
        lake = clean(open_events(tmp_path / "lake"), now=NOW).lake
        assert lake is not None
        advanced = advance(known, lake, config, cut_us, NOW_US, executor=elsewhere)
        assert advanced is not None
        assert elsewhere.parts == 2 * night
        full, theirs = states_at(tmp_path / "lake", cut_us)
        assert_same(advanced.shot, advanced.vocabularies, full, theirs)
        visits = advanced.shot.states["visits"]
        assert isinstance(visits, LayeredState)
        assert visits.base is known.states["visits"] or visits.base is known.states["visits"].base  # type: ignore[union-attr]
        sizes.append(len(visits.over))
        assert_read_alike(advanced.shot)
        known = as_base(advanced.shot, advanced.vocabularies, cut_us, lake.manifest.seq)
    assert 0 < sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("late", [0.0, 0.3])
def test_states_of_the_past_are_brought_forward_in_the_rows_of_today(
    market: dict[str, pl.DataFrame], tmp_path: Path, late: float
) -> None:
    """As learning does: the lake knew later days already, and those that begin after both instants are not read."""
    cut_us, before_us, at_us = (int(START.timestamp() * 1e6 + days * US_PER_DAY) for days in (4.1, 1.3, 2.2))
    first, then = split(market, datetime.fromtimestamp(cut_us / 1e6, UTC), late, 3)
    ingest(write(tmp_path / "first", first), tmp_path / "lake", buckets=2)
    known = known_at(tmp_path / "lake", before_us)
    ingest(write(tmp_path / "then", then), tmp_path / "lake")
    events = clean(open_events(tmp_path / "lake"), now=NOW)
    assert events.lake is not None
    of = known.vocabularies
    today = Vocabularies(of.users, of.hosts, orders=of.orders)
    extend_vocabularies(today, events)
    advanced = advance(known, events.lake, CONFIG, at_us, NOW_US, vocabularies=today)
    assert advanced is not None and advanced.vocabularies is today
    assert_same(advanced.shot, today, snapshot(events, today, CONFIG, at_us), today)
    days = {date for _, date, _ in _partitions(known, events.lake, at_us, NOW_US)}
    assert "2026-01-07" in days and max(days) < "2026-01-08"
    assert ("2026-01-05" in days) == (late > 0)


def assert_read_alike(shot: Snapshot) -> None:
    ties = blocks().of("tie")
    two = TieStore(ties, {block.name: shot.states[block.name] for block in ties})
    one = TieStore(ties, {block.name: shot.states[block.name].flat() for block in ties})
    twice = [user for user in range(-1, 70) for _ in range(2)]  # as a lookup asks
    for block in ties:
        read = [(two.of(block.name, user), one.of(block.name, user)) for user in twice]
        assert sum(len(mine) for mine, _ in read) == 2 * len(shot.states[block.name]) > 0
        for mine, whole in read:
            np.testing.assert_array_equal(mine.hosts, whole.hosts)
            for part in ("ints", "decayed", "latest"):
                np.testing.assert_array_equal(getattr(mine.rows, part), getattr(whole.rows, part))


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
    earlier = cut_us - US_PER_DAY // 2
    assert advance(known, events.lake, CONFIG, earlier, NOW_US) is None  # states do not forget
