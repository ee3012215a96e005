"""Cold start: what is known of a new viewer, a new host and a new room counts in the very next request."""

from __future__ import annotations

import numpy as np

from recsys.config import EngineConfig, load_config
from recsys.events.facts import FactKind
from recsys.models.baselines import PriorRanker
from recsys.models.factors import HostFactors
from recsys.models.graph import HostGraph
from recsys.models.suite import PERSONAL_FEATURES, Models
from recsys.models.trust import HostTrust
from recsys.models.two_tower import HALF_LIVES_DAYS, TwoTower
from recsys.pipeline.features import FEATURES, feature_table
from recsys.pipeline.request import SOURCES, Request, Source
from recsys.pipeline.sources import candidates
from tests.small_world import HOUR, MINUTE, T0, Scene

NOW = T0 + 6 * HOUR
NEWBIE, FAN = 500, 1


def two_tastes(n_hosts: int = 12) -> Models:
    """Even hosts are one taste, odd hosts the other: factors, and a graph between hosts of one taste."""
    import scipy.sparse as sp

    taste = np.arange(n_hosts) % 2
    vectors = np.stack([taste == 0, taste == 1], axis=1).astype(np.float32)
    same = (taste[:, None] == taste[None, :]).astype(np.float32) - np.eye(n_hosts, dtype=np.float32)
    factors = HostFactors.of(vectors, confidence=10.0, regularization=0.01, exponent=0.5)
    affinity = EngineConfig().affinity
    return Models(
        affinity=affinity, ranker=PriorRanker(FEATURES), graph=HostGraph.of(sp.csr_matrix(same)), factors=factors
    )


def live(n_hosts: int = 12, models: Models | None = None) -> Scene:
    scene = Scene(n_hosts, models=models or two_tastes(n_hosts))
    for host in range(n_hosts):
        scene.room(host, host, T0 + host)
    return scene


def personal(scene: Scene, user: int, at: int, hosts: list[int], name: str) -> list[float]:
    world, rooms = scene.world, np.array(hosts)
    viewer = world.models.viewer(world.ties, world.blocks, user, len(world.standings), at)
    return feature_table(world, user, viewer, rooms, rooms, at).values[FEATURES.index(name)].tolist()


def test_the_first_follow_of_a_new_viewer_counts_in_the_same_request() -> None:
    scene = live()
    before = scene.ask(NEWBIE, NOW)
    assert len(before) == 12 and not np.isin([SOURCES[s] for s in before.sources], [Source.PRIVATE]).any()
    after = scene.follow(NEWBIE, 4, NOW).ask(NEWBIE, NOW + 1)
    assert after.rooms[0] == 4 and SOURCES[after.sources[0]] is Source.PRIVATE
    assert after.reasons[0][0].startswith("followed")
    assert {int(room) for room in after.rooms[1:6]} == {0, 2, 6, 8, 10}, "then hosts of the same taste"


def test_the_first_minute_watched_by_a_new_viewer_counts_in_the_same_request() -> None:
    scene = live()
    assert np.isnan(personal(scene, NEWBIE, NOW, [2, 3], "cf_factor")).all()
    scene.enter(NEWBIE, 7, NOW - 2 * MINUTE, stay_min=1)
    same, other = personal(scene, NEWBIE, NOW, [3, 2], "cf_factor")
    assert same > other
    assert {int(room) for room in scene.ask(NEWBIE, NOW, k=6).rooms} == {1, 3, 5, 7, 9, 11}


def test_a_viewer_nobody_knows_gets_k_rooms() -> None:
    assert len(live().ask(-1, NOW, k=5)) == 5


def test_a_new_room_of_a_known_host_needs_nothing() -> None:
    scene = live()
    for day in range(3):
        scene.enter(FAN, 6, T0 + (day + 1) * HOUR, stay_min=10)
    scene.end(6, NOW - 2)
    assert 6 not in scene.ask(FAN, NOW - 1).rooms
    scene.room(900, 6, NOW - 1)
    answer = scene.ask(FAN, NOW)
    assert answer.rooms[0] == 900 and any(word.startswith("came 3 times") for word in answer.reasons[0])


