"""The two clients: the same answers, the same refusals, the same ids and rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from recsys.instants import format_instant
from serving.client import CallFailed, Client, HttpClient, LocalClient
from serving.config import ServingConfig
from serving.engine import Engine
from tests.small_world import DAY, T0

from .running_service import serving
from .served_world import AS_OF, Clock

S = 1_000_000
HOST = 2_000_000_001
FROZEN = Path(__file__).parents[2] / "fixtures" / "bundles" / "world-v1"


def room(room_id: int) -> dict[str, Any]:
    return {"room_id": room_id, "host_id": HOST, "started_at": format_instant(AS_OF + S)}


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
            {"heads": True},
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


def test_what_the_heads_say_is_told_to_those_who_ask(tmp_path: Path) -> None:
    with LocalClient(Engine.open(FROZEN, tmp_path / "log.db", clock=Clock(T0 + 100 * DAY))) as client:
        users = range(8)
        plain, told = ([client.lookup(user, 5, **more)["rooms"] for user in users] for more in ({}, {"heads": True}))
        why = [client.explain(user, rooms[0]["room_id"])["room"] for user, rooms in zip(users, plain, strict=True)]
    for rooms, with_heads, first in zip(plain, told, why, strict=True):
        assert rooms == [{name: one[name] for name in one if name != "heads"} for one in with_heads]
        assert all(0.0 < chance < 1.0 for one in with_heads for chance in (one["strength"], one["heads"]["returns"]))
        assert first["heads"] == with_heads[0]["heads"]


def test_both_clients_refuse_the_same_in_the_same_words(market: Path, tmp_path: Path, clock: Clock) -> None:
    config, shelf = ServingConfig(log_impressions=False), market / "bundles" / "b1"
    asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("lookup", (4,), {"k": 0}),
        ("lookup", (4,), {"k": -3}),
        ("lookup", (4,), {"k": 501}),
        ("lookup", ("4",), {}),
        ("lookup", (2**63,), {}),
        ("lookup", (True,), {}),
        ("lookup", (4,), {"sources": ["poplar"]}),
        ("lookup", (4,), {"categry": "tea"}),
        ("lookup", (4,), {"category": 5}),
        ("explain", ("x", 9), {}),
        ("explain", (None, 9), {}),
        ("explain", (4, 9), {"k": 0}),
        ("rooms", (), {"limit": 0}),
        ("rooms", (), {"after": -2}),
        ("send", ([("", "rooms", room(9))],), {}),
        ("send", ([(str(i), "rooms", {}) for i in range(2_001)],), {}),
        ("erase", ("x",), {}),
    ]
    with (
        LocalClient(Engine.open(shelf, tmp_path / "one.db", config, clock)) as local,
        serving(Engine.open(shelf, tmp_path / "two.db", config, clock), config) as at,
        HttpClient(at) as remote,
    ):
        for call, given, more in asked:
            said = []
            for client in (local, remote):
                with pytest.raises(CallFailed) as failed:
                    getattr(client, call)(*given, **more)
                said.append((failed.value.status, failed.value.code, str(failed.value)))
            assert said[0] == said[1] and said[0][0] in (413, 422), (call, given, more)
        assert local.lookup(4, None) == remote.lookup(4, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("user_id", ["", "x" * 5_000, "a/b ?#%.."])
def test_an_id_that_events_may_have_is_an_id_everywhere(
    world: Path, tmp_path: Path, clock: Clock, user_id: str
) -> None:
    follow = {"user_id": user_id, "host_id": HOST, "at": AS_OF + 5, "action": "follow"}
    config = ServingConfig(log_impressions=False)

    def told_and_erased(client: Client) -> None:
        results = client.send([("a", "rooms", room(9)), ("b", "follows", follow)])
        assert [one["status"] for one in results] == ["accepted"] * 2
        assert client.lookup(user_id)["known_user"] and client.explain(user_id, 9)["shown"]
        assert client.erase(user_id)["log_rows"] == 1
        assert not client.lookup(user_id)["known_user"]

    with LocalClient(Engine.open(world / "bundles", tmp_path / "one.db", config, clock)) as local:
        told_and_erased(local)
    with (
        serving(Engine.open(world / "bundles", tmp_path / "two.db", config, clock), config) as at,
        HttpClient(at) as remote,
    ):
        told_and_erased(remote)


def test_an_id_no_address_holds_is_refused_in_words() -> None:
    with HttpClient("http://127.0.0.1:9") as remote:
        for call in (lambda: remote.explain("x" * 70_000, 9), lambda: remote.erase("x" * 70_000)):
            with pytest.raises(CallFailed, match="no address holds this"):
                call()


def test_both_clients_take_ids_and_rows_alike(market: Path, tmp_path: Path, clock: Clock) -> None:
    config, shelf = ServingConfig(log_impressions=False), market / "bundles" / "b1"
    follow = {"user_id": 4, "host_id": HOST, "at": AS_OF + 5, "action": "follow"}
    events = [
        ("a", "rooms", json.dumps(room(9))),
        ("b", "follows", json.dumps(follow).encode()),
        ("c", "follows", follow | {"at": datetime.fromtimestamp(AS_OF / 1e6 + 1, UTC)}),
        ("d", "follows", follow | {"at": float("nan")}),
    ]
    with (
        LocalClient(Engine.open(shelf, tmp_path / "one.db", config, clock)) as local,
        serving(Engine.open(shelf, tmp_path / "two.db", config, clock), config) as at,
        HttpClient(at) as remote,
    ):
        told = local.send(events)
        assert told == remote.send(events)
        assert [one["status"] for one in told] == ["accepted"] * 3 + ["quarantined"]
        assert local.explain("4", "9")["known_user"] and local.explain("4", "9")["room_id"] == 9
        for client in (local, remote):
            receipt = client.erase("4")  # a receipt for a user who is still there would be worse than a refusal
            assert receipt["user_id"] == 4 and receipt["log_rows"] == 3
            assert not client.lookup(4)["known_user"]


def test_a_user_whose_id_is_a_step_of_a_path_can_be_erased_over_http() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path)
        return httpx.Response(200, json={})

    with HttpClient("http://laotie") as client:
        client._http = httpx.Client(base_url="http://laotie", transport=httpx.MockTransport(answer))
        for user in (".", "..", "a/../b", "老铁"):
            client.erase(user)
    assert [unquote(path.decode()) for path in asked] == [f"/v1/users/{user}" for user in (".", "..", "a/../b", "老铁")]
