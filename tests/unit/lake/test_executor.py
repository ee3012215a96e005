"""Work on parts: results in order, bounded, the first error stops it."""

from __future__ import annotations

import threading

import pytest

from training.executor import BYTES_PER_FACT, OneByOne, Threads, this_machine


@pytest.mark.parametrize("executor", [OneByOne(), Threads(1), Threads(3)])
def test_results_come_in_the_order_of_the_parts(executor: OneByOne | Threads) -> None:
    assert list(executor.run(lambda part: part * part, 10)) == [part * part for part in range(10)]
    assert list(executor.run(lambda part: part, 0)) == []


def test_no_more_than_the_workers_run_at_once() -> None:
    running, most, lock = 0, 0, threading.Lock()
    gate = threading.Barrier(2, timeout=10)

    def work(part: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait()  # two parts are in work at once, or this breaks
        with lock:
            running -= 1
        return part

    assert list(Threads(2).run(work, 8)) == list(range(8))
    assert most == 2


def test_the_first_error_is_raised_and_no_more_parts_begin() -> None:
    begun: list[int] = []

    def work(part: int) -> int:
        begun.append(part)
        if part == 1:
            raise ValueError("part 1")
        return part

    with pytest.raises(ValueError, match="part 1"):
        list(Threads(2).run(work, 100))
    assert len(begun) <= 4


def test_memory_bounds_the_workers() -> None:
    facts = 1_000_000
    assert isinstance(this_machine(8, facts, memory_bytes=facts * BYTES_PER_FACT), OneByOne)
    assert isinstance(this_machine(1, 1, memory_bytes=2**40), OneByOne)
