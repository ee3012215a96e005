"""Drift: nothing moves, nothing is said; what moves is found and named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.bundle import Bundle, BundleWriter, DataWindow, ManifestFields, evaluate_gates
from recsys.config import EngineConfig
from recsys.config.sections import DEFAULT_GATES
from recsys.events import build_vocabularies, clean, from_frames
from recsys.events.facts import US_PER_DAY
from recsys.events.simulator import WorldConfig, simulate
from recsys.live.artefact import ROOM_COLUMNS, WorldParts, assemble, save_models
from recsys.models.baselines import PriorRanker
from recsys.models.calibration import IsotonicMap
from recsys.models.log_linear import fit_log_linear
from recsys.models.strength import StrengthHead
from recsys.models.suite import Models
from recsys.pipeline.features import FEATURES
from recsys.ties.features import TIE_FEATURES
from training.bond import BINDS
from training.drift import (
    CANDIDATES,
    CHANCE,
    STRENGTH,
    Drift,
    base_profile,
    drift_from,
    drift_lines,
    drift_metrics,
    drift_of,
    profile_of,
    sampled_candidates,
    sampled_ties,
    stability_index,
    values_of,
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


def test_what_candidates_are_is_compared_and_by_default_judged_by_no_gate() -> None:
    groups = np.full(1_000, 8)
    rows = RNG.normal(size=(8_000, len(FEATURES))).astype(np.float32)
    age = CANDIDATES.index("room_age_min")

    def seen(rows: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(CANDIDATES, sampled_candidates(rows, scores, groups).T, strict=True))

    then = seen(rows, rows[:, -1].astype(np.float64))
    assert then["room_age_min"].tolist() == rows[:, FEATURES.index("room_age_min")].tolist()
    assert then[CHANCE].reshape(-1, 8).sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    base = profile_of(then)
    assert max(drift_of(base, then).values()) == 0.0
    rows[:, FEATURES.index("room_age_min")] += 2.0
    now = drift_metrics(base, seen(rows, np.zeros(len(rows))))
    moved = drift_of(base, seen(rows, np.zeros(len(rows))))
    assert moved["room_age_min"] > 1.0 and moved[CHANCE] > 1.0 and CANDIDATES[age] == "room_age_min"
    assert now == {"drift_psi_candidates_max": max(moved.values())}
    assert all(gate.metric != "drift_psi_candidates_max" for gate in DEFAULT_GATES)


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


def ties(n: int, seed: int, *, shuffled: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Ties (n, F) that return the oftener the stronger the bond, which three features tell of; with `shuffled` each of
    these is told of other ties than its own."""
    rng = np.random.default_rng(seed)
    rows = np.full((n, len(TIE_FEATURES)), np.nan, dtype=np.float32)
    bond = rng.normal(size=n)
    returns = rng.random(n) < 1 / (1 + np.exp(4.5 - 1.5 * bond))
    for name, sign in (("tie_entries", 1), ("tie_stay_mean_min", 1), ("tie_broadcasts_missed", -1)):
        told = np.exp(sign * bond + 0.3 * rng.normal(size=n))
        rows[:, TIE_FEATURES.index(name)] = rng.permutation(told) if shuffled else told
    return rows, returns


def strength_of(n: int, seed: int, *, level: float = 1.0, shuffled: bool = False) -> dict[str, StrengthHead]:
    rows, returns = ties(n, seed, shuffled=shuffled)
    settings = CONFIG.strength
    model = fit_log_linear(
        TIE_FEATURES,
        rows,
        returns.astype(float),
        BINDS,
        shrinkage=settings.shrinkage,
        bins=settings.bins,
        weights=np.ones(n),
    )
    p = np.linspace(0.0, 1.0, 101)
    return {STRENGTH: StrengthHead(STRENGTH, model, IsotonicMap(p, np.minimum(level * p, 1.0)), 0.01)}


