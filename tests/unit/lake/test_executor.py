"""How many parts are in work at once (what every executor must do: tests/contract/executor_kit.py)."""

from __future__ import annotations

import threading

from training.executor import BYTES_PER_FACT, OneByOne, Threads, this_machine


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


def test_memory_bounds_the_workers() -> None:
    facts = 1_000_000
    assert isinstance(this_machine(8, facts, memory_bytes=facts * BYTES_PER_FACT), OneByOne)
    assert isinstance(this_machine(1, 1, memory_bytes=2**40), OneByOne)
