"""Requests answered together get the answers they get alone, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.bundle import Bundle
from recsys.live.artefact import load
from recsys.pipeline import scoring
from recsys.pipeline.lookup import lookup, lookups
from recsys.pipeline.request import Answer, Request
from recsys.pipeline.spans import Ranking, Spans
from tests.small_world import HOUR, T0
from tests.unit.pipeline.crowded_scene import BUSY, NOW, VIEWER, crowded

FROZEN = Path(__file__).parents[2] / "fixtures" / "bundles" / "world-v1"


def assert_same(one: Answer, other: Answer) -> None:
    for name in ("rooms", "hosts", "score", "strength", "sources", "reserved", "propensity", "candidates", "outcomes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    np.testing.assert_array_equal(one.breakdown.values, other.breakdown.values)
    assert one.heads.keys() == other.heads.keys()
    for name, said in one.heads.items():
        np.testing.assert_array_equal(said, other.heads[name], err_msg=name)
    assert (one.reasons, one.stage_counts, one.short_why) == (other.reasons, other.stage_counts, other.short_why)
    assert one.weights == other.weights


@pytest.mark.parametrize("most_columns", [8_192, 25])
def test_a_trained_world_answers_a_batch_as_one_by_one(most_columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_MOST_COLUMNS", most_columns)
    bundle = Bundle.open(FROZEN)
    live, vocabularies = load(bundle)
    at = bundle.manifest.window.as_of_us + HOUR
    users = (-1, *range(len(vocabularies.users)), -1)
    requests = [Request(user, at, 3 + user % 7, heads=user % 2 == 0) for user in users]
    for request, answer in zip(requests, lookups(live.world, requests), strict=True):
        assert_same(answer, lookup(live.world, request))


def test_wishes_of_one_request_are_no_business_of_its_neighbours() -> None:
    """Named rooms, none at all, a category nobody has, guests, blocks: beside each other."""
    scene = crowded(30).follow(VIEWER, 3).enter(VIEWER, 5, T0 + HOUR).block(BUSY, 4).follow(BUSY, 7)
    scene.room(500, 12, T0 + HOUR, cohosts=(3, 7))
    named = np.array([2, 3, 500, 9])
    requests = [
        Request(VIEWER, NOW, 20),
        Request(BUSY, NOW, 20, rooms=named),
        Request(VIEWER, NOW, 20, category="nobody's"),
        Request(BUSY, NOW, 5, exclude=named),
        Request(VIEWER, NOW, 20, rooms=np.empty(0, dtype=np.int64)),
        Request(-1, NOW, 20, explain=False),
        Request(BUSY, NOW, 40),
    ]
    answers = lookups(scene.world, requests)
    assert [len(answer) for answer in answers] == [20, 4, 0, 5, 0, 20, 30]
    for request, answer in zip(requests, answers, strict=True):
        assert_same(answer, lookup(scene.world, request))


def test_ranks_and_shares_are_each_requests_own() -> None:
    spans = Spans([3, 1, 4])
    table = np.array([[5.0, np.nan, 1.0, 9.0, 2.0, 2.0, 0.0, 2.0], np.zeros(8), np.zeros(8)])
    by = Ranking(np.array([0, 0]), np.array([False, True]), np.array([True, False]), np.array([1, 2]))
    spans.rank(table, by)
    np.testing.assert_array_equal(table[1], [1, 2, 0, 0, 1, 2, 0, 3])
    np.testing.assert_array_equal(table[2], [0, np.nan, 1, 0, 0, 1, 3, 2])
    some = [-1e-300, 1e300, -np.inf, 2e-300, np.inf, -0.0, 1e-300, np.nan, -2e300, 2e300, 0.0]
    wide = np.array([some, some, some])
    Spans([11]).rank(wide, by)
    np.testing.assert_array_equal(wide[1], [2, 7, 0, 6, 9, 3, 5, 10, 1, 8, 4])
    np.testing.assert_array_equal(wide[2], [7, 2, 9, 3, 0, 5, 4, np.nan, 8, 1, 6])
    shares = np.array([[1.0, 1.0, 2.0, 7.0, 1.0, 1.0, 1.0, 1.0]])
    spans.shares(shares, shares)
    np.testing.assert_allclose(shares[0, [0, 3, 4]], [1.001 / 4.003, 1.0, 0.25])
    assert spans.spread(np.array([[1.0, 2.0, 3.0]])).tolist() == [[1, 1, 1, 2, 3, 3, 3, 3]]
