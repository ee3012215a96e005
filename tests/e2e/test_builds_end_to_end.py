"""The commands that build and judge, on a generated market: build, rollback, evaluate."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import SET
from tests.e2e.commands import done, refused, tables, write
from tests.in_browser import FOR_WHOM, NEEDS_BROWSER, drawn_in_a_browser, sections_of


def arrays_of(bundle: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(bundle)): path.read_bytes()
        for path in sorted(bundle.rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", "quality.json", "history.json", "report.html")
    }


def with_text_ids(frame: pl.DataFrame) -> pl.DataFrame:
    ids = [name for name in ("user_id", "host_id", "room_id", "order_id") if name in frame.columns]
    frame = frame.with_columns(pl.format("x{}", pl.col(name)).alias(name) for name in ids)
    if "cohost_ids" in frame.columns:
        frame = frame.with_columns(pl.col("cohost_ids").list.eval(pl.format("x{}", pl.element())))
    return frame


def test_a_build_ignores_later_facts_and_can_be_rolled_back(small: Path, tmp_path: Path) -> None:
    """The same arrays with the later rows there, gone, or nonsense; string ids give the same answers."""
    events = tables(small)
    starts = events["rooms"]["started_at"].sort()
    as_of = starts[len(starts) * 3 // 4] + timedelta(minutes=1)  # a room has just begun
    first = {"rooms": "started_at", "watches": "entered_at", "hosts": "registered_at", "users": "registered_at"}
    past = {name: frame.filter(pl.col(first.get(name, "at")) < as_of) for name, frame in events.items()}
    past |= {name: events[name] for name in ("hosts", "users")}
    bundles, stamp = tmp_path / "bundles", as_of.isoformat()
    whole = done("build", small, "--out", bundles, "--as-of", stamp, *SET)
    again = done("build", write(tmp_path / "past", past), "--out", bundles, "--as-of", stamp, *SET)
    assert whole["bundle"] != again["bundle"]
    a, b = arrays_of(bundles / whole["bundle"]), arrays_of(bundles / again["bundle"])
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] != b[name]] == []
    assert whole["metrics"] == again["metrics"]
    assert (bundles / "CURRENT").read_text().strip() == again["bundle"]
    assert done("rollback", bundles)["current"] == whole["bundle"]
    assert (bundles / "CURRENT").read_text().strip() == whole["bundle"]
    refused("rollback", bundles)

    text = {name: with_text_ids(frame) for name, frame in events.items()}
    done("build", write(tmp_path / "text", text), "--out", tmp_path / "texts", "--as-of", stamp, *SET)
    user = int(events["follows"]["user_id"].mode().sort()[0])
    named = done("lookup", "--bundle", tmp_path / "texts", "--user", f"x{user}")
    numbered = done("lookup", "--bundle", bundles, "--user", user)
    assert named["known_user"] and numbered["known_user"] and numbered["rooms"]
    assert {room["room_id"] for room in named["rooms"]} == {f"x{room['room_id']}" for room in numbered["rooms"]}


@pytest.fixture(scope="module")
def evaluated(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("evaluated") / "report"
    return out, done("evaluate", small, "--out", out, "--compare", *SET)


def test_evaluate_judges_beside_the_baselines(evaluated: tuple[Path, dict[str, Any]]) -> None:
    out, document = evaluated
    overall = {row["method"]: row for row in document["metrics"] if row["stratum"] == "all"}
    parts = {f"{part} alone" for part in ("ties", "collaborative", "room and host")}
    assert overall.keys() == {"laotie", "memory", "popularity", "LambdaMART", "network", "linear"} | parts
    assert {row["over"] for row in document["gains"]} == overall.keys() - {"laotie"}
    gain = {row["over"]: row["mean"] for row in document["gains"] if row["host_known"] == "all"}
    for method, mean in gain.items():
        assert mean == pytest.approx(overall["laotie"]["ndcg_at_10"] - overall[method]["ndcg_at_10"], abs=1e-9)
    assert all(
        0 < row["ndcg_at_10_low"] <= row["ndcg_at_10"] <= row["ndcg_at_10_high"] <= 1 for row in overall.values()
    )
    assert document["fan_reach"]["reach"] == 1.0, "followed and bought-from hosts on air reach their fans"
    assert (out / "evaluation.md").read_text().startswith(f"{document['requests']} requests")


def test_the_report_of_an_evaluation_says_for_whom_it_works(evaluated: tuple[Path, dict[str, Any]]) -> None:
    assert FOR_WHOM - set(sections_of(evaluated[0] / "evaluation.html")) == set()


@NEEDS_BROWSER
def test_a_browser_draws_every_chart_of_an_evaluation(evaluated: tuple[Path, dict[str, Any]]) -> None:
    drawn_in_a_browser(evaluated[0] / "evaluation.html")
