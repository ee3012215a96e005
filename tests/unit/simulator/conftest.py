"""Small simulated worlds, generated once and shared by the tests of this folder."""

from __future__ import annotations

import pytest

from recsys.events.simulator import demo_world, load_world, simulate
from tests.unit.simulator.simulated_world import World


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(demo_world(tmp_path_factory.mktemp("simulator") / "demo"))


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> World:
    out = tmp_path_factory.mktemp("simulator") / "private_domain"
    return World(simulate(load_world("private_domain"), users=1_000, hosts=3_000, days=60, seed=7, out=out))


@pytest.fixture(scope="session")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> World:
    out = tmp_path_factory.mktemp("simulator") / "traffic"
    return World(simulate(load_world("traffic"), users=300, hosts=200, days=30, seed=7, out=out))


@pytest.fixture(scope="session")
def counts_suffice(tmp_path_factory: pytest.TempPathFactory) -> World:
    out = tmp_path_factory.mktemp("simulator") / "counts_suffice"
    return World(simulate(load_world("counts_suffice"), users=300, hosts=100, days=40, seed=7, out=out))


@pytest.fixture(params=["demo", "calibrated", "traffic"])
def any_world(request: pytest.FixtureRequest) -> World:
    world = request.getfixturevalue(request.param)
    assert isinstance(world, World)
    return world
