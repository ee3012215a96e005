"""The pipeline on worlds told by hand: who is shown, in what order, with which story."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.config import EngineConfig, load_config
from recsys.events.facts import FactKind
from recsys.ids import Vocabulary
from recsys.models.additive import AdditiveModel, PairTerm
from recsys.models.baselines import PriorRanker
from recsys.models.suite import Viewer
from recsys.pipeline.breakdown import COHOST_TERM
from recsys.pipeline.features import FEATURES, feature_table
from recsys.pipeline.filters import filtered
from recsys.pipeline.heat import Heat
from recsys.pipeline.request import SOURCES, Outcome, Request, Source
from recsys.pipeline.scoring import NOTHING_FINITE
from recsys.pipeline.sources import candidates
from recsys.ties.algebra import decay_to
from tests.small_world import DAY, HOUR, MINUTE, T0, Scene, outcomes_of

NOW = T0 + 6 * HOUR
VIEWER, BUSY = 0, 1


def crowded(n_hosts: int = 40, **settings: Any) -> Scene:
    """Every host on air; the hosts with higher rows have more entries by others."""
    scene = Scene(n_hosts, load_config(None, settings) if settings else EngineConfig())
    for host in range(n_hosts):
        scene.room(host, host, T0 + host)
    for host in range(n_hosts):
        for i in range(host):
            scene.enter(10 + i, host, T0 + HOUR + i * MINUTE)
    return scene


def sources_of(answer: Any) -> dict[int, Source]:
    return {int(room): SOURCES[code] for room, code in zip(answer.rooms, answer.sources, strict=True)}


def test_a_stronger_tie_ranks_higher() -> None:
    scene = crowded(4).follow(VIEWER, 1).buy(VIEWER, 1, T0 + HOUR).follow(VIEWER, 0)
    assert scene.ask(VIEWER, NOW).rooms.tolist()[:2] == [1, 0]


def test_the_private_domain_is_complete() -> None:
    """Followed, bought from, and both as guests in rooms of strangers: all are candidates, and shown when k allows."""
    scene = Scene(200, load_config(None, {"pipeline.sources.popular": 3, "pipeline.sources.newcomers": 0}))
    for host in range(150):
        scene.room(host, host, T0 + host)
    followed, bought = range(60), range(60, 90)
    for host in followed:
        scene.follow(VIEWER, host)
    for host in bought:
        scene.buy(VIEWER, host, T0 + HOUR)
    scene.follow(VIEWER, 190).buy(VIEWER, 191, T0 + HOUR)
    scene.room(500, 120, T0 + HOUR, cohosts=(190,)).room(501, 121, T0 + HOUR, cohosts=(7, 191))
    private = {*followed, *bought, 500, 501}
    few, all_of_them = scene.ask(VIEWER, NOW, k=5), scene.ask(VIEWER, NOW, k=100)
    assert private <= set(few.candidates.tolist())
    assert private <= set(all_of_them.rooms.tolist())
    found = sources_of(all_of_them)
    assert {room for room, source in found.items() if source is Source.PRIVATE} == {*followed, *bought}
    assert {room for room, source in found.items() if source is Source.COHOST} == {500, 501}


def test_unfollowed_is_no_private_domain_any_more_and_visited_never_was() -> None:
    scene = crowded(4).follow(VIEWER, 1).fact(T0 + 1, FactKind.UNFOLLOW, VIEWER, 1).enter(VIEWER, 2, T0 + HOUR)
    found = sources_of(scene.ask(VIEWER, NOW))
    assert found[1] is not Source.PRIVATE
    assert found[2] is Source.VISITED


@pytest.mark.parametrize("named", [False, True])
def test_blocked_hosts_are_never_shown(named: bool) -> None:
    scene = crowded(6).follow(VIEWER, 3).buy(VIEWER, 3, T0 + HOUR).enter(VIEWER, 3, T0 + HOUR).block(VIEWER, 3, T0 + 2)
    rooms = [0, 3, 5] if named else None
    answer = scene.ask(VIEWER, NOW, rooms=rooms)
    assert 3 not in answer.rooms and len(answer) == (2 if named else 5)
    assert outcomes_of(answer)[3] == Outcome.FILTERED_BLOCKED
    scene.fact(T0 + 3 * HOUR, FactKind.UNBLOCK, VIEWER, 3)
    assert 3 in scene.ask(VIEWER, NOW, rooms=rooms).rooms
    assert 3 in scene.ask(BUSY, NOW, rooms=rooms).rooms


def test_a_blocked_guest_neither_brings_nor_lifts_a_room() -> None:
    scene = Scene(6).room(0, 0).room(1, 1, cohosts=(2,)).room(2, 3)
    scene.room(9, 2, T0 + 1).enter(VIEWER, 9, T0 + HOUR).end(9, T0 + 2 * HOUR)
    lifted = scene.ask(VIEWER, NOW)
    assert lifted.rooms[0] == 1 and lifted.reasons[0][0] == "a host you know is a guest"
    scene.block(VIEWER, 2, T0 + 3 * HOUR)
    answer = scene.ask(VIEWER, NOW)
    assert Source.COHOST not in sources_of(answer).values()
    position = answer.rooms.tolist().index(1)
    assert answer.hosts[position] == 1
    assert "a host you know is a guest" not in answer.reasons[position]


def test_a_guest_known_well_lifts_the_room_less_than_her_own_would() -> None:
    scene = Scene(6).room(0, 0).room(1, 1, cohosts=(2,)).room(2, 2)
    for _ in range(5):
        scene.buy(VIEWER, 2, T0 + HOUR)
    answer = scene.ask(VIEWER, NOW)
    assert answer.rooms.tolist() == [2, 1, 0]
    terms = dict(zip(answer.feature_names, answer.contributions[1], strict=True))
    assert terms[COHOST_TERM] == pytest.approx(np.log(0.5))
    assert answer.strength[1] <= answer.strength[0]


@pytest.mark.parametrize("k", [1, 7, 39, 40, 60])
@pytest.mark.parametrize("user", [-1, VIEWER, 12])
def test_k_rooms_while_k_are_eligible(k: int, user: int) -> None:
    scene = crowded(40, **{"pipeline.sources.popular": 5, "pipeline.sources.newcomers": 2})
    answer = scene.ask(user, NOW, k=k)
    assert len(answer) == min(k, 40) == len(set(answer.rooms.tolist()))
    assert (answer.short_why is None) == (k <= 40)


def test_k_rooms_although_most_are_filtered() -> None:
    scene = crowded(40, **{"pipeline.sources.popular": 5, "pipeline.sources.newcomers": 0})
    answer = scene.ask(VIEWER, NOW, k=10, exclude=list(range(20, 40)))
    assert len(answer) == 10 and answer.rooms.max() < 20
    scene.room(77, 3, T0 + HOUR, category="tea")
    assert scene.ask(VIEWER, NOW, k=3, category="tea").rooms.tolist() == [77]


def test_every_candidate_has_one_end() -> None:
    scene = crowded(30).follow(VIEWER, 2).block(VIEWER, 29).enter(VIEWER, 29, T0 + HOUR)
    answer = scene.ask(VIEWER, NOW, k=5, exclude=[28])
    ends = outcomes_of(answer)
    assert {room for room, end in ends.items() if end == Outcome.SHOWN} == set(answer.rooms.tolist())
    assert ends[29] == Outcome.FILTERED_BLOCKED and ends[28] == Outcome.FILTERED_EXCLUDED
    assert sum(end == Outcome.NOT_SELECTED for end in ends.values()) == len(ends) - 5 - 2
    assert answer.stage_counts["candidates"] == len(ends)


def test_contributions_add_up_to_the_score() -> None:
    scene = crowded(12).follow(VIEWER, 2).enter(VIEWER, 5, T0 + HOUR).room(99, 1, cohosts=(2, 5))
    answer = scene.ask(VIEWER, NOW)
    np.testing.assert_allclose(answer.bias + answer.contributions.sum(axis=1), answer.score, atol=1e-6)
    assert (answer.strength >= 0).all() and (answer.strength <= 1).all()


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
                np.testing.assert_array_equal(values[f"{level}_{name}"], rate)
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


def test_reserved_places_never_displace_the_private_domain() -> None:
    """k = 20 has one reserved place. Hosts 0 … are newcomers; the well-visited ones fill the answer."""
    scene = Scene(60)
    for host in range(60):
        scene.room(host, host, T0 + host)
    for host in range(10, 60):
        for user in range(10, 35):
            scene.enter(user, host, T0 + HOUR)
    stranger = scene.ask(-1, NOW, k=20)
    assert stranger.reserved.sum() == 1 and stranger.reserved[-1] and stranger.rooms[-1] < 10
    assert stranger.reasons[-1] == ["place reserved for new hosts"]
    for host in range(10, 30):
        scene.follow(VIEWER, host)
    fan = scene.ask(VIEWER, NOW, k=20)
    assert set(fan.rooms.tolist()) == set(range(10, 30)) and not fan.reserved.any()
    scene.fact(T0 + 2 * HOUR, FactKind.UNFOLLOW, VIEWER, 10)
    fan = scene.ask(VIEWER, NOW, k=20)
    assert set(range(11, 30)) <= set(fan.rooms.tolist()) and fan.reserved.sum() == 1


def test_without_explore_share_no_place_is_reserved() -> None:
    scene = crowded(60, **{"pipeline.explore_share": 0.0})
    assert not scene.ask(-1, NOW, k=20).reserved.any()


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


def test_requested_rooms_are_ranked_whether_live_or_not_and_keep_second_rooms() -> None:
    scene = crowded(4).room(50, 2, T0 + HOUR).end(1, T0 + 2 * HOUR).follow(VIEWER, 2)
    answer = scene.ask(VIEWER, NOW, rooms=[3, 1, 50, 2, 2])
    assert sorted(answer.rooms.tolist()) == [1, 2, 3, 50]
    assert answer.hosts[:2].tolist() == [2, 2]
    assert 1 not in scene.ask(VIEWER, NOW).rooms


def test_a_room_announced_for_a_host_nobody_has_heard_of_can_be_ranked() -> None:
    """A request may name a room before any fact speaks of its host: its rows are there once it is registered."""
    scene = crowded(4)
    row = {"room": [4000], "host": [900], "cohosts": [[1200]], "started_at": [NOW + 1], "category": [None]}
    scene.live.register_rooms(pl.DataFrame(row))
    assert sorted(scene.ask(VIEWER, NOW, rooms=[4000, 1]).rooms.tolist()) == [1, 4000]


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


def test_newcomers_take_turns() -> None:
    """Each request brings as many as asked for, distinct, and not always the same."""
    scene = Scene(60, load_config(None, {"pipeline.sources.popular": 0, "pipeline.sources.newcomers": 7}))
    for host in range(60):
        scene.room(host, host, T0 + host)
    brought = [frozenset(scene.ask(user, NOW, k=1).candidates.tolist()) for user in range(20, 40)]
    assert {len(rooms) for rooms in brought} == {7}
    assert len(set(brought)) > 15 and len(frozenset().union(*brought)) > 50
    assert brought[0] == frozenset(scene.ask(20, NOW, k=1).candidates.tolist())


def test_a_room_that_ended_after_the_snapshot_is_filtered() -> None:
    scene = crowded(6)
    epoch, request = scene.world.index.publish(), Request(VIEWER, NOW, 3)
    viewer = scene.world.models.viewer(scene.world.ties, scene.world.blocks, VIEWER, 6, NOW)
    found = candidates(scene.world, epoch, request, viewer)
    assert filtered(scene.world, epoch, request, found).removed == []
    scene.end(4, NOW - 1)
    kept, removed = filtered(scene.world, epoch, request, found)
    assert 4 not in kept.rooms and [(why, rows.tolist()) for why, rows in removed] == [(Outcome.FILTERED_NOT_LIVE, [4])]


def test_nothing_live_is_an_answer() -> None:
    answer = Scene(3).ask(VIEWER, NOW)
    assert len(answer) == 0 and answer.short_why == "no room is live"


def test_no_bid_can_enter_the_score() -> None:
    """No feature is named after money the host pays, and a price, a bid or a budget of a room has nowhere to go."""
    bought = ("bid", "ecpm", "cpm", "cpc", "budget", "commission", "paid", "ad_", "sponsor", "promot")
    assert [name for name in FEATURES for word in bought if word in name] == []
    assert isinstance(crowded(2).world.models.ranker, PriorRanker)


def test_only_facts_before_the_request_count() -> None:
    """The same request gives the same answer however often it is asked: asking changes nothing."""
    scene = crowded(12).follow(VIEWER, 2)
    first = scene.ask(VIEWER, NOW)
    scene.ask(BUSY, NOW)
    again = scene.ask(VIEWER, NOW)
    assert replace(first, reasons=[]).rooms.tolist() == again.rooms.tolist()
    np.testing.assert_array_equal(first.score, again.score)
