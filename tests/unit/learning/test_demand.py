"""Demand: planted chances are summed, planted hosts corrected, totals lie where they are said to."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.config import EngineConfig, HeadsConfig, StrengthConfig
from recsys.events.facts import FACT_SCHEMA, US_PER_DAY, FactKind
from recsys.models.additive import AdditiveModel
from recsys.models.calibration import IsotonicMap
from recsys.models.demand import Demand, Quantity
from recsys.models.strength import StrengthHead
from recsys.ties.features import TIE_FEATURES
from tests.small_world import DAY, HOUR, MINUTE, T0, Scene
from training.broadcasts import figures, judged_demand, last_broadcasts, next_broadcasts, returning_totals
from training.demand import LearntDemand, expected_demand, gamma_shape, host_ratios, learn_demand, with_interval
from training.labels import LoggedTies

N_HOSTS, EACH, DAYS = 30, 60, 16
CONFIG = EngineConfig(strength=StrengthConfig(rounds=30), heads=HeadsConfig(rounds=30))


class Market:
    """Every morning all ties of all hosts are written down, every evening each host is on air.

    A viewer comes with 0.05 + 0.4 · attendance, half as often to the first ten hosts and one and a half times as often
    to the last ten, which no feature tells; three in ten of those who came place two orders.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        users = N_HOSTS * EACH
        user, host = np.arange(users), np.repeat(np.arange(N_HOSTS), EACH)
        attendance = rng.random(users)
        self.factor = np.repeat([0.5, 1.0, 1.5], 10)
        self.chance = (0.05 + 0.4 * attendance) * self.factor[host]
        n = users * DAYS
        day = np.repeat(np.arange(DAYS), users)
        who, where = np.tile(user, DAYS), np.tile(host, DAYS)
        self.rows = np.full((n, len(TIE_FEATURES)), np.nan, dtype=np.float32)
        self.rows[:, TIE_FEATURES.index("tie_attendance")] = np.tile(attendance, DAYS)
        self.ties = pl.DataFrame({"user": who, "host": where, "at": day * DAY + 8 * HOUR})
        self.ties = self.ties.with_columns(tied=pl.lit(True), weight=pl.lit(1.0))
        came = rng.random(n) < np.tile(self.chance, DAYS)
        bought = np.flatnonzero(came & (rng.random(n) < 0.3))
        start = day * DAY + 20 * HOUR
        room = day * N_HOSTS + where
        came = np.flatnonzero(came)
        entered = _facts(FactKind.ENTRY, start[came] + 1, who[came], where[came], room[came], came)
        orders = [_facts(FactKind.ORDER_LINE, start[bought] + HOUR + i, who[bought], where[bought], room[bought],
                         2 * bought + i) for i in (0, 1)]  # fmt: skip
        self.facts = pl.concat([entered, *orders]).sort(list(FACT_SCHEMA))
        rooms = np.arange(DAYS * N_HOSTS)
        begin = rooms // N_HOSTS * DAY + 20 * HOUR
        self.rooms = pl.DataFrame({"room": rooms, "host": rooms % N_HOSTS, "started_at": begin})
        self.rooms = self.rooms.with_columns(ended_at=pl.col("started_at") + 2 * HOUR)


def _facts(kind: FactKind, at: np.ndarray, *columns: np.ndarray) -> pl.DataFrame:
    user, host, room, aux = columns
    n = len(at)
    return pl.DataFrame(
        {"at": at, "kind": np.full(n, int(kind)), "user": user, "host": host, "room": room, "count": np.ones(n),
         "value": np.zeros(n), "aux": aux}
    ).cast(pl.Schema(FACT_SCHEMA))  # fmt: skip


@pytest.fixture(scope="module")
def market() -> Market:
    return Market()


@pytest.fixture(scope="module")
def learnt(market: Market) -> LearntDemand:
    later = (DAYS - 6) * DAY
    logged = LoggedTies(market.ties, market.rows, market.rooms, market.facts, later, DAYS * US_PER_DAY)
    return learn_demand(logged, N_HOSTS, CONFIG)


