"""Rooms ruled out by their outlines are never among the nearest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.index import LiveIndexConfig, LiveRoomIndex
from recsys.index.flat import inner_products
from recsys.index.outline import SIDE, Outlines

OUTLINED = LiveIndexConfig(outlined_from=0)


def drawn(vectors: np.ndarray) -> Outlines:
    outlines = Outlines.of_size(len(vectors), vectors.shape[1])
    outlines.draw(vectors, 0)
    return outlines


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(3, 3 * SIDE),
    width=st.sampled_from([16, 64, 144]),
    sizes=st.tuples(st.integers(-38, 18), st.integers(-38, 18)),
    spread=st.floats(0.0, 4.0),
    data=st.data(),
)
def test_who_is_among_the_nearest_is_within_reach(
    seed: int, n: int, width: int, sizes: tuple[int, int], spread: float, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(size=(n, 1)) * spread)
    vectors = (rng.normal(size=(n, width)) * lengths * 10.0 ** sizes[0]).astype(np.float32)
    vectors[rng.random(n) < 0.1] = 0.0
    vectors[rng.random(n) < 0.2] = vectors[0]  # equal rooms tie to the last bit
    query = (rng.normal(size=width) * 10.0 ** sizes[1]).astype(np.float32)
    dead = np.flatnonzero(rng.random(n) < data.draw(st.sampled_from([0.0, 0.3])))[: n - 2]
    k = data.draw(st.integers(1, n - len(dead) - 1))
    scores = inner_products(query[None, :], vectors)[0]
    scores[dead] = -np.inf
    found = drawn(vectors).within_reach(query, n, dead, k)
    assert set(np.flatnonzero(scores >= np.sort(scores)[-k])) <= set(found.tolist())
    assert not set(dead.tolist()) & set(found.tolist()) and np.all(np.diff(found) > 0)


@pytest.mark.parametrize("width", [16, 64, 528])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_no_product_lies_beyond_its_bounds_and_the_worst_come_near(width: int, size: float) -> None:
    """What a code loses of a value all points the way of the query, or against it: Cauchy and Schwarz meet."""
    rng = np.random.default_rng(width)
    query = rng.choice([-1.0, 1.0], width).astype(np.float32)
    codes = rng.integers(-126, 127, (200, width)).astype(np.float64)
    codes[100:] = 126.0 * query * rng.choice([-1.0, 1.0], (100, 1))  # sums as large as they get
    codes[:, 0] = 127.0
    lost = 0.4999 * query * rng.choice([-1.0, 1.0], (200, 1))
    lost[:, 0] = 0.0
    vectors = ((codes + lost) * size).astype(np.float32)
    low, high = (bound.astype(np.float64) for bound in drawn(vectors).bounds(query, len(vectors)))
    scores = inner_products(query[None, :], vectors)[0].astype(np.float64)
    assert np.all(low <= scores) and np.all(scores <= high)
    near = (scores - low) / (high - low)
    assert min(near.min(), 1 - near.max()) < 0.06  # of the width; bounds a tenth closer would not hold


@pytest.mark.parametrize("kind", ["heavy tails", "lengths"])
def test_a_few_large_rooms_do_not_hide_that_the_others_are_far(kind: str) -> None:
    rng = np.random.default_rng(6)
    vectors = rng.standard_t(3, (20_000, 64))
    if kind == "lengths":
        vectors = rng.normal(size=(20_000, 64)) * np.exp(2.0 * rng.normal(size=(20_000, 1)))
    outlines, query = drawn(vectors.astype(np.float32)), rng.normal(size=64).astype(np.float32)
    assert len(outlines.within_reach(query, 20_000, np.empty(0, dtype=np.int64), 100)) < 400


def test_few_of_many_are_within_reach() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(20_000, 64)).astype(np.float32)
    assert len(drawn(vectors).within_reach(vectors[7] + 1, 20_000, np.empty(0, dtype=np.int64), 100)) < 200


def test_no_value_is_off_by_more_than_half_a_step() -> None:
    vectors = np.random.default_rng(3).normal(size=(SIDE + 5, 32)).astype(np.float32)
    vectors[4], vectors[9] = 0.0, vectors[9] * np.float32(1e-44)
    outlines = drawn(vectors)
    codes = outlines.codes.transpose(0, 2, 1).reshape(-1, 32)[: len(vectors)]
    scales = outlines.scales[: len(vectors), None].astype(np.float64)
    assert np.all(np.abs(vectors - codes * scales) <= 0.5002 * scales)
    assert np.all(np.abs(codes).max(axis=1)[[0, 1, 2, SIDE, SIDE + 4]] == 127)


@pytest.mark.parametrize("dimension", [3, 16, 64])
def test_the_nearest_by_outlines_are_the_nearest_whatever_happened_to_the_rooms(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    hosts = rng.normal(size=(300, dimension))
    hosts[::10] = hosts[0]
    plain, outlined = LiveRoomIndex(hosts, LiveIndexConfig(outlined_from=2**40)), LiveRoomIndex(hosts, OUTLINED)
    both, room = (plain, outlined), 0

    def agree() -> None:
        for size in (1.0, 1e-37, 0.0):
            query = (rng.normal(size=dimension) * size).astype(np.float32)
            for k in (1, 10, len(plain) - 1):
                assert outlined.publish().nearest(query, k).tolist() == plain.publish().nearest(query, k).tolist()

    for step in range(12):
        rooms = np.arange(room, room + 40)
        of = rng.integers(0, 310, 40)  # some have no vector
        joined, guests = rng.integers(0, 40, 5), rng.integers(0, 300, 5)
        ended = rng.choice(max(room, 1), room // 5, replace=False)
        for index in both:
            index.start_many(rooms, of, joined, guests)
            index.start(10_000 + step, int(of[0]), guests.tolist())
            index.end_many(ended)
        room += 40
        agree()
    for index in both:
        index.refresh(hosts[::-1])
    agree()


def test_an_older_epoch_finds_what_it_held_when_slots_after_it_are_filled() -> None:
    rng = np.random.default_rng(5)
    index = LiveRoomIndex(rng.normal(size=(500, 16)), OUTLINED)
    index.start_many(np.arange(50), np.arange(50))
    held, query = index.publish(), rng.normal(size=16).astype(np.float32)
    before = held.nearest(query, 7).tolist()
    index.start_many(np.arange(50, 60), np.arange(50, 60))
    index.start(60, 60)
    assert index.publish()._outlines.codes is held._outlines.codes  # in the same block, behind what it holds
    assert held.nearest(query, 7).tolist() == before
    index.start_many(np.arange(61, 500), np.arange(61, 500))
    index.end_many(np.arange(0, 500, 2))
    index.publish()
    assert held.nearest(query, 7).tolist() == before


def test_rooms_that_are_all_alike_are_compared_by_their_vectors() -> None:
    index = LiveRoomIndex(np.ones((1, 16), np.float32), OUTLINED)
    index.start_many(np.arange(99, -1, -1), np.zeros(100, np.int64))
    index.end(2)
    epoch = index.publish()
    for query in (np.ones(16, np.float32), np.zeros(16, np.float32)):
        assert sorted(epoch.rooms[epoch.nearest(query, 4)].tolist()) == [0, 1, 3, 4]
