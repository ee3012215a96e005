"""Viewers whose states are on disk, not in memory: asked for ahead, all at once, against one page after the other.

    python benchmarks/cold_pages.py SHELF [--rooms 5000] [--rounds 3]

SHELF is a bundle larger than `read_ahead_mb` (`benchmarks/large_bundle.py`); its states are dropped from the page cache
first. Every viewer is met once: by a lookup alone, by eight together, and in batches of 100 entries.
Both ways in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from recsys.bundle import resolve
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine


def forgotten(bundle: Path) -> None:
    """Have the system drop the states of a bundle from its page cache."""
    for path in bundle.glob("state/*.npy"):
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def met(call: Callable[[], object], n: int) -> tuple[float, float, float]:
    """Wall clock and processor time in ms, and waits for the disk, of each of the n viewers a call meets."""
    faults, begun, work = resource.getrusage(resource.RUSAGE_SELF).ru_majflt, time.perf_counter(), time.process_time()
    call()
    took, worked = time.perf_counter() - begun, time.process_time() - work
    return took * 1e3 / n, worked * 1e3 / n, (resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults) / n


def main() -> None:
    """Measure and print one JSON document."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("shelf", type=Path)
    options.add_argument("--rooms", type=int, default=5_000)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    forgotten(resolve(given.shelf))
    found: dict[str, list[tuple[float, float, float]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Engine.open(given.shelf, Path(folder) / "log.db", ServingConfig(lease_s=0.0, read_ahead_mb=0)) as engine,
    ):
        ids, hosts, now = engine.loaded.vocabularies.users, engine.loaded.vocabularies.hosts, engine.clock()
        started = {"started_at": now - 1_000_000}
        engine.apply([(f"r{i}", "rooms", started | {"room_id": i, "host_id": hosts.id(i)}) for i in range(given.rooms)])
        viewers = iter(np.random.default_rng(5).permutation(len(ids)).tolist())

        def some(n: int) -> list[int | str]:
            return [ids.id(next(viewers)) for _ in range(n)]

        def enter(who: list[int | str]) -> None:
            told = []
            for i, user in enumerate(who):
                room = {"host_id": hosts.id(i % given.rooms), "room_id": i % given.rooms}
                told.append((f"w{user}", "watches", room | {"user_id": user, "entered_at": now - 1_000}))
            for at in range(0, len(told), 100):
                engine.apply(told[at : at + 100])

        engine.lookup_many([Asked(user, 100) for user in some(8)])
        for _ in range(given.rounds):
            for way, ahead in (("as they come", False), ("ahead", True)):
                engine.loaded.scattered = ahead
                for size in (1, 8):
                    who = some(40)
                    parts = [[Asked(user, 100) for user in who[at : at + size]] for at in range(0, 40, size)]
                    told = met(lambda parts=parts: [engine.lookup_many(part) for part in parts], 40)
                    found.setdefault(f"lookup of {size}, {way}", []).append(told)
                who = some(1_000)
                found.setdefault(f"entry, {way}", []).append(met(lambda who=who: enter(who), 1_000))
    names = ("ms", "cpu_ms", "waits")
    medians = {
        what: {name: round(statistics.median(one[i] for one in told), 3) for i, name in enumerate(names)}
        for what, told in found.items()
    }
    print(json.dumps({"load": os.getloadavg()[0]} | medians, indent=2))


if __name__ == "__main__":
    main()
