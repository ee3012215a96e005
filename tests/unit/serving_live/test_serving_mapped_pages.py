"""Resident memory: mapped pages go back when they are much, and come again when they are read."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import numpy as np
import pytest

from recsys.bundle.mapping import Ahead
from serving import mapped_pages
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine

from .served_world import AS_OF, Clock


def resident_kb(folder: Path) -> int:
    """KiB of the arrays below a folder that are mapped into this process and resident."""
    found, mine = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            mine = str(folder) in line and line.endswith(".npy")
        elif mine and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


def test_states_fetched_ahead_are_those_that_are_read_then(market: Path, tmp_path: Path, clock: Clock) -> None:
    stored = np.arange(60_000, dtype=np.int64).reshape(-1, 3)
    np.save(tmp_path / "rows.npy", stored)
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r").view(np.ndarray)[100:]
    ahead = Ahead(rows, stored, rows[:, 1])
    ((held, first, width),) = ahead._parts
    assert np.frombuffer(held[first : first + width], np.int64).tolist() == stored[100].tolist()
    ahead.fetch(0, len(rows))
    ahead.fetch(5, 5)
    answers, told = [], [("e", "watches", {"user_id": 1, "host_id": 1, "room_id": 77_777, "entered_at": AS_OF - 9})]
    for name, most in (("ahead", 500), ("scattered", 0)):
        config = ServingConfig(read_ahead_mb=most, lease_s=0.0)
        with Engine.open(market / "bundles", tmp_path / f"{name}.db", config, clock) as engine:
            assert engine.loaded.scattered == (most == 0)
            assert all(block._base._base.ahead._parts for block in engine.loaded.live.world.ties._fresh.values())
            assert engine.apply([*told, ("bad", "watches", '{"user_id": [')]) == [
                ("accepted", None),
                ("quarantined", "not_a_row"),
            ]
            users = [engine.loaded.vocabularies.users.id(row) for row in range(20)]
            asked = [Asked(user, 10) for user in [*users, None, 10**12]]
            answers.append([(one.room_ids, one.answer.score.tolist()) for one in engine.lookup_many(asked)])
    assert answers[0] == answers[1]


@pytest.mark.skipif(mapped_pages.mapped_mb() == 0, reason="the system does not tell what is mapped")
def test_pages_of_the_bundle_go_back_and_come_again(
    market: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped_pages, "_CHECK_S", 0.01)
    monkeypatch.setattr(mapped_pages, "mapped_mb", lambda: resident_kb(market) / 1024)

    gc.collect()
    others = resident_kb(market)  # other tests of this process may still hold the same files

    async def watch(engine: Engine, most: int, until_s: float) -> None:
        task = asyncio.create_task(mapped_pages.keep(engine, ServingConfig(most_mapped_mb=most)))
        for _ in range(int(until_s / 0.05)):
            await asyncio.sleep(0.05)
            if resident_kb(market) <= others:
                break
        task.cancel()

    with Engine.open(market / "bundles", None, clock=clock) as engine:
        users = [engine.loaded.vocabularies.users.id(row) for row in range(20)]

        def answers() -> list[object]:
            return [engine.lookup(Asked(user, 10)).answer.score.tolist() for user in users]

        before = answers()
        assert (held := resident_kb(market)) > others
        asyncio.run(watch(engine, 10_000, 0.3))
        assert resident_kb(market) == held, "within the limit nothing is given back"
        monkeypatch.setattr(mapped_pages, "mapped_mb", lambda: 10_001.0)
        asyncio.run(watch(engine, 10_000, 20.0))
        assert resident_kb(market) == others
        assert answers() == before
        assert resident_kb(market) > others
