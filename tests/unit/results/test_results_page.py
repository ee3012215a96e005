"""The results page: measured blocks are renewed, the rest stays; parts are measured once; metrics as by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest

from recsys.errors import ConfigError, InputRefused
from recsys.ids import Vocabulary
from training.results import page
from training.results.command import blocks, measure
from training.results.pairs import _most_popular, judged, split
from training.results.parts import Part, result_of

PAGE = Path(__file__).parents[3] / "docs" / "results.md"


def test_only_measured_blocks_change() -> None:
    text = "before\n<!-- measured a -->\nold\n<!-- end a -->\nbetween\n<!-- measured a:b -->\n<!-- end a:b -->\nafter\n"
    made = page.with_blocks(text, {"a": r"new \1", "a:b": "x"}, PAGE)
    assert made == text.replace("old", r"new \1").replace("a:b -->\n<", "a:b -->\nx\n<")
    with pytest.raises(InputRefused, match="no place"):
        page.with_blocks(text, {"c": ""}, PAGE)


def test_the_page_has_a_place_for_every_block(tmp_path: Path) -> None:
    names = [block.name for block in blocks(tmp_path, tmp_path)]
    assert len(set(names)) == len(names)
    page.with_blocks(PAGE.read_text(encoding="utf-8"), dict.fromkeys(names, "x"), PAGE)


def test_absent_data_are_named(tmp_path: Path) -> None:
    out = tmp_path / "results.md"
    out.write_text("<!-- measured twitch -->\nold numbers\n<!-- end twitch -->\n", encoding="utf-8")
    assert measure(tmp_path, out, tmp_path / "cache", only=["twitch"]) == {"twitch": "absent: follows.parquet"}
    assert "follows.parquet" in out.read_text(encoding="utf-8") and "old numbers" not in out.read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="no such part"):
        measure(tmp_path, out, tmp_path / "cache", only=["twich"])


def count_lines(path: Path, factor: int) -> dict[str, Any]:
    ran = path.with_suffix(".ran")
    ran.write_text(ran.read_text() + "x" if ran.exists() else "x")
    return {"lines": factor * len(path.read_text().splitlines())}


def test_a_part_runs_again_only_when_its_input_or_settings_change(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("a\nb\n")

    def made(factor: int) -> dict[str, Any]:
        return result_of(Part("p", count_lines, {"path": source, "factor": factor}, [source]), tmp_path / "cache")

    first = made(2)
    assert first["result"] == {"lines": 4} and first["peak_memory_mib"] > 1
    assert made(2) == first
    assert made(3)["result"] == {"lines": 6}
    source.write_text("a\n")
    assert made(3)["result"] == {"lines": 3}
    assert len((tmp_path / "in.ran").read_text()) == 3


def test_split_keeps_back_a_share_of_each_user() -> None:
    pairs = pl.DataFrame({"user_id": [1] * 10 + [2] * 4, "item_id": [*range(10), *range(4)]})
    train, truth = split(pairs)
    assert truth.group_by("user_id").len().sort("user_id").rows() == [(1, 2)]
    assert pl.concat([train, truth]).sort("user_id", "item_id").equals(pairs)


def test_recall_and_ndcg_as_by_hand() -> None:
    truth = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [5, 6, 7]})
    answers = pl.DataFrame({"user_id": [1, 1, 1], "rank": [1, 2, 3], "item_id": [9, 5, 6]})
    metrics = {row["metric"]: row["mean"] for row in judged(answers, truth, 2)["metrics"]}
    ideal = 1 + 1 / np.log2(3)
    assert metrics["recall"] == pytest.approx((0.5 + 0) / 2)  # the second of two is beyond k; user 2 got no answer
    assert metrics["ndcg"] == pytest.approx((1 / np.log2(3) / ideal + 0) / 2)


def test_popularity_lists_unseen_items_only() -> None:
    train = pl.DataFrame({"user_id": [1, 2, 2, 3, 3], "item_id": [7, 7, 8, 8, 9]})
    users = Vocabulary()
    users.extend(train["user_id"].unique().sort())
    listed = _most_popular(train, users, 1).sort("user_id")
    assert listed.select("user_id", "item_id").rows() == [(1, 8), (2, 9), (3, 7)]


def test_a_ranking_is_shown_with_intervals_gains_and_heads() -> None:
    ends = {
        f"{name}{part}": 0.5
        for name in ("ndcg_at_10", "hit_at_1", "hit_at_10", "mrr")
        for part in ("", "_low", "_high")
    }
    head = {
        "rows": 100.0, "base_rate": 0.1, "auc": 0.7, "skill": 0.2, "skill_low": 0.1, "skill_high": 0.3, "ece": 0.01,
        "ece_chance": 0.008,
    }  # fmt: skip
    result = {
        "requests": 1000, "users": 10, "rooms": 5.0, "training_cpu_s": 3.0,
        "metrics": [{"method": m, "stratum": s, "value": v, "requests": 7, **ends}
                    for m in ("laotie", "memory") for s, v in (("all", "all"), ("host_known", "new"))],
        "gains": [{"over": "memory", "host_known": "all", "mean": 0.1, "low": 0.05, "high": 0.15}],
        "heads": [{"head": "returns", **head}, {"head": "buys", "skipped": "no event tells of an order"}],
        "fan_reach": {"k": 20.0, "reach": 0.9, "low": 0.8, "high": 1.0},
        "stages": [{"name": "graph", "status": "skipped", "why": "3 ties"}],
    }  # fmt: skip
    text = page.ranking_block({"result": result})
    rows = [line for line in text.splitlines() if line.startswith(("| laotie", "| memory"))]
    order = [["| laotie", "all"], ["| memory", "all"], ["| laotie", "host_known: new"]]
    assert [row.split(" | ")[:2] for row in rows[:3]] == order
    for said in ("0.5000 (0.5000–0.5000)", "+0.1000 (+0.0500 … +0.1500)", "10% of the rate) | 8% |", "graph (3 ties)"):
        assert said in text
    assert "Fan reach in 20 places: 0.9000 (0.8000–1.0000)." in text


def test_peers_that_failed_say_why(tmp_path: Path) -> None:
    found = [{"metric": name, "mean": 0.2, "low": 0.1, "high": 0.3} for name in ("recall", "ndcg")]
    methods = {
        "A": {"metrics": found, "training_cpu_s": 4.0, "peak_memory_mib": 9.0},
        "B": {"error": "install failed: no"},
    }
    (tmp_path / "peers-twitch.json").write_bytes(
        orjson.dumps({"methods": methods, "metrics": ["recall", "ndcg"], "k": 10, "said": "s"})
    )
    text = page.peers_block(tmp_path, "twitch")
    assert "| A | 0.2000 (0.1000–0.3000) |" in text and "| B | install failed: no |" in text
    assert page.peers_block(tmp_path, "gowalla").startswith("Not measured")
