"""A whole market, part by part: bounded memory, the same events whatever runs in parallel, published by one rename."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl

from recsys.errors import ConfigError, InputRefused
from recsys.events.simulator import truth
from recsys.events.simulator.arrays import HOUR_S, MINUTE_S
from recsys.events.simulator.brushing import brush_orders
from recsys.events.simulator.config import WorldConfig
from recsys.events.simulator.living import live_through
from recsys.events.simulator.population import HostTraits, draw_hosts
from recsys.events.simulator.programme_tables import write_programme
from recsys.events.simulator.schedule import Schedule, Window, draw_schedule
from recsys.events.simulator.tables import SCHEMAS, Clock, PartWriter
from recsys.progress import Progress, silent

PART_USERS = 16_384
"""Users of one part. Part of the definition of a world: another value gives other events."""
DEFAULT_START = datetime(2024, 6, 1, 13, 0, tzinfo=UTC)
"""21:00 in the default time zone, so that a window ends in the evening with rooms still live."""
MOST_USERS, MOST_HOSTS, MOST_DAYS = 1 << 30, 1 << 24, 3_650
HOST_STREAM, SCHEDULE_STREAM, USER_STREAM = 0, 1, 2


@dataclass(frozen=True)
class SimulationReport:
    """What was written: rows by table (planted truth under `_truth/…`), bytes on disk, wall-clock seconds."""

    world: str
    out: Path
    start: datetime
    end: datetime
    rows: dict[str, int]
    size_bytes: int
    seconds: float

    @property
    def events(self) -> int:
        """Rows of all event tables together, without the planted truth."""
        return sum(count for table, count in self.rows.items() if not table.startswith("_"))


@dataclass(frozen=True)
class Job:
    """Everything that decides what one process generates; small enough to be sent to it."""

    config: WorldConfig
    users: int
    hosts: int
    days: int
    seed: int
    start: datetime
    folder: Path

    @property
    def clock(self) -> Clock:
        return Clock.starting(self.start, self.days)

    @property
    def window(self) -> Window:
        local = self.start.astimezone(UTC) + timedelta(hours=self.config.rhythm.utc_offset_hours)
        return Window.over(local.hour + local.minute * MINUTE_S / HOUR_S + local.second / HOUR_S, self.days)

    def stream(self, *key: int) -> np.random.Generator:
        """The random numbers of one purpose; independent of all others."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def writer(self, part: int) -> PartWriter:
        names = tuple(category.name for category in self.config.categories)
        return PartWriter(self.folder, part, self.clock, names)

    def programme(self) -> tuple[HostTraits, Schedule]:
        """Hosts and broadcasts: the same in every process."""
        hosts = draw_hosts(self.config, self.hosts, self.window.horizon_s, self.stream(HOST_STREAM))
        return hosts, draw_schedule(self.config, hosts, self.window, self.stream(SCHEDULE_STREAM))


