"""Where buckets of users are worked on: threads against processes, on the same states.

    python benchmarks/executors.py --lake L [--workers 2] [--sides one,threads,spawned]

Each side makes all states of a lake in a process of its own. Reported: wall and CPU seconds (children included), and
the peak memory of the process and of its largest child. `Spawned` is what a cluster engine would look like: work and
results travel as bytes (`cloudpickle`), and nothing else is shared.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import cloudpickle

Result = TypeVar("Result")


def run_part(work: bytes, part: int) -> bytes:
    """One part, in a process that knows nothing else."""
    return pickle.dumps(cloudpickle.loads(work)(part), protocol=5)


class Spawned:
    """Parts in freshly started processes; at most `workers` are begun and not yet handed over."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, work: Callable[[int], Result], n_parts: int) -> Iterator[Result]:
        """As `training.executor.Executor.run`."""
        packed = cloudpickle.dumps(work)
        with ProcessPoolExecutor(self.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            waiting = []
            try:
                for part in range(n_parts):
                    waiting.append(pool.submit(run_part, packed, part))
                    if len(waiting) == self.workers:
                        yield pickle.loads(waiting.pop(0).result())
                while waiting:
                    yield pickle.loads(waiting.pop(0).result())
            finally:
                for future in waiting:
                    future.cancel()


class Remote:
    """A stand-in for a cluster: everything travels as bytes, parts run in any order and are handed over in theirs."""

    def run(self, work: Callable[[int], Result], n_parts: int) -> Iterator[Result]:
        """As `training.executor.Executor.run`."""
        packed = cloudpickle.dumps(work)
        for first in range(0, n_parts, 2):
            pair = [part for part in (first + 1, first) if part < n_parts]
            done = {part: run_part(packed, part) for part in pair}
            yield from (pickle.loads(done[part]) for part in sorted(done))


def run_side(side: str, lake: Path, workers: int) -> dict[str, float]:
    """All states of a lake, as of its end."""
    from recsys.config import EngineConfig
    from recsys.events import build_vocabularies, clean, last_fact_us, open_events
    from training import states
    from training.executor import Executor, OneByOne, Threads

    executor: Executor = {"one": OneByOne(), "threads": Threads(workers), "spawned": Spawned(workers)}[side]
    events = clean(open_events(lake))
    as_of = (last_fact_us(events) or 0) + 1
    vocabularies = build_vocabularies(events, as_of_us=as_of)
    begin = time.perf_counter()
    before = cpu_s()
    states.user_parts = lambda *_: events.buckets or 1  # also of a small lake every bucket is a part
    shot = states.snapshot(events, vocabularies, EngineConfig(), as_of, executor=executor)
    whose = {"own": resource.RUSAGE_SELF, "child": resource.RUSAGE_CHILDREN}
    mib = {name: resource.getrusage(who).ru_maxrss / 1024 for name, who in whose.items()}
    ties = len(shot.states["visits"])
    return {"wall_s": time.perf_counter() - begin, "cpu_s": cpu_s() - before, "ties": ties, **mib}


def cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sides", default="one,threads,spawned")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(run_side(args.side, args.lake, args.workers)))
        return
    for side in args.sides.split(","):
        call = [sys.executable, "-m", "benchmarks.executors", "--lake", str(args.lake), "--workers", str(args.workers)]
        r = json.loads(subprocess.run([*call, "--side", side], stdout=subprocess.PIPE, check=True).stdout)
        print(f"{side:8} wall {r['wall_s']:6.1f} s  cpu {r['cpu_s']:6.1f} s  peak {r['own']:6.0f} MiB, largest child"
              f" {r['child']:6.0f} MiB  {r['ties']:,} visited ties", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
