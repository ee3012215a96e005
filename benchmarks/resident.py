"""What is resident when a large bundle is served, and what an event and a lookup add to it.

    python benchmarks/resident.py SHELF [--rooms 5000] [--events 20000] [--lookups 1000]

Of a shelf of `benchmarks/large_bundle.py`: MiB of the process's own (`anonymous`) and mapped from files, after loading,
after events of random viewers (a comment for every two entries and more), after lookups whose impressions are counted,
and after mapped pages were given back. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from lookup import K, start_rooms
from soak import memory

from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine


def events(engine: Engine, n: int) -> list[tuple[str, str, str]]:
    """Entries and comments of random viewers in rooms on air, as JSON."""
    rng = np.random.default_rng(1)
    ids, live = engine.loaded.vocabularies, engine.loaded.live.world.index.publish()
    told = []
    for i in range(n):
        room, at = int(rng.integers(len(live))), engine.clock() - 1_000_000 - i
        user = ids.users.id(int(rng.integers(len(ids.users))))
        row = {"user_id": user, "host_id": ids.hosts.id(int(live.hosts[room]))}
        row |= {"room_id": ids.rooms.id(int(live.rooms[room]))}
        if i % 10 < 3:
            told.append((f"c{i}", "engagements", json.dumps(row | {"at": at, "kind": "comment"})))
        else:
            told.append((f"w{i}", "watches", json.dumps(row | {"entered_at": at})))
    return told


def measured(engine: Engine, rooms: int, n_events: int, n_lookups: int) -> dict[str, Any]:
    """Memory after each step, and what one event and one lookup added."""
    found: dict[str, Any] = {"loaded": memory("self")}
    start_rooms(engine, rooms)
    told = events(engine, n_events)
    found["rooms started"] = before = memory("self")
    for at in range(0, n_events, 100):
        engine.apply(told[at : at + 100])
    found["after events"] = after = memory("self")
    found["an event adds, bytes of its own"] = round((after["anonymous"] - before["anonymous"]) * 2**20 / n_events)
    users = engine.loaded.vocabularies.users
    for i, user in enumerate(np.random.default_rng(2).integers(0, len(users), n_lookups).tolist()):
        engine.apply([], [engine.lookup(Asked(users.id(user), K)).impressions(str(i))])
    found["after lookups"] = then = memory("self")
    for kind, name in (("anonymous", "of its own"), ("files", "of mapped pages")):
        found[f"a lookup adds, bytes {name}"] = round((then[kind] - after[kind]) * 2**20 / n_lookups)
    begun = time.perf_counter()
    engine.loaded.bundle.maps.give_back()
    found["pages given back"] = memory("self") | {"s": round(time.perf_counter() - begun, 2)}
    return found


def main() -> None:
    """Measure and print one JSON document."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("shelf", type=Path)
    options.add_argument("--rooms", type=int, default=5_000)
    options.add_argument("--events", type=int, default=20_000)
    options.add_argument("--lookups", type=int, default=1_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = ServingConfig(lease_s=0.0)
        with Engine.open(given.shelf, Path(folder) / "log.db", config) as engine:
            print(json.dumps(measured(engine, given.rooms, given.events, given.lookups), indent=2))


if __name__ == "__main__":
    main()
