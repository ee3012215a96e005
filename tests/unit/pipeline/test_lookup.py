"""The pipeline on worlds told by hand: who is shown, who is not, and where from."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.config import load_config
from recsys.events.facts import FactKind
from recsys.models.additive import AdditiveModel
from recsys.models.calibration import IsotonicMap
from recsys.models.strength import STRENGTH, StrengthHead
from recsys.pipeline.breakdown import COHOST_TERM
from recsys.pipeline.filters import filtered
from recsys.pipeline.request import SOURCES, Outcome, Request, Source
from recsys.pipeline.sources import NEWCOMER_VISITORS, candidates, propensities
from recsys.ties.features import TIE_FEATURES
from tests.small_world import HOUR, T0, Scene, outcomes_of
from tests.unit.pipeline.crowded_scene import BUSY, NOW, VIEWER, crowded


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
    always = IsotonicMap(np.array([0.0, 1.0]), np.array([0.6, 0.6]))
    said = AdditiveModel((), (), (), (), 0.0).bound_to(TIE_FEATURES)
    scene.world.models.strength[STRENGTH] = StrengthHead(STRENGTH, said, always, 0.1)
    answer = scene.ask(VIEWER, NOW)
    assert answer.rooms.tolist() == [2, 1, 0]
    terms = dict(zip(answer.feature_names, answer.contributions[1], strict=True))
    assert terms[COHOST_TERM] == pytest.approx(np.log(0.5))
    assert answer.strengths() == pytest.approx([0.6, 0.3, 0.1])


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


def test_propensity_is_the_chance_of_the_draw() -> None:
    """60 newcomers, of whom 20 are drawn for each viewer: a third is each one's chance and how often he is brought."""
    scene = Scene(80, load_config(None, {"pipeline.sources.popular": 20, "pipeline.sources.newcomers": 20}))
    for host in range(80):
        scene.room(host, host, T0 + host)
    for host in range(60, 80):
        for user in range(10, 35):
            scene.enter(user, host, T0 + HOUR)
    brought = np.zeros(80)
    for viewer in range(600):
        answer = scene.ask(1_000 + viewer, NOW, k=20)
        drawn = answer.sources == SOURCES.index(Source.NEWCOMER)
        assert (answer.propensity[drawn] == 1 / 3).all() and (answer.propensity[~drawn] == 1).all()
        assert drawn[answer.reserved].all() and answer.reserved.sum() == 1
        brought[[room for room in answer.candidates.tolist() if room < 60]] += 1
    assert brought[:60].sum() == 600 * 20
    assert brought[:60].min() > 120 and brought[:60].max() < 280, "200 on average"
    few = scene.ask(VIEWER, NOW, k=20, exclude=list(range(15, 60)))
    assert set(few.propensity.tolist()) <= {1.0, 1 / 3}


def test_who_needs_no_draw_comes_with_certainty() -> None:
    scene = Scene(30, load_config(None, {"pipeline.sources.popular": 5, "pipeline.sources.newcomers": 20}))
    for host in range(30):
        scene.room(host, host, T0 + host)
    for host in range(12, 30):
        for user in range(10, 35):
            scene.enter(user, host, T0 + HOUR)
    answer = scene.ask(VIEWER, NOW, k=10)
    assert (answer.sources == SOURCES.index(Source.NEWCOMER)).any() and (answer.propensity == 1).all()


def test_without_explore_share_no_place_is_reserved() -> None:
    scene = crowded(60, **{"pipeline.explore_share": 0.0})
    assert not scene.ask(-1, NOW, k=20).reserved.any()


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
    assert filtered(scene.world, epoch, request, viewer, found).removed == []
    scene.end(4, NOW - 1)
    kept, removed = filtered(scene.world, epoch, request, viewer, found)
    assert 4 not in kept.rooms and [(why, rows.tolist()) for why, rows in removed] == [(Outcome.FILTERED_NOT_LIVE, [4])]


def test_nothing_live_is_an_answer() -> None:
    answer = Scene(3).ask(VIEWER, NOW)
    assert len(answer) == 0 and answer.short_why == "no room is live"


def test_asking_changes_nothing() -> None:
    """The same request gives the same answer however often it is asked, whoever asks in between."""
    scene = crowded(12).follow(VIEWER, 2)
    first = scene.ask(VIEWER, NOW)
    scene.ask(BUSY, NOW)
    again = scene.ask(VIEWER, NOW)
    assert first.rooms.tolist() == again.rooms.tolist() and first.reasons == again.reasons
    np.testing.assert_array_equal(first.score, again.score)


def test_the_chance_of_the_draw_is_that_of_the_rooms_on_air_now() -> None:
    scene = Scene(40, load_config(None, {"pipeline.sources.newcomers": 6}))
    for room in range(40):
        scene.room(room, room, T0 + room)
    drawn = np.array([SOURCES.index(Source.NEWCOMER), SOURCES.index(Source.POPULAR)], dtype=np.int8)

    def chances() -> list[float]:
        world = scene.world
        return [propensities(world, world.index.publish(), drawn).tolist() for _ in range(2)][1]

    assert chances() == [6 / 40, 1.0]
    for user in range(NEWCOMER_VISITORS):
        scene.enter(user, 3, T0 + HOUR + user)
    assert chances() == [6 / 39, 1.0], "a host has ceased to be a newcomer"
    scene.end(9, T0 + 2 * HOUR)
    assert chances() == [6 / 38, 1.0], "a room is over"
    scene.live.forget_user(0)
    assert chances() == [6 / 39, 1.0], "a visitor was erased: the host is a newcomer again"
