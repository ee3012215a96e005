"""Mixed load on a running service for a given time: answers checked, growth watched, then killed and started again.

    python benchmarks/soak.py --seconds 3600 [--bundle SHELF] [--readers 2] [--rooms 10000]

Readers look up random viewers; a writer sends batches of 100 events, starts and ends rooms, and asks for the rooms it
has started and ended. Anything but a right answer, a full queue aside (503), ends the run with exit 1:

- a started room is ranked in the next lookup of a viewer who follows its host, an ended one is in no later answer;
- a follow that was acknowledged is seen by the next lookup of that viewer, sent the moment the acknowledgement came;
- every event is accepted, and after kill −9 everything acknowledged is in the log;
- the memory of the process (anonymous pages) grows less than `--growth` per cent in the second half.

Without --bundle it makes a small synthetic one. The large one: `benchmarks/large_bundle.py`. What is known of a tie
stays until a bundle that holds it takes over, so memory grows as long as viewers come to rooms they never were in
(`ties that changed` tells how much of it is that), up to `--most-fresh-mb`; further ties lie in a file (`of that in a
file`). With few `--users` and `--hosts` every viewer has met every host before the second half begins, and nothing may
grow but by what new viewers and ended rooms leave behind (`benchmarks/growth.py`); the same holds of `--regulars`, who
enter the same room over and over.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from synthetic_bundle import synthetic

from recsys.bundle import Bundle, resolve
from recsys.events import Vocabularies
from serving.client import CallFailed, HttpClient
from serving.config import ServingConfig
from serving.engine import clock_us
from serving.server import listening, settle_memory, work

FAN, BATCH = 2_100_000_001, 100
CONFIG = ServingConfig(port=0, lease_s=0.0, deadline_ms=1_000.0, dedup_horizon=50_000)
FRESH_MB = CONFIG.most_fresh_mb


@contextmanager
def served(shelf: Path, log: Path, fresh_mb: int) -> Iterator[tuple[str, Any, float]]:
    """A worker in a process of its own: its address, the process, and the seconds until it was ready."""
    config = CONFIG.model_copy(update={"most_fresh_mb": fresh_mb})
    bound = listening(config)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    begun = time.perf_counter()
    worker = multiprocessing.get_context("spawn").Process(
        target=work, args=(shelf, log, config, bound, _nothing), daemon=True
    )
    worker.start()
    try:
        assert httpx.get(url + "/readyz", timeout=300, trust_env=False).status_code == 200
        yield url, worker, time.perf_counter() - begun
    finally:
        worker.terminate()
        worker.join(timeout=20)
        bound.close()


def _nothing() -> None:
    return None


def memory(pid: int | str) -> dict[str, int]:
    """MiB of a process (`self`: this one): resident, of that anonymous and of files (shared, given back at need)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    held = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if line.endswith("kB")}
    return {"rss": held["VmRSS"], "anonymous": held["RssAnon"], "files": held["RssFile"]}


