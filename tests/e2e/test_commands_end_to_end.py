"""The commands that answer, on a generated market: lookup and replay."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.bundle import Bundle, evaluate_gates, resolve
from recsys.config import DEFAULT_GATES
from recsys.instants import format_instant
from recsys.pipeline.features import FEATURES
from tests.conftest import Built
from tests.e2e.commands import OUT_COLUMNS, done, laotie, refused, tables, write
from training.drift import CHANCE

LATER = {"rooms": ("started_at", "ended_at"), "watches": ("entered_at", "left_at"), "hosts": (), "users": ()}


HOUR = 3_600_000_000


def times(name: str) -> tuple[str, ...]:
    return LATER.get(name, ("at",))


class Replays:
    def __init__(self, built: Built, folder: Path) -> None:
        self.built, self.folder, self.n = built, folder, 0

    def path(self, kind: str) -> Path:
        self.n += 1
        return self.folder / f"{kind}{self.n}"

    def __call__(self, events: Path | dict[str, pl.DataFrame], requests: pl.DataFrame, *more: object) -> pl.DataFrame:
        if isinstance(events, dict):
            events = write(self.path("events"), events)
        asked, out = self.path("requests"), self.path("out")
        requests.write_parquet(asked)
        done("replay", "--bundle", self.built.bundles, "--events", events, "--requests", asked, "--out", out, *more)
        return pl.read_parquet(out)


@pytest.fixture
def replays(built: Built, tmp_path: Path) -> Replays:
    return Replays(built, tmp_path)


def test_build_says_what_it_did(built: Built) -> None:
    stages = {stage["name"]: stage["status"] for stage in built.document["stages"]}
    assert {"factors", "graph", "transition", "ranker", "strength"} <= stages.keys()
    assert (built.bundles / "CURRENT").read_text().strip() == built.document["bundle"]
    manifest = Bundle.open(built.bundle, verify="hashes").manifest
    assert manifest.window.as_of_us == built.as_of_us
    assert manifest.counts["users"] == 400 or 300 < manifest.counts["users"] <= 400


def test_every_gate_of_a_first_build_has_something_to_judge(built: Built) -> None:
    """A metric under another name than its gate asks for would let every bundle pass."""
    judged = [gate for gate in evaluate_gates(built.document["metrics"], DEFAULT_GATES) if "drift" not in gate.metric]
    assert [gate.status for gate in judged] == ["passed"] * 3


def test_a_later_build_can_tell_how_all_features_and_the_ranker_have_moved(built: Built) -> None:
    profile = Bundle.open(resolve(built.bundles)).json("profile")
    assert profile.keys() >= {*FEATURES, CHANCE, "strength"}
    assert profile[CHANCE]["n"] == profile["room_age_min"]["n"] >= 500 and len(profile["room_age_min"]["edges"]) > 3


def test_demand_of_every_host_with_a_tie(built: Built) -> None:
    rows = done("demand", "--bundle", built.bundles)
    assert len({row["host_id"] for row in rows}) == len(rows) > 10
    viewers = [row["viewers"] for row in rows]
    assert viewers == sorted(viewers, reverse=True) and viewers[0] > 0
    for row in rows:
        assert row["ties"] > 0 and row["viewers_low"] <= min(row["viewers"], row["viewers_high"])


def test_lookup_as_json(built: Built, events: dict[str, pl.DataFrame]) -> None:
    user = events["follows"]["user_id"].mode().sort()[0]
    for where in (built.bundles, built.bundle):
        document = done("lookup", "--bundle", where, "--user", user, "-k", 5)
    assert document["user_id"] == str(user) and document["known_user"] is True
    assert document["returned"] == len(document["rooms"]) > 0
    live = events["rooms"]["room_id"].to_list()
    for rank, room in enumerate(document["rooms"], start=1):
        assert room["rank"] == rank and room["room_id"] in live
        assert 0 <= room["strength"] <= 1 and room["reasons"]
        assert math.isclose(sum(room["breakdown"].values()), room["score"], abs_tol=1e-6)
    scores = [room["score"] for room in document["rooms"] if not room["reserved"]]
    assert scores == sorted(scores, reverse=True)
    text = laotie("lookup", "--bundle", built.bundles, "--user", user, "-k", 5)
    assert text.exit_code == 0 and str(document["rooms"][0]["room_id"]) in text.stdout


def test_lookup_of_a_user_nobody_knows(built: Built) -> None:
    document = done("lookup", "--bundle", built.bundles, "--user", 999_999_999, "-k", 3)
    assert document["known_user"] is False and document["returned"] == min(3, document["stages"]["live"])
    assert "number" in refused("lookup", "--bundle", built.bundles, "--user", "anna", code=2)


def test_lookup_before_the_as_of_is_refused(built: Built) -> None:
    early = format_instant(built.as_of_us - HOUR)
    said = refused("lookup", "--bundle", built.bundles, "--user", 1, "--at", early, code=2)
    assert f"got: {early}" in said and f"expected: {format_instant(built.as_of_us)} (the bundle's as-of)" in said


def test_replay_ranks_all_rooms_named(built: Built, replays: Replays, requests: pl.DataFrame) -> None:
    out = replays(built.events, requests)
    assert out.columns == OUT_COLUMNS
    assert out["score"].is_finite().all() and out["strength"].is_between(0, 1).all()
    named = requests.select("request_id", pl.col("live_room_ids").alias("room_id")).explode("room_id")
    blocked = pl.read_parquet(built.events / "feedback" / "**" / "*.parquet").filter(pl.col("kind") == "block")
    hosts = named.join(requests.select("request_id", "user_id"), on="request_id").join(
        tables(built.events)["rooms"].select("room_id", "host_id"), on="room_id"
    )
    maybe_blocked = hosts.join(blocked.select("user_id", "host_id").unique(), on=["user_id", "host_id"])
    must = named.join(maybe_blocked, on=["request_id", "room_id"], how="anti")
    assert must.join(out, on=["request_id", "room_id"], how="anti").is_empty()
    assert out.join(named, on=["request_id", "room_id"], how="anti").is_empty()
    assert not out.select("request_id", "room_id").is_duplicated().any()
    for _, one in out.group_by("request_id"):
        assert one["rank"].to_list() == list(range(1, len(one) + 1))
        assert one["score"].is_sorted(descending=True)


def test_no_bid_moves_an_answer(
    built: Built, replays: Replays, requests: pl.DataFrame, events: dict[str, pl.DataFrame]
) -> None:
    """A column of bids, budgets or sponsorship is read by nobody."""
    rng = np.random.default_rng(1)
    paid = {
        name: frame.with_columns(
            bid_minor=pl.Series(rng.integers(0, 10**6, len(frame))), sponsored=pl.lit(value=True), ecpm=pl.lit(9.5)
        )
        for name, frame in events.items()
    }
    assert_frame_equal(replays(paid, requests), replays(built.events, requests))


def test_the_ranker_does_its_job(built: Built, replays: Replays, requests: pl.DataFrame) -> None:
    """The room entered stands far above the middle of the rooms live then."""
    out = replays(built.events, requests)
    watches = tables(built.events)["watches"].select("user_id", pl.col("entered_at").alias("at"), "room_id")
    right = requests.join(watches, on=["user_id", "at"]).select("request_id", "room_id")
    found = out.join(right, on=["request_id", "room_id"])
    sizes = out.group_by("request_id").len()
    place = found.join(sizes, on="request_id").filter(pl.col("len") > 3)
    assert len(place) > 20
    assert ((place["rank"] - 1) / (place["len"] - 1)).mean() < 0.25


def test_replay_finds_the_rooms_live_by_itself(built: Built, replays: Replays, requests: pl.DataFrame) -> None:
    named, found = replays(built.events, requests), replays(built.events, requests.drop("live_room_ids"))
    rooms = named.group_by("request_id").agg(pl.col("room_id").sort()).sort("request_id")
    assert_frame_equal(found.group_by("request_id").agg(pl.col("room_id").sort()).sort("request_id"), rooms)
    few = replays(built.events, requests.drop("live_room_ids"), "-k", 2)
    assert few["rank"].max() == 2


def later_only(events: dict[str, pl.DataFrame], at: datetime) -> dict[str, pl.DataFrame]:
    """Rows that say anything at or after `at`."""
    kept = {}
    for name, frame in events.items():
        columns = times(name)
        late = pl.any_horizontal([pl.col(c) >= at for c in columns]).fill_null(False) if columns else pl.lit(True)
        kept[name] = frame.filter(late)
    return kept


def test_facts_before_the_as_of_are_not_applied_twice(
    built: Built, replays: Replays, requests: pl.DataFrame, events: dict[str, pl.DataFrame]
) -> None:
    as_of = datetime.fromtimestamp(built.as_of_us / 1e6, UTC)
    later = {**later_only(events, as_of), "rooms": events["rooms"]}
    later |= {name: events[name] for name in ("purchases", "refunds")}  # a later refund needs its earlier order
    assert_frame_equal(replays(built.events, requests), replays(later, requests))


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_replay_knows_no_future(
    built: Built, replays: Replays, requests: pl.DataFrame, events: dict[str, pl.DataFrame], share: float
) -> None:
    """Facts at or after a request's instant removed, or replaced by others in another order: its answer stays."""
    at = requests["at"][int(share * len(requests))]
    asked = requests.filter(pl.col("at") <= at).drop("live_room_ids")
    first = {"rooms": "started_at", "watches": "entered_at"}
    past = {
        name: frame.filter(pl.col(first.get(name, "at")) < at) if times(name) else frame
        for name, frame in events.items()
    }
    for name, end in (("rooms", "ended_at"), ("watches", "left_at")):
        past[name] = past[name].with_columns(pl.when(pl.col(end) < at).then(pl.col(end)).alias(end))
    expected = replays(built.events, asked)
    assert_frame_equal(replays(past, asked), expected)
    rng = np.random.default_rng(0)
    shuffled = {name: frame[rng.permutation(len(frame))] for name, frame in events.items()}
    users = events["watches"]["user_id"]
    watches = shuffled["watches"].with_columns(
        user_id=pl.when(pl.col("entered_at") >= at).then(pl.Series(rng.choice(users, len(users)))).otherwise("user_id")
    )
    assert_frame_equal(replays({**shuffled, "watches": watches}, asked), expected)


