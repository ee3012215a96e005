"""`build L`, more events, `build L --base`: the bundle has the states a rebuild has, and says how it came to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from recsys.bundle import Bundle, forget_stages, resolve
from recsys.cli import build_app
from recsys.config import EngineConfig
from recsys.events import Events, Vocabularies, build_vocabularies, clean, extend_vocabularies, open_events
from recsys.events.schemas import TABLES
from recsys.events.simulator import WorldConfig, simulate
from recsys.live.artefact import load_states_of
from recsys.ties.layers import LayeredState
from training.history import KEPT
from training.states import load_shot, snapshot

START = datetime(2026, 1, 5, tzinfo=UTC)
TIME = {"rooms": "started_at", "watches": "entered_at"}


def run(*args: object) -> dict[str, object]:
    done = CliRunner().invoke(build_app(), [str(arg) for arg in args])
    assert done.exit_code == 0, done.output
    return orjson.loads(done.stdout) if "--json" in args else {}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Seven days of a small market, and the eighth."""
    folder = tmp_path_factory.mktemp("nightly")
    simulate(WorldConfig(), users=30, hosts=6, days=8, seed=2, out=folder / "all", start=START)
    cut = START + timedelta(days=7)
    for table in TABLES:
        found = sorted((folder / "all").glob(f"{table}/**/*.parquet"))
        if not found:
            continue
        rows = pl.concat([pl.read_parquet(path) for path in found])
        time = TIME.get(table, "at")
        early = pl.col(time) < cut if time in rows.columns else pl.lit(True)
        for name, part in (("week", rows.filter(early)), ("day", rows.filter(~early))):
            (folder / name).mkdir(exist_ok=True)
            part.write_parquet(folder / name / f"{table}.parquet")
    return folder / "week", folder / "day"


def test_a_bundle_continued_is_a_bundle_rebuilt(exports: tuple[Path, Path], tmp_path: Path) -> None:
    week, day = exports
    run("ingest", week, "--lake", tmp_path / "lake", "--buckets", 2)
    # ends and exits after the cut are in the first export already: as of the cut they are not known
    run("build", tmp_path / "lake", "--out", tmp_path / "b", "--as-of", "2026-01-12")
    before = Bundle.open(resolve(tmp_path / "b"))
    first = Bundle.open(tmp_path / "b" / ".stages" / before.json(KEPT)["stage"]).manifest.window.as_of_us
    run("ingest", day, "--lake", tmp_path / "lake")
    made = run(
        "build",
        tmp_path / "lake",
        "--out",
        tmp_path / "b",
        "--base",
        tmp_path / "b",
        "--set",
        "ties.layer_share=0.9",
        "--json",
    )
    for name in ("delta", "history"):
        assert {"name": name, "status": "passed", "why": ""} in made["stages"]  # type: ignore[operator]
    bundle = Bundle.open(resolve(tmp_path / "b"))
    assert max(bundle.json("drift").values()) > 0.0
    assert list(bundle.manifest.offsets.values()) == [2]
    events = clean(open_events(tmp_path / "lake"))
    as_of_us = bundle.manifest.window.as_of_us
    again = snapshot(events, build_vocabularies(events, as_of_us=as_of_us), EngineConfig(), as_of_us)
    states = load_states_of(bundle)
    assert isinstance(states["visits"], LayeredState) and bundle.manifest.format_version == 2
    for part in ("keys", "ints", "decayed", "latest"):  # what did not change lies on the disk once
        assert bundle.file(f"state/visits_{part}.npy").samefile(before.file(f"state/visits_{part}.npy"))
    Bundle.open(bundle.path, verify="hashes")
    for name in ("visits", "depth", "commerce", "relation", "exposure", "host", "user", "schedule"):
        for part in ("ints", "latest"):
            ours, theirs = (getattr(of[name].flat().rows, part) for of in (states, again.states))
            assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, theirs.tolist())), name
    assert_history_continued(tmp_path / "b", events, bundle, first)


