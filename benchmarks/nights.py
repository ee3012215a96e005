"""A service under load while nights go by: its log into the lake, a build from there, a swap; again and again.

    python benchmarks/nights.py [--nights 4] [--day-s 300]

A simulated market is ingested and built, then served to the callers of `benchmarks/soak.py`, who check every answer. At
the end of every `day` the commands of a night run beside them at low priority: `laotie ingest --log`, `laotie build
--base` and `laotie prune`; the service takes over what was published by itself. Exit 1 unless

- no call failed, no answer was wrong (what `benchmarks/soak.py` checks), before, during and after the swaps;
- every night's bundle was taken over, and it contains the log as it was when that night began;
- at the end exactly those rooms are on air that were started and not ended, whichever bundle was served then.

The memory told is that of the service's own after each swap: what happened on the day before lies in the bundle then.
After the last night comes a quiet one: nobody calls, so nothing has happened that its bundle does not contain.
Gates are off: callers enter rooms at random, so that any gate on drift would rightly refuse what is built from it. And
models learn from few requests: what is looked at is the service.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from soak import FRESH_MB, Load, memory, served

from recsys.bundle import Bundle, resolve
from recsys.events import Vocabularies
from recsys.events.log_tables import identity_of, log_source
from serving.client import HttpClient
from serving.server import settle_memory

_MARKET_DAYS = 14
_SETTINGS = ("gates=[]", "build.ranker_requests=2000", "build.strength_rows=6000", "tower.examples=2000")
_SET = [part for setting in _SETTINGS for part in ("--set", setting)]
_FIRST_ROOM = 10**8
"""Rooms of the callers have other ids than those of the market."""


def laotie(*args: object) -> float:
    """Run a command with low priority; seconds."""
    begun = time.perf_counter()
    command = ["nice", "-n", "19", str(Path(sys.executable).with_name("laotie")), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2_000:]}")
    return round(time.perf_counter() - begun, 1)


def market(folder: Path, users: int, hosts: int) -> Path:
    """A simulated market until now in a lake, and a bundle of it: the shelf."""
    start = datetime.now(UTC) - timedelta(days=_MARKET_DAYS)
    size = ("--users", users, "--hosts", hosts, "--days", _MARKET_DAYS, "--start", start.isoformat(timespec="seconds"))
    laotie("simulate", *size, "--out", folder / "events")
    laotie("ingest", folder / "events", "--lake", folder / "lake")
    laotie("build", folder / "lake", "--out", folder / "shelf", *_SET)
    return folder / "shelf"


def night(folder: Path, log: Path, client: HttpClient) -> dict[str, Any]:
    """The commands of a night, and the swap; how long each took and what the service says then."""
    shelf, told = folder / "shelf", client.ready()
    took = {"ingest_s": laotie("ingest", "--log", log, "--lake", folder / "lake")}
    took["build_s"] = laotie("build", folder / "lake", "--out", shelf, "--base", shelf, *_SET)
    wanted, begun = resolve(shelf).name, time.perf_counter()
    while client.ready()["bundle"] != wanted and time.perf_counter() - begun < 60.0:
        time.sleep(0.1)
    took["taken_over_s"] = round(time.perf_counter() - begun, 1)
    took["prune_s"] = laotie("prune", "--log", log, "--bundle", shelf)
    offsets, now = Bundle.open(resolve(shelf)).manifest.offsets, client.ready()
    return took | {
        "bundle": now["bundle"],
        "published": wanted,
        "log at the beginning": told["log_offset"],
        "log in the bundle": offsets.get(log_source(identity_of(log)), 0),
        "log after the swap": now["log_offset"],
    }


def on_air(client: HttpClient) -> set[int]:
    """Every room the service has on air."""
    found: set[int] = set()
    while True:
        page = client.rooms(limit=1_000, after=len(found))["rooms"]
        if not page:
            return found
        found |= {room["room_id"] for room in page}


def main() -> int:
    """Run and print one JSON document; 1: something was wrong."""
    sys.setswitchinterval(5e-4)
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--nights", type=int, default=4)
    options.add_argument("--day-s", type=float, default=300.0)
    options.add_argument("--users", type=int, default=300)
    options.add_argument("--hosts", type=int, default=100)
    options.add_argument("--rooms", type=int, default=80)
    options.add_argument("--pause-ms", type=float, default=50.0, help="of every caller, after each round")
    given = options.parse_args()
    nights: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shelf, log = market(folder, given.users, given.hosts), folder / "log.db"
        ids = Vocabularies.load(Bundle.open(resolve(shelf)).file("users.ids").parent)
        users, hosts = (known.ids(np.arange(len(known))).to_list() for known in (ids.users, ids.hosts))
        with served(shelf, log, FRESH_MB) as (url, worker, _), HttpClient(url, timeout_s=60.0) as client:
            before = on_air(client)
            rooms = range(_FIRST_ROOM, _FIRST_ROOM + given.rooms)
            load = Load(url, users, hosts, rooms, float("inf"), 0, given.pause_ms / 1e3)
            callers = [threading.Thread(target=load.read, args=(1,)), threading.Thread(target=load.write)]
            settle_memory()  # or a search for garbage here is taken for a pause of the service
            for caller in callers:
                caller.start()
            try:
                while len(nights) < given.nights and not load.faults:
                    time.sleep(given.day_s)
                    before_it = {"events until then": load.events, "MiB before": memory(worker.pid)["anonymous"]}
                    told = night(folder, log, client)
                    nights.append(before_it | told | {"MiB after": memory(worker.pid)["anonymous"]})
            finally:  # or a night that failed would leave the callers at work for ever
                load.until = time.perf_counter()
                for caller in callers:
                    caller.join()
            expected = {room for room in load.started if room not in load.over} | before
            found = on_air(client)
            quiet = night(folder, log, client) | {"MiB after": memory(worker.pid)["anonymous"]}
    if found != expected:
        load.faults.append(f"on air and ended {sorted(found - expected)[:3]}, lost {sorted(expected - found)[:3]}")
    for one in [*nights, quiet]:
        if one["bundle"] != one["published"]:
            load.faults.append(f"{one['published']} was not taken over")
        if one["log in the bundle"] < one["log at the beginning"]:
            load.faults.append(f"{one['published']} lacks a part of the log")
    document = {
        "load": [round(one, 1) for one in os.getloadavg()],
        "events": load.events,
        "lookups": len(load.took),
        "ms p50, p99, longest": {
            "lookup": np.percentile(load.took, [50, 99, 100]).round(1).tolist(),
            "acknowledged follow to its answer": np.percentile(load.effect, [50, 99, 100]).round(1).tolist(),
        },
        "busy (503)": load.busy,
        "rooms on air at the end": len(found),
        "nights": nights,
        "quiet night": quiet,
        "faults": load.faults,
    }
    print(json.dumps(document, indent=2))
    return int(bool(load.faults))


if __name__ == "__main__":
    sys.exit(main())
