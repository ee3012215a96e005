"""A stage is not run again while its inputs are the same: after an interrupt, or in a repeated build."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import training.build
import training.fitting
import training.history
import training.learning
from recsys.bundle import Bundle, forget_stages
from recsys.config import EngineConfig, load_config
from recsys.events.simulator import WorldConfig, simulate
from training.build import build

START = datetime(2026, 1, 5, tzinfo=UTC)
NOW_US = int(datetime(2026, 2, 1, tzinfo=UTC).timestamp()) * 1_000_000
SETTINGS = {"ranker.rounds": 5, "ranker.teacher_rounds": 0, "strength.rounds": 5, "build.ranker_requests": 300,
            "build.refits": 0}  # fmt: skip


def built(events: Path, bundles: Path, settings: dict[str, Any] | None = None, now_us: int = NOW_US) -> dict[str, Any]:
    config: EngineConfig = load_config(None, SETTINGS | (settings or {}))
    return build(events, bundles, config=config, as_of_us=None, now_us=now_us)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("resumed") / "events"
    simulate(WorldConfig(), users=40, hosts=8, days=10, seed=4, out=out, start=START)
    return out


def counting(real: Callable[..., Any], name: str, calls: list[str]) -> Callable[..., Any]:
    def counted(*args: Any, **more: Any) -> Any:
        calls.append(name)
        return real(*args, **more)

    return counted


def test_only_what_has_changed_runs(events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = shutil.copytree(events, tmp_path / "events")
    bundles = tmp_path / "b"
    calls: list[str] = []
    for module, name in (
        (training.build, "snapshot"),
        (training.history, "snapshot"),
        (training.learning, "replay_and_log"),
        (training.fitting, "fit_collaborative"),
    ):
        monkeypatch.setattr(module, name, counting(getattr(module, name), name, calls))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.learning, "replay_and_log", interrupted)
        with pytest.raises(KeyboardInterrupt):
            built(events, bundles)
    assert calls == ["snapshot", "snapshot"]  # states as of now, and as of the beginning of the learning stretch

    calls.clear()
    resumed = built(events, bundles)
    assert calls == ["replay_and_log", "fit_collaborative"]
    assert resumed["reused"] == ["states", "history"] and resumed["ran"] == ["learning", "models"]

    calls.clear()
    repeated = built(events, bundles, now_us=NOW_US + 1)  # the clock alone changes nothing
    assert calls == [] == repeated["ran"]
    whole = built(events, tmp_path / "c")
    assert whole["reused"] == [] and sorted(whole["ran"]) == ["history", "learning", "models", "states"]
    made = [Bundle.open(Path(document["path"]), verify="hashes").manifest for document in (resumed, repeated, whole)]
    assert made[0].metrics == made[1].metrics == made[2].metrics
    files = [{name: entry for name, entry in m.files.items() if name != "report.html"} for m in made]
    assert files[0] == files[1] == files[2]

    calls.clear()
    assert built(events, bundles, {"ranker.recency": 0.8})["ran"] == ["learning"]
    assert calls == ["replay_and_log"]

    (next((tmp_path / "c" / ".stages").glob("models-*")) / "models.json").unlink()  # what is damaged is made again
    likes = sorted((events / "engagements").rglob("*.parquet"))[0]
    before = likes.read_bytes()
    pl.read_parquet(likes)[1:].write_parquet(likes)
    assert sorted(built(events, bundles)["ran"]) == ["history", "learning", "models", "states"]
    likes.write_bytes(before)
    assert built(events, tmp_path / "c")["ran"] == ["models"]
    assert forget_stages(bundles) and not forget_stages(bundles)
