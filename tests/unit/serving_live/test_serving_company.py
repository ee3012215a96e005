"""Lookups that wait at the same time: answered together, each as alone; what one of them breaks is its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from recsys.events.log_tables import ANSWER
from serving.admission import Turns
from serving.asked import Asked, Served
from serving.company import Company
from serving.config import ServingConfig
from serving.engine import Engine
from serving.event_log import EventLog
from serving.problems import Problem

from .running_service import serving
from .served_world import AS_OF, Clock
from .test_serving_http import room

BODIES: list[dict[str, Any]] = [
    {"user_id": 1 + i % 40, "k": 5 + i % 3} | more
    for i, more in enumerate(
        [
            {}, {"breakdown": True}, {"exclude": [3, 4]}, {"sources": ["popular"]}, {"sources": []},
            {"category": "tea"}, {"explain": False}, {"user_id": None}, {"user_id": 10**12},
        ] * 6
    )
]  # fmt: skip


def opened(market: Path, log: Path, config: ServingConfig) -> Engine:
    engine = Engine.open(market / "bundles", log, config, Clock(AS_OF + 100_000_000))
    engine.apply([(f"r{i}", "rooms", room(i + 1, category="tea" if i % 3 else None)) for i in range(40)])
    return engine


async def all_at_once(url: str, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=len(bodies))
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60.0, limits=limits) as client:
        return await asyncio.gather(*(client.post("/v1/lookup", json=body) for body in bodies))


def test_answers_given_together_are_those_given_alone_and_each_is_logged(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ServingConfig(deadline_ms=60_000.0, waiting_lookups=200, log_impressions=False)
    with (
        serving(opened(market, tmp_path / "one.db", config), config) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        alone = [client.post("/v1/lookup", json=body).json()["answers"] for body in BODIES]
    config = config.model_copy(update={"log_impressions": True})
    engine, sizes = opened(market, tmp_path / "two.db", config), []
    lookup_many = engine.lookup_many

    def counted(asked: Sequence[Asked]) -> list[Served]:
        sizes.append(len(asked))
        time.sleep(0.02)  # long enough for others to come
        return lookup_many(asked)

    monkeypatch.setattr(engine, "lookup_many", counted)
    logged: list[Any] = []

    def noted(entries: list[Any], _: object) -> list[Any]:  # the state stays as it is until all have been answered
        logged.extend(orjson.loads(row) for _, table, row in entries if table == ANSWER)
        return []

    monkeypatch.setattr(engine, "_apply", noted)
    with serving(engine, config) as url:
        together = [answer.json()["answers"] for answer in asyncio.run(all_at_once(url, BODIES))]
    assert together == alone
    assert 1 < max(sizes) <= config.users_together and sum(sizes) == len(BODIES)
    shown = sorted(([a["user_id"], [r["room_id"] for r in a["rooms"]]] for (a,) in together), key=str)
    assert sorted(([one["user_id"], one["room_ids"]] for one in logged), key=str) == shown


def test_a_lookup_that_fails_is_nobody_elses_failure(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ServingConfig(deadline_ms=60_000.0, waiting_lookups=200)
    engine = opened(market, tmp_path / "log.db", config)
    lookup_many = engine.lookup_many

    def fragile(asked: Sequence[Asked]) -> list[Served]:
        time.sleep(0.01)
        if any(one.user_id == 13 for one in asked):
            raise RuntimeError("a bug that this viewer meets")
        return lookup_many(asked)

    monkeypatch.setattr(engine, "lookup_many", fragile)
    with serving(engine, config) as url:
        bodies = [{"user_id": i} for i in range(30)]
        codes = [answer.status_code for answer in asyncio.run(all_at_once(url, bodies))]
    assert [i for i, code in enumerate(codes) if code != 200] == [13] and codes[13] == 500
    log = EventLog(tmp_path / "log.db")
    assert len(log.of_table(ANSWER, log.last)) == 29
    log.close()


def test_who_is_late_or_has_gone_holds_nobody_up() -> None:
    now, served = [0.0], []

    def answer(asked: Sequence[Asked]) -> list[Any]:
        served.append([one.user_id for one in asked])
        now[0] += 0.03 * len(asked)
        return [one.user_id for one in asked]

    async def ask() -> list[Any]:
        turns = Turns(50, 0.1, lambda: now[0])
        turns.cost_s = [0.03, 0.02, 0.01, 0.01]
        company = Company(turns, answer, 2, lambda: asyncio.sleep(0))
        callers = [asyncio.create_task(company.ask([Asked(i, 5)])) for i in range(7)]
        await asyncio.sleep(0)
        callers[1].cancel()
        running = asyncio.create_task(company.run())
        told = await asyncio.gather(*callers, return_exceptions=True)
        running.cancel()
        assert turns.waiting == 0
        return told

    told = asyncio.run(ask())
    assert served == [[0, 2], [3, 4]]
    assert [told[i] for i in (0, 2, 3, 4)] == [[0], [2], [3], [4]]
    assert isinstance(told[1], asyncio.CancelledError)
    assert all(isinstance(told[i], Problem) and told[i].code == "deadline" for i in (5, 6))


def test_events_under_way_are_let_by_but_no_lookup_waits_for_a_log_that_hangs(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ServingConfig(deadline_ms=60_000.0)
    engine = opened(market, tmp_path / "log.db", config)
    apply, hangs, free = engine.apply, threading.Event(), threading.Event()

    def hanging(*given: Any) -> Any:
        hangs.set()
        assert free.wait(60)
        return apply(*given)

    monkeypatch.setattr(engine, "apply", hanging)
    event = {"event_id": "e", "table": "follows", "row": {"user_id": 4, "host_id": 1, "at": AS_OF, "action": "follow"}}

    async def both(url: str) -> tuple[int, bool, int]:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60.0) as client:
            sent = asyncio.create_task(client.post("/v1/events", json={"events": [event]}))
            await asyncio.to_thread(hangs.wait, 60)
            looked_up = (await client.post("/v1/lookup", json={"user_id": 4})).status_code
            before = sent.done()
            free.set()
            return looked_up, before, (await sent).status_code

    with serving(engine, config) as url:
        assert asyncio.run(both(url)) == (200, False, 200)
