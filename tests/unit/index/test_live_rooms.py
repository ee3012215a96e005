"""The live-room index on worlds small enough to know every answer."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from recsys.errors import LaotieError
from recsys.index import IndexInputError, LiveIndexConfig, LiveRoomIndex
from recsys.index.largest import among_largest

HOSTS = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [0.0, 0.0]], dtype=np.float32)


def test_a_room_carries_its_host_and_discounted_the_mean_of_its_cohosts() -> None:
    index = LiveRoomIndex(HOSTS, LiveIndexConfig(cohost_weight=0.5))
    index.start(7, 0)
    index.start(8, 0, [1, 2])
    index.start(9, 0, [1, 0, 1, 3, 99])  # himself, a repeat, one without and one beyond the vectors: none dilutes
    epoch = index.publish()
    assert epoch.rooms.tolist() == [7, 8, 9]
    assert np.allclose(epoch.vectors(), [[1, 0], [1 + 0.5 * 1, 0.5 * 1.5], [1, 0.5]])
    rooms, scores = epoch.search([[0.0, 1.0]], 3)
    assert rooms.tolist() == [[8, 9, 7]]
    assert np.allclose(scores, [[0.75, 0.5, 0.0]])


def test_a_host_without_a_vector_is_live_found_by_join_and_ranked() -> None:
    index = LiveRoomIndex(HOSTS)
    index.start(1, 50)
    index.start(2, 0, [50])
    epoch = index.publish()
    assert epoch.join([50]).positions.tolist() == [0, 1]
    assert epoch.search([[-1.0, 0.0]], 5)[0].tolist() == [[1, 2]]


def test_the_join_names_the_host_that_led_to_each_room() -> None:
    index = LiveRoomIndex(HOSTS)
    index.start_many([10, 11, 12, 13], [0, 1, 2, 3], [1, 1, 3], [0, 2, 0])
    index.end(10)
    epoch = index.publish()
    joined = epoch.join([2, 0, 77, -1])
    assert epoch.rooms[joined.positions].tolist() == [11, 11, 12, 13]
    assert joined.asked.tolist() == [0, 1, 0, 1]
    assert joined.cohosted.tolist() == [True, True, False, True]
    assert epoch.join([]).positions.tolist() == []
    assert epoch.hosts[epoch.position_of_room([13, 10, 999])[:1]].tolist() == [3]
    assert epoch.position_of_room([13, 10, 999]).tolist() == [2, -1, -1]


def test_flags_of_hosts_lead_to_their_rooms_and_to_those_they_join() -> None:
    index = LiveRoomIndex(HOSTS)
    index.start_many([10, 11, 12, 13], [0, 1, 2, 3], [1, 1, 3], [0, 2, 0])
    index.end(10)
    epoch = index.publish()
    found = epoch.flagged(np.array([1, 0, 6], dtype=np.int8))
    assert epoch.rooms[found.own].tolist() == [12] and found.own_flags.tolist() == [6]
    assert epoch.rooms[found.guest].tolist() == [11, 11, 13] and sorted(found.guest_flags.tolist()) == [1, 1, 6]
    assert found.guest_flags[2] == 1
    nothing = epoch.flagged(np.zeros(0, dtype=np.int8))
    assert not len(nothing.own) and not len(nothing.guest)


def test_the_nearest_are_what_a_search_finds() -> None:
    rng = np.random.default_rng(2)
    index = LiveRoomIndex(rng.normal(size=(40, 3)))
    index.start_many(np.arange(30), rng.integers(0, 40, 30))
    index.end_many([3, 17])
    epoch, query = index.publish(), rng.normal(size=3).astype(np.float32)
    for k in (0, 1, 9, 28, 60):
        found = epoch.rooms[epoch.nearest(query, k)].tolist()
        assert sorted(found) == sorted(epoch.search(query[None, :], k)[0][0].tolist())


def test_the_nearest_of_equal_rooms_are_the_smaller_ones() -> None:
    index = LiveRoomIndex(np.ones((1, 16), np.float32))
    index.start_many(np.arange(99, -1, -1), np.zeros(100, np.int64))
    index.end(2)
    epoch = index.publish()
    assert sorted(epoch.rooms[epoch.nearest(np.ones(16, np.float32), 4)].tolist()) == [0, 1, 3, 4]


@pytest.mark.parametrize("n", [1, 50, 20_000])
def test_of_equal_values_the_first_are_among_the_largest(n: int) -> None:
    values = np.random.default_rng(n).integers(0, 30, n).astype(np.float64)
    values[::7] = -np.inf
    order = np.lexsort((np.arange(n), -values))
    for k in (0, 1, 40, n):
        assert among_largest(values, k).tolist() == sorted(order[:k].tolist())


def test_ties_go_to_the_smaller_room_and_answers_are_never_short() -> None:
    index = LiveRoomIndex(np.ones((1, 4), np.float32))
    index.start_many(np.arange(99, -1, -1), np.zeros(100, np.int64))
    epoch = index.publish()
    rooms, scores = epoch.search(np.ones((2, 4)), 7, exclude=np.array([0, 3, 3, 500]))
    assert rooms.tolist() == [[1, 2, 4, 5, 6, 7, 8]] * 2
    assert len(set(scores.ravel().tolist())) == 1
    assert epoch.search(np.ones((1, 4)), 1000, exclude=np.arange(98))[0].tolist() == [[98, 99]]
    assert epoch.search(np.ones((1, 4)), 0)[0].shape == (1, 0)
    assert epoch.search(np.empty((0, 4)), 3)[0].shape == (0, 3)


@pytest.mark.parametrize("dimension", [1, 2, 4, 7, 8, 16, 33])
def test_a_score_depends_on_neither_position_nor_company(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    index = LiveRoomIndex(rng.standard_normal((1, dimension)))
    index.start_many(np.arange(4100), np.zeros(4100, np.int64))
    queries = rng.standard_normal((25, dimension)).astype(np.float32)
    together = index.publish().scores(queries)
    assert (together == together[:, :1]).all()
    assert np.array_equal(index.epoch.scores(queries[3:4]), together[3:4])
    assert np.array_equal(index.epoch.scores(queries, np.array([4099, 5])), together[:, :2])


def test_large_searches_equal_a_full_sort() -> None:
    rng = np.random.default_rng(1)
    vectors = np.round(rng.standard_normal((20_000, 3)), 1)  # coarse: many exact ties
    index = LiveRoomIndex(vectors)
    index.start_many(rng.permutation(20_000), np.arange(20_000))
    index.end_many(rng.choice(20_000, 1500, replace=False))
    epoch = index.publish()
    queries = np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    scores = epoch.scores(queries)
    for k in (1, 100, 3000, 18_500):
        for row in range(2):
            order = np.lexsort((epoch.rooms, -scores[row]))[:k]
            assert np.array_equal(epoch.search(queries, k)[0][row], epoch.rooms[order])


def test_an_epoch_keeps_the_past() -> None:
    index = LiveRoomIndex(HOSTS)
    index.start_many([1, 2], [0, 1])
    before = index.publish()
    assert index.publish() is before
    index.end(1)
    index.start(1, 2)
    index.start(3, 2)
    index.refresh(HOSTS * 2)
    after = index.publish()
    index.end_many([1, 2, 3])
    assert len(index) == 0 and 1 not in index
    assert not index.end(1)
    assert before.rooms.tolist() == [1, 2] and before.hosts.tolist() == [0, 1]
    assert before.position_of_room([1, 3]).tolist() == [0, -1]
    assert before.search([[1.0, 0.0]], 9)[1].tolist() == [[1.0, 0.0]]
    assert after.search([[1.0, 0.0]], 9)[0].tolist() == [[1, 3, 2]]
    assert after.search([[1.0, 0.0]], 9)[1].tolist() == [[4.0, 4.0, 0.0]]
    assert len(index.publish()) == 0
    assert index.epoch.search([[1.0, 0.0]], 9)[0].shape == (1, 0)
    with pytest.raises(ValueError, match="read-only"):
        before.rooms[0] = 5


def test_a_restarted_room_in_an_epoch_older_than_the_restart() -> None:
    index = LiveRoomIndex(HOSTS)
    index.start(1, 0)
    first = index.publish()
    index.start(1, 1)
    index.start(1, 2)
    assert first.search([[1.0, 1.0]], 9, exclude=[1])[0].shape == (1, 0)
    assert first.position_of_room([1]).tolist() == [0]
    assert index.publish().hosts.tolist() == [2]


def test_one_by_one_many_at_once_and_refresh_give_the_same_vectors() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((40, 24))
    rooms, hosts = np.arange(60), rng.integers(0, 45, 60)
    owner, cohosts = np.sort(rng.integers(0, 60, 90)), rng.integers(0, 45, 90)
    single, many = LiveRoomIndex(vectors), LiveRoomIndex(vectors)
    for room, host in zip(rooms.tolist(), hosts.tolist(), strict=True):
        single.start(room, host, cohosts[owner == room].tolist())
    many.start_many(rooms, hosts, owner, cohosts)
    refreshed = LiveRoomIndex(np.zeros((3, 24)))
    refreshed.start_many(rooms, hosts, owner, cohosts)
    refreshed.refresh(vectors)
    expected = single.publish().vectors()
    assert np.array_equal(many.publish().vectors(), expected)
    assert np.array_equal(refreshed.publish().vectors(), expected)
    assert np.array_equal(many.epoch.join([44]).positions, single.epoch.join([44]).positions)


@pytest.mark.parametrize(
    "query",
    [[[np.nan, 0.0]], [[np.inf, 0.0]], [[1e300, 0.0]], [[3e38, 3e38]], [1.0, 0.0], [[1.0, 0.0, 0.0]]],
    ids=["nan", "inf", "beyond float32", "overflow", "flat", "wide"],
)
def test_an_unusable_query_is_refused(query: object) -> None:
    index = LiveRoomIndex(HOSTS)
    index.start(1, 2)
    with pytest.raises(IndexInputError):
        index.publish().search(query, 1)


def test_errors_are_typed_and_leave_the_index_as_it_was() -> None:
    index = LiveRoomIndex(HOSTS)
    index.start(1, 0)
    for attempt in (
        lambda: index.refresh(np.full((4, 2), np.nan)),
        lambda: index.refresh(np.ones((4, 3))),
        lambda: index.refresh(np.full((4, 2), 3e38)),
        lambda: index.start(-1, 0),
        lambda: index.start(2, 0, [-4]),
        lambda: index.start_many([4, 4], [0, 0]),
        lambda: index.start_many([4], [0, 1]),
        lambda: index.start_many([4], [0], [1], [1]),
        lambda: index.start_many([0.5], [0]),
        lambda: LiveRoomIndex(np.ones(3)),
        lambda: LiveRoomIndex(np.ones((3, 0))),
    ):
        with pytest.raises(IndexInputError) as caught:
            attempt()
        assert isinstance(caught.value, LaotieError) and isinstance(caught.value, ValueError)
    epoch = index.publish()
    assert epoch.rooms.tolist() == [1]
    assert np.array_equal(epoch.vectors(), HOSTS[:1])


def test_readers_see_whole_epochs_while_the_writer_goes_on() -> None:
    """Room r belongs to host r % 50, whose vector is constant r % 50 + epoch parity: a torn state shows at once."""
    base = np.repeat(np.arange(50, dtype=np.float32)[:, None], 8, axis=1)
    index = LiveRoomIndex(base)
    index.start_many(np.arange(500), np.arange(500) % 50)
    index.publish()
    done = threading.Event()
    faults: list[str] = []
    seen: set[int] = set()

    def read() -> None:
        query = np.full((1, 8), 0.125, dtype=np.float32)
        while not done.is_set():
            epoch = index.epoch
            seen.add(epoch.number)
            rooms, scores = epoch.search(query, 10_000)
            again = epoch.search(query, 10_000)
            lift = scores[0] - rooms[0] % 50
            if len(rooms[0]) != len(epoch) or set(rooms[0].tolist()) != set(epoch.rooms.tolist()):
                faults.append("answers are not the live rooms")
            if not np.array_equal(rooms, again[0]) or len(set(lift.tolist())) > 1:
                faults.append("torn state")
            if (epoch.position_of_room(epoch.rooms) != np.arange(len(epoch))).any():
                faults.append("positions do not match")
            if not np.array_equal(epoch.hosts, epoch.rooms % 50):
                faults.append("hosts do not match rooms")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    rng = np.random.default_rng(0)
    try:
        turn = 0
        while turn < 120 or (len(seen) <= 3 and turn < 20_000):  # where readers wait for a core, longer
            turn += 1
            ended = rng.choice(index.epoch.rooms, 40, replace=False)
            index.end_many(ended)
            fresh = np.union1d(ended[:10], 1000 * turn + 500 + np.arange(30))
            index.start_many(fresh, fresh % 50)
            if turn % 20 == 0:
                index.refresh(base + (turn // 20) % 2)
            index.publish()
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert not faults, set(faults)
    assert len(seen) > 3


def test_the_border_imports_with_warnings_as_errors_and_no_torch() -> None:
    code = "import sys, recsys.index; assert not {'torch', 'implicit', 'lightgbm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
