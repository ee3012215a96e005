"""What who is served notices of a swap: lookups and events before, while and after a bundle is taken over.

    python benchmarks/swaps.py [--events 300000] [--rooms 10000] [--horizon 100000]

A synthetic bundle is served in this process to one who looks up and one who sends batches of 100 events. The bundle
taken over is the same: it contains none of `--events` follows, which are applied again. Reported: milliseconds, and how
many times as long it takes while the bundle is taken over as before it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from lookup import start_rooms
from synthetic_bundle import synthetic
from threadpoolctl import threadpool_limits

from recsys.bundle import resolve
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine, Event
from serving.server import SWITCH_S, settle_memory

_BATCH, _AROUND_S = 100, 5.0
Took = list[tuple[float, float]]
"""When each call began and how long it took, s."""


class Callers:
    """Those who are served while the bundle changes."""

    def __init__(self, engine: Engine) -> None:
        ids = engine.loaded.vocabularies
        self.engine, self.sent, self.over = engine, 0, False
        self.users, self.hosts = (known.ids(np.arange(len(known))).to_list() for known in (ids.users, ids.hosts))

    def send(self, rng: np.random.Generator, n: int) -> None:
        """Follows of random hosts by random users."""
        told: list[Event] = []
        for user, host in zip(rng.choice(self.users, n).tolist(), rng.choice(self.hosts, n).tolist(), strict=True):
            self.sent += 1
            row = {"user_id": user, "host_id": host, "at": self.engine.clock(), "action": "follow"}
            told.append((f"e{self.sent}", "follows", row))
        self.engine.apply(told)

    def again_and_again(self, call: Callable[[np.random.Generator], object], pause_s: float, took: Took) -> None:
        """Call until it is over."""
        rng = np.random.default_rng(int(1e3 * pause_s))
        while not self.over:
            begun = time.perf_counter()
            call(rng)
            took.append((begun, time.perf_counter() - begun))
            time.sleep(pause_s)


def measured(shelf: Path, log: Path, events: int, rooms: int, horizon: int) -> dict[str, Any]:
    """One swap, and what was noticed of it."""
    with Engine.open(shelf, log, ServingConfig(lease_s=0.0, dedup_horizon=horizon)) as engine:
        callers = Callers(engine)
        start_rooms(engine, rooms)
        rng = np.random.default_rng(0)
        for _ in range(events // 500):
            callers.send(rng, 500)
        settle_memory()
        lookups: Took = []
        batches: Took = []
        at_work = [
            threading.Thread(target=callers.again_and_again, args=args)
            for args in (
                (lambda rng: engine.lookup(Asked(rng.choice(callers.users).item(), 100)), 0.002, lookups),
                (lambda rng: callers.send(rng, _BATCH), 0.05, batches),
            )
        ]
        for one in at_work:
            one.start()
        time.sleep(_AROUND_S)
        begun = time.perf_counter()
        engine.swap(resolve(shelf))
        done = time.perf_counter()
        time.sleep(_AROUND_S)
        callers.over = True
        for one in at_work:
            one.join()
    found: dict[str, Any] = {"events applied again": events, "swap s": round(done - begun, 1)}
    for name, took in (("lookup", lookups), (f"batch of {_BATCH}", batches)):
        of = {
            "before": _ms(took, 0.0, begun),
            "while": _ms(took, begun, done),
            "after": _ms(took, done, float("inf")),
        }
        ratio = {key: round(of["while"][key] / of["before"][key], 2) for key in of["before"] if key != "calls"}
        found[name] = of | {"while against before": ratio}
    return found


def _ms(took: Took, since: float, until: float) -> dict[str, float]:
    some = [1e3 * length for begun, length in took if since <= begun < until]
    p50, p99 = np.percentile(some, [50, 99]).round(1).tolist()
    return {"calls": len(some), "p50": p50, "p99": p99, "longest": round(max(some), 1)}


def main() -> None:
    """Print one JSON document."""
    sys.setswitchinterval(SWITCH_S)  # as the service does
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--events", type=int, default=300_000)
    options.add_argument("--rooms", type=int, default=10_000)
    options.add_argument("--horizon", type=int, default=100_000, help="keys remembered against repeats")
    given = options.parse_args()
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        shelf = synthetic(Path(folder) / "b", users=1_000, hosts=2 * given.rooms, ties=40)
        found = measured(shelf, Path(folder) / "log.db", given.events, given.rooms, given.horizon)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