def test_the_night_a_market_outgrows_what_is_solved_hosts_are_compared_in_pairs(
    exports: tuple[Path, Path], tmp_path: Path
) -> None:
    week, day = exports
    lake, nightly, whole = tmp_path / "lake", tmp_path / "b", tmp_path / "whole"
    outgrown = ("--set", "build.graph_solved=0")

    def graph(told: dict[str, object]) -> str:
        return next(stage["why"] for stage in told["stages"] if stage["name"] == "graph")  # type: ignore[attr-defined]

    run("ingest", week, "--lake", lake, "--buckets", 2)
    assert not graph(run("build", lake, "--out", nightly, "--json"))
    run("ingest", day, "--lake", lake)
    assert graph(run("build", lake, "--out", nightly, "--base", nightly, *outgrown, "--json")).startswith("by neighb")
    run("build", lake, "--out", whole, *outgrown)
    ours, theirs = Bundle.open(resolve(nightly)), Bundle.open(resolve(whole))
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(ours.array(f"models/graph_{part}"), theirs.array(f"models/graph_{part}"))
    run("lookup", "--bundle", nightly, "--user", 1)  # it can be served
    assert not graph(run("build", lake, "--out", nightly, "--base", nightly, "--json"))  # and back


def assert_history_continued(bundles: Path, events: Events, bundle: Bundle, first_us: int) -> None:
    """The states at the beginning of the learning stretch are those of the whole history, in the rows of the bundle."""
    held = Bundle.open(bundles / ".stages" / bundle.json(KEPT)["stage"])
    vocabularies = Vocabularies.load(bundle.file("users.ids").parent)
    known = Vocabularies(vocabularies.users, vocabularies.hosts, orders=vocabularies.orders)
    extend_vocabularies(known, events)  # rooms in the rows of the build
    as_of_us = held.manifest.window.as_of_us
    assert as_of_us > first_us and held.manifest.format_version == 2, "a layer over the base's"
    ours, theirs = load_shot(EngineConfig(), held), snapshot(events, known, EngineConfig(), as_of_us)
    for name, state in theirs.states.items():
        got, expected = ours.states[name].flat(), state.flat()
        for part in ("keys", "ints", "latest"):
            np.testing.assert_array_equal(got.arrays()[part], expected.arrays()[part], err_msg=name)
        np.testing.assert_allclose(got.rows.decayed, expected.rows.decayed, rtol=1e-9, atol=1e-300, err_msg=name)
    np.testing.assert_array_equal(ours.standings, theirs.standings)
    assert_frame_equal(ours.rooms, theirs.rooms)


def test_a_base_from_which_nothing_has_moved_shows_no_drift(exports: tuple[Path, Path], tmp_path: Path) -> None:
    run("ingest", exports[0], "--lake", tmp_path / "lake")
    run("build", tmp_path / "lake", "--out", tmp_path / "b")
    assert forget_stages(tmp_path / "b")
    made = run("build", tmp_path / "lake", "--out", tmp_path / "b", "--base", tmp_path / "b", "--json")
    said = {stage["name"]: stage for stage in made["stages"]}  # type: ignore[attr-defined]
    assert said["delta"]["status"] == "passed"
    assert said["history"]["status"] == "skipped" and "is gone" in said["history"]["why"], "a night says what it read"
    drift = Bundle.open(resolve(tmp_path / "b")).json("drift")
    assert len(drift) > 40 and max(drift.values()) == pytest.approx(0.0, abs=1e-12)


def test_a_base_of_something_else_is_refused(exports: tuple[Path, Path], tmp_path: Path) -> None:
    week, _ = exports
    run("build", week, "--out", tmp_path / "b")
    run("ingest", week, "--lake", tmp_path / "lake")
    for source, said in ((week, "a base needs a lake"), (tmp_path / "lake", "not built from this lake")):
        done = CliRunner().invoke(
            build_app(), ["build", str(source), "--out", str(tmp_path / "c"), "--base", str(tmp_path / "b")]
        )
        assert done.exit_code == 3 and said in done.output
