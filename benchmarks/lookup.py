"""Lookups, events and HTTP against what they cost at least: ratios, measured in one go on a synthetic bundle.

    python benchmarks/lookup.py --rooms 10000 [--http] [--events]

The bundle is synthetic unless `--bundle` names a built one: random ties of few viewers, `--hosts` hosts, one live room
each for `--rooms` of them, models of the sizes training gives (`benchmarks/synthetic_bundle.py`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from synthetic_bundle import synthetic

from recsys.index.flat import best, inner_products
from serving.answers import document
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine

K = 100


def timed(call: Callable[[int], object], n: int) -> dict[str, float]:
    """p50 and p99 of n calls on the wall clock, and p50 of processor time, which a busy machine distorts less, ms.

    The first tenth warms up and is not counted.
    """
    took, worked = [], []
    for i in range(n):
        begun, work = time.perf_counter(), time.thread_time()
        call(i)
        took.append((time.perf_counter() - begun) * 1e3)
        worked.append((time.thread_time() - work) * 1e3)
    p50, p99 = np.percentile(took[n // 10 :], [50, 99])
    return {
        "p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3),
        "cpu_p50_ms": round(statistics.median(worked[n // 10 :]), 3),
    }  # fmt: skip


def start_rooms(engine: Engine, rooms: int) -> float:
    """Put `rooms` rooms of different hosts on air; events a second."""
    ids = engine.loaded.vocabularies.hosts
    now = engine.clock() - 60_000_000
    hosts = [ids.id(i % len(ids)) for i in range(rooms)]
    told = [
        (f"r{i}", "rooms", {"room_id": 10**9 + i, "host_id": h, "started_at": now + i}) for i, h in enumerate(hosts)
    ]
    begun = time.perf_counter()
    for at in range(0, rooms, 1_000):
        engine.apply(told[at : at + 1_000])
    return rooms / (time.perf_counter() - begun)


def in_process(engine: Engine, n: int) -> dict[str, Any]:
    """The whole lookup with reasons and document, per step of the ladder, and the raw search inside it."""
    users = np.random.default_rng(2).integers(0, len(engine.loaded.vocabularies.users), n).tolist()
    ids = [engine.loaded.vocabularies.users.id(user) for user in users]
    found: dict[str, Any] = {}
    for step in range(4):
        found[f"lookup step {step}"] = timed(
            lambda i, step=step: document(engine.lookup(Asked(ids[i], K, step=step))), n
        )
    epoch = engine.loaded.live.world.index.publish()
    vectors = np.ascontiguousarray(epoch.vectors())
    query, keys = vectors[:1].copy(), epoch.rooms
    found["raw search"] = timed(lambda _: best(inner_products(query, vectors)[0], keys, K), n)
    found["ratio to raw search"] = round(found["lookup step 0"]["cpu_p50_ms"] / found["raw search"]["cpu_p50_ms"], 1)
    return found


def intake(engine: Engine, batch: int, n: int) -> dict[str, Any]:
    """Entries of known viewers into live rooms, batch by batch, flushed and applied."""
    rng = np.random.default_rng(3)
    ids, live = engine.loaded.vocabularies, engine.loaded.live.world.index.publish()
    told = []
    for i in range(n):
        where = int(rng.integers(len(live)))
        row = {
            "user_id": ids.users.id(int(rng.integers(len(ids.users)))), "host_id": ids.hosts.id(int(live.hosts[where])),
            "room_id": ids.rooms.id(int(live.rooms[where])), "entered_at": engine.clock() - 1_000_000 - i * 1_000,
        }  # fmt: skip
        told.append((f"w{batch}-{i}", "watches", row))
    rates, costs = [], []
    for at in range(0, n, batch * 10):
        begun, work = time.perf_counter(), time.thread_time()
        for start in range(at, min(at + batch * 10, n), batch):
            engine.apply(told[start : start + batch])
        some = min(batch * 10, n - at)
        rates.append(some / (time.perf_counter() - begun))
        costs.append((time.thread_time() - work) / some * 1e6)
    return {
        "batch": batch, "events_per_s": round(statistics.median(rates)), "cpu_us_per_event": round(min(costs), 1)
    }  # fmt: skip


def load(url: str, path: str, bodies: list[bytes] | None, connections: int, seconds: float) -> dict[str, float]:
    """Requests a second and latencies from threads of this process, which shares the cores with the server."""
    took: list[float] = []
    failed = [0]
    until = time.perf_counter() + seconds

    def caller(seed: int) -> None:
        with httpx.Client(base_url=url, trust_env=False, verify=False, timeout=20) as client:
            i = seed
            while time.perf_counter() < until:
                begun = time.perf_counter()
                answer = client.get(path) if bodies is None else client.post(path, content=bodies[i % len(bodies)])
                took.append((time.perf_counter() - begun) * 1e3)
                failed[0] += answer.status_code != 200
                i += connections

    threads = [threading.Thread(target=caller, args=(i,)) for i in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99 = np.percentile(took, [50, 99])
    return {
        "per_s": round(len(took) / seconds), "p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1),
        "failed": failed[0],
    }  # fmt: skip


def over_http(shelf: Path, log: Path, users: list[int | str], connections: int, seconds: float) -> dict[str, Any]:
    """A worker in a process of its own: an empty endpoint, then lookups."""
    import multiprocessing

    from serving.server import listening, work

    config = ServingConfig(port=0, lease_s=0.0, log_impressions=False, deadline_ms=1_000.0)
    bound = listening(config)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    worker = multiprocessing.get_context("spawn").Process(
        target=work, args=(shelf, log, config, bound, print), daemon=True
    )
    worker.start()
    try:
        httpx.get(url + "/readyz", timeout=60, trust_env=False)
        bodies = [json.dumps({"user_id": user, "k": K}).encode() for user in users]
        return {
            "empty endpoint": load(url, "/livez", None, connections, seconds),
            "lookup": load(url, "/v1/lookup", bodies, connections, seconds),
        }
    finally:
        worker.terminate()
        worker.join(timeout=20)


def main() -> None:
    """Measure and print one JSON document."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rooms", type=int, default=10_000)
    options.add_argument("--hosts", type=int, default=20_000)
    options.add_argument("--users", type=int, default=2_000)
    options.add_argument("--ties", type=int, default=30)
    options.add_argument("--bundle", type=Path, default=None)
    options.add_argument("-n", type=int, default=400)
    options.add_argument("--connections", type=int, default=16)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--http", action="store_true")
    options.add_argument("--events", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shelf = given.bundle or synthetic(root / "b", users=given.users, hosts=given.hosts, ties=given.ties)
        found: dict[str, Any] = {"rooms": given.rooms, "bundle": str(given.bundle or "synthetic")}
        with Engine.open(shelf, root / "log.db", ServingConfig(lease_s=0.0)) as engine:
            found["rooms started per s"] = round(start_rooms(engine, given.rooms))
            found |= in_process(engine, given.n)
            ids = engine.loaded.vocabularies.users
            users = [ids.id(i % len(ids)) for i in range(500)]
            if given.events:
                found["intake"] = [intake(engine, batch, 6_000) for batch in (100, 1_000)]
        begun = time.perf_counter()
        Engine.open(shelf, root / "log.db", ServingConfig(lease_s=0.0)).close()
        found["restart_s"] = round(time.perf_counter() - begun, 2)
        if given.http:
            found["http"] = over_http(shelf, root / "log.db", users, given.connections, given.seconds)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
