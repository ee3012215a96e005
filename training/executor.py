"""Where work per user bucket runs: one small interface, so that a cluster engine needs no change in feature code.

Work is a function of one part (a bucket of users); parts share nothing, and their results are merged by the caller in
the order of the parts, so where and in which order they ran changes nothing.

On this machine parts run in threads: their time goes into Polars and numpy kernels, which let go of the interpreter;
no result is copied between processes. How many run at once is bounded by cores and by memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

Result = TypeVar("Result")

BYTES_PER_FACT = 400
"""Of one part in work, over its facts: the frame, the sorted copies and the states made of it (measured: 250–350)."""


class Executor(Protocol):
    """Runs work on parts 0 … n−1."""

    def run(self, work: Callable[[int], Result], n_parts: int) -> Iterator[Result]:
        """Results in the order of the parts; the first error of a part is raised and no further part is begun."""
        ...


class OneByOne:
    """Part after part, in the calling thread."""

    def run(self, work: Callable[[int], Result], n_parts: int) -> Iterator[Result]:
        """As `Executor.run`."""
        return map(work, range(n_parts))


class Threads:
    """Several parts at once; never more than `workers` parts are begun and not yet handed over."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"{workers} workers")
        self.workers = workers

    def run(self, work: Callable[[int], Result], n_parts: int) -> Iterator[Result]:
        """As `Executor.run`."""
        with ThreadPoolExecutor(self.workers, thread_name_prefix="laotie-part") as pool:
            waiting: list[Future[Result]] = []
            try:
                for part in range(n_parts):
                    waiting.append(pool.submit(work, part))
                    if len(waiting) == self.workers:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()


def this_machine(threads: int, facts_per_part: int, memory_bytes: int | None = None) -> Executor:
    """The executor of this machine: at most `threads` parts at once, fewer if their facts would fill half the memory.

    Args:
        threads: most parts at once.
        facts_per_part: the facts of the largest part, or a good guess.
        memory_bytes: free memory; None: what the system says.
    """
    free = _free_memory() if memory_bytes is None else memory_bytes
    fitting = free // 2 // max(facts_per_part * BYTES_PER_FACT, 1)
    workers = max(1, min(threads, os.cpu_count() or 1, fitting))
    return OneByOne() if workers == 1 else Threads(workers)


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
