"""How another bundle is brought up to the log while one is served: in turns, ahead of the swap, from no further back
than it has to be; and how what was remembered is given back."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine
from serving.event_log import Record
from serving.intake import Verdict
from serving.loaded import Loaded
from serving.loading import load_rehearsed
from serving.seen import Lately

from .served_world import AS_OF, Clock, write_bundle
from .test_serving_swaps import S, follow


@pytest.fixture
def behind(market: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine whose next bundle finds 2,000 events when it has been loaded that were not there before."""
    loaded = load_rehearsed
    with Engine.open(market / "bundles", tmp_path / "log.db", ServingConfig(lease_s=0.0), clock) as engine:

        def loaded_slowly(*args: Any) -> Loaded:
            fresh = loaded(*args)
            engine.apply([(f"e{i}", "follows", follow(AS_OF - S - i)) for i in range(2_000)])
            return fresh

        monkeypatch.setattr("serving.loading.load_rehearsed", loaded_slowly)
        yield engine


def test_events_are_taken_before_anybody_has_to_wait_for_the_bundle(
    behind: Engine, market: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, waited_for = Loaded.take, list[bool]()

    def watched(self: Loaded, record: Record) -> Verdict:
        if self is not behind.loaded:
            waited_for.append(behind._writing.locked())
        return take(self, record)

    monkeypatch.setattr(Loaded, "take", watched)
    old = behind.loaded
    behind.swap(market / "bundles" / "b1")
    assert behind.loaded is not old and behind.loaded.applied == old.applied == 2_000
    assert waited_for == [False] * 2_000


def test_who_looks_up_gets_his_turn_while_a_bundle_is_caught_up(
    behind: Engine, market: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup that begins with the first record is done long before the last one."""
    take, fresh, done_after = Loaded.take, list[Loaded](), list[int]()

    def look_up() -> None:
        behind.lookup(Asked(2, 5))
        done_after.append(len(fresh))

    caller = threading.Thread(target=look_up)

    def watched(self: Loaded, record: Record) -> Verdict:
        if self is not behind.loaded:
            fresh.append(self)
            if len(fresh) == 1:
                caller.start()
        return take(self, record)

    monkeypatch.setattr(Loaded, "take", watched)
    behind.swap(market / "bundles" / "b1")
    caller.join(timeout=20)
    assert len(fresh) == 2_000 and done_after[0] < 1_500


@pytest.mark.parametrize(("last", "read_again"), [(AS_OF - 1, 3), (AS_OF, 10), (None, 10)])
def test_what_a_bundle_contains_is_read_again_where_facts_may_have_been_left_out(
    market: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, last: int | None, read_again: int
) -> None:
    """Otherwise the last records only, against repeats."""
    config, take, read = ServingConfig(lease_s=0.0, dedup_horizon=3), Loaded.take, list[int]()

    def counted(self: Loaded, record: Record) -> Verdict:
        read.append(record.seq)
        return take(self, record)

    with Engine.open(market / "bundles", tmp_path / "log.db", config, clock) as engine:
        engine.apply([(f"e{i}", "follows", follow(AS_OF - S - i)) for i in range(10)])
        path = write_bundle(market / "events", tmp_path / "shelf", "next", offsets={"log": 10}, last=last)
        monkeypatch.setattr(Loaded, "take", counted)
        engine.swap(path)
    assert read == list(range(11 - read_again, 11))


@pytest.mark.parametrize("n", [7, 8])
def test_what_is_forgotten_is_given_back_a_key_at_a_time(n: int) -> None:
    """Of three generations of four the first is not found any more, and goes as the third comes."""
    seen: Lately[int, object] = Lately(4)
    values = [Value() for _ in range(4 + n)]
    held = [weakref.ref(value) for value in values]
    for key, value in enumerate(values):
        assert seen.add(key, value)
    del values, value
    gone = n - 5
    assert [key in seen for key in range(4 + n)] == [False] * 4 + [True] * n
    assert sum(one() is None for one in held) == gone
    if n == 8:
        seen.drop(next(key for key in range(4) if held[key]() is not None))
        assert sum(one() is None for one in held) == gone + 1
    assert seen.let_go(2) and not seen.let_go(100)
    assert [one() for one in held] == [None] * (4 + n) and not len(seen)


class Value:
    """Something weak references can be made of."""
