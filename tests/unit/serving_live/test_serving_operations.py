"""doctor, erase and export-log as commands; the log's way back into a build."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped, unused-ignore]
from typer.testing import CliRunner

from recsys.cli import build_app
from recsys.config import EngineConfig
from recsys.events import clean, fact_stream, open_events
from recsys.events.facts import FactKind
from recsys.events.lake.ingest import ingest
from recsys.events.lake.manifest import LakeManifest
from recsys.events.log_tables import export_log
from recsys.events.vocabularies import build_vocabularies
from serving.asked import Asked
from serving.client import CallFailed, HttpClient
from serving.config import ServingConfig
from serving.doctor import examine
from serving.engine import Engine
from serving.server import listening, work
from training.states import snapshot

from .brokers import HAS_VALKEY
from .running_service import serving
from .served_world import AS_OF, Clock, events_after


def test_the_doctor_finds_a_changed_byte_and_names_the_file(market: Path, tmp_path: Path) -> None:
    shelf = tmp_path / "bundles"
    shutil.copytree(market / "bundles", shelf)
    Engine.open(shelf, shelf / "events.db").close()
    sound = {one.check: one.status for one in examine(shelf, None, None).findings}
    assert "fault" not in sound.values() and sound["log"] == sound["compiled"] == "ok"
    for no_log in (tmp_path, shelf / "b1" / "manifest.json"):
        found = {one.check: one for one in examine(shelf, no_log, None).findings}
        assert found["log"].status == "fault" and str(no_log) in found["log"].why
    assert {one.check: one.status for one in examine(shelf, tmp_path / "new.db", None).findings}["log"] == "warning"
    odd = tmp_path / "a?mode=rw#%20" / "events.db"
    odd.parent.mkdir()
    Engine.open(shelf, odd).close()
    assert {one.check: one.status for one in examine(shelf, odd, None).findings} == sound
    settings = tmp_path / "serving.yaml"
    settings.write_text(f"lake: {tmp_path / 'lake'}\nstream: valkey://127.0.0.1:1/t\n")
    ingest(market / "events", tmp_path / "lake")
    listed = LakeManifest.read(tmp_path / "lake").files
    found = {one.check: one for one in examine(shelf, None, settings).findings}
    assert (found["lake"].status, found["disk"].status, found["stream"].status) == (
        "ok",
        "ok",
        "warning" if HAS_VALKEY else "fault",
    )
    (tmp_path / "lake" / listed[0].path).unlink()
    lake = next(one for one in examine(shelf, None, settings).findings if one.check == "lake")
    assert lake.status == "fault" and listed[0].path in lake.why
    victim = shelf / "b1" / "standings.npy"
    raw = bytearray(victim.read_bytes())
    raw[-1] ^= 1
    victim.write_bytes(bytes(raw))
    found = examine(shelf, None, None)
    assert [one.check for one in found.findings if one.status == "fault"] == ["bundle"]
    assert "standings.npy" in found.text()
    ran = CliRunner().invoke(build_app(), ["doctor", "--bundle", str(shelf)])
    assert ran.exit_code == 3


def test_the_doctor_finds_a_folder_no_log_can_be_made_in(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)  # root may write everywhere
    found = {one.check: one for one in examine(market / "bundles", tmp_path / "deep" / "new.db", None).findings}
    assert found["log"].status == "fault" and f"{tmp_path} is not ours to write" in found["log"].why


def test_what_cannot_be_rewritten_is_said_and_the_user_is_not_served(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "bundles/b1-e1")

    monkeypatch.setattr("serving.erasing.erase_from_bundle", refused)
    config = ServingConfig(lease_s=0.0)
    with Engine.open(market / "bundles", tmp_path / "log.db", config) as engine, serving(engine, config) as url:
        with HttpClient(url) as client, pytest.raises(CallFailed) as said:
            client.erase(2)
        assert (said.value.status, said.value.code) == (409, "not_erased_everywhere")
        assert "b1-e1" in str(said.value)
        assert engine.lookup(Asked(2, 3)).user < 0


def test_a_service_told_to_stop_before_it_is_ready_stops() -> None:
    """Also as process 1 of a container, for which nothing stops it that it does not handle."""
    script = (
        "import time; from pathlib import Path; import serving.server as server;"
        "from serving.config import ServingConfig;"
        "server.work = lambda *_: (print('loading', flush=True), time.sleep(60));"
        "server.run(Path('b'), Path('l'), ServingConfig(port=0), print)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_the_exported_log_says_what_the_events_said(market: Path, tmp_path: Path) -> None:
    told = events_after(market / "events", AS_OF, tables=("rooms", "watches", "follows", "engagements"))[:300]
    clock = Clock(told[-1][0] + 1)
    with Engine.open(market / "bundles", tmp_path / "log.db", ServingConfig(lease_s=0.0), clock) as engine:
        engine.apply([event for _, event in told])
        served = engine.lookup(Asked(3, 5))
        engine.apply([], [served.impressions("request-1")])
    said = export_log(tmp_path / "log.db", tmp_path / "out")
    assert said.offset == 301 and said.left_out == 0
    shown = pl.read_parquet(tmp_path / "out" / "impressions")
    assert shown["room_id"].to_list() == served.room_ids
    events = clean(open_events(tmp_path / "out"))
    vocabularies = build_vocabularies(events, as_of_us=2**62)
    facts = fact_stream(events, vocabularies, from_us=AS_OF, before_us=None)
    tied = [at for at, (_, table, _) in told if table in ("watches", "follows", "engagements")]
    assert facts.filter(pl.col("kind").is_between(1, 16)).height == len(tied)
    assert shown["slot"].is_in(["organic", "reserved"]).all()
    assert shown["propensity"].to_list() == served.answer.propensity.tolist()
    read = snapshot(events, vocabularies, EngineConfig(), 2**62).states["exposure"]  # as the nightly build counts them
    counted = int(read.rows.ints[:, read.block.int_column("n_impressions")].sum())
    assert counted == facts.filter(kind=int(FactKind.IMPRESSION)).height == len(served.room_ids) > 0
    again = export_log(tmp_path / "log.db", tmp_path / "out", 301)
    assert (again.offset, again.rows, again.left_out) == (301, {}, 0) and again.log == said.log


def test_two_answers_of_one_request_id_are_both_logged(market: Path, tmp_path: Path) -> None:
    """A gateway gives all calls of a page one id; a viewer listed twice in one request sees one answer."""
    clock = Clock(AS_OF + 1)
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=clock) as engine:
        first, again = engine.lookup_many([Asked(3, 5)] * 2)
        clock.now += 1_000
        other = engine.lookup(Asked(3, 5, category="tea"))
        engine.apply([], [one.impressions("page-1") for one in (first, again, other)])
        assert engine.vitals()["log_offset"] == 2


def test_an_answer_to_an_id_of_the_other_kind_does_not_spoil_the_export(market: Path, tmp_path: Path) -> None:
    """Logs of before such lookups were refused hold them; one string would make a column of integers one of text."""
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=Clock(AS_OF + 1)) as engine:
        served = [engine.lookup(Asked(user, 5)) for user in (3, "3", 4)]
        engine.apply([], [one.impressions(f"r{i}") for i, one in enumerate(served)])
    said = export_log(tmp_path / "log.db", tmp_path / "out")
    shown = pl.read_parquet(tmp_path / "out" / "impressions")
    assert shown["user_id"].dtype == pl.Int64 and shown["user_id"].unique().sort().to_list() == [3, 4]
    assert said.left_out == len(served[1].room_ids) > 0 and said.rows == {"impressions": len(shown)}


@pytest.mark.parametrize("user", ["3", "99999"])
def test_the_erase_command_gives_a_receipt(market: Path, tmp_path: Path, user: str) -> None:
    log, shelf = tmp_path / "log.db", tmp_path / "bundles"
    shutil.copytree(market / "bundles", shelf)
    Engine.open(shelf, log).close()
    ran = CliRunner().invoke(build_app(), ["erase", "--bundle", str(shelf), "--log", str(log), "--user", user])
    assert ran.exit_code == 0 and '"erased_at"' in ran.stdout
    assert ('"now": "b1-e1"' in ran.stdout) == (user == "3")


def test_the_vitals_tell_what_changed_ties_hold(market: Path, tmp_path: Path) -> None:
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=lambda: AS_OF + 100_000_000) as engine:
        before = engine.vitals()
        assert before["fresh_users"] == before["fresh_ties_bytes"] == 0
        row = {"host_id": 1, "at": AS_OF + 99_000_000, "action": "follow"}
        engine.apply([(f"f{user}", "follows", row | {"user_id": user}) for user in (1, 2, 3)])
        after = engine.vitals()
        assert after["fresh_users"] == 3 and after["fresh_ties_bytes"] > 10_000 and not after["fresh_ties_file_bytes"]
    config = ServingConfig(most_fresh_mb=1)
    with Engine.open(market / "bundles", tmp_path / "log.db", config, clock=lambda: AS_OF + 100_000_000) as engine:
        room = {"room_id": 777_777, "host_id": 1, "started_at": AS_OF + 98_000_000}
        entry = {"user_id": 1, "host_id": 1, "room_id": 777_777, "entered_at": AS_OF + 99_000_000}
        told = engine.apply([("r1", "rooms", room), ("w1", "watches", entry)])
        assert [status for status, _ in told] == ["accepted"] * 2
        bounded = engine.vitals()
        assert bounded["fresh_ties_bytes"] <= 1 << 20 < bounded["fresh_ties_file_bytes"]


def test_a_worker_holds_its_kernels_to_one_thread(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def ready() -> None:
        held.extend(pool["num_threads"] for pool in threadpool_info())

    config = ServingConfig(port=0)
    monkeypatch.setattr("serving.server.settle_memory", lambda: None)
    monkeypatch.setattr("serving.server.sys.setswitchinterval", lambda _: None)
    monkeypatch.setattr("serving.server.uvicorn.Server.run", lambda *_, **__: None)
    with threadpool_limits(2), listening(config) as bound:
        assert {pool["num_threads"] for pool in threadpool_info()} == {2}
        work(market / "bundles", tmp_path / "log.db", config, bound, ready)
    assert held and set(held) == {1}