def test_blocks_second_rooms_and_strangers(
    built: Built, replays: Replays, events: dict[str, pl.DataFrame], requests: pl.DataFrame
) -> None:
    at = requests["at"][-1]
    live = events["rooms"].filter(pl.col("room_id").is_in(requests["live_room_ids"][-1].to_list()))
    host, room = live.row(0, named=True)["host_id"], live.row(0, named=True)["room_id"]
    minute = pl.duration(minutes=1)
    twin = live.head(1).with_columns(
        room_id=pl.lit(7, dtype=pl.Int64),
        started_at=pl.lit(at) - minute,
        ended_at=pl.lit(None).cast(live.schema["ended_at"]),
    )
    block = {"user_id": 5_555, "host_id": host, "at": at, "kind": "block"}
    feedback = pl.DataFrame([block]).with_columns(pl.col("at") - minute).cast(events["feedback"].schema)
    more = {
        **events,
        "rooms": pl.concat([events["rooms"], twin]),
        "feedback": pl.concat([events["feedback"], feedback]),
    }
    asked = pl.DataFrame({"request_id": [1, 2], "user_id": [5_555, 6_666], "at": [at, at]})
    out = replays(more, asked)
    assert host not in out.filter(pl.col("request_id") == 1)["host_id"]
    stranger = out.filter(pl.col("request_id") == 2)
    assert {room, 7} <= set(stranger["room_id"]) and len(stranger) == len(live) + 1
    named = asked.with_columns(live_room_ids=pl.Series([[room, 7]] * 2, dtype=pl.List(pl.Int64)))
    out = replays(more, named)
    assert sorted(out["room_id"].to_list()) == [7, room] and set(out["request_id"]) == {2}
