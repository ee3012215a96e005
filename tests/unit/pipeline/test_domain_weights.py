"""The private and public weight of an answer, worked out on paper for a model of one term."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.config import EngineConfig
from recsys.events.facts import FactKind
from recsys.models.additive import AdditiveModel
from recsys.models.block_network import BlockNetwork
from recsys.models.suite import Models
from recsys.pipeline.features import FEATURES
from tests.small_world import HOUR, T0, Scene

NOW = T0 + 6 * HOUR
REPEATER, STRANGER = 0, 9


def scene() -> Scene:
    """A known host has log-odds 1.5 more."""
    known = AdditiveModel(("tie_known",), (np.array([0.5]),), (np.array([0.0, 1.5, 0.0]),), (), 0.0)
    models = Models(affinity=EngineConfig().affinity, ranker=known.bound_to(FEATURES))
    world = Scene(5, models=models)
    for host in range(4):
        world.room(host, host, T0 + host)
    return world.enter(REPEATER, 0, T0 + HOUR)


def test_weights_are_the_softmax_mass_of_hosts_with_a_tie() -> None:
    answer = scene().ask(REPEATER, NOW)
    share = np.exp(1.5) / (np.exp(1.5) + 3)
    assert answer.weights == pytest.approx({"private": share, "public": 1 - share})


def test_a_bonus_moves_the_order_and_not_the_weights() -> None:
    """A known host scores 1.5 more, of which 0.5 are no log-odds."""
    one = np.ones(1)
    ranker = BlockNetwork(
        ("tie_known",), ("tie",), 0 * one, np.log(2) * one, 0 * one, np.ones((1, 1)), 0 * one, np.ones((1, 1, 1)),
        np.zeros((1, 1)), np.full((1, 1), 1.5), 0.0, private_bonus=0.5,
    )  # fmt: skip
    world = scene()
    world.world.models.ranker = ranker.bound_to(FEATURES)
    answer = world.ask(REPEATER, NOW)
    assert answer.score[0] - answer.score[1] == pytest.approx(1.5)
    assert answer.weights["private"] == pytest.approx(np.e / (np.e + 3))


@pytest.mark.parametrize("k", [1, 2, 20])
def test_they_sum_to_one_and_do_not_hang_on_k(k: int) -> None:
    world = scene()
    weights = world.ask(REPEATER, NOW, k=k).weights
    assert sum(weights.values()) == pytest.approx(1.0) and weights == world.ask(REPEATER, NOW).weights


def test_a_stranger_is_all_public_and_a_first_follow_makes_him_partly_private() -> None:
    world = scene()
    assert world.ask(STRANGER, NOW).weights == {"private": 0.0, "public": 1.0}
    world.follow(STRANGER, 2, NOW)
    assert world.ask(STRANGER, NOW + 1).weights["private"] == pytest.approx(0.25)


def test_nobody_live_or_no_learnt_ranker_has_no_weights() -> None:
    assert Scene(3).ask(REPEATER, NOW).weights == {}
    world = Scene(3)
    assert len(world.room(0, 0).ask(REPEATER, NOW)) == 1 and world.ask(REPEATER, NOW).weights == {}


def test_being_shown_a_host_makes_him_no_part_of_the_private_domain() -> None:
    """The service logs what it shows: the weights must not move by that."""
    world = scene()
    world.fact(NOW, FactKind.IMPRESSION, STRANGER, 2, 2)
    assert world.ask(STRANGER, NOW + 1).weights == {"private": 0.0, "public": 1.0}
