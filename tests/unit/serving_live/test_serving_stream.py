"""Events from real brokers: each record is applied exactly once, whatever dies, and nothing is lost in silence."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import ConfigError
from recsys.instants import format_instant
from serving.config import ServingConfig, StreamConfig, load_serving_config
from serving.engine import Engine, clock_us
from serving.streams import check_installed, connect
from serving.streams.following import Follower
from serving.streams.valkey import ValkeyStream

from .brokers import KINDS, Broker, MockKafka, Valkey
from .running_service import running
from .test_serving_faults import HOST, USER, comments

KILLS = int(os.environ.get("LAOTIE_KILLS", "1"))
FORGETFUL = ServingConfig(dedup_horizon=1, lease_s=0.0)
"""Remembers one event id: only the position can keep a record from being applied twice."""


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    made: Broker
    if request.param == "valkey":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (tmp_path / "valkey").mkdir()
        made = Valkey(tmp_path / "valkey", port)
    else:
        made = MockKafka()
    yield made
    made.close()


def comment(i: int) -> bytes:
    at = format_instant(clock_us() - 1_000_000)
    row = {"user_id": USER, "host_id": HOST, "room_id": 1, "at": at, "kind": "comment", "count": 1}
    return json.dumps({"table": "engagements", "row": row} | ({"event_id": f"s{i}"} if i % 2 else {})).encode()


def config(broker: Broker, **more: object) -> StreamConfig:
    return StreamConfig.model_validate({"url": broker.url, "wait_s": 0.05, "retry_s": 0.2} | more)


def until(met: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_records_take_effect_and_what_is_no_event_is_set_aside(broker: Broker, market: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    counted: list[tuple[str, str | None]] = []
    broker.add([comment(0), b"{", b"\xff", b'{"table": "engagements", "row": 5}', b"x" * 3_000, comment(1), comment(1)])
    with Engine.open(market / "bundles", log, ServingConfig()) as engine:
        follower = Follower(
            engine, log, config(broker, most_record_bytes=2_000), lambda _, verdicts: counted.extend(verdicts)
        )
        follower.start()
        until(lambda: follower.records == 7)
        room = {"room_id": 77, "host_id": HOST, "started_at": format_instant(clock_us() - 1), "title": "cut \ud83c"}
        broker.add([json.dumps({"table": "rooms", "row": room}).encode()])
        until(lambda: engine.loaded.vocabularies.rooms.row(77) in engine.loaded.live.world.index)
        follower.stop()
        vitals = follower.vitals()
    reasons = sorted(reason for status, reason in counted if status == "quarantined" and reason is not None)
    assert reasons == ["not_a_row", "unknown_table", "unknown_table", "unknown_table"]
    assert [reason for status, reason in counted if status == "duplicate"] == ["event_id"]
    assert (vitals["records"], vitals["failures"], vitals["gaps"]) == (8, 0, 0)
    assert comments(market / "bundles", log) == 2


def test_a_broker_that_goes_and_comes_back_costs_no_record(broker: Broker, market: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    with Engine.open(market / "bundles", log, FORGETFUL) as engine:
        follower = Follower(engine, log, config(broker, batch=7))
        broker.add(comment(i) for i in range(40))
        follower.start()
        until(lambda: follower.records == 40)
        assert follower.up
        broker.down()
        until(lambda: not follower.up)
        broker.up()
        broker.add(comment(i) for i in range(40, 80))
        until(lambda: follower.records == 80)
        assert follower.up and follower.failures > 0 and follower.gaps == 0
        follower.stop()
    assert comments(market / "bundles", log) == 80


def test_records_the_broker_no_longer_holds_are_told_as_a_gap(broker: Broker, market: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    with Engine.open(market / "bundles", log, FORGETFUL) as engine:
        broker.add(comment(i) for i in range(10))
        first = Follower(engine, log, config(broker))
        first.start()
        until(lambda: first.records == 10)
        first.stop()
        broker.add(comment(i) for i in range(10, 20))
        broker.forget()
        broker.add(comment(i) for i in range(20, 30))
        second = Follower(engine, log, config(broker))
        second.start()
        until(lambda: second.records == 10 and second.gaps > 0)
        second.stop()
    assert comments(market / "bundles", log) == 20


def test_of_two_workers_one_follows_and_the_other_takes_over(broker: Broker, market: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    with Engine.open(market / "bundles", log, FORGETFUL) as one, Engine.open(market / "bundles", log, FORGETFUL) as two:
        followers = [Follower(engine, log, config(broker, batch=3)) for engine in (one, two)]
        for follower in followers:
            follower.start()
        broker.add(comment(i) for i in range(50))
        until(lambda: sum(follower.records for follower in followers) == 50)
        (mine,) = [follower for follower in followers if follower.following]
        (other,) = [follower for follower in followers if follower is not mine]
        assert other.records == 0
        mine.stop()
        broker.add(comment(i) for i in range(50, 60))
        until(lambda: other.records == 10)
        other.stop()
    assert comments(market / "bundles", log) == 60


def test_beginning_at_the_latest_record_is_stored_before_anything_is_read(
    broker: Broker, market: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log.db"
    broker.add([comment(0), comment(1)])
    with Engine.open(market / "bundles", log, FORGETFUL) as engine:
        first = Follower(engine, log, config(broker, start="latest"))
        first.start()
        until(lambda: first.up)
        first.stop()
        broker.add([comment(2)])  # nobody reads: it must not be passed over by a later «latest»
        second = Follower(engine, log, config(broker, start="latest"))
        second.start()
        until(lambda: second.records == 1)
        second.stop()
    assert comments(market / "bundles", log) == 1


def test_every_record_is_applied_once_whenever_the_service_is_killed(
    broker: Broker, market: Path, tmp_path: Path
) -> None:
    log, settings, rng = tmp_path / "log.db", tmp_path / "serving.yaml", np.random.default_rng(5)
    settings.write_text(
        "dedup_horizon: 1\nstream: {url: 'kafka://nowhere:1/x', batch: 20, wait_s: 0.05, retry_s: 0.2}\n"
    )
    added = 0
    over = threading.Event()

    def produce() -> None:
        nonlocal added
        while not over.is_set():
            broker.add(comment(i) for i in range(added, added + 10))
            added += 10
            time.sleep(0.02)

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        for _ in range(KILLS):
            with running(market / "bundles", log, "--config", str(settings), "--stream", broker.url) as service:
                with service.client() as client:
                    until(lambda client=client: client.ready()["stream"]["records"] > 20)
                time.sleep(float(rng.uniform(0.0, 0.3)))
                service.kill()
    finally:
        over.set()
        producer.join()
    broker.add(comment(i) for i in range(added, added + 10))  # the last service killed may have read everything
    added += 10
    with Engine.open(market / "bundles", log, FORGETFUL) as engine:
        held = engine.loaded.applied
        follower = Follower(engine, log, config(broker))
        follower.start()
        until(lambda: engine.loaded.applied >= added)
        time.sleep(0.2)  # a record too many would come now
        follower.stop()
        assert follower.records == added - held > 0
    assert comments(market / "bundles", log) == added > 100


def test_a_stream_is_configured_by_file_and_by_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "serving.yaml"
    path.write_text("stream: {url: 'valkey://a:1/s', batch: 5, options: {health_check_interval: 5}}\n")
    found = load_serving_config(path, {"stream": "kafka://b:2,c:3/t"}).stream
    assert found is not None and (found.url, found.batch) == ("kafka://b:2,c:3/t", 5)
    alone = load_serving_config(None, {"stream": "valkeys://u:p@h/s"}).stream
    assert alone is not None and alone.url == "valkeys://u:p@h/s"
    with pytest.raises(ConfigError, match=r"stream\.url"):
        load_serving_config(None, {"stream": "amqp://a/b"})
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"laotie\[stream\]"):
        check_installed(found)


def test_an_address_is_read_or_refused() -> None:
    given = connect(StreamConfig(url="valkeys://ann:p%40ss%2Fword@h/s?db=3"))
    assert isinstance(given, ValkeyStream)
    settings = given._client.connection_pool.connection_kwargs
    assert [settings[name] for name in ("username", "password", "host", "db")] == ["ann", "p@ss/word", "h", 3]
    for url in ("valkey://h:port/s", "valkey://h:99999/s", "redis://h/s?db=x"):
        with pytest.raises(ConfigError, match=r"stream\.url"):
            connect(StreamConfig(url=url))
    with pytest.raises(ConfigError, match=r"stream\.options"):
        connect(StreamConfig(url="valkey://h/s", options={"no_such_option": 1}))
