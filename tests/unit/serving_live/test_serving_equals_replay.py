"""`laotie replay` and the running service, fed the same facts and asked the same: every answer compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.bundle import Bundle, resolve
from recsys.events import clean, open_events
from recsys.events.log_tables import export_log
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine, clock_us
from serving.replay import replay

from .running_service import running
from .served_world import AS_OF, Clock, events_after, write_bundle

K = 8


def test_all_answers_are_the_same(market: Path, tmp_path: Path) -> None:
    told = events_after(market / "events", AS_OF)
    rng = np.random.default_rng(3)
    instants = sorted(int(told[i][0]) + 1 for i in rng.integers(0, len(told), 150))
    users = rng.integers(1, 125, len(instants)).tolist()  # ids beyond 120 are nobody's
    asked = pl.DataFrame({"request_id": range(len(instants)), "user_id": users, "at": instants})
    asked.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC"))).write_parquet(tmp_path / "requests.parquet")
    bundle = Bundle.open(resolve(market / "bundles"))
    replay(bundle, market / "events", tmp_path / "requests.parquet", tmp_path / "out.parquet", k=K)
    expected = pl.read_parquet(tmp_path / "out.parquet").partition_by("request_id", as_dict=True)
    clock = Clock()
    sent = compared = 0
    with Engine.open(market / "bundles", tmp_path / "log.db", ServingConfig(lease_s=0.0), clock) as engine:
        for request, (user, at) in enumerate(zip(users, instants, strict=True)):
            due = []
            while sent < len(told) and told[sent][0] < at:
                due.append(told[sent][1])
                sent += 1
            clock.now = at
            assert all(verdict[0] != "quarantined" for verdict in engine.apply(due))
            served = engine.lookup(Asked(user, K, explain=False))
            want = expected.get((request,))
            if want is None:
                assert not served.room_ids
                continue
            assert served.room_ids == want["room_id"].to_list()
            assert served.host_ids == want["host_id"].to_list()
            assert served.answer.score.tolist() == want["score"].to_list()
            assert served.answer.strengths() == want["strength"].to_list()
            compared += len(want)
    assert compared > 300


def test_what_was_shown_counts_alike_also_for_viewers_nobody_knew(market: Path, tmp_path: Path) -> None:
    """The service's own log, replayed: events and served answers give again what was answered."""
    told = events_after(market / "events", AS_OF)[:300]
    viewers = [3, 5, 900_001, 900_002, 900_003]
    clock, asked, given = Clock(), [], []
    with Engine.open(market / "bundles", tmp_path / "log.db", ServingConfig(lease_s=0.0), clock) as engine:
        for turn, (at, event) in enumerate(told):
            clock.now = at + 1
            assert engine.apply([event]) == [("accepted", None)]
            if turn % 5 == 0 and told[turn + 1][0] > at + 1:
                viewer = viewers[turn // 5 % len(viewers)]
                given.append(engine.lookup(Asked(viewer, K, explain=False)))
                engine.apply([], [given[-1].impressions(f"r{turn}")])
                asked.append({"request_id": turn, "user_id": viewer, "at": clock.now})
            if turn == 150:  # the newcomer does something at last
                follow = {"user_id": 900_001, "host_id": given[0].host_ids[0], "at": at, "action": "follow"}
                assert engine.apply([("first", "follows", follow)]) == [("accepted", None)]
        for viewer in (900_001, 900_002):
            shown = {host for one in given if one.asked.user_id == viewer for host in one.answer.hosts.tolist()}
            user = engine.loaded.vocabularies.users.row(viewer)
            assert set(engine.loaded.live.world.ties.of("exposure", user).hosts.tolist()) == shown != set()
    export_log(tmp_path / "log.db", tmp_path / "told")
    given = [one for one in given if one.room_ids]
    at = pl.col("at").cast(pl.Datetime("us", "UTC"))
    pl.DataFrame(asked).with_columns(at).write_parquet(tmp_path / "requests.parquet")
    bundle = Bundle.open(resolve(market / "bundles"))
    replay(bundle, tmp_path / "told", tmp_path / "requests.parquet", tmp_path / "out.parquet", k=K)
    again = (
        pl.read_parquet(tmp_path / "out.parquet").group_by("request_id", maintain_order=True).agg("room_id", "score")
    )
    assert again["room_id"].to_list() == [one.room_ids for one in given]
    assert again["score"].to_list() == [one.answer.score.tolist() for one in given]


def test_a_replay_knows_a_late_fact_from_its_time_and_the_service_from_its_arrival(
    market: Path, tmp_path: Path
) -> None:
    """Event tables say nothing of arrivals (docs/events.md, Time); once the fact is there, answers agree."""
    clock = Clock(AS_OF + 20_000_000)
    with Engine.open(market / "bundles", tmp_path / "log.db", ServingConfig(lease_s=0.0), clock) as engine:
        first = engine.lookup(Asked(5, K, explain=False))
        host = first.host_ids[0]
        block = {"user_id": 5, "host_id": host, "at": AS_OF + 10_000_000, "kind": "block"}
        clock.now = AS_OF + 30_000_000
        assert engine.apply([("late", "feedback", block)]) == [("accepted", None)]
        clock.now = AS_OF + 40_000_000
        second = engine.lookup(Asked(5, K, explain=False))
    export_log(tmp_path / "log.db", tmp_path / "told")
    asked = pl.DataFrame({"request_id": [1, 2], "user_id": 5, "at": [AS_OF + 20_000_000, AS_OF + 40_000_000]})
    asked.cast({"at": pl.Datetime("us", "UTC")}).write_parquet(tmp_path / "requests.parquet")
    bundle = Bundle.open(resolve(market / "bundles"))
    replay(bundle, tmp_path / "told", tmp_path / "requests.parquet", tmp_path / "out.parquet", k=K)
    out = pl.read_parquet(tmp_path / "out.parquet").partition_by("request_id", as_dict=True)
    assert host in first.host_ids and host not in out[(1,)]["host_id"]
    assert second.room_ids == out[(2,)]["room_id"].to_list()
    assert second.answer.score.tolist() == out[(2,)]["score"].to_list()


def test_what_two_answers_of_one_instant_share_counts_once_online_too(market: Path, tmp_path: Path) -> None:
    told, clock = tmp_path / "told", Clock(AS_OF + 20_000_000)

    def shown(engine: Engine) -> int:
        ties, column = (
            engine.loaded.live.world.ties,
            engine.loaded.live.world.blocks.exposure.int_column("n_impressions"),
        )
        return int(ties.of("exposure", engine.loaded.vocabularies.users.row(5)).rows.ints[:, column].sum())

    with Engine.open(market / "bundles", tmp_path / "log.db", ServingConfig(lease_s=0.0), clock) as engine:
        before = shown(engine)
        answers = [engine.lookup(Asked(5, k, explain=False)) for k in (3, 6)]
        rooms = {room for answer in answers for room in answer.room_ids}
        assert len(rooms) < sum(len(answer.room_ids) for answer in answers)
        for i, answer in enumerate(answers):  # in commits of their own
            engine.apply([], [answer.impressions(f"r{i}")])
        assert shown(engine) == before + len(rooms)
        clock.now = AS_OF + 40_000_000
        later = engine.lookup(Asked(5, K, explain=False))
    with Engine.open(market / "bundles", tmp_path / "log.db", ServingConfig(lease_s=0.0), clock) as engine:
        assert shown(engine) == before + len(rooms)
    export_log(tmp_path / "log.db", told)
    assert clean(open_events(told, any_table=True)).quality.tables["impressions"].good == len(rooms)
    asked = pl.DataFrame({"request_id": [1], "user_id": 5, "at": [clock.now]})
    asked.cast({"at": pl.Datetime("us", "UTC")}).write_parquet(tmp_path / "requests.parquet")
    bundle = Bundle.open(resolve(market / "bundles"))
    replay(bundle, told, tmp_path / "requests.parquet", tmp_path / "out.parquet", k=K)
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert (later.room_ids, later.answer.score.tolist()) == (out["room_id"].to_list(), out["score"].to_list())


def test_two_workers_over_http_answer_as_replay_does(market: Path, tmp_path: Path) -> None:
    """Facts and questions in turn, whichever worker takes them; then the same facts and questions as a replay.

    Users, hosts and rooms the bundle does not know have other rows there; k is small, so newcomers are drawn.
    """
    shelf = write_bundle(market / "events", tmp_path / "bundles", learning=True).parent
    (tmp_path / "serving.yaml").write_text("log_impressions: false\nlease_s: 0\ndeadline_ms: 20000\n")
    rng = np.random.default_rng(8)
    rows: dict[str, list[dict[str, Any]]] = {"rooms": [], "watches": [], "follows": [], "feedback": []}
    asked: list[dict[str, Any]] = []
    given: list[dict[str, Any]] = []
    options = ("--workers", "2", "--config", str(tmp_path / "serving.yaml"))
    with running(shelf, tmp_path / "log.db", *options) as service:
        for turn in range(30):
            told: list[tuple[str, str, dict[str, Any]]] = []
            hosts = (80_000 - rng.permutation(4)[:2]).tolist()
            for i, host in enumerate(hosts):
                room = {"room_id": int(10_000 - 10 * turn - i), "host_id": host, "started_at": clock_us()}
                told.append((f"r{turn}-{i}", "rooms", room))
                user = int(rng.choice([3, 5, 7, 70_000 - turn]))
                watch = {"user_id": user, "host_id": host, "room_id": room["room_id"], "entered_at": clock_us()}
                told.append((f"w{turn}-{i}", "watches", watch))
            at = {"at": clock_us()}
            told.append((f"f{turn}", "follows", {"user_id": 70_001, "host_id": 4, "action": "follow"} | at))
            if turn == 20:
                told.append(("b", "feedback", {"user_id": 3, "host_id": 80_000, "kind": "block"} | at))
            for _, table, row in told:
                rows[table].append(row)
            with service.client() as client:  # a new connection each time: any of the workers
                assert {result["status"] for result in client.send(told)} == {"accepted"}
            for user in (3, 70_000 - turn, 70_001, 90_000):
                with service.client() as client:
                    answer = client.lookup(user, k=K)
                assert not answer["degraded"]
                asked.append({"request_id": len(asked), "user_id": user, "at": answer["at"]})
                given.append(answer)
    times = ("at", "started_at", "entered_at")
    (tmp_path / "more").mkdir()
    for table, held in rows.items():
        frame = pl.DataFrame(held)
        frame = frame.with_columns(pl.col(n).cast(pl.Datetime("us", "UTC")) for n in times if n in frame.columns)
        frame.write_parquet(tmp_path / "more" / f"{table}.parquet")
    requests = pl.DataFrame(asked).with_columns(pl.col("at").str.to_datetime(time_unit="us", time_zone="UTC"))
    requests.write_parquet(tmp_path / "requests.parquet")
    replay(Bundle.open(resolve(shelf)), tmp_path / "more", tmp_path / "requests.parquet", tmp_path / "out.parquet", k=K)
    out = pl.read_parquet(tmp_path / "out.parquet").partition_by("request_id", as_dict=True)
    for number, answer in enumerate(given):
        want = out[(number,)].select("room_id", "host_id", "score", "strength").rows()
        got = [(room["room_id"], room["host_id"], room["score"], room["strength"]) for room in answer["rooms"]]
        assert got == want, number
    assert len(given) == 120 and sum(len(answer["rooms"]) for answer in given) > 500
