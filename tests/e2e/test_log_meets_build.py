"""The service's log goes into the lake, a bundle is built from it and taken over: nothing is lost, nothing doubled."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from typer.testing import CliRunner

from recsys.bundle import Bundle, resolve
from recsys.cli import build_app
from recsys.config import EngineConfig
from recsys.events import build_vocabularies, clean, open_events
from recsys.events.lake.from_log import ingest_log
from recsys.events.lake.manifest import LakeManifest
from recsys.events.schemas import TABLES
from recsys.instants import format_instant, from_datetime, to_datetime
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine, clock_us
from tests.unit.serving_live.served_world import AS_OF, Clock, events_after, simulated
from training.states import snapshot

CUT, END = (from_datetime(datetime(2024, 6, day, 12, tzinfo=UTC)) for day in (5, 8))

KILLED = """
import os, sys
import recsys.events.lake.ingest as lake
from recsys.cli import build_app
write = lake.write_part
def killed(path, rows):
    write(path, rows)
    os.kill(os.getpid(), 9)
lake.write_part = killed
build_app()(sys.argv[1:])
"""
"""`laotie` that dies when it has written one file of a lake."""


def run(*args: object) -> dict[str, Any]:
    done = CliRunner().invoke(build_app(), [str(arg) for arg in args])
    assert done.exit_code == 0, done.output
    return orjson.loads(done.stdout) if "--json" in args else {}


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("log") / "events", users=30, hosts=6)


def past(events: Path, out: Path) -> Path:
    """The events as they were exported at `AS_OF`: later rows and ends are not in them."""
    then = to_datetime(AS_OF)
    for table in TABLES:
        found = sorted([*events.glob(f"{table}.parquet"), *events.glob(f"{table}/**/*.parquet")])
        if not found:
            continue
        rows = pl.concat([pl.read_parquet(path) for path in found])
        time = {"rooms": "started_at", "watches": "entered_at"}.get(table, "at")
        if time in rows.columns:
            rows = rows.filter(pl.col(time) < then)
        ends = [pl.when(pl.col(name) < then).then(name) for name in ("ended_at", "left_at") if name in rows.columns]
        out.mkdir(exist_ok=True)
        rows.with_columns(ends).write_parquet(out / f"{table}.parquet")
    return out


def ties(engine: Engine) -> dict[tuple[str, Any, Any], list[int]]:
    """Integer states of every tie by external ids."""
    found = {}
    ids, world = engine.loaded.vocabularies, engine.loaded.live.world
    for user in range(len(ids.users)):
        for name in ("visits", "depth", "commerce", "relation"):
            held = world.ties.of(name, user)
            for host, row in zip(held.hosts.tolist(), held.rows.ints.tolist(), strict=True):
                found[name, ids.users.id(user), ids.hosts.id(host)] = row
    return found


def test_what_lay_too_far_ahead_of_the_clock_stays_aside_when_its_time_has_come(events: Path, tmp_path: Path) -> None:
    lake, shelf, log = tmp_path / "lake", tmp_path / "bundles", tmp_path / "log.db"
    run("ingest", past(events, tmp_path / "past"), "--lake", lake)
    run("build", lake, "--out", shelf, "--as-of", format_instant(AS_OF))
    follow = {"user_id": 1, "action": "follow"}
    ahead = [(f"f{s}", "follows", follow | {"host_id": 10**6 + s, "at": AS_OF + s * 10**6}) for s in (3_600, 3_601)]
    with Engine.open(shelf, log, ServingConfig(lease_s=0.0), Clock(AS_OF)) as engine:
        assert engine.apply(ahead) == [("accepted", None), ("quarantined", "later_than_now")]
        seen = ties(engine)
        assert ("relation", 1, 10**6 + 3_600) in seen and ("relation", 1, 10**6 + 3_601) not in seen
        moved = run("ingest", "--log", log, "--lake", lake, "--json")  # that time is long past by now
        assert (moved["log_offset"], moved["left_out"], moved["tables"]["follows"]["new"]) == (2, 1, 1)
        old = engine.loaded.name
        run("build", lake, "--out", shelf, "--base", shelf, "--as-of", format_instant(AS_OF + 3_700 * 10**6))
        assert engine.swap() != old and engine.loaded.offset == 2 and ties(engine) == seen


def test_a_bundle_built_from_the_log_continues_where_the_overlay_was(events: Path, tmp_path: Path) -> None:
    lake, shelf, log = tmp_path / "lake", tmp_path / "bundles", tmp_path / "log.db"
    run("ingest", past(events, tmp_path / "past"), "--lake", lake)
    run("build", lake, "--out", shelf, "--as-of", format_instant(AS_OF))
    told = events_after(events, AS_OF)
    for table in ("rooms", "watches", "engagements", "purchases"):
        assert any(event[1] == table for _, event in told), table
    like = {"user_id": 3, "host_id": 5, "room_id": 1, "at": format_instant(CUT - 5), "kind": "like"}
    before = [event for at, event in told if at < CUT] + [("like-1", "engagements", like)]
    # a late event, an equal like that is another event, and what happens after the log was moved
    late = {"user_id": 1, "host_id": 2, "at": format_instant(AS_OF - 10**9), "action": "follow"}
    after = [("like-2", "engagements", like), ("late", "follows", late)] + [event for at, event in told if at >= CUT]
    clock = Clock(clock_us())  # the log begins after the first build
    with Engine.open(shelf, log, ServingConfig(lease_s=0.0), clock) as engine:
        assert {verdict[0] for verdict in engine.apply(before)} == {"accepted"}
        moved = ingest_log(log, lake)
        assert moved.log_offset == len(before) and moved.left_out == 0
        assert {verdict[0] for verdict in engine.apply(after)} == {"accepted"}
        seen = ties(engine)
        rooms = engine.lookup(Asked(None, 500)).room_ids
        run("build", lake, "--out", shelf, "--base", shelf, "--as-of", format_instant(CUT))
        old = engine.loaded.name
        assert engine.swap() != old and engine.loaded.offset == len(before)
        assert ties(engine) == seen
        assert set(engine.lookup(Asked(None, 500)).room_ids) == set(rooms)
    # all of it once more, as one batch, by a command that is killed and one that is not
    held = {path.name for path in lake.rglob("*.parquet")}, (lake / "_lake.json").read_bytes()
    killed = [sys.executable, "-c", KILLED, "ingest", "--log", str(log), "--lake", str(lake)]
    assert subprocess.run(killed, check=False).returncode == -signal.SIGKILL
    assert [*lake.glob(".arriving-*/*")] and {path.name for path in lake.rglob("*.parquet")} > held[0]
    assert (lake / "_lake.json").read_bytes() == held[1]
    again = ingest_log(log, lake)
    assert not [*lake.glob(".arriving-*")]
    listed = {file.path for file in LakeManifest.read(lake).files}
    assert {str(path.relative_to(lake)) for path in lake.rglob("*.parquet")} == listed
    assert again.log_offset == len(before) + len(after)
    nothing = run("ingest", "--log", log, "--lake", lake, "--json")
    assert nothing["tables"] == {} and nothing["log_offset"] == again.log_offset
    good = clean(open_events(lake))
    vocabularies = build_vocabularies(good, as_of_us=END)
    shot = snapshot(good, vocabularies, EngineConfig(), END)
    batch = {}
    for name in ("visits", "depth", "commerce", "relation"):
        state = shot.states[name]
        users, hosts = state.keys >> 32, state.keys & 0xFFFFFFFF
        names = zip(vocabularies.users.ids(users), vocabularies.hosts.ids(hosts), state.rows.ints.tolist(), strict=True)
        batch |= {(name, user, host): row for user, host, row in names}
    assert batch == seen
    likes = shot.states["depth"].block.int_column("n_likes")
    assert batch["depth", 3, 5][likes] >= 2
    with Engine.open(shelf, log, ServingConfig(lease_s=0.0), clock) as engine:
        assert ties(engine) == seen
    window = Bundle.open(resolve(shelf)).manifest.window
    assert window.as_of_us == CUT and window.whole
    # as of an earlier instant: of the records it contains some are applied, however long ago they were logged
    run("build", lake, "--out", shelf, "--as-of", format_instant(CUT))
    assert not Bundle.open(resolve(shelf)).manifest.window.whole
    with Engine.open(shelf, log, ServingConfig(lease_s=0.0, dedup_horizon=1), clock) as engine:
        assert engine.loaded.offset == again.log_offset and ties(engine) == seen