class Load:
    """The callers; `faults` tells what went wrong."""

    def __init__(
        self, url: str, users: list[Any], hosts: list[Any], rooms: range, seconds: float, regulars: int, pause_s: float
    ) -> None:
        self.url, self.users, self.hosts, self.rooms = url, users, hosts, rooms
        self.regulars, self.pause_s = regulars, pause_s
        self.until = time.perf_counter() + seconds
        self.took: list[float] = []
        self.servable: list[float] = []
        self.effect: list[float] = []
        self.written: list[float] = []
        self.faults: list[str] = []
        self.events = self.busy = 0
        self.over: dict[int, float] = {}
        self.started: dict[int, int] = {}

    def read(self, seed: int) -> None:
        """Look up random viewers until the time is over."""
        rng = np.random.default_rng(seed)
        with HttpClient(self.url, timeout_s=30.0) as client:
            while time.perf_counter() < self.until and not self.faults:
                begun = time.perf_counter()
                try:
                    answer = client.lookup(self.users[int(rng.integers(len(self.users)))], k=100)
                except CallFailed as failed:
                    self._failed(failed)
                    continue
                self.took.append((time.perf_counter() - begun) * 1e3)
                dead = [r["room_id"] for r in answer["rooms"] if self.over.get(r["room_id"], begun) < begun]
                if dead:
                    self.faults.append(f"rooms that had ended were answered: {dead[:3]}")
                time.sleep(self.pause_s)

    def write(self) -> None:
        """Events, and rooms that start and end."""
        rng, live, number = np.random.default_rng(0), list(self.rooms), self.rooms.stop
        with HttpClient(self.url, timeout_s=30.0) as client:
            told = [("fan", "follows", {"user_id": FAN, "host_id": FAN, "at": clock_us(), "action": "follow"})]
            told += [(f"r{room}", "rooms", self._room(room)) for room in live]
            for at in range(0, len(told), 1_000):
                self._send(client, told[at : at + 1_000])
            while time.perf_counter() < self.until and not self.faults:
                told = [self._entry(rng, live, f"{number}-{i}") for i in range(BATCH)]
                ends = live.pop(int(rng.integers(len(live))))
                told.append((f"e{ends}", "rooms", self._room(ends, clock_us())))
                self._send(client, told)
                self.over[ends] = time.perf_counter()
                live.append(number)
                self._send(client, [(f"r{number}", "rooms", self._room(number))])
                probe = 10**9 + number
                begun = time.perf_counter()
                self._send(client, [(f"p{number}", "rooms", self._room(number, host=FAN, room=probe))])
                acknowledged = time.perf_counter()
                shown = self._asked(client, FAN)
                self.servable.append((time.perf_counter() - begun) * 1e3)
                if probe not in shown:
                    said = client.explain(FAN, probe)  # the same lookup, and what became of this room in it
                    if not said["shown"] and not said["why"].startswith("not selected"):
                        self.faults.append(f"room {probe} of a followed host is not ranked: {said['why']}")
                self.written.append((acknowledged - begun) * 1e3)
                viewer = {"user_id": 3 * 10**9 + number, "host_id": FAN}
                self._send(client, [(f"f{number}", "follows", viewer | {"at": clock_us(), "action": "follow"})])
                begun = time.perf_counter()
                shown = self._asked(client, viewer["user_id"], sources=[])  # his own domain only
                self.effect.append((time.perf_counter() - begun) * 1e3)
                if probe not in shown:
                    self.faults.append(f"a follow of the host of room {probe} was acknowledged and not seen")
                self._send(client, [(f"q{number}", "rooms", self._room(number, clock_us(), FAN, probe))])
                self.over[probe] = time.perf_counter()
                number += 1
                time.sleep(self.pause_s)

    def _asked(self, client: HttpClient, user: Any, **more: Any) -> set[int]:
        """The rooms of an answer; asked again when the service is busy."""
        while not self.faults:
            try:
                return {room["room_id"] for room in client.lookup(user, k=100, **more)["rooms"]}
            except CallFailed as failed:
                self._failed(failed)
        return set()

    def _room(self, number: int, ended: int | None = None, host: Any = None, room: int | None = None) -> dict[str, Any]:
        started = self.started.setdefault(number if room is None else room, clock_us())
        host = self.hosts[number % len(self.hosts)] if host is None else host
        name = number if room is None else room
        return {"room_id": name, "host_id": host, "started_at": started, "ended_at": ended}

    def _entry(self, rng: np.random.Generator, live: list[int], name: str) -> tuple[str, str, dict[str, Any]]:
        room = live[int(rng.integers(len(live)))]
        drawn = int(rng.integers(self.regulars or len(self.users)))
        user = self.users[(drawn + self.regulars * (room % len(self.hosts))) % len(self.users)]
        row = {"user_id": user, "host_id": self.hosts[room % len(self.hosts)], "room_id": room}
        if rng.random() < 0.3:
            return f"c{name}", "engagements", row | {"at": clock_us(), "kind": "comment"}
        return f"w{name}", "watches", row | {"entered_at": clock_us()}

    def _send(self, client: HttpClient, told: list[tuple[str, str, dict[str, Any]]]) -> None:
        while not self.faults:
            try:
                results = client.send(told)
            except CallFailed as failed:
                self._failed(failed)
                continue
            wrong = [one for one in results if one["status"] == "quarantined"]
            if wrong:
                self.faults.append(f"an event was not accepted: {wrong[0]}")
            self.events += len(told)
            return

    def _failed(self, failed: CallFailed) -> None:
        if failed.status != 503:
            self.faults.append(f"a call failed: {failed}")
        self.busy += 1
        time.sleep(0.05)