def test_a_new_host_is_shown_from_the_first_minute_and_rises_with_the_first_viewers() -> None:
    scene = live(40)
    for host in range(40):
        for i in range(30):
            scene.enter(100 + i, host, T0 + HOUR + i * MINUTE)
    scene.room(900, 41, NOW - MINUTE)
    answer = scene.ask(NEWBIE, NOW, k=20)
    assert 900 in answer.rooms, "a reserved place from the first minute"
    quiet = scene.ask(NEWBIE, NOW, k=40)
    for i in range(8):
        scene.enter(200 + i, 900, NOW - MINUTE + i)
    busy = scene.ask(NEWBIE, NOW, k=40)
    assert busy.score[busy.rooms == 900] > quiet.score[quiet.rooms == 900]


def test_a_new_host_is_found_through_the_co_host_who_is_known() -> None:
    scene = live()
    scene.follow(FAN, 3).end(3, NOW - 2)
    scene.room(901, 60, NOW - 1, cohosts=(3,)).room(902, 61, NOW - 1)
    answer = scene.ask(FAN, NOW)
    assert answer.rooms[0] == 901 and "a host you know is a guest" in answer.reasons[0]


def test_a_new_host_has_the_trust_of_the_market() -> None:
    models = two_tastes()
    models.trust = HostTrust(
        np.full(12, 9.0), np.full(12, 1.0), np.zeros(12, np.int64), np.zeros(12, np.int64), np.zeros(12, np.int64),
        ("tea",), 0.9, 10.0,
    )  # fmt: skip
    scene = live(models=models)
    scene.room(903, 70, NOW - 1).fact(NOW - 1, FactKind.DISPUTE, 3, 71, value=100).room(904, 71, NOW - 1)
    world = scene.world
    rooms, hosts = np.array([0, 903, 904]), np.array([0, 70, 71])
    viewer = world.models.viewer(world.ties, world.blocks, NEWBIE, len(world.standings), NOW)
    known, new, disputed = feature_table(world, NEWBIE, viewer, rooms, hosts, NOW).values[FEATURES.index("host_trust")]
    assert known == new == 0.9 > disputed
    assert set(PERSONAL_FEATURES) <= set(FEATURES)


def test_with_a_tower_a_viewer_without_history_is_found_rooms_and_his_first_entry_moves_them() -> None:
    """Everything of a tower by hand: hosts of the even taste are popular, history pulls to its own taste."""
    taste = np.arange(12) % 2
    own = np.stack([taste == 0, taste == 1], axis=1).astype(np.float32)
    models = two_tastes()
    models.tower = TwoTower(
        history=4 * own,
        hosts=np.column_stack([own, 0.1 * (taste == 0)]).astype(np.float32),
        mix=np.ones((1, 5), dtype=np.float32),
        project=np.eye(2, dtype=np.float32)[None],
        hours=np.zeros((8, 2), dtype=np.float32),
        tiers=np.zeros((1, 2), dtype=np.float32),
        of_category=np.zeros((1, 3), dtype=np.float32),
        half_lives_days=np.array(HALF_LIVES_DAYS, dtype=np.float32),
        tier_of_user=np.zeros(0, dtype=np.int8),
    )
    scene = Scene(12, load_config(None, {"pipeline.sources.nearest": 6, "pipeline.sources.popular": 0}), models=models)
    for host in range(12):
        scene.room(host, host, T0 + host)

    def nearest(at: int) -> set[int]:
        world = scene.world
        viewer = world.models.viewer(world.ties, world.blocks, NEWBIE, len(world.standings), at)
        found = candidates(world, world.index.publish(), Request(NEWBIE, at, 6), viewer)
        return set(found.rooms[found.source == SOURCES.index(Source.NEAREST)].tolist())

    def said(at: int) -> set[str]:
        answer = scene.ask(NEWBIE, at, k=6)
        near = answer.sources == SOURCES.index(Source.NEAREST)
        return {word for i in np.flatnonzero(near & ~answer.reserved) for word in answer.reasons[i]}

    assert nearest(NOW) == {0, 2, 4, 6, 8, 10}
    assert said(NOW) == {"viewers come here at this time of day"}, "he has no ties that others could share"
    scene.enter(NEWBIE, 7, NOW)
    assert said(NOW + 1) == {"viewers with your ties come here"}
    assert nearest(NOW + 1) >= {1, 3, 5, 9, 11} and not nearest(NOW + 1) & {0, 2, 4, 6, 8, 10}
