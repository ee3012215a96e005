"""Bundles that change while they are served: under load, refused, rebased, followed."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from recsys.bundle import current_name, publish, rollback
from recsys.errors import BundleRefused, GateFailed, InputRefused
from serving.asked import Asked
from serving.client import CallFailed, HttpClient
from serving.config import ServingConfig
from serving.engine import Engine, Event
from serving.event_log import LogFailed
from serving.http_app import Service

from .running_service import serving
from .served_world import AS_OF, Clock, write_bundle
from .test_serving_http import HOST, room

S = 1_000_000


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


def test_what_was_served_before_is_given_back_at_once(market: Path, tmp_path: Path, clock: Clock) -> None:
    """Without a search for garbage, which a service puts off for days: a state that kept itself would stay, night by
    night."""
    shutil.copytree(market / "bundles", tmp_path / "bundles")
    with Engine.open(tmp_path / "bundles", tmp_path / "log.db", ServingConfig(lease_s=0.0), clock) as engine:
        told: list[Event] = [
            ("r", "rooms", room(4_000)),
            ("old", "follows", follow(AS_OF - S)),
            ("new", "follows", follow(AS_OF)),
        ]
        assert {verdict[0] for verdict in engine.apply(told)} == {"accepted"}
        engine.apply([], [engine.lookup(Asked(2, 5)).impressions("a")])
        before = engine.loaded
        held = [
            weakref.ref(one) for one in (before, before.live, before.live.world, before.intake, before.vocabularies)
        ]
        write_bundle(market / "events", tmp_path / "bundles", "next")
        gc.collect()
        gc.disable()
        try:
            del before
            assert engine.swap() == "next"
            assert [one() for one in held] == [None] * 5
        finally:
            gc.enable()


def follow(at: int) -> dict[str, object]:
    return {"user_id": 2, "host_id": HOST, "at": at, "action": "follow"}


def test_a_room_whose_lease_ran_out_does_not_come_back_with_another_bundle(
    market: Path, tmp_path: Path, clock: Clock
) -> None:
    with Engine.open(market / "bundles", tmp_path / "log.db", ServingConfig(lease_s=600.0), clock) as engine:
        assert engine.apply([("silent", "rooms", room(4_000))]) == [("accepted", None)]
        clock.now += 400 * S
        assert engine.apply([("alive", "rooms", room(4_001))]) == [("accepted", None)]
        clock.now += 201 * S
        assert 4_001 in live_rooms(engine) and 4_000 not in live_rooms(engine)
        engine.swap(write_bundle(market / "events", tmp_path / "shelf", "next"))
        assert 4_001 in live_rooms(engine) and 4_000 not in live_rooms(engine)
        assert engine.apply([("sign", "rooms", room(4_000))]) == [("duplicate", "lease_renewed")]
        assert 4_000 in live_rooms(engine)


def live_rooms(engine: Engine) -> set[object]:
    with engine.reading() as loaded:
        ids = loaded.vocabularies.rooms
        return {ids.id(room) for room in loaded.live.world.index.publish().rooms.tolist()}


def test_a_bundle_whose_gate_failed_is_refused(market: Path, tmp_path: Path, clock: Clock) -> None:
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as engine:
        with pytest.raises(GateFailed):
            engine.swap(write_bundle(market / "events", tmp_path / "shelf", "bad", failed_gate=True))
        assert engine.loaded.name == "b1"


def test_a_swap_without_a_folder_says_what_to_do(market: Path, clock: Clock) -> None:
    with Engine.open(market / "bundles" / "b1", None, clock=clock) as engine:
        with pytest.raises(InputRefused, match="hint: serve the folder"):
            engine.swap()
        assert engine.swap(market / "bundles" / "b1") == "b1"


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


class Shelf:
    """A folder of bundles and an engine on it that takes over whatever is good."""

    def __init__(self, folder: Path) -> None:
        self.bundles, self.loaded, self.asked = folder, SimpleNamespace(name="b0"), list[str]()
        self.faults: dict[str, Exception] = {}
        self.point_at("b0")

    def point_at(self, name: str) -> None:
        (self.bundles / "CURRENT").write_text(name + "\n")

    def swap(self) -> str:
        name = current_name(self.bundles)
        assert name is not None
        self.asked.append(name)
        if name in self.faults:
            raise self.faults.pop(name)
        self.loaded.name = name
        return name


async def followed(shelf: Shelf, *steps: Callable[[Service], Awaitable[object]]) -> None:
    """Take steps while the service watches the shelf, which must go on to the end."""
    service = Service(cast("Engine", shelf), ServingConfig(watch_current_s=0.001))
    watch = asyncio.create_task(service.watch())
    async with asyncio.timeout(60):
        for step in steps:
            await step(service)
    assert not watch.done()
    watch.cancel()


def pointing(shelf: Shelf, name: str, until: Callable[[], bool]) -> Callable[[Service], Awaitable[None]]:
    async def step(_: Service) -> None:
        shelf.point_at(name)
        while not until():
            await asyncio.sleep(0.001)

    return step


@pytest.mark.parametrize("fault", [RuntimeError("a bug"), BundleRefused("damaged")])
def test_the_watch_outlives_a_bundle_that_fails_and_tries_it_once(
    tmp_path: Path, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf(tmp_path)
    shelf.faults["bad"] = fault
    bad = pointing(shelf, "bad", lambda: "bad" in shelf.asked)
    nonsense = pointing(shelf, "no / name", lambda: "CURRENT refused" in caplog.text)
    good = pointing(shelf, "good", lambda: shelf.loaded.name == "good")
    asyncio.run(followed(shelf, bad, nonsense, good))
    assert shelf.asked == ["bad", "good"]
    assert str(fault) in caplog.text
    assert caplog.text.count("CURRENT refused") == 1


def test_the_watch_tries_again_when_it_was_the_log_that_failed(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.faults["b1"] = LogFailed("cannot be read")
    asyncio.run(followed(shelf, pointing(shelf, "b1", lambda: shelf.loaded.name == "b1")))
    assert shelf.asked == ["b1", "b1"]


def test_the_watch_goes_back_to_a_bundle_that_was_left_by_a_reload(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)

    async def reload(service: Service) -> None:
        shelf.point_at("b2")
        await service.swap()

    first = pointing(shelf, "b1", lambda: shelf.loaded.name == "b1")
    asyncio.run(followed(shelf, first, reload, pointing(shelf, "b1", lambda: shelf.loaded.name == "b1")))
    assert shelf.asked[0] == shelf.asked[-1] == "b1" and "b2" in shelf.asked
