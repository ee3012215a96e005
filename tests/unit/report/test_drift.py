"""Drift: nothing moves, nothing is said; what moves is found and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.bundle import Bundle, evaluate_gates
from recsys.config import EngineConfig
from recsys.config.sections import DEFAULT_GATES
from recsys.events import build_vocabularies, clean, from_frames
from recsys.events.facts import US_PER_DAY
from recsys.events.simulator import WorldConfig, simulate
from recsys.live.artefact import ROOM_COLUMNS, WorldParts, assemble
from recsys.models.baselines import PriorRanker
from recsys.models.suite import Models
from recsys.pipeline.features import FEATURES
from training.drift import (
    STRENGTH,
    base_profile,
    drift_lines,
    drift_metrics,
    drift_of,
    profile_of,
    sampled_values,
    stability_index,
)
from training.states import snapshot

RNG = np.random.default_rng(0)
STAYS, AGE = "tie_stay_mean_min", "tie_days_since_first"
CONFIG = EngineConfig()
THEN = {STAYS: RNG.normal(size=20_000), STRENGTH: RNG.beta(1, 5, 20_000)}


def test_the_formula() -> None:
    then, now = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    assert stability_index(then, now) == pytest.approx(0.25 * np.log(2) + 0.25 * np.log(1.5))
    assert stability_index(then, then) == 0.0


def test_the_same_law_does_not_drift_and_another_does() -> None:
    base = profile_of(THEN)
    same = drift_of(base, {STAYS: RNG.normal(size=20_000), STRENGTH: RNG.beta(1, 5, 20_000)})
    assert max(same.values()) < 0.01
    moved = drift_of(base, {STAYS: RNG.normal(1.0, 1.0, 20_000), STRENGTH: RNG.beta(1, 5, 20_000)})
    assert moved[STAYS] > 0.5 and moved[STRENGTH] < 0.01


def test_values_that_go_missing_are_drift() -> None:
    base = profile_of(THEN)
    gone = THEN[STAYS].copy()
    gone[:10_000] = np.nan
    assert drift_of(base, {STAYS: gone})[STAYS] > 0.5


def test_odd_columns() -> None:
    base = profile_of({"constant": np.ones(100), "empty": np.empty(0), "unknown": np.full(100, np.nan)})
    assert set(base) == {"constant", "unknown"}
    assert drift_of(base, {"constant": np.ones(50), "unknown": np.full(9, np.nan), "new": np.ones(3)}) == {
        "constant": 0.0, "unknown": 0.0,
    }  # fmt: skip
    assert drift_metrics({}, {}) == {}


def test_strength_of_a_base_without_that_head_is_another_quantity() -> None:
    frozen = Bundle.open(Path(__file__).parents[2] / "fixtures" / "bundles" / "world-v1")
    assert STRENGTH in frozen.json("profile") and STRENGTH not in base_profile(frozen)
    assert base_profile(frozen).keys() == frozen.json("profile").keys() - {STRENGTH}
    assert base_profile(None) == {}


def test_chances_are_told_apart_from_features_and_ages_are_judged_by_no_gate() -> None:
    base = profile_of({name: RNG.normal(size=2_000) for name in (STAYS, AGE, STRENGTH, "chance_buys")})
    shifts = {STAYS: 0.6, AGE: 2.0, STRENGTH: 0.0, "chance_buys": 1.0}
    now = {name: RNG.normal(shift, size=2_000) for name, shift in shifts.items()}
    drift = drift_of(base, now)
    assert drift_metrics(base, now) == {
        "drift_psi_features_max": drift[STAYS], "drift_psi_chances_max": drift["chance_buys"],
        "drift_psi_strength": drift[STRENGTH],
    }  # fmt: skip
    lines = drift_lines(drift)
    assert [line["feature"] for line in lines] == [AGE, "chance_buys", STAYS, STRENGTH]
    assert [line["means"] for line in lines] == ["alarm", "alarm", "alarm", "stable"]
    assert drift_lines({STAYS: 0.12})[0]["means"] == "worth a look"


def test_a_few_ties_prove_nothing() -> None:
    many, few = RNG.normal(size=2_000), RNG.normal(size=100)
    assert drift_metrics(profile_of({STAYS: many}), {STAYS: few}) == {}
    assert drift_metrics(profile_of({STAYS: few}), {STAYS: many}) == {}
    assert drift_of(profile_of({STAYS: many}), {STAYS: few})[STAYS] > 0.0  # reported all the same


def values_at(tables: dict[str, pl.DataFrame], at_us: int) -> dict[str, np.ndarray]:
    events = clean(from_frames(tables))
    vocabularies = build_vocabularies(events, as_of_us=at_us)
    shot = snapshot(events, vocabularies, CONFIG, at_us)
    models = Models(affinity=CONFIG.affinity, ranker=PriorRanker(FEATURES))
    rooms, n_hosts = shot.rooms.select(ROOM_COLUMNS), len(vocabularies.hosts)
    live = assemble(WorldParts(CONFIG, shot.states, shot.standings, rooms, shot.leaves, shot.priors, models, n_hosts))
    return sampled_values(live, at_us, 1)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    folder = tmp_path_factory.mktemp("drift") / "events"
    simulate(WorldConfig(), users=150, hosts=20, days=14, seed=5, out=folder)
    return {table.name: pl.read_parquet(table / "*.parquet") for table in folder.iterdir() if table.name[0] != "_"}


def test_an_ordinary_next_day_passes_and_a_broken_export_does_not(market: dict[str, pl.DataFrame]) -> None:
    watches = market["watches"]
    end = int(watches["entered_at"].max().timestamp() * 1e6)  # type: ignore[union-attr]
    base = profile_of(values_at(market, end - US_PER_DAY))

    def verdict(now: pl.DataFrame) -> str:
        metrics = drift_metrics(base, values_at({**market, "watches": now}, end))
        gates = {gate.metric: gate.status for gate in evaluate_gates(metrics, DEFAULT_GATES)}
        return gates["drift_psi_features_max"]

    stay = pl.col("left_at") - pl.col("entered_at")
    lost = pl.col("entered_at") < pl.lit(watches["entered_at"].max()) - pl.duration(days=3)
    assert verdict(watches) == "passed"
    assert verdict(watches.with_columns(left_at=pl.col("entered_at") + stay * 10)) == "failed"
    assert verdict(watches.filter(lost)) == "failed"  # three days of entries did not arrive
