"""Heads learnt from planted ties: what is there is found and calibrated, what is not there is not served."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from recsys.config import EngineConfig, HeadsConfig, StrengthConfig
from recsys.events.facts import FACT_SCHEMA, US_PER_DAY, FactKind
from recsys.models.strength import HEADS, StrengthHead, heads_say, strength_head
from recsys.ties.features import TIE_FEATURES
from training.bond import BINDS
from training.heads import LearntHeads, learn_heads, learn_horizon_head
from training.labels import LoggedTies

HOUR = US_PER_DAY // 24
CONFIG = EngineConfig(strength=StrengthConfig(rounds=15), heads=HeadsConfig(rounds=15))
N_HOSTS, DAYS, PER_DAY = 20, 40, 250
AS_OF = DAYS * US_PER_DAY
LATER = 24 * US_PER_DAY


class Market:
    """Every day at noon 250 ties are written down; every evening each host is on air and what is planted happens.

    A viewer comes with 0.1 + 0.6 · attendance, and of those who came a share buys that rises with the orders before;
    comments fall from the sky. From day 30 on only `later_share` of them come. Each tie is asked once.
    """

    def __init__(self, later_share: float = 1.0) -> None:
        rng = np.random.default_rng(5)
        n = DAYS * PER_DAY
        day = np.repeat(np.arange(DAYS), PER_DAY)
        self.rows = np.full((n, len(TIE_FEATURES)), np.nan, dtype=np.float32)
        attendance, orders = rng.random(n), rng.integers(0, 4, n)
        self.rows[:, TIE_FEATURES.index("tie_attendance")] = attendance
        self.rows[:, TIE_FEATURES.index("tie_order_lines")] = orders
        self.rows[:, TIE_FEATURES.index("tie_hour_match")] = rng.random(n)
        host = rng.integers(0, N_HOSTS, n)
        at = day * US_PER_DAY + 12 * HOUR
        self.chance = (0.1 + 0.6 * attendance) * np.where(day < 30, 1.0, later_share)
        came = rng.random(n) < self.chance
        buys = came & (rng.random(n) < 0.05 + 0.2 * orders)
        comments = rng.random(n) < 0.2
        away = rng.random(n) < 0.02 + 0.1 * (orders == 0)
        start = day * US_PER_DAY + 20 * HOUR
        room = day * N_HOSTS + host
        parts = [
            self._facts(came, FactKind.ENTRY, start + HOUR // 2, room, host),
            self._facts(buys, FactKind.ORDER_LINE, start + HOUR, room, host),
            self._facts(comments, FactKind.COMMENT, start + HOUR, room, host),
            self._facts(away, FactKind.UNFOLLOW, at + US_PER_DAY, np.full(n, -1), host),
        ]
        self.facts = pl.concat(parts).sort(list(FACT_SCHEMA))
        self.ties = pl.DataFrame(
            {"user": np.arange(n), "host": host, "at": at, "tied": np.full(n, True), "weight": np.ones(n)}
        )
        rooms = np.arange(DAYS * N_HOSTS)
        begin = rooms // N_HOSTS * US_PER_DAY + 20 * HOUR
        self.rooms = pl.DataFrame(
            {"room": rooms, "host": rooms % N_HOSTS, "started_at": begin, "ended_at": begin + 2 * HOUR}
        )

    def logged(self) -> LoggedTies:
        return LoggedTies(self.ties, self.rows, self.rooms, self.facts, LATER, AS_OF)

    @staticmethod
    def _facts(
        happened: np.ndarray, kind: FactKind, at: np.ndarray, room: np.ndarray, host: np.ndarray
    ) -> pl.DataFrame:
        which = np.flatnonzero(happened)
        n = len(which)
        return pl.DataFrame(
            {"at": at[which], "kind": np.full(n, int(kind)), "user": which, "host": host[which], "room": room[which],
             "count": np.ones(n), "value": np.zeros(n), "aux": which},
        ).cast(pl.Schema(FACT_SCHEMA))  # fmt: skip


@pytest.fixture(scope="module")
def market() -> Market:
    return Market()


@pytest.fixture(scope="module")
def learnt(market: Market) -> LearntHeads:
    found = learn_heads(market.logged(), CONFIG)
    learn_horizon_head(found, "turns_away", market.ties, market.rows, market.facts, AS_OF, AS_OF, CONFIG)
    learn_horizon_head(found, "rebuys", market.ties, market.rows, market.facts, AS_OF, AS_OF, CONFIG)
    return found


def test_what_is_planted_is_found_and_calibrated(market: Market, learnt: LearntHeads) -> None:
    said = learnt.heads["returns"].probability(market.rows.T.astype(np.float64))
    assert np.abs(said - market.chance).mean() < 0.04
    for name in ("returns", "buys", "turns_away"):
        report = learnt.reports[name]
        assert report.skill_low > 0.02 and report.auc > 0.6 and report.worth_serving, name


def test_noise_is_not_served_and_says_why(learnt: LearntHeads) -> None:
    stages = {stage.name: stage for stage in learnt.stages}
    assert "comments" not in learnt.heads and abs(learnt.reports["comments"].auc - 0.5) < 0.05
    assert stages["head comments"].status == "failed" and "not served" in stages["head comments"].why


def test_heads_without_events_or_time_are_skipped_by_name(learnt: LearntHeads) -> None:
    stages = {stage.name: stage for stage in learnt.stages}
    assert set(stages) == {"strength", *(f"head {name}" for name in HEADS if name != "strength")}
    for name, words in (("stays", "left_at"), ("lingers", "left_at"), ("rebuys", "do not fit twice into 40.0 days")):
        assert stages[f"head {name}"].status == "skipped" and words in stages[f"head {name}"].why


def test_strength_is_calibrated_on_what_binds_and_more_of_it_never_weakens_a_tie(market: Market) -> None:
    """What decides shows in the entries; what the feed shows, and when the last visit was, is not read."""
    rows = market.rows.copy()
    rows[:, TIE_FEATURES.index("tie_entries")] = np.round(20 * market.chance)
    rows[:, TIE_FEATURES.index("tie_impressions_7d")] = market.chance
    found = learn_heads(replace(market.logged(), rows=rows), CONFIG)
    head = found.heads["strength"]
    assert np.abs(head.probability(rows.T.astype(np.float64)) - market.chance).mean() < 0.05
    assert set(head.model.features) <= set(BINDS) and not head.model.pairs
    ladder = np.full((len(TIE_FEATURES), 15), np.nan)
    ladder[TIE_FEATURES.index("tie_entries")] = np.arange(15)
    said = head.probability(ladder)
    assert (np.diff(said[2:14]) > 0).all() and (np.diff(said) >= 0).all()


def test_strength_is_at_the_level_of_now_where_the_rate_drifts() -> None:
    """For ten days half as many come: the mean of a longer stretch says too much, the newest days do not."""
    market = Market(later_share=0.5)
    found = learn_heads(market.logged(), CONFIG)
    at = market.ties["at"].to_numpy()
    newest = at >= AS_OF - 3 * US_PER_DAY
    said = found.heads["strength"].probability(market.rows[newest].T.astype(np.float64)).mean()
    true, of_calibration = market.chance[newest].mean(), market.chance[at >= LATER].mean()
    assert abs(said - true) < 0.6 * (of_calibration - true), "nearer than the mean of the later days"


def test_the_strength_of_an_older_bundle_is_its_head_returns(learnt: LearntHeads) -> None:
    assert strength_head(learnt.heads) is learnt.heads["strength"]
    assert strength_head({"returns": learnt.heads["returns"]}) is learnt.heads["returns"]
    assert strength_head({}) is None


def test_metrics_and_documents_hold_every_judged_head(learnt: LearntHeads) -> None:
    metrics = learnt.metrics()
    assert metrics["strength_ece"] == metrics["head_strength_ece"]
    assert metrics["strength_ece_beyond_chance"] == max(
        0.0, metrics["strength_ece"] - metrics["head_strength_ece_chance"]
    )
    for document in learnt.documents():
        assert sum(part["n"] for part in document["reliability"]) == document["rows"] and document["means"]
        assert metrics[f"head_{document['head']}_auc"] == document["auc"]


def test_a_tie_logged_for_many_counts_as_many(market: Market) -> None:
    """Half of the ties never come and stand for nine each: the rates said are those of all, not of the sample."""
    silent = market.ties.with_columns(user=pl.col("user") + 10**6, weight=pl.lit(9.0))
    ties = pl.concat([market.ties, silent])
    rows = np.concatenate([market.rows, market.rows])
    entries = market.facts.filter(pl.col("kind") == int(FactKind.ENTRY))
    found = learn_heads(replace(market.logged(), ties=ties, rows=rows, facts=entries), CONFIG)
    said = found.heads["returns"].probability(market.rows.T.astype(np.float64)).mean()
    assert said == pytest.approx(market.chance.mean() / 10, rel=0.15)


def test_few_ties_or_hardly_any_event_is_not_enough(market: Market) -> None:
    few = np.arange(len(market.rows)) % 40 == 0
    found = learn_heads(
        replace(market.logged(), ties=market.ties.filter(pl.Series(few)), rows=market.rows[few]), CONFIG
    )
    assert not found.heads and all(stage.status == "skipped" and stage.why for stage in found.stages)


def test_what_a_head_says_of_strangers_and_of_those_it_does_not_speak_of(learnt: LearntHeads) -> None:
    values = np.full((len(TIE_FEATURES), 3), np.nan)
    values[TIE_FEATURES.index("tie_order_lines"), 2] = 3
    values[TIE_FEATURES.index("tie_attendance"), 1:] = 0.5
    known, where = values[:, 1:], np.array([1, 2])
    model, map_ = learnt.heads["buys"].model, learnt.heads["buys"].calibration
    plain = heads_say({"buys": StrengthHead("buys", model, map_, 0.01)}, known, where, 3)["buys"]
    assert plain[0] == 0.01 and plain[2] > plain[1] > 0
    again = heads_say({"rebuys": StrengthHead("rebuys", model, map_, float("nan"))}, known, where, 3)["rebuys"]
    assert np.isnan(again).tolist() == [True, True, False] and again[2] == plain[2]
    together = heads_say(learnt.heads, known, where, 3)
    for name, head in learnt.heads.items():
        np.testing.assert_allclose(together[name][where], head.probability(known), rtol=1e-12, err_msg=name)
