"""The state a training log leaves behind is the state of the as-of: every fact is in it, refits come in time."""

from __future__ import annotations

import numpy as np
import polars as pl

from recsys.config import BuildConfig, EngineConfig
from recsys.events.facts import FACT_SCHEMA, FactKind
from recsys.live.artefact import assemble
from recsys.models.audience import Audience
from tests.small_world import MINUTE, T0, empty_parts
from training.log import SHOWN_BEFORE_US, replay_and_log, requests_of

ROOMS = pl.DataFrame(
    {"room": [0, 1], "host": [0, 1], "cohosts": [[], []], "started_at": [T0, T0 + MINUTE], "category": [None, None]},
    schema_overrides={"cohosts": pl.List(pl.Int64), "category": pl.String},
)
ENTRIES = [(0, 0, 5), (1, 0, 6), (0, 1, 7), (2, 1, 7), (1, 1, 9), (2, 0, 9)]
"""(user, host = room, minutes); the last two are at the last instant."""


def facts() -> pl.DataFrame:
    rows = [(T0 + i * MINUTE, int(FactKind.ROOM_START), -1, i, i, 0, 0, 0) for i in (0, 1)]
    rows += [(T0 + m * MINUTE, int(FactKind.ENTRY), u, h, h, 1, T0 + h * MINUTE, 0) for u, h, m in ENTRIES]
    return pl.DataFrame(rows, schema=FACT_SCHEMA, orient="row").sort(list(FACT_SCHEMA))


