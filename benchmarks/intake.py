"""What an event costs with durability on: logged, flushed, judged, applied to every state and to what learns online.

    python benchmarks/intake.py [-n 20000]

A mix of entries, completed visits, comments, follows, orders and impressions of random known viewers in rooms on air,
on a synthetic bundle with transitions; then those viewers come again, as most events of an evening are of viewers who
were there before. Processor time of the writing thread is told beside the wall clock, which on a busy machine says more
about the machine; `flush_ms` is what the disk takes for one commit, a bound one sender cannot beat. Several senders
share commits, as batches over HTTP do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from lookup import start_rooms
from synthetic_bundle import synthetic

from serving.config import ServingConfig
from serving.engine import Engine
from serving.server import settle_memory

Told = list[tuple[str, str, str]]


def mixed(engine: Engine, n: int, name: str, seed: int) -> Told:
    """n events as JSON text, as they come over HTTP; of the same viewers in the same rooms if the seed is the same."""
    rng = np.random.default_rng(seed)
    ids, live = engine.loaded.vocabularies, engine.loaded.live.world.index.publish()
    told = []
    for i in range(n):
        room, at = int(rng.integers(len(live))), engine.clock() - 1_000_000 - i * 1_000
        user = ids.users.id(int(rng.integers(len(ids.users))))
        pair = {"user_id": user, "host_id": ids.hosts.id(int(live.hosts[room]))}
        row = pair | {"room_id": ids.rooms.id(int(live.rooms[room]))}
        table, row = [
            ("watches", row | {"entered_at": at}),
            ("watches", row | {"entered_at": at}),
            ("watches", row | {"entered_at": at - 500_000_000, "left_at": at}),
            ("engagements", row | {"at": at, "kind": "comment"}),
            ("follows", pair | {"at": at, "action": "follow"}),
            ("purchases", row | {"order_id": 10**8 * len(name) + i, "at": at, "amount_minor": 500}),
            ("impressions", row | {"at": at, "position": 3}),
        ][i % 7]
        told.append((f"{name}-{i}", table, json.dumps(row)))
    return told


def measured(engine: Engine, told: Told, batch: int) -> dict[str, Any]:
    """Events a second and µs of processor time an event, medians over stretches of ten batches."""
    rates, costs = [], []
    for at in range(0, len(told), 10 * batch):
        part = told[at : at + 10 * batch]
        begun, work = time.perf_counter(), time.thread_time()
        for start in range(0, len(part), batch):
            assert all(verdict[0] == "accepted" for verdict in engine.apply(part[start : start + batch]))
        rates.append(len(part) / (time.perf_counter() - begun))
        costs.append((time.thread_time() - work) / len(part) * 1e6)
    return {
        "batch": batch, "events_per_s": round(statistics.median(rates)), "cpu_us": round(statistics.median(costs), 1),
        "least_cpu_us": round(min(costs), 1),
    }  # fmt: skip


def flush_ms(folder: Path) -> float:
    """Median time of one flush of a small append."""
    took = []
    with (folder / "flush").open("wb") as stream:
        for _ in range(30):
            stream.write(b"x" * 20_000)
            stream.flush()
            begun = time.perf_counter()
            os.fsync(stream.fileno())
            took.append((time.perf_counter() - begun) * 1e3)
    return round(statistics.median(took), 2)


def main() -> None:
    """Measure and print one JSON document."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("-n", type=int, default=20_000, help="events of each batch size")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shelf = synthetic(root / "b", users=20_000, hosts=2_000, ties=20, neighbours=50)
        found: dict[str, Any] = {"load": os.getloadavg()[0], "flush_ms": flush_ms(root)}
        with Engine.open(shelf, root / "log.db", ServingConfig(lease_s=0.0)) as engine:
            start_rooms(engine, 2_000)
            settle_memory()
            for name, seed, batch in (("x", 1, 100), ("xx", 2, 1_000), ("xxx", 1, 100), ("xxxx", 2, 1_000)):
                what = "viewers met" if len(name) < 3 else "the same viewers in the same rooms again"
                found.setdefault(what, []).append(measured(engine, mixed(engine, given.n, name, seed), batch))
            records = engine.loaded.applied
        begun, work = time.perf_counter(), time.process_time()
        Engine.open(shelf, root / "log.db", ServingConfig(lease_s=0.0)).close()
        seconds, cpu_s = time.perf_counter() - begun, time.process_time() - work
        found["restart"] = {"records": records, "s": round(seconds, 2), "cpu_s": round(cpu_s, 2)}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
