"""The live-room index equals brute force under any sequence of starts, ends, refreshes and searches."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from recsys.index import Epoch, LiveIndexConfig, LiveRoomIndex

N_HOSTS, DIMENSION, WEIGHT = 6, 3, 0.5
rooms = st.integers(0, 40)
hosts = st.integers(0, N_HOSTS + 2)  # the last ones have no vector


def factors(seed: int) -> np.ndarray:
    """Multiples of 1/4, so that every sum is exact and ties are real."""
    drawn = np.random.default_rng(seed).integers(-4, 5, (N_HOSTS, DIMENSION)) / 4
    drawn[seed % N_HOSTS] = 0
    return drawn


class Broadcasts(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.vectors = factors(0)
        self.index = LiveRoomIndex(self.vectors, LiveIndexConfig(cohost_weight=WEIGHT, dead_share=0.05))
        self.live: dict[int, tuple[int, tuple[int, ...]]] = {}
        self.kept: list[tuple[Epoch, np.ndarray, dict[int, tuple[int, tuple[int, ...]]]]] = []

    @rule(room=rooms, host=hosts, cohosts=st.lists(hosts, max_size=2))
    def start(self, room: int, host: int, cohosts: list[int]) -> None:
        self.index.start(room, host, cohosts)
        self.live[room] = (host, tuple(cohosts))

    @rule(started=st.dictionaries(rooms, hosts, max_size=25), shared=hosts)
    def start_many(self, started: dict[int, int], shared: int) -> None:
        joint = list(range(0, len(started), 2))
        self.index.start_many(list(started), list(started.values()), joint, [shared] * len(joint))
        for i, (room, host) in enumerate(started.items()):
            self.live[room] = (host, (shared,) if i % 2 == 0 else ())

    @rule(room=rooms)
    def end(self, room: int) -> None:
        assert self.index.end(room) == (self.live.pop(room, None) is not None)

    @rule(ended=st.lists(rooms, max_size=30))
    def end_many(self, ended: list[int]) -> None:
        gone = set(ended) & set(self.live)
        assert self.index.end_many(ended) == len(gone)
        for room in gone:
            del self.live[room]

    @rule(seed=st.integers(1, 50))
    def refresh(self, seed: int) -> None:
        self.vectors = factors(seed)
        self.index.refresh(self.vectors)

    @rule()
    def keep(self) -> None:
        self.kept.append((self.index.publish(), self.vectors, dict(self.live)))

    @rule(query=st.lists(st.integers(-3, 3), min_size=3, max_size=3), k=st.integers(0, 50), out=st.sets(rooms))
    def search(self, query: list[int], k: int, out: set[int]) -> None:
        for epoch, vectors, live in [*self.kept[-3:], (self.index.publish(), self.vectors, self.live)]:
            scored = {room: float(room_vector(vectors, *live[room]) @ query) for room in live if room not in out}
            expected = sorted(scored, key=lambda room: (-scored[room], room))[:k]
            found, scores = epoch.search([query], k, exclude=sorted(out))
            assert found[0].tolist() == expected
            assert np.allclose(scores[0], [scored[room] for room in expected], rtol=1e-5, atol=1e-5)

    @rule(asked=st.lists(hosts, max_size=6))
    def join(self, asked: list[int]) -> None:
        epoch = self.index.publish()
        pairs = epoch.join(asked)
        got = {
            (int(room), asked[i], bool(joint))
            for room, i, joint in zip(epoch.rooms[pairs.positions], pairs.asked, pairs.cohosted, strict=True)
        }
        assert len(got) == len(pairs.positions)
        assert got == {
            (room, one, one != host)
            for room, (host, others) in self.live.items()
            for one in {host, *others} & set(asked)
        }

    @rule(flags=st.lists(st.integers(0, 7), max_size=N_HOSTS + 4))
    def flagged(self, flags: list[int]) -> None:
        epoch = self.index.publish()
        found = epoch.flagged(np.array(flags, dtype=np.int8))
        carried = {host: flag for host, flag in enumerate(flags) if flag}
        own = zip(epoch.rooms[found.own].tolist(), found.own_flags.tolist(), strict=True)
        assert dict(own) == {r: carried[host] for r, (host, _) in self.live.items() if host in carried}
        assert len(set(found.own.tolist())) == len(found.own)
        guest = zip(epoch.rooms[found.guest].tolist(), found.guest_flags.tolist(), strict=True)
        assert sorted(guest) == sorted(
            (r, carried[one]) for r, (host, others) in self.live.items() for one in {*others} - {host} if one in carried
        )

    @invariant()
    def same_rooms(self) -> None:
        epoch = self.index.publish()
        assert len(epoch) == len(self.index) == len(self.live)
        assert sorted(epoch.rooms.tolist()) == sorted(self.live)
        assert [self.live[room][0] for room in epoch.rooms.tolist()] == epoch.hosts.tolist()


def room_vector(vectors: np.ndarray, host: int, cohosts: tuple[int, ...]) -> np.ndarray:
    own = vectors[host] if host < N_HOSTS else np.zeros(DIMENSION)
    known = [vectors[one] for one in {*cohosts} - {host} if one < N_HOSTS and vectors[one].any()]
    return np.asarray(own + WEIGHT * np.mean(known, axis=0) if known else own)


Broadcasts.TestCase.settings = settings(max_examples=40, stateful_step_count=40)
TestBroadcasts = Broadcasts.TestCase