def test_planted_demand_of_every_host_is_found(market: Market, learnt: LearntDemand) -> None:
    """Also what sets hosts apart beyond the features of their ties, and the orders a buyer places."""
    assert learnt.demand is not None and [stage.status for stage in learnt.stages] == ["passed", "passed"]
    today = market.rows[: N_HOSTS * EACH].T.astype(np.float64)
    host = np.repeat(np.arange(N_HOSTS), EACH)
    planted = np.bincount(host, market.chance)
    of = learnt.demand.of
    said = {name: q.of_hosts(np.bincount(host, q.per_tie_of(today))) for name, q in of.items()}
    assert np.abs(said["viewers"] / planted - 1.0).mean() < 0.08
    np.testing.assert_allclose(said["viewers"], planted, rtol=0.3)
    assert said["viewers"].sum() == pytest.approx(planted.sum(), rel=0.03)
    assert said["buyers"].sum() == pytest.approx(0.3 * planted.sum(), rel=0.06)
    assert of["orders"].per_tie == pytest.approx(2.0)
    np.testing.assert_allclose(said["orders"], 2.0 * said["buyers"])
    assert (
        learnt.reports["viewers"].ece < 0.1 * learnt.reports["viewers"].base_rate + learnt.reports["viewers"].ece_chance
    )


def test_intervals_hold_as_often_as_they_say(market: Market, learnt: LearntDemand) -> None:
    assert learnt.demand is not None
    rng = np.random.default_rng(9)
    host = np.repeat(np.arange(N_HOSTS), EACH)
    quantity = learnt.demand.of["viewers"]
    today = market.rows[: N_HOSTS * EACH].T.astype(np.float64)
    said = with_interval("v", quantity.of_hosts(np.bincount(host, quantity.per_tie_of(today))), quantity.shape)
    seen = [np.bincount(host, rng.random(len(host)) < market.chance) for _ in range(200)]
    inside = np.mean([(total >= said["v_low"]) & (total <= said["v_high"]) for total in seen])
    assert 0.88 <= inside <= 0.99


def test_a_demand_is_read_back_as_it_was_written(market: Market, learnt: LearntDemand) -> None:
    assert learnt.demand is not None
    again = Demand.from_arrays(learnt.demand.heads(), learnt.demand.arrays())
    values = market.rows[:50].T.astype(np.float64)
    for name, quantity in learnt.demand.of.items():
        np.testing.assert_array_equal(again.of[name].per_tie_of(values), quantity.per_tie_of(values))
        np.testing.assert_array_equal(again.of[name].ratio, quantity.ratio)
        assert again.of[name].shape == quantity.shape


def test_without_orders_only_viewers_are_expected_and_the_stage_says_why(market: Market) -> None:
    entries = market.facts.filter(pl.col("kind") == int(FactKind.ENTRY))
    logged = LoggedTies(market.ties, market.rows, market.rooms, entries, 10 * DAY, DAYS * DAY)
    found = learn_demand(logged, N_HOSTS, CONFIG)
    assert found.demand is not None and list(found.demand.of) == ["viewers"]
    assert [(s.name, s.status) for s in found.stages] == [("demand viewers", "passed"), ("demand buyers", "skipped")]
    assert "order" in found.stages[1].why


def test_a_broadcast_asked_about_twice_counts_once() -> None:
    """And hosts that are alike are not set apart by noise, hosts that differ are."""
    rng = np.random.default_rng(0)
    host, said = np.repeat(np.arange(200), 10), np.full(2000, 4.0)
    alike = host_ratios(host, said, rng.poisson(4.0, 2000).astype(float), 200)
    assert np.abs(alike - 1.0).max() < 0.1
    planted = rng.gamma(4.0, 0.25, 200)
    apart = host_ratios(host, said, rng.poisson(4.0 * planted[host]).astype(float), 200)
    assert np.corrcoef(apart, planted)[0, 1] > 0.9
    means = rng.gamma(5.0, 20.0 / 5.0, 4000)
    assert 4.0 < gamma_shape(np.full(4000, 20.0), rng.poisson(means).astype(float)) < 6.0


