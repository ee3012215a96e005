"""kill −9 while events are sent: what was acknowledged is applied exactly once; several workers on one log."""

from __future__ import annotations

import os
import re
import resource
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from recsys.instants import format_instant
from serving.asked import Asked
from serving.client import CallFailed, HttpClient
from serving.config import ServingConfig
from serving.engine import Engine, clock_us

from .running_service import running
from .served_world import AS_OF, Clock

HOST, USER = 2_000_000_001, 70_000
KILLS = int(os.environ.get("LAOTIE_KILLS", "3"))
"""More of them before a release: LAOTIE_KILLS=20 pytest tests/unit/serving_live/test_serving_faults.py."""


def batch(number: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Comments of one user with one host: they add up, so a lost or doubled one shows."""
    at = format_instant(clock_us() - 1_000_000)
    row = {"user_id": USER, "host_id": HOST, "room_id": 1, "at": at, "kind": "comment", "count": 1}
    return [(f"c{number}-{i}", "engagements", row) for i in range(7)]


def comments(bundles: Path, log: Path) -> int:
    with Engine.open(bundles, log, ServingConfig(lease_s=0.0)) as engine:
        world, ids = engine.loaded.live.world, engine.loaded.vocabularies
        tie = world.ties.row("depth", ids.users.row(USER), ids.hosts.row(HOST))
        return 0 if tie is None else int(tie.ints[0, world.blocks.depth.int_column("n_comments")])


def test_every_acknowledged_event_is_applied_once_whenever_it_is_killed(market: Path, tmp_path: Path) -> None:
    log, rng = tmp_path / "log.db", np.random.default_rng(11)
    acknowledged: set[str] = set()
    sent: dict[str, tuple[str, str, dict[str, Any]]] = {}
    number = 0

    def send(client: HttpClient, events: list[tuple[str, str, dict[str, Any]]]) -> None:
        for result in client.send(events):
            assert result["status"] in ("accepted", "duplicate"), result
            acknowledged.add(result["event_id"])

    for _ in range(KILLS):
        with running(market / "bundles", log) as service, service.client() as client:
            unsure = [event for name, event in sent.items() if name not in acknowledged]
            if unsure:
                send(client, unsure)  # the caller does not know and sends again
            killer = threading.Timer(float(rng.uniform(0.02, 0.4)), service.kill)
            killer.start()
            for _ in range(3_000):
                events = batch(number)
                number += 1
                sent |= {event[0]: event for event in events}
                try:
                    send(client, events)
                except CallFailed as failed:
                    assert failed.status == 0
                    break
            else:
                raise AssertionError("the service survived its kill")
            killer.join()
        got = comments(market / "bundles", log)
        assert len(acknowledged) <= got <= len(sent)
    with running(market / "bundles", log) as service, service.client() as client:
        send(client, [event for name, event in sent.items() if name not in acknowledged])
    assert comments(market / "bundles", log) == len(sent) == len(acknowledged) > 20


def test_two_workers_answer_only_after_what_was_acknowledged_before(market: Path, tmp_path: Path) -> None:
    with running(market / "bundles", tmp_path / "log.db", "--workers", "2") as service:
        time.sleep(3.0)  # both workers are up
        offsets = set()
        for i in range(15):
            with service.client() as teller:  # a new connection each time: any of the workers
                row = {"room_id": 3_000 + i, "host_id": HOST, "started_at": format_instant(clock_us() - 1_000)}
                assert teller.send([(f"r{i}", "rooms", row)])[0]["status"] == "accepted"
            with service.client() as asker:
                answer = asker.lookup(1, k=400)
                offsets.add(answer["offset"] - i)
                assert 3_000 + i in [room["room_id"] for room in answer["rooms"]]
            with service.client() as teller:
                assert (
                    teller.send([(f"e{i}", "rooms", row | {"ended_at": format_instant(clock_us())})])[0]["status"]
                    == "accepted"
                )
            with service.client() as asker:
                assert 3_000 + i not in [room["room_id"] for room in asker.lookup(1, k=400)["rooms"]]


def test_no_counter_of_several_workers_falls_between_two_scrapes(market: Path, tmp_path: Path) -> None:
    with running(market / "bundles", tmp_path / "log.db", "--workers", "2") as service:
        seen: dict[str, float] = {}
        fell: list[str] = []
        for i in range(300):
            with service.client() as asker:  # a new connection each time: any of the workers
                asker.lookup(1)
            page = httpx.get(service.url + "/metrics", trust_env=False).text
            for series, n in re.findall(r"^(laotie_lookups_total\S*) (\S+)$", page, re.MULTILINE):
                fell += [series] * (float(n) < seen.get(series, 0.0))
                seen[series] = float(n)
            assert re.search(r"^laotie_live_rooms \d", page, re.MULTILINE)  # of the state: no worker's own
            if i > 20 and len(seen) == 2:
                break
        assert fell == [] and {series.rpartition("worker=")[2] for series in seen} == {'"0"}', '"1"}'}


def test_a_full_disk_is_a_503_and_nothing_of_it_is_applied(market: Path, tmp_path: Path) -> None:
    """A limit on the size of its files stops the process as a full disk does; lookups go on, later intake does too."""
    log, acknowledged = tmp_path / "log.db", 0
    (tmp_path / "serving.yaml").write_text("log_impressions: false\n")
    with (
        running(market / "bundles", log, "--config", str(tmp_path / "serving.yaml")) as service,
        service.client() as client,
    ):
        pid = service.process.pid
        client.send(batch(0))
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        size = (tmp_path / "log.db-wal").stat().st_size
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 60_000, most))
        refused = None
        for number in range(1, 200):
            try:
                client.send([(*event[:2], event[2] | {"note": "x" * 300}) for event in batch(number)])
                acknowledged = number
            except CallFailed as failed:
                refused = failed
                break
        assert refused is not None and (refused.status, refused.code) == (503, "log_failed") and acknowledged > 0
        assert client.lookup(1, k=5)["offset"] == 7 * (acknowledged + 1)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
        assert {result["status"] for result in client.send(batch(number))} == {"accepted"}
        assert client.lookup(1, k=5)["offset"] == 7 * (acknowledged + 2)
    assert comments(market / "bundles", log) == 7 * (acknowledged + 2)


def test_a_step_of_the_clock_loses_nothing_and_brings_no_room_back(market: Path, tmp_path: Path) -> None:
    clock = Clock(AS_OF + 10**9)
    day, config = 86_400 * 10**6, ServingConfig(lease_s=600.0)

    def room(number: int, **more: Any) -> tuple[str, str, dict[str, Any]]:
        row = {"room_id": 4_000 + number, "host_id": HOST + number, "started_at": AS_OF + 10**8} | more
        return f"room{number}-{sorted(more)}", "rooms", row

    with Engine.open(market / "bundles", tmp_path / "log.db", config, clock) as engine:
        engine.apply([room(1), room(2, ended_at=AS_OF + 2 * 10**8), room(3)])
        clock.now -= 3 * day  # back: what is told now seems received before, and before the room began
        assert engine.apply(batch_at(AS_OF + 5 * 10**8)) == [("accepted", None)] * 7
        assert engine.apply([room(3, ended_at=AS_OF + 6 * 10**8)]) == [("accepted", None)]
        assert {4_001} == set(engine.lookup(Asked(1, 500)).room_ids) & {4_001, 4_002, 4_003}
        clock.now += 5 * day  # forward: beyond every lease
        assert not engine.lookup(Asked(1, 500)).room_ids
        assert engine.apply([("alive", *room(1)[1:])]) == [("duplicate", "lease_renewed")]
        assert engine.lookup(Asked(1, 500)).room_ids == [4_001]
    with Engine.open(market / "bundles", tmp_path / "log.db", config, clock) as engine:
        assert {4_001} == set(engine.lookup(Asked(1, 500)).room_ids) & {4_001, 4_002, 4_003}
    assert comments(market / "bundles", tmp_path / "log.db") == 7


def batch_at(at: int) -> list[tuple[str, str, dict[str, Any]]]:
    return [(name, table, row | {"at": at}) for name, table, row in batch(0)]