def test_the_replay_ends_with_every_fact_known_and_refits_before_the_facts_of_their_instant() -> None:
    live = assemble(empty_parts(2))
    audience = live.world.models.audience = Audience()
    live.register_rooms(ROOMS)
    counted: list[int] = []

    def refit() -> None:
        counted.append(int(live.world.hosts.rows.ints[:2, live.world.blocks.host.int_column("n_entries")].sum()))

    due = [(T0 + m * MINUTE, refit) for m in (6, 8)]
    log = replay_and_log(live, facts(), BuildConfig(), 0, refits=due)
    assert counted == [1, 4], "facts before the instant are known at a refit, none of its own"
    assert len(log.groups) == len(ENTRIES)
    expected = Audience()
    for user, host, minutes in ENTRIES:
        expected.update(user, host, T0 + host * MINUTE, T0 + minutes * MINUTE)
    hosts, at = np.arange(2), T0 + 20 * MINUTE
    for one, other in zip(audience.read(hosts, at), expected.read(hosts, at), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    for user in range(3):
        np.testing.assert_allclose(audience.taste(user), expected.taste(user), rtol=1e-12)


def test_an_entry_is_asked_for_when_its_room_was_shown() -> None:
    """What was shown is known only after the ranking it came from: else every model learns to say what it showed."""
    entry, shown = int(FactKind.ENTRY), int(FactKind.IMPRESSION)
    late = 10 * SHOWN_BEFORE_US
    rows = [
        (0, shown, 7, 1, 10), (1, shown, 7, 2, 20), (1, shown, 8, 1, 10), (5, entry, 7, 1, 10), (6, entry, 7, 3, 30),
        (late, entry, 7, 2, 20), (late + 1, entry, 8, 1, 10),
    ]  # fmt: skip
    told = pl.DataFrame(rows, schema=["at", "kind", "user", "room", "host"], orient="row")
    taken = np.array([False, False, False, True, True, True, False])
    assert requests_of(told, taken) == {0: [(7, 1, 10)], 4: [(7, 3, 30)], 5: [(7, 2, 20)]}


def test_many_live_rooms_make_fewer_requests_not_a_larger_log() -> None:
    """A million entries among hundreds of rooms must not be held as hundreds of millions of candidates."""
    hosts, entries = 30, 2_000
    rooms = pl.DataFrame(
        {"room": range(hosts), "host": range(hosts), "cohosts": [[]] * hosts, "started_at": T0,
         "category": [None] * hosts},
        schema_overrides={"cohosts": pl.List(pl.Int64), "category": pl.String},
    )  # fmt: skip
    rows = [(T0, int(FactKind.ROOM_START), -1, i, i, 0, 0, 0) for i in range(hosts)]
    rows += [
        (T0 + i * MINUTE // 60, int(FactKind.ENTRY), i % 40, i % hosts, i % hosts, 1, T0, 0) for i in range(1, entries)
    ]
    rows += [(T0 + 30 * MINUTE, int(FactKind.ROOM_END), -1, i, i, 0, 0, 0) for i in range(1, hosts)]
    told = pl.DataFrame(rows, schema=FACT_SCHEMA, orient="row").sort(list(FACT_SCHEMA))
    logged = {}
    for most in (6_000, 1_000_000):
        live = assemble(empty_parts(hosts))
        live.register_rooms(rooms)
        logged[most] = replay_and_log(live, told, BuildConfig(ranker_candidates=most), 0)
    everything, some = logged[1_000_000], logged[6_000]
    assert len(everything.rows) > 45_000
    assert 5_000 < len(some.rows) < 7_000
    assert some.rows.base is None and some.rows.nbytes == some.groups.sum() * everything.rows.shape[1] * 4


def test_candidates_of_a_stretch_are_a_slice_and_of_others_the_same_rows() -> None:
    live = assemble(empty_parts(2))
    live.register_rooms(ROOMS)
    log = replay_and_log(live, facts(), BuildConfig(), 0)
    for picked in ([1, 2, 3], [0, 3], [], [5]):
        requests = np.isin(np.arange(len(log.groups)), picked)
        where = log.candidates_of(requests)
        assert isinstance(where, slice) == (picked in ([1, 2, 3], [5]))
        np.testing.assert_array_equal(log.rows[where], log.rows[np.repeat(requests, log.groups)])


def test_a_room_the_sources_do_not_bring_is_no_choice_but_counted() -> None:
    """Put among the candidates it would stand out, by its place or by its lack of a source: a ranker learns that."""
    hosts = 6
    rooms = pl.DataFrame(
        {"room": range(hosts), "host": range(hosts), "cohosts": [[]] * hosts, "started_at": T0,
         "category": [None] * hosts},
        schema_overrides={"cohosts": pl.List(pl.Int64), "category": pl.String},
    )  # fmt: skip
    crowd = [(user, user % 3) for user in range(9)]
    entries = [*crowd, (20, 5), (20, 5), (21, 1)]  # room 5 is nobody's but user 20's, who knows it the second time
    rows = [(T0, int(FactKind.ROOM_START), -1, i, i, 0, 0, 0) for i in range(hosts)]
    rows += [(T0 + i * MINUTE, int(FactKind.ENTRY), u, h, h, 1, T0, 0) for i, (u, h) in enumerate(entries, 1)]
    told = pl.DataFrame(rows, schema=FACT_SCHEMA, orient="row").sort(list(FACT_SCHEMA))
    sources = {"nearest": 0, "transition": 0, "popular": 3, "newcomers": 0}
    live = assemble(empty_parts(hosts, EngineConfig.model_validate({"pipeline": {"sources": sources}})))
    live.register_rooms(rooms)
    log = replay_and_log(live, told, BuildConfig(ranker_rooms=2), 0)
    assert log.missed.tolist() == [T0 + 10 * MINUTE]
    assert len(log.groups) == len(entries) - 1 and log.labels.sum() == len(log.groups)
    assert log.requests.filter(user=20)["at"].to_list() == [T0 + 11 * MINUTE]
    for begin, size in zip(np.cumsum(log.groups) - log.groups, log.groups, strict=True):
        candidates = log.hosts[begin : begin + size]
        assert (np.diff(candidates) > 0).all(), "in the order of the epoch, wherever the entered one stands"
    everything = assemble(empty_parts(hosts))
    everything.register_rooms(rooms)
    assert not len(replay_and_log(everything, told, BuildConfig(), 0).missed), "all live rooms are candidates"