def told() -> tuple[Scene, pl.DataFrame, pl.DataFrame]:
    """Host 0 is on air on three days, host 1 never again; viewer 2 first comes on the second day, 3 on the third."""
    scene = Scene(n_hosts=2)
    come = [(0, 0, 0), (1, 0, 0), (5, 1, 1), (0, 0, 2), (2, 0, 2), (0, 0, 3), (1, 0, 3), (3, 0, 3)]
    start = {0: T0, 1: T0, 2: T0 + DAY, 3: T0 + 2 * DAY}
    hosts = {0: 0, 1: 1, 2: 0, 3: 0}
    rooms = pl.DataFrame({"room": list(start), "host": list(hosts.values()), "started_at": list(start.values())})
    rooms = rooms.with_columns(ended_at=pl.col("started_at") + HOUR)
    facts = []
    for user, host, room in come:
        at = start[room] + 5 * MINUTE
        facts.append((at, int(FactKind.ENTRY), user, host, room, 1, start[room], 0))
        if room < 3:
            if room not in scene.started:
                scene.room(room, host, at=start[room])
            scene.enter(user, room, at)
    facts += [(start[3] + HOUR + 29 * MINUTE, int(FactKind.ORDER_LINE), 1, 0, -1, 1, 500, order) for order in (7, 8)]
    return scene, rooms, pl.DataFrame(facts, schema=FACT_SCHEMA, orient="row")


def test_totals_of_broadcasts_count_those_who_had_a_tie() -> None:
    _, rooms, facts = told()
    cut, end = T0 + 2 * DAY - HOUR, T0 + 3 * DAY
    upcoming = next_broadcasts(rooms, cut, end)
    assert upcoming["room"].to_list() == [3], "host 1 has no next broadcast"
    assert not len(next_broadcasts(rooms, cut, T0 + 2 * DAY + HOUR + MINUTE)), "the half hour after it is not over"
    assert returning_totals(upcoming, facts, cut).rows() == [(0, 3, 2, 1, 2)], "viewer 3 is new"
    last = last_broadcasts(rooms, facts.filter(pl.col("at") < cut), cut)
    assert last.rows() == [(0, 0.5, 0.0, 0.0), (1, 0.0, 0.0, 0.0)], "nobody had a tie at first; then viewer 0 came back"


def test_every_tie_of_a_host_is_in_its_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a chance of a quarter said of every tie, a host with three ties expects three quarters of a viewer."""
    scene, rooms, facts = told()
    always = IsotonicMap(np.array([0.0, 1.0]), np.array([0.25, 0.25]))
    head = StrengthHead("returns", AdditiveModel((), (), (), (), 0.0).bound_to(TIE_FEATURES), always, float("nan"))
    cut = T0 + 2 * DAY - HOUR
    scene.world.models.demand = Demand({"viewers": Quantity(head, 1.0, np.array([2.0]), 1e6)})
    found = expected_demand(scene.world, scene.world.models.demand, np.arange(9), cut)
    assert found.select("host", "ties", "viewers").rows() == [(0, 3, 1.5), (1, 1, 0.25)]
    assert found["viewers_low"][0] == 0.0 and found["viewers_high"][0] == 4.0, "a Poisson of 1.5"
    after = facts.tail(1).with_columns(at=pl.lit(T0 + 4 * DAY))
    judged = judged_demand(scene.world, 9, rooms, pl.concat([facts, after]), cut, seed=0)
    assert "skipped" in judged[0] and "1 hosts" in judged[0]["skipped"]
    monkeypatch.setattr("training.broadcasts.LEAST_HOSTS", 1)
    monkeypatch.setattr("training.broadcasts.DECILES", 1)
    seen = judged_demand(scene.world, 9, rooms, pl.concat([facts, after]), cut, seed=0)[0]
    assert (seen["hosts"], seen["expected"], seen["observed"], seen["last"]) == (1, 1.5, 2.0, 0.5)


def test_figures_of_a_forecast_that_knows_the_means() -> None:
    rng = np.random.default_rng(4)
    means = rng.gamma(1.0, 8.0, 400)
    said = with_interval("v", means, 1e6)
    found = figures(means, rng.poisson(means).astype(float), rng.poisson(means) + rng.normal(0.0, 6.0, 400),
                    said["v_low"], said["v_high"], seed=0)  # fmt: skip
    assert found["ratio_low"] < 1.0 < found["ratio_high"] and found["ratio_high"] - found["ratio_low"] < 0.1
    assert found["gain_low"] > 0.0 and found["rank_correlation"] > found["rank_correlation_last"] > 0.5
    assert 0.87 < found["covered"] <= 1.0 and found["error"] < found["error_last"]
    assert sum(part["n"] for part in found["deciles"]) == 400
