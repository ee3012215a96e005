"""A program of its own: opens world-v1, sends a service's requests, and prints which compiled loops these called first.

`python -m tests.unit.serving_live.rehearsed_requests LOG tables|network|no_ties`: with its ranker, with a network, an
audience, trust and heads of all names, or with these and no tie of anybody.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numba.core.dispatcher import Dispatcher

from recsys.config import SourceSizes
from recsys.index import LiveIndexConfig
from recsys.live.state import LiveState
from recsys.models.audience import Audience
from recsys.models.block_network import BlockNetwork
from recsys.models.strength import HEADS
from recsys.models.trust import HostTrust
from recsys.pipeline.features import BLOCKS, FEATURES
from recsys.pipeline.rehearsal import rehearse
from recsys.ties.store import TieStore
from serving.answers import document
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine

BUNDLE = Path(__file__).parents[2] / "fixtures" / "bundles" / "world-v1"
UNKNOWN = 10**12


def variants() -> dict[str, int]:
    """Of every compiled loop of the package how many machine codes there are in this process."""
    found: dict[str, Any] = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("recsys."):
            found |= {f"{name}.{one}": loop for one, loop in vars(module).items() if isinstance(loop, Dispatcher)}
    return {name: len(one.signatures) for name, one in found.items()}


def network() -> BlockNetwork:
    """Random weights of trained size over all features."""
    rng = np.random.default_rng(1)
    blocks = [(name, block) for block, names in BLOCKS.items() for name in names]
    n = len(blocks)
    return BlockNetwork(
        tuple(name for name, _ in blocks), tuple(block for _, block in blocks), np.zeros(n), np.ones(n), np.zeros(n),
        rng.normal(size=(96, n)) / 10, np.zeros(96), rng.normal(size=(1, 32, 96)) / 10, np.zeros((1, 32)),
        rng.normal(size=(1, 32)), 0.0, private_bonus=0.3,
    ).bound_to(FEATURES)  # fmt: skip


def trust() -> HostTrust:
    """Of two hosts; later ones are trusted like the market."""
    some = np.array([3.0, 1.0])
    counts = some.astype(np.int64)
    return HostTrust(some, some, counts, counts, counts - 2, ("food", "shoes"), 0.9, 10.0)


def opened(log: Path, kind: str, clock_us: int) -> Engine:
    """The service before its first request."""
    engine = Engine.open(BUNDLE, log, ServingConfig(), lambda: clock_us)
    world = engine.loaded.live.world
    if kind != "tables":
        (head,) = world.models.strength.values()
        world.models.strength |= {name: replace(head, name=name) for name in HEADS}
        world.models.ranker, world.models.audience, world.models.trust = network(), Audience(2, 2), trust()
    few = SourceSizes(nearest=1, transition=1, popular=1, newcomers=1)
    pipeline = world.config.pipeline.model_copy(update={"sources": few})
    world.config = world.config.model_copy(update={"pipeline": pipeline})
    if kind == "no_ties":
        world.ties = TieStore(world.blocks.of("tie"))
        engine.loaded.live.__dict__ |= LiveState(world).__dict__  # what writes to ties knows the new ones
    if kind != "tables":
        rehearse(world, clock_us)
        world.index.config = LiveIndexConfig(outlined_from=0)  # as if there were many rooms
    return engine


def ask(engine: Engine, at: int) -> None:
    """All kinds of requests: before and after rooms, facts and ends of rooms, until nothing is on air any more.

    Viewers are known and not known; what one knows of a host may come from the bundle in one block and from facts in
    another.
    """
    ids = engine.loaded.vocabularies
    hosts, users = (ids.hosts.id(0), ids.hosts.id(1), 777), [ids.users.id(row) for row in range(12)]
    starts: list[Any] = [("rooms", {"room_id": 9_000 + i, "host_id": hosts[i % 3], "started_at": at}) for i in range(9)]
    ends = [(table, row | {"ended_at": at + 5}) for table, row in starts[:2]]
    joint = ("rooms", {"room_id": 9_900, "host_id": 777, "started_at": at, "cohost_ids": [hosts[0]]})
    each, new = {"room_id": 9_003, "host_id": hosts[0]}, {"room_id": 9_900, "host_id": 777}
    told = [
        row
        for user in (users[0], users[1], UNKNOWN)
        for row in (
            ("watches", each | {"user_id": user, "entered_at": at + 10}),
            ("engagements", each | {"user_id": user, "at": at + 20, "kind": "comment"}),
            ("purchases", each | {"user_id": user, "order_id": user, "at": at + 30, "amount_minor": 500}),
            ("follows", {"user_id": user, "host_id": hosts[1], "at": at + 40, "action": "follow"}),
        )
    ]
    told += [
        ("watches", new | {"user_id": users[2], "entered_at": at + 10}),
        ("purchases", new | {"user_id": users[3], "order_id": 3, "at": at + 30, "amount_minor": 500}),
        ("follows", {"user_id": users[4], "host_id": hosts[0], "at": at + 40, "action": "follow"}),
        ("feedback", {"user_id": users[5], "host_id": hosts[1], "at": at + 40, "kind": "block"}),
        ("follows", {"user_id": users[6], "host_id": 777, "at": at + 40, "action": "follow"}),
        ("follows", {"user_id": users[6], "host_id": 777, "at": at + 45, "action": "unfollow"}),
        ("engagements", each | {"user_id": users[7], "at": at + 20, "kind": "like"}),
        ("notices", {"host_id": hosts[1], "at": at + 50, "kind": "leave", "from": at + 60, "to": at + 90}),
    ]
    all_but_two = [("rooms", row | {"ended_at": at + 70}) for row in [*on_air(engine), *(row for _, row in starts[3:])]]
    last_two = [(table, row | {"ended_at": at + 80}) for table, row in (starts[2], joint)]
    for n, events in enumerate(([], [*starts, *ends, joint], told, all_but_two, last_two)):
        verdicts = engine.apply([(f"{table}-{i}-{n}", table, row) for i, (table, row) in enumerate(events)])
        assert {verdict[0] for verdict in verdicts} <= {"accepted"}, verdicts
        for user in (None, UNKNOWN, *users):
            for asked in asked_by(user):
                document(engine.lookup(asked), breakdown=asked.step == 0 and asked.explain)
            engine.lookup_many([Asked(user, 5), Asked(user, 5)])
            engine.lookup_many([Asked(user, 5, rooms=[9_900]), Asked(users[0], 5), Asked(None, 5, category="no such")])
        for i, one in enumerate(engine.lookup_many([Asked(user, 5) for user in (None, UNKNOWN, *users)])):
            document(one, breakdown=True)
            engine.apply([], [one.impressions(f"request-{i}-{n}")])
    assert not len(engine.loaded.live.world.index)
    engine.erase(users[1])
    engine.lookup_many([Asked(users[0], 5), Asked(users[1], 5)])


def asked_by(user: int | None) -> Iterator[Asked]:
    """What one viewer may ask: any step, some rooms or none, one place or more than there are rooms, some sources."""
    for step in range(4):
        yield Asked(user, 5, step=step)
        yield Asked(user, 5, step=step, heads=True)
    for rooms in ([], [9_003], [9_900], [9_002, 9_003, 9_900]):
        yield Asked(user, 3, rooms=rooms, heads=True)
    for k in (1, 2, 500):
        yield Asked(user, k)
        yield Asked(user, k, explain=False, heads=True)
    yield Asked(user, 5, category="no such")
    yield Asked(user, 5, exclude=[9_003, 9_004])
    for source in ("nearest", "transition", "popular", "newcomer"):
        yield Asked(user, 3, exclude=[9_004], sources=frozenset({source}))


def on_air(engine: Engine) -> list[dict[str, Any]]:
    """Rows of the rooms now live."""
    ids, world = engine.loaded.vocabularies, engine.loaded.live.world
    host, start = world.rooms.host, world.rooms.started_at
    return [
        {"room_id": ids.rooms.id(room), "host_id": ids.hosts.id(int(host[room])), "started_at": int(start[room])}
        for room in world.index.publish().rooms.tolist()
    ]


def main() -> None:
    """Print the loops as JSON: how many machine codes before, and after the requests, where that is more."""
    as_of = 1_718_509_025_074_436
    engine = opened(Path(sys.argv[1]), sys.argv[2], as_of + 100_000_000)
    ready = variants()
    ask(engine, as_of + 1_000_000)
    more = {name: [ready.get(name, 0), n] for name, n in variants().items() if n > ready.get(name, 0)}
    print(orjson.dumps({"loops": sum(ready.values()), "called first by a request": more}).decode())


if __name__ == "__main__":
    main()
