"""Scores, the order they give and the reasons in words, on worlds told by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.events.facts import FactKind
from recsys.ids import Vocabulary
from recsys.models.additive import AdditiveModel, PairTerm
from recsys.models.baselines import PriorRanker
from recsys.models.suite import Viewer
from recsys.pipeline.features import FEATURES, feature_table
from recsys.pipeline.heat import Heat
from recsys.pipeline.scoring import NOTHING_FINITE
from recsys.ties.algebra import decay_to
from tests.small_world import DAY, HOUR, MINUTE, T0, Scene
from tests.unit.pipeline.crowded_scene import BUSY, NOW, VIEWER, crowded


def test_contributions_add_up_to_the_score() -> None:
    scene = crowded(12).follow(VIEWER, 2).enter(VIEWER, 5, T0 + HOUR).room(99, 1, cohosts=(2, 5))
    answer = scene.ask(VIEWER, NOW)
    np.testing.assert_allclose(answer.bias + answer.contributions.sum(axis=1), answer.score, atol=1e-6)


def test_strength_that_nobody_trained_is_no_number() -> None:
    answer = crowded(12).follow(VIEWER, 2).ask(VIEWER, NOW)
    assert len(answer) == 12 and answer.strengths() == [None] * 12


def test_every_rate_stands_under_its_window() -> None:
    scene = crowded(9)
    world, hosts = scene.world, np.arange(9)
    values = dict(zip(FEATURES, feature_table(world, -1, viewer_of(scene, -1), hosts, hosts, NOW).values, strict=True))
    for level, block, rows in (
        ("host", world.blocks.host, world.hosts.rows),
        ("room", world.blocks.room, world.moments.rows),
    ):
        decayed = dict(zip(block.decays, decay_to(block, rows, NOW)[:9].T, strict=True))
        rates = {name: rate for name, rate in decayed.items() if name.startswith("entries")}
        assert len(rates) > 2
        for name, rate in rates.items():
            if f"{level}_{name}" in values:
                np.testing.assert_allclose(values[f"{level}_{name}"], rate, rtol=1e-15)
            share = (rate + 1e-3) / (rate + 1e-3).sum()
            np.testing.assert_allclose(values[f"{level}_{name}_share"], share, rtol=1e-12)


def viewer_of(scene: Scene, user: int) -> Viewer:
    world = scene.world
    return world.models.viewer(world.ties, world.blocks, user, len(world.standings), NOW)


def test_strangers_are_scored_as_everybody_is() -> None:
    """Candidates without a tie are scored by a smaller model; the numbers are those of the whole one."""
    names, rng = FEATURES, np.random.default_rng(6)
    edges = tuple(np.sort(rng.lognormal(size=5)) for _ in names)
    mains = tuple(rng.normal(size=7) for _ in names)
    pairs = tuple(
        PairTerm(i, j, np.arange(7, dtype=np.int32), np.arange(7, dtype=np.int32), rng.normal(size=(7, 7)))
        for i, j in rng.integers(0, len(names), (300, 2)).tolist()
        if i < j
    )
    scene = crowded(30).follow(VIEWER, 2).enter(VIEWER, 5, T0 + HOUR).room(99, 1, cohosts=(2, 5))
    scene.world.models.ranker = AdditiveModel(names, edges, mains, pairs, 0.5).bound_to(names)
    answer = scene.ask(VIEWER, NOW, k=31)
    assert len(answer) == 31
    np.testing.assert_allclose(answer.bias + answer.contributions.sum(axis=1), answer.score, atol=1e-9)


class BrokenFor:
    """A ranker that fails for hosts of one count of fans: its score is not finite."""

    bias = 0.0
    terms = ("what others say",)

    def __init__(self, wrong: float) -> None:
        self.wrong = wrong

    def contributions(self, values: np.ndarray) -> np.ndarray:
        fans = values[FEATURES.index("host_fans")]
        return np.where(fans > 0, self.wrong, fans)[None, :]

    def score(self, values: np.ndarray) -> np.ndarray:
        return self.contributions(values).sum(axis=0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_sink(wrong: float) -> None:
    scene = crowded(6).follow(BUSY, 2)
    scene.world.models.ranker = BrokenFor(wrong)  # type: ignore[assignment]
    answer = scene.ask(VIEWER, NOW)
    assert answer.rooms[-1] == 2 and answer.score[-1] == NOTHING_FINITE
    assert np.isfinite(answer.score).all()


def test_equal_scores_keep_one_order() -> None:
    """Rooms nothing distinguishes come by room row, in every answer."""
    scene = Scene(8)
    for host in (5, 2, 7, 0):
        scene.room(host, host, T0)
    answers = [scene.ask(-1, NOW).rooms.tolist() for _ in range(3)]
    assert answers == [[0, 2, 5, 7]] * 3
    assert scene.ask(-1, NOW, rooms=[7, 0, 5, 2]).rooms.tolist() == [0, 2, 5, 7]


@pytest.mark.parametrize("known", [0, 3, 8], ids=["all new", "some new", "all of the bundle"])
@pytest.mark.parametrize("kind", [int, str])
def test_equal_scores_go_by_external_id_within_their_run(kind: type, known: int) -> None:
    """Rows depend on who told of a room first, ids do not; unequal scores stay as they are."""
    scene = Scene(8)
    for host in range(8):
        scene.room(host, host, T0)
    for host in (2, 6):
        scene.enter(10, host, T0 + HOUR)
    ids = [kind(100 + place) for place in (9, 4, 1, 7, 0, 3, 2, 8)]
    scene.world.room_ids = Vocabulary()
    if known:
        scene.world.room_ids.extend(pl.Series(ids[:known]))
    for external in ids[known:]:
        scene.world.room_ids.add(external)
    answer = scene.ask(-1, NOW)
    runs = {score: answer.rooms[answer.score == score].tolist() for score in set(answer.score.tolist())}
    assert sorted(map(len, runs.values())) == [2, 6]
    assert [ids[room] for room in runs[answer.score.min()]] == [kind(100 + place) for place in (0, 3, 4, 7, 8, 9)]
    assert [ids[room] for room in runs[answer.score.max()]] == [kind(101), kind(102)]
    assert (np.diff(answer.score) <= 0).all()
    assert scene.ask(-1, NOW, k=3).rooms.tolist() == answer.rooms[:3].tolist()


def test_reasons_in_words() -> None:
    scene = Scene(8)
    for host in range(6):
        scene.room(host, host, T0)
    scene.follow(VIEWER, 0, T0 - 214 * DAY)
    for day in (90, 60, 30, 14, 6):
        scene.buy(VIEWER, 1, T0 - day * DAY)
    scene.enter(VIEWER, 2, T0 + HOUR, stay_min=24)
    scene.fact(T0 + HOUR, FactKind.COMMENT, VIEWER, 3, count=4)
    scene.room(9, 4, T0 + 1, cohosts=(1,))
    answer = scene.ask(VIEWER, T0 + 3 * HOUR)
    said = dict(zip(answer.rooms.tolist(), answer.reasons, strict=True))
    assert said[0] == ["followed 214 days"]
    assert said[1] == ["bought 5 times, last 6 days ago"]
    assert said[2] == ["came once, last 2 hours ago", "stays 24 min"]
    assert said[3] == ["commented 4 times"]
    assert said[9] == ["a host you know is a guest", "bought 5 times, last 6 days ago"]
    assert said[5] in (["many viewers came in the last hour"], ["a new host gets a chance"])
    assert all(said.values()), "every room has a reason"


def test_heat_orders_hosts_as_their_decayed_rates_do() -> None:
    """At any instant, after entries in any order and other facts in between."""
    scene, rng = Scene(30), np.random.default_rng(4)
    for host in range(30):
        scene.room(host, host)
    for minute in range(400):
        host = int(rng.integers(0, 28))
        at = T0 + int(rng.integers(0, 400)) * MINUTE  # late ones too
        scene.fact(at, FactKind.ENTRY, minute % 9, host, host)
        scene.fact(at + 1, FactKind.COMMENT, minute % 9, host, host)
    world, block = scene.world, scene.world.blocks.host
    for at in (T0 + 400 * MINUTE, T0 + 2 * DAY):
        rates = decay_to(block, world.hosts.rows, at)[:30, block.decay_column("entries_30m")]
        assert np.argsort(world.heat.of_host[:30], kind="stable").tolist() == np.argsort(rates, kind="stable").tolist()
        np.testing.assert_allclose(
            world.heat.of_host[:28] - world.heat.of_host[0], np.log2(rates[:28]) - np.log2(rates[0]), atol=1e-6
        )
    assert np.isneginf(world.heat.of_host[28:]).all()
    again = Heat(block, world.hosts.rows).of_host
    np.testing.assert_allclose(again, world.heat.of_host[: len(again)], atol=1e-9)


def test_no_bid_can_enter_the_score() -> None:
    """No feature is named after money the host pays, and a price, a bid or a budget of a room has nowhere to go."""
    bought = ("bid", "ecpm", "cpm", "cpc", "budget", "commission", "paid", "ad_", "sponsor", "promot")
    assert [name for name in FEATURES for word in bought if word in name] == []
    assert isinstance(crowded(2).world.models.ranker, PriorRanker)
