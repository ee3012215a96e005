"""Live-room index against raw faiss.IndexFlatIP on the same vectors: `python benchmarks/live_index.py [--rooms N …]`.

Measured is what answers ask: the rooms `nearest` to a viewer, or to several one after the other, and those `flagged`
by ties. Beside it `search`, which gives scores and order too and which no answer asks. Prints ratios, to be trusted
more than milliseconds on a shared machine; ours and faiss take turns. Needs nothing else.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from recsys.index import LiveRoomIndex


def timed(action: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Milliseconds of one call; with `time.thread_time` those of its own work, without waiting for a processor."""
    start = clock()
    action()
    return (clock() - start) * 1e3


def in_turns(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Milliseconds of both, alternating: the lower tenth, what a call takes when no neighbour interrupts it."""
    ours(), theirs()
    pairs = np.array([(timed(ours), timed(theirs)) for _ in range(repeats)])
    low = np.quantile(pairs, 0.1, axis=0)
    return float(low[0]), float(low[1])


def report(n_rooms: int, dimension: int, k: int, repeats: int, seconds: float) -> None:
    rng = np.random.default_rng(0)
    n_hosts = 50_000
    index = LiveRoomIndex(rng.standard_normal((n_hosts, dimension), dtype=np.float32))
    index.start_many(np.arange(n_rooms), rng.integers(0, n_hosts, n_rooms))
    next_room = n_rooms
    query = rng.standard_normal(dimension, dtype=np.float32)
    batch = rng.standard_normal((16, dimension), dtype=np.float32)

    def churn(size: int) -> None:
        nonlocal next_room
        index.end_many(rng.choice(index.epoch.rooms, size, replace=False))
        index.start_many(np.arange(next_room, next_room + size), rng.integers(0, n_hosts, size))
        next_room += size
        index.publish()

    def compare(label: str) -> None:
        epoch = index.publish()
        flat = faiss.IndexFlatIP(dimension)
        flat.add(epoch.vectors())

        for name, side, queries in (
            ("nearest to a viewer", lambda: epoch.nearest(query, k), query[None]),
            ("nearest to 16 viewers", lambda: [epoch.nearest(one, k) for one in batch], batch),
            ("search of one query", lambda: epoch.search(query[None], k), query[None]),
        ):
            ours, theirs = in_turns(side, lambda q=queries: flat.search(q, k), repeats)
            print(f"  {name}, {label}: {ours:.3f} ms, faiss flat {theirs:.3f} ms, ratio {ours / theirs:.2f}")

    print(f"{n_rooms} rooms, d = {dimension}, k = {k}")
    index.publish()
    compare("no slot dead")
    size = max(1, min(1000, n_rooms // 20))
    ended, started, published = [], [], []
    for _ in range(max(40, 2 * n_rooms // (5 * size))):  # long enough to pay for compactions
        gone = rng.choice(index.epoch.rooms, size, replace=False)
        fresh, hosts = np.arange(next_room, next_room + size), rng.integers(0, n_hosts, size)
        next_room += size
        ended.append(timed(lambda gone=gone: index.end_many(gone), time.thread_time))
        started.append(timed(lambda fresh=fresh, hosts=hosts: index.start_many(fresh, hosts), time.thread_time))
        published.append(timed(index.publish))
    print(
        f"  {size} rooms a batch, processor time, amortised: end {np.mean(ended):.2f} ms (median "
        f"{np.median(ended):.2f}, worst {np.max(ended):.1f}), "
        f"start {np.mean(started):.2f} ms, publish {np.median(published) * 1e3:.0f} µs"
    )
    compare("after churn")
    first = [timed(lambda: (churn(1), index.epoch.nearest(query, k))) for _ in range(repeats)]
    flags = np.zeros(n_hosts, dtype=np.int8)
    flags[rng.integers(0, n_hosts, 500)] = 1
    joined = [timed(lambda: (churn(1), index.epoch.flagged(flags))) for _ in range(repeats)]
    again = [timed(lambda: index.epoch.flagged(flags)) for _ in range(repeats)]
    print(
        f"  one room changed, published and the nearest found: {np.median(first):.3f} ms; join of 500 hosts "
        f"{np.median(again):.3f} ms, on a new epoch {np.median(joined):.3f} ms (with the change itself)"
    )

    def latencies(stop_at: float) -> np.ndarray:
        found = []
        while time.perf_counter() < stop_at:
            found.append(timed(lambda: index.epoch.nearest(query, k)))
            time.sleep(0.0005)
        return np.array(found)

    idle = latencies(time.perf_counter() + seconds)
    done = threading.Event()
    per_minute = max(1, n_rooms // 100)

    def write() -> None:
        while not done.wait(60 / per_minute):
            churn(1)

    writer = threading.Thread(target=write)
    writer.start()
    busy = latencies(time.perf_counter() + seconds)
    done.set()
    writer.join()
    calm, churned = np.percentile(idle, [50, 99]), np.percentile(busy, [50, 99])
    print(
        f"  while 1 % a minute changes: p50 {calm[0]:.3f} → {churned[0]:.3f} ms, p99 {calm[1]:.3f} → "
        f"{churned[1]:.3f} ms, ratio of p99 {churned[1] / calm[1]:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rooms", type=int, nargs="+", default=[30, 2_000, 20_000, 200_000])
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each latency measurement")
    asked = parser.parse_args()
    faiss.omp_set_num_threads(1)
    with threadpool_limits(1):
        for n_rooms in asked.rooms:
            report(n_rooms, asked.dimension, asked.k, asked.repeats, asked.seconds)


if __name__ == "__main__":
    main()