def simulate(
    config: WorldConfig,
    *,
    users: int,
    hosts: int,
    days: int,
    seed: int,
    out: Path,
    start: datetime | None = None,
    progress: Progress | None = None,
    processes: int = 1,
) -> SimulationReport:
    """Write the event tables of a simulated market to the folder `out`, planted truth in `out/_truth`.

    Args:
        config: the laws of the world.
        users, hosts, days: its size; the window is days × 24 h long.
        seed: decides everything that is drawn; the same arguments give the same rows.
        out: must not exist, or be an empty folder; it appears complete or not at all.
        start: aware; default DEFAULT_START. The window is [start, start + days).
        progress: called with a stage and the share done in [0, 1].
        processes: parts generated at a time; has no influence on the rows.

    Raises:
        ConfigError: a size out of range or a naive start.
        InputRefused: `out` has something in it, or cannot be written.
    """
    began = time.monotonic()
    start = DEFAULT_START if start is None else start
    _check(users, hosts, days, seed, start, processes)
    start = start.astimezone(UTC).replace(microsecond=0)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputRefused("the output folder is not empty", where=out, hint="name a new folder, or remove this one")
    folder = out.parent / f".{out.name}.{os.getpid()}.tmp"
    tell = progress or silent
    job = Job(config, users, hosts, days, seed, start, folder)
    try:
        folder.mkdir(parents=True)
        rows, size = _write_market(job, processes, tell)
        if out.exists():
            out.rmdir()
        folder.rename(out)
    except OSError as error:
        raise InputRefused("the simulated market could not be written", where=out, got=error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    tell("done", 1.0)
    end = start + timedelta(days=days)
    return SimulationReport(config.name, out, start, end, dict(sorted(rows.items())), size, time.monotonic() - began)


def _check(users: int, hosts: int, days: int, seed: int, start: datetime, processes: int) -> None:
    limits = {"users": (users, MOST_USERS), "hosts": (hosts, MOST_HOSTS), "days": (days, MOST_DAYS)}
    for name, (value, most) in limits.items():
        if not 1 <= value <= most:
            raise ConfigError("a market size is out of range", where=name, got=value, expected=f"1 … {most}")
    if seed < 0:
        raise ConfigError("a seed is not negative", where="seed", got=seed)
    if processes < 1:
        raise ConfigError("at least one process is needed", where="processes", got=processes)
    if start.tzinfo is None:
        raise ConfigError("the start needs a time zone", where="start", got=start.isoformat(), hint="use UTC")


def _write_market(job: Job, processes: int, tell: Progress) -> tuple[Counter[str], int]:
    """Write the programme, then every part of the users."""
    tell("programme", 0.0)
    hosts, schedule = job.programme()
    writer = job.writer(0)
    write_programme(writer, hosts, schedule, job.window)
    truth.write_hosts(writer, hosts)
    rows, size = Counter(writer.rows), 0
    truth.write_world(job.folder, job.config, job.users, job.hosts, job.days, job.seed, job.start)
    parts = -(-job.users // PART_USERS)
    for done, (part_rows, part_size) in enumerate(_parts(job, hosts, schedule, parts, processes), start=1):
        rows.update(part_rows)
        size += part_size
        tell("users", done / parts)
    for table, schema in SCHEMAS.items():
        if not rows[table]:  # in a small market: the table is there, with its columns and no rows
            writer.write(table, pl.DataFrame(schema=schema))
            rows[table] = 0
    return rows, size + writer.size_bytes


def _parts(
    job: Job, hosts: HostTraits, schedule: Schedule, parts: int, processes: int
) -> Iterator[tuple[Counter[str], int]]:
    if processes == 1 or parts == 1:
        for part in range(parts):
            yield _write_part(job, hosts, schedule, part)
        return
    # Spawned, not forked: the threads of Polars do not survive a fork. Each process draws the programme again.
    with ProcessPoolExecutor(
        min(processes, parts), mp_context=get_context("spawn"), initializer=_prepare, initargs=(job,)
    ) as pool:
        futures = [pool.submit(_write_prepared, part) for part in range(parts)]
        for future in as_completed(futures):
            yield future.result()


def _write_part(job: Job, hosts: HostTraits, schedule: Schedule, part: int) -> tuple[Counter[str], int]:
    rows = np.arange(part * PART_USERS, min((part + 1) * PART_USERS, job.users), dtype=np.int64)
    writer = job.writer(part)
    rng = job.stream(USER_STREAM, part)
    state = live_through(job.config, hosts, schedule, job.window, rows, job.users, writer, rng)
    brush_orders(state)
    users = state.users
    writer.add("users", user_id=users.row, city_tier=users.tier, registered_at=users.registered_s)
    truth.write_part(writer, state)
    writer.close()
    return writer.rows, writer.size_bytes


_prepared: tuple[Job, HostTraits, Schedule] | None = None


def _prepare(job: Job) -> None:
    """Set up a worker process."""
    global _prepared
    hosts, schedule = job.programme()
    _prepared = job, hosts, schedule


def _write_prepared(part: int) -> tuple[Counter[str], int]:
    assert _prepared is not None, "the worker was not prepared"
    job, hosts, schedule = _prepared
    return _write_part(job, hosts, schedule, part)


def demo_world(out: Path) -> SimulationReport:
    """A small fixed world for the demo and end-to-end tests: 400 users, 60 hosts, 21 days, some rooms still live."""
    from recsys.events.simulator.demo import DEMO

    return simulate(DEMO, users=400, hosts=60, days=21, seed=20_240_601, out=out)


def read_truth(out: Path, table: str) -> pl.DataFrame:
    """A planted table beside the events: strengths, hosts, users or cheats."""
    return pl.read_parquet(Path(out) / "_truth" / table / "*.parquet")
