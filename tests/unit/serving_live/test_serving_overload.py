"""A scorer that is too slow: simpler answers, each labelled and counted; refusals at once; nothing piles up."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.admission import Turns
from serving.asked import Asked, Served
from serving.company import Company
from serving.config import ServingConfig
from serving.engine import Engine
from serving.http_app import Service
from serving.ladder import STEPS
from serving.problems import Problem

from .running_service import serving
from .served_world import AS_OF, Clock
from .test_serving_http import room

COST_S = (0.04, 0.02, 0.008, 0.003)
"""What an answer on each step of the ladder costs here."""
CONFIG = ServingConfig(waiting_lookups=12, deadline_ms=150.0)


@contextmanager
def slow(
    market: Path, log: Path, monkeypatch: pytest.MonkeyPatch, config: ServingConfig = CONFIG
) -> Iterator[tuple[str, list[Service], list[int]]]:
    """A service whose scorer takes its time; and how many lookups waited whenever one was answered."""
    engine = Engine.open(market / "bundles", log, config, Clock(AS_OF + 100_000_000))
    engine.apply([(f"r{i}", "rooms", room(i + 1)) for i in range(40)])
    quick, waited = engine.lookup_many, [0]
    services: list[Service] = []

    def lookup_many(asked: Sequence[Asked]) -> list[Served]:
        time.sleep(sum(COST_S[one.step] for one in asked))
        waited.extend(service.turns.waiting for service in services)
        return quick(asked)

    made = Service.__init__

    def remember(self: Service, engine: Engine, config: ServingConfig, worker: int | None) -> None:
        made(self, engine, config, worker)
        services.append(self)

    monkeypatch.setattr(Service, "__init__", remember)
    monkeypatch.setattr(engine, "lookup_many", lookup_many)
    with serving(engine, config) as url:
        yield url, services, waited


def test_under_load_answers_get_simpler_then_some_are_refused_and_nothing_piles_up(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: Counter[str] = Counter()
    codes: Counter[str] = Counter()

    async def one(client: httpx.AsyncClient, user: int) -> None:
        answer = await client.post("/v1/lookup", json={"user_id": user, "k": 5})
        if answer.status_code == 200:
            (document,) = answer.json()["answers"]
            assert document["returned"] == 5  # a simpler answer is no shorter one
            said["+".join(document["degraded"]) or "no"] += 1
        else:
            assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
            codes[answer.json()["error"]["code"]] += 1

    async def caller(client: httpx.AsyncClient, number: int) -> None:
        for i in range(4):
            await one(client, number * 4 + i)

    async def load(url: str) -> str:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60.0, limits=limits) as client:
            for _ in range(3):
                await one(client, 1)  # alone: everything
            assert said == {"no": 3}
            await asyncio.gather(*(caller(client, number) for number in range(40)))
            page = (await client.get("/metrics")).text
            rich = said["no"]
            for _ in range(400):  # the load is gone: rich answers come back
                await one(client, 1)
                if said["no"] > rich:
                    return page
        raise AssertionError("answers stay simple after the load")

    with slow(market, tmp_path / "log.db", monkeypatch) as (url, _, waited):
        page = asyncio.run(load(url))
    counted = {name: float(n) for name, n in re.findall(r'laotie_lookups_total\{degraded="(\w+)"\} (\S+)', page)}
    refused = {name: float(n) for name, n in re.findall(r'laotie_refused_total\{reason="(\w+)"\} (\S+)', page)}
    assert set(STEPS[1:]) & set(counted), "no answer got simpler"
    assert set(said) <= {"no", *STEPS[1:]} and refused == codes and set(codes) <= {"overloaded", "deadline"}
    assert sum(counted.values()) + sum(refused.values()) == 3 + 40 * 4
    assert 0 < max(waited) <= CONFIG.waiting_lookups


def test_a_batch_of_events_that_does_not_fit_is_refused_at_once(market: Path, tmp_path: Path) -> None:
    config = ServingConfig(waiting_events=10)
    engine = Engine.open(market / "bundles", tmp_path / "log.db", config, Clock(AS_OF + 100_000_000))
    row = {"user_id": 4, "host_id": 1, "at": AS_OF + 5, "action": "follow"}

    async def both(url: str) -> list[int]:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60.0) as client:

            async def send(part: int) -> int:
                events = [{"event_id": f"{part}-{i}", "table": "follows", "row": row} for i in range(8)]
                return (await client.post("/v1/events", json={"events": events})).status_code

            engine._writing.acquire()  # the log is held by somebody
            first = asyncio.create_task(send(0))
            try:
                while not app_waiting():
                    await asyncio.sleep(0.005)
                second = await send(1)
            finally:
                engine._writing.release()
            return [await first, second]

    with serving(engine, config) as url:
        queues: list[Service] = []

        def app_waiting() -> int:
            import gc

            queues.extend(found for found in gc.get_objects() if type(found) is Service and found.engine is engine)
            return queues[0].queue.waiting

        assert asyncio.run(both(url)) == [200, 503]


def asked_at_once(turns: Turns, answer: Callable[[Sequence[Asked]], list[Any]], n: int) -> list[Any]:
    """What `n` lookups get that stand in the queue together and are answered one by one; a refusal is its code."""

    async def ask() -> list[Any]:
        company = Company(turns, answer, 1, lambda: asyncio.sleep(0))
        running = asyncio.create_task(company.run())
        told = await asyncio.gather(*(company.ask([Asked(i, 5)]) for i in range(n)), return_exceptions=True)
        running.cancel()
        return [one.code if isinstance(one, Problem) else one[0] for one in told]

    return asyncio.run(ask())


def test_late_lookups_get_simpler_answers_and_a_full_queue_refuses_at_once() -> None:
    now = [0.0]
    turns = Turns(3, 0.1, lambda: now[0])
    turns.cost_s = [0.05, 0.03, 0.02, 0.01]
    assert [turns.step_for(left) for left in (0.09, 0.04, 0.025, 0.015, 0.001)] == [0, 1, 2, 3, 3]

    def answer(asked: Sequence[Asked]) -> list[Any]:
        now[0] += 0.06
        return [one.step for one in asked]

    assert [str(step) for step in asked_at_once(turns, answer, 4)] == ["1", "2", "deadline", "overloaded"]


def test_a_slow_machine_refuses_nobody_who_stood_behind_nobody() -> None:
    ticks = iter(range(1_000))
    turns = Turns(2, 0.1, lambda: float(next(ticks)))  # a second passes whenever the clock is read
    assert asked_at_once(turns, lambda asked: [one.step for one in asked], 1) == [0]


def test_an_explanation_in_a_hurry_teaches_the_price_of_a_full_answer_and_of_no_other(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ServingConfig(deadline_ms=0.01)  # no step fits
    with slow(market, tmp_path / "log.db", monkeypatch, config) as (url, (service,), _):
        guessed = list(service.turns.cost_s)
        answer = httpx.get(url + "/v1/explain?user_id=4&room_id=1", trust_env=False)
        assert answer.status_code == 200 and answer.json()["room"]["reasons"]
        assert service.turns.cost_s[1:] == guessed[1:] and service.turns.cost_s[0] > guessed[0]
