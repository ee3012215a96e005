"""The HTTP face on a real loopback server: answers, keys, limits, errors."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest

from recsys.errors import ConfigError
from recsys.instants import format_instant
from serving.asked import Served
from serving.client import CallFailed, HttpClient
from serving.config import ApiKey, ServingConfig, load_serving_config
from serving.engine import Engine
from serving.event_log import LogFailed
from serving.foreign_json import read
from serving.queue import IntakeQueue
from serving.server import url_of

from .running_service import serving
from .served_world import AS_OF, Clock

S = 1_000_000
HOST = 2_000_000_001


@pytest.fixture
def url(market: Path, tmp_path: Path, clock: Clock) -> Iterator[str]:
    config = ServingConfig(most_body_bytes=50_000, most_events=100, most_k=300)
    with serving(Engine.open(market / "bundles", tmp_path / "log.db", config, clock), config) as made:
        yield made


def room(room_id: int, start: int = 1, **more: Any) -> dict[str, Any]:
    return {"room_id": room_id, "host_id": HOST, "started_at": format_instant(AS_OF + start * S)} | more


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
    ("POST", "/v1/lookup", b'{"user_id": "4"}', 422, "invalid"),
    ("POST", "/v1/lookup", b'{"user_ids": [4, "5"]}', 422, "invalid"),
    ("POST", "/v1/lookup", b'{"user_id": 4, "user_ids": [5]}', 422, "invalid"),
    ("POST", "/v1/lookup", b'{"user_id": 4, "exclude": ["9"]}', 422, "invalid"),
    ("POST", "/v1/lookup", b'{"exclude": ' + b"[" * 40_000, 422, "invalid"),
    ("POST", "/v1/lookup", b" " * 60_000, 413, "too_large"),
    ("POST", "/v1/events", b'{"events": [{"event_id": "", "table": "t", "row": {}}]}', 422, "invalid"),
    ("POST", "/v1/events", MANY, 413, "too_large"),
    ("GET", "/v1/explain?user_id=x&room_id=2", b"", 422, "invalid"),
    ("GET", "/v1/explain?user_id=1_0&room_id=2", b"", 422, "invalid"),
    ("DELETE", "/v1/users/%201", b"", 422, "invalid"),
    ("GET", "/v1/explain?user_id=1", b"", 422, "invalid"),
    ("GET", "/v1/rooms?limit=-1", b"", 422, "invalid"),
    ("GET", "/v1/rooms?limit=1_0", b"", 422, "invalid"),
    ("GET", "/v1/rooms?after=+5", b"", 422, "invalid"),
    ("GET", "/v1/rooms?after=", b"", 422, "invalid"),
    ("GET", "/v1/explain?user_id=1&room_id=2&k=%D9%A5", b"", 422, "invalid"),
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


def test_a_compressed_body_is_refused_as_such(url: str) -> None:
    for coding in ("gzip", "identity, br", "GZIP"):
        answer = httpx.post(
            url + "/v1/lookup", content=gzip.compress(b"{}"), headers={"content-encoding": coding}, trust_env=False
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "compressed")
    twice = [("content-encoding", "identity"), ("content-encoding", "gzip")]
    assert httpx.post(url + "/v1/lookup", content=b"{}", headers=twice, trust_env=False).status_code == 415
    for coding in ("Identity", "identity, identity", ""):
        plain = httpx.post(url + "/v1/lookup", content=b"{}", headers={"content-encoding": coding}, trust_env=False)
        assert plain.status_code == 200


def test_a_title_cut_amid_an_emoji_costs_no_room(url: str) -> None:
    rows = [json.dumps(room(9, title="fresh tea \ud83c")), json.dumps(room(10))]
    assert rows[0].endswith('\\ud83c"}')
    told = [f'{{"event_id": "e{i}", "table": "rooms", "row": {row}}}' for i, row in enumerate(rows)]
    answer = httpx.post(url + "/v1/events", content=f'{{"events": [{", ".join(told)}]}}', trust_env=False)
    assert [one["status"] for one in answer.json()["results"]] == ["accepted"] * 2


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (r"\ud83c", "\ufffd"), (r"\udf75\uD83C!", "\ufffd\ufffd!"), (r"\ud83c\udf75\ud83c", "\U0001f375\ufffd"),
        (r"\\ud83c", r"\ud83c"), (r"\\\ud83c", "\\\ufffd"), (r"\ud83c\\udf75", "\ufffd\\udf75"),
    ],
)  # fmt: skip
def test_half_a_character_reads_as_a_mark_and_all_else_as_it_is(escaped: str, text: str) -> None:
    assert read(msgspec.json.Decoder(), b'["' + escaped.encode() + b'", "\\ud800"]') == [text, "\ufffd"]


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
        client.send([("a", "rooms", room(9)), ("b", "rooms", {}), ("c", "made-up-1", {}), ("c", "made-up-1", {})])
        client.send([("c", "made-up-1", {})])
        client.lookup(1)
    text = httpx.get(url + "/metrics", trust_env=False).text
    assert 'laotie_events_total{reason="null_key",status="quarantined",table="rooms"} 1.0' in text
    assert 'laotie_events_total{reason="event_id",status="duplicate",table="unknown"} 2.0' in text
    assert "made-up" not in text  # a series per name anybody sends would have no end
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
        for scheme, code in (
            ("Bearer k2", 200),
            ("bearer  k2", 200),
            ("BEARER k2", 200),
            ("Basic k2", 401),
            ("k2", 401),
        ):
            said = httpx.post(
                url + "/v1/events", json={"events": []}, headers={"authorization": scheme}, trust_env=False
            )
            assert said.status_code == code, scheme  # a scheme is read in either case (RFC 9110, section 11.1)
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


def test_an_answer_of_somebody_else_is_a_failed_call() -> None:
    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(502)
            self.end_headers()
            self.wfile.write(b"<html>Bad Gateway</html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Proxy) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.handle_request)
        with HttpClient(f"http://127.0.0.1:{server.server_port}") as client, pytest.raises(CallFailed) as failed:
            client.ready()
    assert (failed.value.status, failed.value.code) == (502, "not_json") and "Bad Gateway" in str(failed.value)


def test_every_answer_that_is_not_logged_is_counted() -> None:
    class Failing:
        def apply(self, *_: object) -> None:
            raise LogFailed("disk full")

    class Answered:
        def impressions(self, request_id: str) -> tuple[str, str, str]:
            return request_id, "_answer", "{}"

    lost: list[int] = []
    queue = IntakeQueue(cast(Engine, Failing()), 10, lost.append)

    async def ask() -> None:
        running = asyncio.create_task(queue.run())
        for n in (999, 4):
            queue.later([cast(Served, Answered())] * n, "r")
        with pytest.raises(LogFailed):
            await queue.put([("e", "rooms", {})])
        running.cancel()

    asyncio.run(ask())
    assert lost == [0, 3, 1_000] and queue.waiting == 0


def test_an_address_can_be_asked_at() -> None:
    assert [httpx.URL(url_of(host, 8080)).host for host in ("127.0.0.1", "::1")] == ["127.0.0.1", "::1"]