def soak(
    shelf: Path,
    log: Path,
    seconds: float,
    readers: int,
    rooms: int,
    regulars: int = 0,
    pause_s: float = 0.0,
    fresh_mb: int = FRESH_MB,
) -> dict[str, Any]:
    """Load, kill, start again; what was seen."""
    bundle = Bundle.open(resolve(shelf))
    ids = Vocabularies.load(bundle.file("users.ids").parent)
    hosts = ids.hosts.ids(np.arange(len(ids.hosts))).to_list()
    users = ids.users.ids(np.arange(len(ids.users))).to_list()
    found: dict[str, Any] = {"bundle": bundle.manifest.name, "users": len(users), "hosts": len(hosts), "rooms": rooms}
    with served(shelf, log, fresh_mb) as (url, worker, ready_s):
        found |= {"ready_s": round(ready_s, 1), "memory at start": memory(worker.pid)}
        load = Load(url, users, hosts, range(rooms), seconds, regulars, pause_s)
        callers = [threading.Thread(target=load.read, args=(seed,)) for seed in range(readers)]
        callers.append(threading.Thread(target=load.write))
        settle_memory()  # or a search for garbage here, 150 ms of it, is taken for a pause of the service
        for caller in callers:
            caller.start()
        grown = []
        while any(caller.is_alive() for caller in callers):
            time.sleep(min(5.0, seconds / 20))
            told = httpx.get(url + "/metrics", timeout=60, trust_env=False).text
            ties, in_file = (
                round(float(line.split()[1]) / 2**20)
                for name in ("laotie_fresh_ties_bytes ", "laotie_fresh_ties_file_bytes ")
                for line in told.splitlines()
                if line.startswith(name)
            )
            grown.append(memory(worker.pid) | {"ties that changed": ties + in_file, "of that in a file": in_file})
        health = httpx.get(url + "/readyz", timeout=60, trust_env=False).json()
        worker.kill()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
    with served(shelf, log, fresh_mb) as (url, _, recovery_s):
        again = httpx.get(url + "/readyz", timeout=60, trust_env=False).json()
    if again["log_offset"] < health["log_offset"] or health["log_offset"] < load.events:
        load.faults.append(
            f"acknowledged {load.events}, log {health['log_offset']}, after the kill {again['log_offset']}"
        )
    half = grown[len(grown) // 2 :]
    growth = 100.0 * (half[-1]["anonymous"] / half[0]["anonymous"] - 1.0)
    p50, p99 = np.percentile(load.took, [50, 99]).round(1).tolist()
    servable, effect, written = (
        np.percentile(times, [50, 99]).round(1).tolist() for times in (load.servable, load.effect, load.written)
    )
    return found | {
        "seconds": seconds,
        "load": [round(one, 1) for one in os.getloadavg()],
        "lookups": len(load.took),
        "lookup ms p50, p99": [p50, p99],
        "events": load.events,
        "room start to ranked ms p50, p99": servable,
        "of that until acknowledged": written,
        "acknowledged follow to its answer ms p50, p99": effect,
        "busy (503)": load.busy,
        "memory at the end": grown[-1],
        "most memory": {name: max(one[name] for one in grown) for name in grown[-1]},
        "growth of the second half, %": round(growth, 1),
        "growth of the second half, MiB": {name: half[-1][name] - half[0][name] for name in half[-1]},
        "records": again["log_offset"],
        "ready after kill -9, s": round(recovery_s, 1),
        "faults": load.faults,
    }


def main() -> int:
    """Run and print one JSON document; 1: something was wrong."""
    sys.setswitchinterval(5e-4)  # callers are threads: none is to wait for another's before it looks at its clock
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--bundle", type=Path, default=None)
    options.add_argument("--users", type=int, default=1_000, help="of the synthetic bundle")
    options.add_argument("--hosts", type=int, default=3_000, help="of the synthetic bundle")
    options.add_argument("--readers", type=int, default=2)
    options.add_argument("--rooms", type=int, default=2_000)
    options.add_argument("--regulars", type=int, default=0, help="viewers who enter the same room; 0: any enters any")
    options.add_argument("--pause-ms", type=float, default=0.0, help="of every caller, after each round")
    options.add_argument("--most-fresh-mb", type=int, default=FRESH_MB, help="MiB of changed ties in memory")
    options.add_argument("--growth", type=float, default=25.0, help="per cent that are too much")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"users": given.users, "hosts": given.hosts, "ties": 20, "neighbours": 100}
        shelf = given.bundle or synthetic(Path(folder) / "b", **sizes)
        pause_s = given.pause_ms / 1e3
        load = (given.seconds, given.readers, given.rooms, given.regulars, pause_s, given.most_fresh_mb)
        found = soak(shelf, Path(folder) / "log.db", *load)
    print(json.dumps(found, indent=2))
    return int(bool(found["faults"]) or found["growth of the second half, %"] > given.growth)


if __name__ == "__main__":
    sys.exit(main())
