"""Rooms of hosts that viewers of somebody's last hosts went to next."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.config import EngineConfig, load_config
from recsys.models.baselines import PriorRanker
from recsys.models.suite import Models, Viewer
from recsys.models.transition import TransitionConfig, TransitionModel
from recsys.pipeline.features import FEATURES, feature_table
from recsys.pipeline.request import SOURCES, Request, Source
from recsys.pipeline.sources import _NEXT, _flag_next, candidates
from tests.small_world import DAY, HOUR, MINUTE, T0, Scene
from tests.transitions_told import chances, told

NOW = T0 + 6 * HOUR
N_HOSTS, SIZE = 120, 9
VIEWER = 1


def market(entries: dict[str, list[int]], size: int = SIZE) -> Scene:
    """Every host on air, and transitions between them; no other source of the public domain."""
    others = {f"pipeline.sources.{name}": 0 for name in ("nearest", "popular", "newcomers")}
    model = TransitionModel.fit(pl.DataFrame(entries), TransitionConfig(row_limit=40), n_hosts=N_HOSTS, as_of=T0)
    config = load_config(None, others | {"pipeline.sources.transition": size})
    models = Models(affinity=EngineConfig().affinity, ranker=PriorRanker(FEATURES), transition=model)
    scene = Scene(N_HOSTS, config, models)
    for host in np.random.default_rng(2).permutation(N_HOSTS).tolist():
        scene.room(1000 + host, host, T0 + host)
    return scene


def brought(scene: Scene, user: int) -> tuple[dict[int, Source], Viewer]:
    """Host of each candidate → the source that brought it."""
    world, epoch = scene.world, scene.world.index.publish()
    viewer = world.models.viewer(world.ties, world.blocks, user, len(world.standings), NOW)
    found = candidates(world, epoch, Request(user, NOW, 5), viewer)
    hosts = world.rooms.host[found.rooms].tolist()
    return dict(zip(hosts, (SOURCES[code] for code in found.source), strict=True)), viewer


@pytest.mark.parametrize("seed", range(6))
def test_they_are_those_with_the_largest_chances_of_all_that_rows_lead_to(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, hosts = rng.integers(100, 160, 900), rng.zipf(1.5, 900) % N_HOSTS
    at = T0 - rng.permutation(20 * DAY // MINUTE)[:900] * MINUTE
    scene = market({"user": users.tolist(), "host": hosts.tolist(), "at": at.tolist()})
    recent = rng.choice(N_HOSTS, 6, replace=False).tolist()
    for i, host in enumerate(recent):
        scene.enter(VIEWER, 1000 + host, NOW - (10 - i) * MINUTE)
    for host in rng.choice(N_HOSTS, 30, replace=False).tolist():
        scene.end(1000 + host, NOW - 2)
    found, viewer = brought(scene, VIEWER)
    model, world = scene.world.models.transition, scene.world
    assert model is not None and viewer.recent.tolist() == recent[:0:-1]
    likely = chances(model, viewer.recent.tolist(), viewer.ages_s.tolist(), at=NOW)
    on_air = world.index.publish().hosts.tolist()
    led = {int(host) for last in viewer.recent for host in model.row(int(last)).nexts} | set(viewer.recent.tolist())
    best = sorted((h for h in on_air if h in led), key=lambda h: (-likely[h], on_air.index(h)))
    expected = {host for host in best[:SIZE] if host not in recent}
    assert {host for host, source in found.items() if source is Source.TRANSITION} == expected != set()
    assert set(found) - expected == set(recent) & set(on_air)


def test_a_host_nobody_went_to_from_there_is_not_one_of_them_however_many_enter_elsewhere() -> None:
    entries = [(100, 0, T0 - 2 * HOUR), (100, 1, T0 - HOUR), *((200 + i, 2, T0 - HOUR) for i in range(50))]
    users, hosts, at = map(list, zip(*entries, strict=True))
    scene = market({"user": users, "host": hosts, "at": at}).enter(VIEWER, 1000, NOW - MINUTE)
    assert brought(scene, VIEWER)[0] == {0: Source.VISITED, 1: Source.TRANSITION}


def test_hosts_he_follows_take_no_place_of_those_that_rows_lead_to() -> None:
    """Popularity alone speaks for the host followed; he comes by another source anyway."""
    entries = [(100, 0, T0 - 2 * HOUR), (100, 1, T0 - HOUR), *((200 + i, 2, T0 - HOUR) for i in range(50))]
    users, hosts, at = map(list, zip(*entries, strict=True))
    scene = market({"user": users, "host": hosts, "at": at}, size=1).enter(VIEWER, 1000, NOW - MINUTE).follow(VIEWER, 2)
    assert brought(scene, VIEWER)[0] == {0: Source.VISITED, 1: Source.TRANSITION, 2: Source.PRIVATE}


def test_a_guest_whom_rows_lead_to_brings_no_room() -> None:
    scene = market({"user": [100, 100], "host": [0, 1], "at": [T0 - 2 * HOUR, T0 - HOUR]})
    scene.room(2000, 5, T0 + 500, cohosts=(1,)).enter(VIEWER, 1000, NOW - MINUTE)
    assert brought(scene, VIEWER)[0] == {0: Source.VISITED, 1: Source.TRANSITION}


def test_candidates_are_told_what_the_model_says_at_the_instant_of_the_request() -> None:
    """Long after the last entry counts weigh less: what is told as of then differs."""
    rng = np.random.default_rng(3)
    at = np.sort(T0 - rng.permutation(20 * DAY // MINUTE)[:600] * MINUTE)
    entries = {"user": rng.integers(100, 130, 600).tolist(), "host": (rng.zipf(1.5, 600) % 12).tolist()}
    scene = market(entries | {"at": at.tolist()})
    for i, host in enumerate((3, 1, 2)):
        scene.enter(VIEWER, 1000 + host, T0 + HOUR + i * MINUTE)
    model, world, later = scene.world.models.transition, scene.world, T0 + 20 * DAY
    assert model is not None
    viewer = world.models.viewer(world.ties, world.blocks, VIEWER, len(world.standings), later)
    rooms = world.index.publish().rooms
    hosts = world.rooms.host[rooms].astype(np.int64)
    table = feature_table(world, VIEWER, viewer, rooms, hosts, later).values
    said = told(model, viewer.recent.tolist(), viewer.ages_s.tolist(), hosts, at=later)
    before = told(model, viewer.recent.tolist(), viewer.ages_s.tolist(), hosts, at=model.last_at)
    for name, expected in said.items():
        np.testing.assert_array_equal(table[FEATURES.index(name)], expected, err_msg=name)
    for name in ("transition_last", "transition_recent", "transition_evidence"):
        assert not np.allclose(said[name], before[name], rtol=1e-3), name
    assert not np.allclose(said["transition_last"], said["transition_recent"], rtol=1e-3)


def test_hosts_of_whom_the_state_holds_nothing_are_passed_over() -> None:
    """Models of a rehearsal know more hosts than its stage; a compiled loop does not see where an array ends."""
    memory = np.zeros(9, dtype=np.int8)
    _flag_next(np.array([1, 4, 8], dtype=np.int32), memory[:4])
    assert memory.tolist() == [0, _NEXT, 0, 0, 0, 0, 0, 0, 0]