@pytest.fixture(scope="module")
def night_before(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with a strength head and the profile of four thousand ties."""
    heads = strength_of(20_000, 1)
    with BundleWriter(tmp_path_factory.mktemp("night"), "b") as writer:
        writer.json(
            "world", save_models(writer, Models(affinity=CONFIG.affinity, ranker=PriorRanker(FEATURES), strength=heads))
        )
        writer.json("profile", profile_of(values_of(ties(4_000, 2)[0], heads)))
        fields = ManifestFields(created_at_us=1, config=CONFIG.model_dump(mode="json"), window=DataWindow(as_of_us=1))
        return Bundle.open(writer.finish(fields))


def verdicts(metrics: dict[str, float]) -> dict[str, str]:
    return {gate.metric: gate.status for gate in evaluate_gates(metrics, DEFAULT_GATES) if "drift" in gate.metric}


def test_a_strength_learnt_at_another_level_is_not_drift(night_before: Bundle) -> None:
    """Returns are a third more frequent on the latest day: every tie is said to be stronger, the ties are the same."""
    rows, heads = ties(4_000, 3)[0], strength_of(20_000, 4, level=1.33)
    drift = drift_from(night_before, rows, values_of(rows, heads))
    served = drift_of(night_before.json("profile"), values_of(rows, heads))
    assert served[STRENGTH] > 5 * drift.indices[STRENGTH] > 0.0
    line = drift.relearnt[0]
    assert line["head"] == STRENGTH and line["order"] > 0.98 and line["slope"] == pytest.approx(1.0, abs=0.1)
    assert line["now"] > 1.2 * line["then"]
    assert set(verdicts(drift.metrics).values()) == {"passed"}


def test_features_told_of_other_ties_are_refused_though_their_own_shares_are_the_same(night_before: Bundle) -> None:
    heads = strength_of(20_000, 4)
    rows = ties(4_000, 3, shuffled=True)[0]
    drift = drift_from(night_before, rows, values_of(rows, heads))
    assert drift.metrics["drift_psi_features_max"] < 0.02
    assert verdicts(drift.metrics) == {
        "drift_psi_features_max": "passed", "drift_psi_strength": "failed", "drift_strength_slope": "passed",
    }  # fmt: skip


def test_a_strength_learnt_from_features_of_other_ties_is_refused(night_before: Bundle) -> None:
    rows, heads = ties(4_000, 3)[0], strength_of(20_000, 4, shuffled=True)
    drift = drift_from(night_before, rows, values_of(rows, heads))
    assert verdicts(drift.metrics)["drift_strength_slope"] == "failed"
    assert verdicts(drift.metrics)["drift_psi_strength"] == "passed"


def test_a_strength_that_says_the_same_of_all_ties_is_refused(night_before: Bundle) -> None:
    rows, heads = ties(4_000, 3)[0], strength_of(20_000, 4)
    same = IsotonicMap(np.array([0.0, 1.0]), np.array([0.02, 0.02]))
    drift = drift_from(night_before, rows, values_of(rows, {STRENGTH: replace(heads[STRENGTH], calibration=same)}))
    assert drift.relearnt[0]["order"] == 0.0 and drift.relearnt[0]["slope"] == pytest.approx(0.0)
    assert verdicts(drift.metrics)["drift_strength_slope"] == "failed"


def test_no_base_no_drift() -> None:
    rows = ties(600, 3)[0]
    assert drift_from(None, rows, values_of(rows, {})) == Drift()


def values_at(tables: dict[str, pl.DataFrame], at_us: int) -> dict[str, np.ndarray]:
    events = clean(from_frames(tables))
    vocabularies = build_vocabularies(events, as_of_us=at_us)
    shot = snapshot(events, vocabularies, CONFIG, at_us)
    models = Models(affinity=CONFIG.affinity, ranker=PriorRanker(FEATURES))
    rooms, n_hosts = shot.rooms.select(ROOM_COLUMNS), len(vocabularies.hosts)
    live = assemble(WorldParts(CONFIG, shot.states, shot.standings, rooms, shot.leaves, shot.priors, models, n_hosts))
    return values_of(sampled_ties(live, at_us, 1), {})


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
