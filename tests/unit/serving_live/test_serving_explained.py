"""Why a room is shown, and why not: one answer for every room, and it agrees with the lookup."""

from __future__ import annotations

from pathlib import Path

from recsys.instants import format_instant
from recsys.pipeline.request import Outcome
from serving.answers import explanation
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine

from .served_world import AS_OF, Clock

S = 1_000_000
USER, HOST = 4, 2_000_000_001


def test_every_room_anybody_spoke_of_has_its_reason(market: Path, tmp_path: Path) -> None:
    clock = Clock(AS_OF + 100 * S)
    with Engine.open(market / "bundles", tmp_path / "log.db", ServingConfig(lease_s=3_600.0), clock) as engine:
        for i in range(30):
            row = {"room_id": 1_000 + i, "host_id": HOST + i, "started_at": format_instant(AS_OF + S)}
            engine.apply([(f"r{i}", "rooms", row | {"category": "tea" if i % 2 else "jade"})])
        engine.apply([("e", "rooms", row | {"ended_at": format_instant(AS_OF + 9 * S)})])
        engine.apply([("b", "feedback", {"user_id": USER, "host_id": HOST, "at": AS_OF + S, "kind": "block"})])
        served = engine.lookup(Asked(USER, 10))
        ids = engine.loaded.vocabularies.rooms
        why: dict[str, list[int | str]] = {}
        for room in [*(ids.id(row) for row in range(len(ids))), 999_999]:
            found = explanation(engine, USER, room, 10)
            assert found["shown"] == (room in served.room_ids) and found["why"]
            if found["shown"]:
                assert found["position"] == served.room_ids.index(room) + 1
                assert abs(sum(found["room"]["breakdown"].values()) - found["room"]["score"]) < 1e-6
            else:
                assert found["position"] is None
                why.setdefault(found["why"].split(" at ")[0].split(" among ")[0], []).append(room)
        assert why["filtered: viewer blocked the host"] == [1_000]
        assert why["ended"] == [1_029] and why[
            "unknown room: not live when the bundle was built, and no event spoke of it since"
        ] == [999_999]
        assert len(why[str(Outcome.NOT_SELECTED)]) > 5
        clock.now += 2 * 3_600 * S
        assert explanation(engine, USER, 1_001, 10)["why"].startswith("its lease ran out")


def test_a_room_that_lost_is_explained_by_the_score_it_lost_with(market: Path, tmp_path: Path) -> None:
    with Engine.open(market / "bundles", tmp_path / "log.db", clock=Clock(AS_OF + 100 * S)) as engine:
        for i in range(30):
            row = {"room_id": 1_000 + i, "host_id": HOST + i, "started_at": format_instant(AS_OF + S)}
            engine.apply([(f"r{i}", "rooms", row)])
        whole = engine.lookup(Asked(USER, 100))
        scores = dict(zip(whole.room_ids, whole.answer.score.tolist(), strict=True))
        shown = engine.lookup(Asked(USER, 3))
        for room in set(whole.room_ids) - set(shown.room_ids):
            found = explanation(engine, USER, room, 3)
            assert found["why"] == str(Outcome.NOT_SELECTED) and found["room"]["score"] == scores[room]
            assert found["room"]["position"] == whole.room_ids.index(room) + 1
            assert found["room"]["score"] <= min(shown.answer.score[~shown.answer.reserved])
