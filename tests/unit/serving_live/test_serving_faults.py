"""kill −9 while events are sent: what was acknowledged is applied exactly once; several workers on one log."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from recsys.instants import format_instant
from serving.client import CallFailed, HttpClient
from serving.config import ServingConfig
from serving.engine import Engine, clock_us

from .running_service import running

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
