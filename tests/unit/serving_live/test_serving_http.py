"""The HTTP face on a real loopback server: answers, keys, limits, errors, swaps under load."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from recsys.bundle import publish, rollback
from recsys.errors import ConfigError
from recsys.instants import format_instant
from serving.admission import Turns
from serving.client import CallFailed, HttpClient, LocalClient
from serving.config import ApiKey, ServingConfig, load_serving_config
from serving.engine import Engine
from serving.http_app import create_app
from serving.problems import Problem

from .served_world import AS_OF, Clock, write_bundle

S = 1_000_000
HOST = 2_000_000_001


@contextmanager
def serving(engine: Engine, config: ServingConfig) -> Iterator[str]:
    """The application on an ephemeral loopback port, in a thread."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.listen(128)
    server = uvicorn.Server(uvicorn.Config(create_app(engine, config), log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        for _ in range(400):
            if server.started:
                break
            time.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        bound.close()
        engine.close()


@pytest.fixture
def clock() -> Clock:
    return Clock(AS_OF + 100 * S)


@pytest.fixture
def url(market: Path, tmp_path: Path, clock: Clock) -> Iterator[str]:
    config = ServingConfig(most_body_bytes=50_000, most_events=100, most_k=300)
    with serving(Engine.open(market / "bundles", tmp_path / "log.db", config, clock), config) as made:
        yield made


def room(room_id: int, start: int = 1, **more: Any) -> dict[str, Any]:
    return {"room_id": room_id, "host_id": HOST, "started_at": format_instant(AS_OF + start * S)} | more


def test_both_clients_give_the_same_documents(market: Path, tmp_path: Path, clock: Clock) -> None:
    config = ServingConfig(log_impressions=False)
    events = [
        ("a", "rooms", room(9)),
        ("b", "follows", {"user_id": 4, "host_id": HOST, "at": AS_OF + 5, "action": "follow"}),
    ]
    with (
        LocalClient(Engine.open(market / "bundles" / "b1", tmp_path / "one.db", config, clock)) as local,
        serving(Engine.open(market / "bundles" / "b1", tmp_path / "two.db", config, clock), config) as at,
        HttpClient(at) as remote,
    ):
        assert local.send(events) == remote.send(events)
        for more in (
            {},
            {"breakdown": True},
            {"exclude": [9]},
            {"sources": ["popular"]},
            {"category": "tea"},
            {"explain": False},
        ):
            assert local.lookup(4, 30, **more) == remote.lookup(4, 30, **more)
        assert local.lookup(None) == remote.lookup(None)
        assert local.rooms() | {"request_id": 0} == remote.rooms() | {"request_id": 0}
        assert local.explain(4, 9) | {"request_id": 0} == remote.explain(4, 9) | {"request_id": 0}
        assert local.erase(4) | {"request_id": 0} == remote.erase(4) | {"request_id": 0}


def test_served_answers_are_in_the_log_as_impressions(url: str, tmp_path: Path) -> None:
    with HttpClient(url) as client:
        client.send([("a", "rooms", room(9))])
        shown = client.lookup(4, 5)
        time.sleep(0.2)
        assert client.ready()["log_offset"] == 2
    from serving.event_log import EventLog

    log = EventLog(tmp_path / "log.db")
    (record,) = log.of_table("_answer", 10)
    log.close()
    assert str([one["room_id"] for one in shown["rooms"]]).replace(" ", "") in record.row


ONE = b'{"event_id":"a","table":"t","row":{}}'
MANY = b'{"events":[' + ONE + (b"," + ONE) * 100 + b"]}"
BAD = [
    ("POST", "/v1/lookup", b"{", 400, "not_json"),
    ("POST", "/v1/lookup", b"\xff", 400, "not_json"),
    ("POST", "/v1/lookup", b'{"user_id": true}', 422, "invalid"),
    ("POST", "/v1/lookup", b'{"user_id": 99999999999999999999999}', 422, "invalid"),
    ("POST", "/v1/lookup", b'{"user_id": 1, "k": 0}', 422, "invalid"),
    ("POST", "/v1/lookup", b'{"user_id": 1, "k": 301}', 422, "invalid"),
    ("POST", "/v1/lookup", b'{"usr_id": 1}', 422, "invalid"),
    ("POST", "/v1/lookup", b'{"exclude": ' + b"[" * 40_000, 422, "invalid"),
    ("POST", "/v1/lookup", b" " * 60_000, 413, "too_large"),
    ("POST", "/v1/events", b'{"events": [{"event_id": "", "table": "t", "row": {}}]}', 422, "invalid"),
    ("POST", "/v1/events", MANY, 413, "too_large"),
    ("GET", "/v1/explain?user_id=x&room_id=2", b"", 422, "invalid"),
    ("GET", "/v1/explain?user_id=1", b"", 422, "invalid"),
    ("GET", "/v1/rooms?limit=-1", b"", 422, "invalid"),
    ("GET", "/nowhere", b"", 404, "no_route"),
    ("PUT", "/v1/lookup", b"", 405, "no_route"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), BAD)
def test_bad_requests_are_refused_in_words(
    url: str, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    answer = httpx.request(method, url + path, content=body, trust_env=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "Traceback" not in answer.text


def test_events_that_are_no_rows_are_set_aside_one_by_one(url: str) -> None:
    rows = [b"1", b'"x"', b"null", b"[]", b"{}", b'{"user_id":1e400}', b'{"room_id":"\\ud800"}']
    events = b",".join(b'{"event_id":"e%d","table":"follows","row":%s}' % (i, row) for i, row in enumerate(rows))
    pseudo = b',{"event_id":"p","table":"_erase","row":{"user_id":1}}'
    answer = httpx.post(url + "/v1/events", content=b'{"events":[' + events + pseudo + b"]}", trust_env=False)
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        assert {one["status"] for one in answer.json()["results"]} == {"quarantined"}


def test_openapi_describes_every_route_with_examples(url: str) -> None:
    described = httpx.get(url + "/openapi.json", trust_env=False).json()["paths"]
    assert {"/v1/lookup", "/v1/explain", "/v1/events", "/v1/rooms", "/livez", "/readyz", "/metrics"} <= set(described)
    body = described["/v1/lookup"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"]["user_id"] == 42 and "user_id" in body["schema"]["properties"]


def test_metrics_count_what_happened(url: str) -> None:
    with HttpClient(url) as client:
        client.send([("a", "rooms", room(9)), ("b", "rooms", {})])
        client.lookup(1)
    text = httpx.get(url + "/metrics", trust_env=False).text
    assert 'laotie_events_total{reason="null_key",status="quarantined",table="rooms"} 1.0' in text
    assert 'laotie_lookups_total{degraded="no"} 1.0' in text


def keys() -> tuple[ApiKey, ...]:
    def sha(key: str) -> str:
        return hashlib.sha256(key.encode()).hexdigest()

    return (
        ApiKey(name="app", sha256=sha("k1"), roles=("lookup",), requests_per_s=0.001, burst=2),
        ApiKey(name="feed", sha256=sha("k2"), roles=("events",)),
        ApiKey(name="root", sha256=sha("k3"), roles=("admin",)),
    )


def test_keys_open_what_their_roles_allow(market: Path, tmp_path: Path, clock: Clock) -> None:
    config = ServingConfig(keys=keys())
    with serving(Engine.open(market / "bundles" / "b1", tmp_path / "log.db", config, clock), config) as url:

        def status(key: str | None, call: str) -> int:
            with HttpClient(url, key) as client:
                try:
                    {
                        "lookup": lambda: client.lookup(1),
                        "send": lambda: client.send([]),
                        "erase": lambda: client.erase(1),
                    }[call]()
                except CallFailed as failed:
                    return failed.status
                return 200

        assert [status(None, "lookup"), status("wrong", "lookup"), status("k2", "lookup")] == [401, 401, 403]
        assert [status("k1", "lookup"), status("k1", "lookup"), status("k1", "lookup")] == [200, 200, 429]
        assert [status("k2", "send"), status("k2", "erase"), status("k3", "send"), status("k3", "erase")] == [
            200,
            403,
            200,
            200,
        ]
        assert httpx.get(url + "/livez", trust_env=False).status_code == 200


def test_an_open_address_needs_keys() -> None:
    with pytest.raises(ConfigError, match="API keys"):
        load_serving_config(None, {"host": "0.0.0.0"})


def test_bundles_change_under_load_without_a_failed_or_mixed_answer(market: Path, tmp_path: Path, clock: Clock) -> None:
    shelf = tmp_path / "bundles"
    shutil.copytree(market / "bundles", shelf)
    config = ServingConfig(watch_current_s=0.0, lease_s=0.0, log_impressions=False, deadline_ms=20_000.0)
    engine = Engine.open(shelf, tmp_path / "log.db", config, clock)
    seen: list[tuple[str, int]] = []
    wrong: list[object] = []
    stop = threading.Event()
    with serving(engine, config) as url:
        with HttpClient(url) as client:
            client.send(
                [(f"r{i}", "rooms", room(4_000 + i)) for i in range(30)]
                + [("x", "rooms", room(3_999, ended_at=AS_OF + 3 * S))]
            )
            live = {one["room_id"] for one in client.rooms()["rooms"]}

        def ask() -> None:
            with HttpClient(url) as client:
                while not stop.is_set() and len(seen) < 20_000:
                    try:
                        answer = client.lookup(2, 200)
                        seen.append((answer["bundle"], answer["returned"]))
                        if {one["room_id"] for one in answer["rooms"]} != live:
                            wrong.append(answer)
                    except CallFailed as failed:
                        wrong.append(failed)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        with HttpClient(url) as client:
            for i in range(3):
                write_bundle(market / "events", shelf, f"n{i}")
                assert client._call("POST", "/v1/bundle/reload")["bundle"] == f"n{i}"
            broken = write_bundle(market / "events", shelf, "broken")
            (broken / "standings.npy").write_bytes(b"no array")
            with pytest.raises(CallFailed) as refused:
                client._call("POST", "/v1/bundle/reload")
            assert (refused.value.status, refused.value.code) == (409, "bundle_refused")
            publish(shelf, "n2")
            assert rollback(shelf) != "n2"
            name = client._call("POST", "/v1/bundle/reload")["bundle"]
            assert client.lookup(2)["bundle"] == name
        stop.set()
        for thread in threads:
            thread.join(timeout=20)
    assert not wrong
    assert {"b1", "n0", "n1", "n2"} <= {name for name, _ in seen}
    assert "broken" not in {name for name, _ in seen}


def test_a_bundle_whose_gate_failed_is_refused(market: Path, tmp_path: Path, clock: Clock) -> None:
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as engine:
        from recsys.errors import GateFailed

        with pytest.raises(GateFailed):
            engine.swap(write_bundle(market / "events", tmp_path / "shelf", "bad", failed_gate=True))
        assert engine.loaded.name == "b1"


@pytest.mark.parametrize(("offset", "kept"), [(1, {"b"}), (2, set()), (None, {"a", "b"})])
def test_the_overlay_is_rebased_by_offset(
    market: Path, tmp_path: Path, clock: Clock, offset: int | None, kept: set[str]
) -> None:
    """A bundle that contains the log up to an offset gets what lies above, whatever its event time."""
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as engine:
        for name, host in (("a", HOST + 1), ("b", HOST + 2)):
            engine.apply(
                [
                    (
                        name,
                        "engagements",
                        {"user_id": 77_000, "host_id": host, "room_id": 1, "at": AS_OF - S, "kind": "comment"},
                    )
                ]
            )
        offsets = None if offset is None else {"log": offset}
        engine.swap(write_bundle(market / "events", tmp_path / "shelf", "next", offsets=offsets))
        ids = engine.loaded.vocabularies
        user = ids.users.row(77_000)
        hosts = {ids.hosts.id(int(h)) for h in engine.loaded.live.world.ties.of("depth", user).hosts}
        assert hosts == {HOST + 1 + "ab".index(name) for name in kept}
        assert engine.apply([("a", "rooms", room(1))]) == [("duplicate", "event_id")]


def test_late_lookups_get_simpler_answers_and_a_full_queue_refuses_at_once() -> None:
    now = [0.0]
    turns = Turns(3, 0.1, lambda: now[0])
    turns.cost_s = [0.05, 0.03, 0.02, 0.01]
    assert [turns.step_for(left) for left in (0.09, 0.04, 0.025, 0.015, 0.001)] == [0, 1, 2, 3, 3]
    steps: list[object] = []

    async def one(work_s: float) -> None:
        try:
            async with turns.turn() as step:
                steps.append(step)
                await asyncio.sleep(0)
                now[0] += work_s
        except Problem as problem:
            steps.append(problem.code)

    async def all_at_once() -> None:
        await asyncio.gather(*(one(0.06) for _ in range(4)))

    asyncio.run(all_at_once())
    assert sorted(map(str, steps)) == ["1", "2", "deadline", "overloaded"]


def test_a_slow_machine_refuses_nobody_who_stood_behind_nobody() -> None:
    ticks = iter(range(1_000))
    turns = Turns(2, 0.1, lambda: float(next(ticks)))  # a second passes whenever the clock is read

    async def alone() -> int:
        async with turns.turn() as step:
            return step

    assert asyncio.run(alone()) == 0
