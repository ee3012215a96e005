"""`laotie demo`: the main job end to end, and something to look at."""

from __future__ import annotations

from pathlib import Path

from recsys.bundle import Bundle, resolve
from recsys.config import load_config
from tests.conftest import CHEAP, NOW_US
from training.demo import NEWCOMER, run_demo


def test_the_demo_shows_ranked_live_rooms_with_reasons(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("mine")
    demo = run_demo(tmp_path / "out", now_us=NOW_US, config=load_config(None, CHEAP))
    document, text = demo.document(), demo.text()
    assert Bundle.open(resolve(tmp_path / "out")).manifest.name == document["bundle"]
    assert {stage["name"] for stage in document["stages"]} >= {"factors", "graph", "transition", "ranker", "strength"}
    assert document["metrics"] and document["live_rooms"] > 0
    assert document["tables"]["watches"]["rows"] > 10_000
    *known, newcomer = document["viewers"]
    assert newcomer["who"] == NEWCOMER and newcomer["rooms"]
    assert len(known) == 3
    for viewer in known:
        assert any(room["source"] == "private_domain" for room in viewer["rooms"])
    for viewer in document["viewers"]:
        assert [room["rank"] for room in viewer["rooms"]] == list(range(1, len(viewer["rooms"]) + 1))
        assert all(room["reasons"] and 0 <= room["strength"] <= 1 for room in viewer["rooms"])
        assert viewer["who"] in text
    assert "followed" in text and "strength" in text and NEWCOMER in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"], "the market was temporary"
    assert (tmp_path / "out" / "precious").read_text() == "mine"
