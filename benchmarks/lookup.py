"""Lookups, events and HTTP against what they cost at least: ratios, measured in one go on synthetic bundles.

    python benchmarks/lookup.py [--rooms 10000 100000] [--http [--impressions]] [--events] [--in-a-row 10]

For each number of live rooms a bundle is made in a temporary folder, unless `--bundle` names a built one: random ties
of few viewers, one live room per host, models of the sizes training gives (`benchmarks/synthetic_bundle.py`). Whatever
is compared takes turns, some calls in a row, so that a busy machine slows both alike and each finds the caches as its
calls before left them; with `--in-a-row 1` as the other sides did. To add a peer, add its call to `sides`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from load import load, request
from synthetic_bundle import synthetic
from threadpoolctl import threadpool_limits

from serving.answers import document
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine
from serving.ladder import STEPS
from serving.queue import MOST_AT_ONCE
from serving.server import SWITCH_S, settle_memory

K, BATCH = 100, 16


def in_turns(sides: dict[str, Callable[[int], object]], n: int, row: int = 10) -> dict[str, dict[str, float]]:
    """n calls of every side, `row` at a time: p50 and p99 on the wall clock, p50 of processor time, all in ms.

    Processor time is distorted less by a busy machine. The first tenth warms up and is not counted.
    """
    took: dict[str, list[float]] = {name: [] for name in sides}
    worked: dict[str, list[float]] = {name: [] for name in sides}
    for start in range(0, n, row):
        for name, call in sides.items():
            for i in range(start, min(start + row, n)):
                begun, work = time.perf_counter(), time.thread_time()
                call(i)
                took[name].append((time.perf_counter() - begun) * 1e3)
                worked[name].append((time.thread_time() - work) * 1e3)
    found = {}
    for name in sides:
        p50, p99 = np.percentile(took[name][n // 10 :], [50, 99])
        work = statistics.median(worked[name][n // 10 :])
        found[name] = {"p50_ms": round(p50, 3), "p99_ms": round(p99, 3), "cpu_p50_ms": round(work, 3)}
    return found


def timed(call: Callable[[int], object], n: int) -> dict[str, float]:
    """One side alone, as `in_turns`."""
    return in_turns({"alone": call}, n)["alone"]


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


def in_process(engine: Engine, n: int, row: int) -> dict[str, Any]:
    """The whole lookup with reasons and document, the ladder's steps, many at once, terms, and raw FAISS, in turns."""
    known = engine.loaded.vocabularies.users
    users = np.random.default_rng(2).integers(0, len(known) // 2, n).tolist()
    ids = [known.id(user) for user in users]
    shown = [known.id(len(known) // 2 + user) for user in users]  # who were answered before, and that was logged
    for i, user in enumerate(dict.fromkeys(shown)):
        engine.apply([], [engine.lookup(Asked(user, K)).impressions(f"before-{i}")])
    flat, answers = raw_faiss(engine)

    def together(i: int) -> list[Asked]:
        return [Asked(ids[(i + j) % n], K) for j in range(BATCH)]

    sides: dict[str, Callable[[int], object]] = {
        "lookup": lambda i: document(engine.lookup(Asked(ids[i], K))),
        "raw search": lambda _: flat.search(answers, K),
        "lookup, and what every head says": lambda i: document(engine.lookup(Asked(ids[i], K, heads=True))),
        "lookup, the viewer was shown 100 rooms": lambda i: document(engine.lookup(Asked(shown[i], K))),
    }
    for step in range(1, len(STEPS)):
        sides[f"lookup, {STEPS[step]}"] = lambda i, step=step: document(engine.lookup(Asked(ids[i], K, step=step)))
    sides["16 viewers together"] = lambda i: [document(one) for one in engine.lookup_many(together(i))]
    once = engine.lookup(Asked(ids[0], K)).answer.breakdown
    sides["terms of the answered rooms"] = lambda _: replace(once).contributions
    found: dict[str, Any] = in_turns(sides, n, row)
    found["ratio to raw search"] = round(found["lookup"]["cpu_p50_ms"] / found["raw search"]["cpu_p50_ms"], 1)
    batch = found["16 viewers together"]["cpu_p50_ms"]
    found["lookups a batch of 16 costs"] = round(batch / found["lookup"]["cpu_p50_ms"], 1)
    return found


def raw_faiss(engine: Engine) -> tuple[Any, np.ndarray]:
    """A FAISS flat index over the vectors of the rooms live now, and a query."""
    vectors = np.ascontiguousarray(engine.loaded.live.world.index.publish().vectors())
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    return flat, vectors[:1].copy()


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


def over_http(
    shelf: Path, log: Path, users: list[int | str], connections: int, seconds: float, impressions: bool
) -> dict[str, Any]:
    """A worker in a process of its own: an empty endpoint, then lookups."""
    import multiprocessing

    from serving.server import listening, work

    config = ServingConfig(port=0, lease_s=0.0, log_impressions=impressions, deadline_ms=1_000.0)
    bound = listening(config)
    port = bound.getsockname()[1]
    worker = multiprocessing.get_context("spawn").Process(
        target=work, args=(shelf, log, config, bound, print), daemon=True
    )
    worker.start()
    asked = [request("POST", "/v1/lookup", json.dumps({"user_id": user, "k": K}).encode()) for user in users]
    many = [
        request("POST", "/v1/lookup", json.dumps({"user_ids": users[i : i + BATCH], "k": K}).encode())
        for i in range(0, len(users) - BATCH, BATCH)
    ]
    try:
        load(port, [request("GET", "/readyz")], 1, 0.1)
        load(port, asked, connections, 0.5)
        found: dict[str, Any] = {}
        for name, requests in (("empty endpoint", [request("GET", "/livez")]), ("lookup", asked), ("16 users", many)):
            before = _worked_s(worker.pid)
            found[name] = load(port, requests, connections, seconds)
            found[name]["server_cpu_ms"] = round((_worked_s(worker.pid) - before) * 1e3 / found[name].pop("answers"), 3)
    finally:
        worker.terminate()
        worker.join(timeout=20)
    found["empty answers for one lookup"] = round(found["empty endpoint"]["per_s"] / found["lookup"]["per_s"], 1)
    return found


def _worked_s(process: int | None) -> float:
    """Processor time of another process, s; NaN where the system does not tell."""
    told = Path(f"/proc/{process}/stat")
    if not told.exists():
        return float("nan")
    return sum(map(int, told.read_text().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")


def beside_events(engine: Engine, users: list[Any], batch: int = MOST_AT_ONCE, batches: int = 20) -> dict[str, Any]:
    """Lookups while another thread applies entries in batches as large as the intake takes at once, ms."""
    ids, live = engine.loaded.vocabularies, engine.loaded.live.world.index.publish()
    rng = np.random.default_rng(4)

    def entry(i: int) -> tuple[str, str, dict[str, Any]]:
        where, now = int(rng.integers(len(live))), engine.clock()
        host, room = ids.hosts.id(int(live.hosts[where])), ids.rooms.id(int(live.rooms[where]))
        row = {"user_id": users[i % len(users)], "host_id": host, "room_id": room, "entered_at": now - 1_000_000}
        return f"beside-{i}", "watches", row

    def write() -> None:
        for start in range(0, batch * batches, batch):
            engine.apply([entry(i) for i in range(start, start + batch)])

    took: list[float] = []
    with settled(), ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        while not writer.done():
            begun = time.perf_counter()
            engine.lookup(Asked(users[len(took) % len(users)], K))
            took.append((time.perf_counter() - begun) * 1e3)
            time.sleep(0.005)
        writer.result()
    p50, p90, p99 = np.percentile(took, [50, 90, 99]).round(1).tolist()
    return {"batch": batch, "lookups": len(took), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99}


@contextmanager
def settled() -> Iterator[None]:
    """Threads take turns and garbage is looked for as in a service (`serving.server`)."""
    switch, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(SWITCH_S)
    settle_memory()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(switch)


def measured(given: argparse.Namespace, rooms: int, root: Path) -> dict[str, Any]:
    """Everything at one number of live rooms."""
    hosts = given.hosts or rooms + rooms // 5
    shelf = given.bundle or synthetic(root / "b", users=given.users, hosts=hosts, ties=given.ties)
    found: dict[str, Any] = {"rooms": rooms, "bundle": str(given.bundle or f"synthetic, {hosts} hosts")}
    with Engine.open(shelf, root / "log.db", ServingConfig(lease_s=0.0)) as engine:
        found["rooms started per s"] = round(start_rooms(engine, rooms))
        found |= in_process(engine, given.n, given.in_a_row)
        ids = engine.loaded.vocabularies.users
        users = [ids.id(i % len(ids)) for i in range(500)]
        if given.events:
            found["intake"] = [intake(engine, batch, 6_000) for batch in (100, 1_000)]
            found["lookup beside events"] = beside_events(engine, users)
    begun = time.perf_counter()
    Engine.open(shelf, root / "log.db", ServingConfig(lease_s=0.0)).close()
    found["restart_s"] = round(time.perf_counter() - begun, 2)
    if given.http:
        found["http"] = over_http(shelf, root / "log.db", users, given.connections, given.seconds, given.impressions)
    return found


def main() -> None:
    """Measure and print one JSON document, a part for each number of rooms."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rooms", type=int, nargs="+", default=[10_000, 100_000])
    options.add_argument("--hosts", type=int, default=0, help="0: a fifth more than rooms")
    options.add_argument("--users", type=int, default=2_000)
    options.add_argument("--ties", type=int, default=30)
    options.add_argument("--bundle", type=Path, default=None)
    options.add_argument("-n", type=int, default=400)
    options.add_argument("--in-a-row", type=int, default=10, help="calls of a side before the next has its turn")
    options.add_argument("--connections", type=int, default=16)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--http", action="store_true")
    options.add_argument("--impressions", action="store_true", help="logged over HTTP, as a service does by default")
    options.add_argument("--events", action="store_true")
    given = options.parse_args()
    faiss.omp_set_num_threads(1)
    found = []
    with threadpool_limits(1):
        for rooms in given.rooms:
            with tempfile.TemporaryDirectory() as folder:
                found.append(measured(given, rooms, Path(folder)))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
