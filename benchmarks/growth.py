"""What the service keeps of what happens until the next bundle: bytes per room that ended, per viewer nobody knew who
follows or enters, per host shown to a viewer for the first time; and what of it is left when that bundle has come.

    python benchmarks/growth.py [-n 30000] [--nights 10]

On a small synthetic bundle, by tracing allocations (arrays count with what they hold in advance). The memories of
`dedup_horizon` are kept short here: they are bounded, however much happens. Nights are those of one process on a clock
that runs ahead: new viewers, rooms on and off air, answers that are logged, then a bundle that contains all of it.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from soak import memory
from synthetic_bundle import AS_OF, synthetic

from recsys.events.log_tables import identity_of, log_source
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine, Event
from serving.server import settle_memory

_NEW, _MINUTE_US = 10**9, 60_000_000


def bytes_each(engine: Engine, told: Callable[[int], list[Event]], n: int) -> float:
    """Bytes that n things leave behind, each told by some events; a sixth as many come before, not counted."""
    for i in range(-n // 6, n):
        if i == 0:
            gc.collect()
            tracemalloc.start()
        assert all(verdict[0] == "accepted" for verdict in engine.apply(told(i)))
    gc.collect()
    took = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return round(took / n)


def shown_bytes(engine: Engine, viewers: int, answers: int) -> float:
    """Bytes per host shown to a viewer for the first time: each of them has answers of a hundred random hosts."""
    live, rng = engine.loaded.live, np.random.default_rng(1)
    n_hosts, first = len(engine.loaded.vocabularies.hosts), _NEW + 1_000 * answers
    live.apply_impressions(engine.clock(), first, [0], [-1])  # what happens once in a process
    gc.collect()
    tracemalloc.start()
    for _ in range(answers):
        for viewer in range(first + 1, first + 1 + viewers):
            hosts = rng.choice(n_hosts, 100, replace=False).tolist()
            live.apply_impressions(engine.clock(), viewer, hosts, [-1] * 100)
    gc.collect()
    took = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return round(took / sum(len(live.world.ties.of("exposure", first + 1 + i)) for i in range(viewers)))


def night_by_night(folder: Path, nights: int) -> list[int]:
    """MiB of the process's own after each night's bundle was taken over."""
    sizes: dict[str, Any] = {"users": 2_000, "hosts": 3_000, "ties": 5, "neighbours": 50}
    shelf, log = synthetic(folder / "shelf", **sizes), folder / "log.db"
    now, found, rng = AS_OF, [], np.random.default_rng(1)
    with Engine.open(shelf, log, ServingConfig(lease_s=0.0, dedup_horizon=2_000), lambda: now) as engine:
        source = log_source(identity_of(log))
        settle_memory()  # as a service does: garbage is hardly looked for
        for night in range(nights):
            for i in range(night * 300, night * 300 + 300):
                now += 2 * _MINUTE_US
                host, at = int(rng.integers(sizes["hosts"])), now - _MINUTE_US
                room: dict[str, Any] = {"room_id": _NEW + i, "host_id": host, "started_at": at}
                told: list[Event] = [(f"s{i}", "rooms", room), (f"e{i}", "rooms", room | {"ended_at": at + i})]
                for j in range(20):
                    row = {"user_id": _NEW + 20 * i + j, "host_id": host, "at": at, "action": "follow"}
                    told.append((f"f{i}-{j}", "follows", row))
                shown = engine.lookup(Asked(int(rng.integers(sizes["users"])), 50)).impressions(str(i))
                assert all(verdict[0] == "accepted" for verdict in engine.apply(told, [shown]))
            upto = {source: engine.loaded.applied}
            synthetic(shelf, **sizes, name=f"night-{night}", as_of=now, offsets=upto)
            engine.swap()
            found.append(memory("self")["anonymous"])
    return found


def main() -> None:
    """Measure and print one JSON document."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("-n", type=int, default=30_000, help="things of each kind")
    options.add_argument("--nights", type=int, default=10)
    given = options.parse_args()
    n = given.n
    with tempfile.TemporaryDirectory() as folder:
        after = night_by_night(Path(folder), given.nights)
    with tempfile.TemporaryDirectory() as folder:
        shelf = synthetic(Path(folder), users=2_000, hosts=3_000, ties=5, neighbours=50)
        with Engine.open(shelf, None, ServingConfig(lease_s=0.0, dedup_horizon=100)) as engine:
            now, hosts = engine.clock() - 3_600_000_000, engine.loaded.vocabularies.hosts

            def room(i: int) -> list[Event]:
                row: dict[str, Any] = {"room_id": _NEW + i, "host_id": hosts.id(i % 3_000), "started_at": now + i}
                return [(f"s{i}", "rooms", row), (f"e{i}", "rooms", row | {"ended_at": now + n + i})]

            def viewer(table: str, first: int, **more: Any) -> Callable[[int], list[Event]]:
                return lambda i: [(f"{table}{i}", table, {"user_id": first + i, "host_id": hosts.id(i % 3_000)} | more)]

            found = {
                "a room that ended": bytes_each(engine, room, n),
                "a follower nobody knew": bytes_each(engine, viewer("follows", _NEW, at=now, action="follow"), n),
                "an entrant nobody knew": bytes_each(engine, viewer("watches", 2 * _NEW, room_id=1, entered_at=now), n),
                "a host shown for the first time": {
                    f"of {answers} answers": shown_bytes(engine, 300, answers) for answers in (3, 10, 30)
                },
            }
    print(json.dumps({"MiB after each night's bundle": after, "bytes": found}, indent=2))


if __name__ == "__main__":
    main()
