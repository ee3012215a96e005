"""No event of a simulated world may break the order of time or point at something that is not there."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from recsys.events import validate
from tests.unit.simulator.simulated_world import World

SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    "rooms": {
        "room_id": pl.Int64(),
        "host_id": pl.Int64(),
        "started_at": pl.Datetime("us", "UTC"),
        "ended_at": pl.Datetime("us", "UTC"),
        "category": pl.String(),
        "title": pl.String(),
        "cohost_ids": pl.List(pl.Int64()),
    },
    "follows": {"user_id": pl.Int64(), "host_id": pl.Int64(), "at": pl.Datetime("us", "UTC"), "action": pl.String()},
    "watches": {
        "user_id": pl.Int64(),
        "host_id": pl.Int64(),
        "room_id": pl.Int64(),
        "entered_at": pl.Datetime("us", "UTC"),
        "left_at": pl.Datetime("us", "UTC"),
        "source": pl.String(),
    },
    "engagements": {
        "user_id": pl.Int64(),
        "host_id": pl.Int64(),
        "room_id": pl.Int64(),
        "at": pl.Datetime("us", "UTC"),
        "kind": pl.String(),
        "count": pl.Int32(),
        "value_minor": pl.Int64(),
    },
    "purchases": {
        "order_id": pl.Int64(),
        "line": pl.Int32(),
        "user_id": pl.Int64(),
        "host_id": pl.Int64(),
        "room_id": pl.Int64(),
        "at": pl.Datetime("us", "UTC"),
        "amount_minor": pl.Int64(),
        "quantity": pl.Int32(),
        "category": pl.String(),
    },
    "refunds": {
        "order_id": pl.Int64(),
        "host_id": pl.Int64(),
        "at": pl.Datetime("us", "UTC"),
        "amount_minor": pl.Int64(),
        "kind": pl.String(),
    },
    "feedback": {"user_id": pl.Int64(), "host_id": pl.Int64(), "at": pl.Datetime("us", "UTC"), "kind": pl.String()},
    "impressions": {
        "user_id": pl.Int64(),
        "room_id": pl.Int64(),
        "host_id": pl.Int64(),
        "at": pl.Datetime("us", "UTC"),
        "position": pl.Int32(),
        "slot": pl.String(),
        "propensity": pl.Float64(),
    },
    "notices": {
        "host_id": pl.Int64(),
        "at": pl.Datetime("us", "UTC"),
        "from": pl.Datetime("us", "UTC"),
        "to": pl.Datetime("us", "UTC"),
        "kind": pl.String(),
    },
    "hosts": {
        "host_id": pl.Int64(),
        "category": pl.String(),
        "city_tier": pl.Int32(),
        "registered_at": pl.Datetime("us", "UTC"),
    },
    "users": {"user_id": pl.Int64(), "city_tier": pl.Int32(), "registered_at": pl.Datetime("us", "UTC")},
}
MAY_BE_NULL = {"ended_at", "left_at"}
KEYS = {
    "rooms": ["room_id"],
    "follows": ["user_id", "host_id", "at", "action"],
    "watches": ["user_id", "room_id", "entered_at"],
    "purchases": ["order_id", "host_id", "line"],
    "refunds": ["order_id", "at"],
    "feedback": ["user_id", "host_id", "at", "kind"],
    "impressions": ["user_id", "room_id", "at"],
    "notices": ["host_id", "at", "from", "to", "kind"],
    "hosts": ["host_id"],
    "users": ["user_id"],
}
ALLOWED = {
    ("follows", "action"): {"follow", "unfollow"},
    ("engagements", "kind"): {"like", "comment", "gift", "share"},
    ("refunds", "kind"): {"return", "refund_only", "counterfeit", "dispute"},
    ("feedback", "kind"): {"not_interested", "block", "report", "unblock"},
    ("impressions", "slot"): {"follow", "organic", "newcomer", "venue", "commercial"},
    ("notices", "kind"): {"leave"},
}


def test_tables_have_the_columns_of_the_contract(any_world: World) -> None:
    folders = {folder.name for folder in any_world.report.out.iterdir() if not folder.name.startswith("_")}
    assert folders == set(SCHEMAS)
    for name, schema in SCHEMAS.items():
        table = any_world.table(name)
        assert dict(table.schema) == schema, name
        always = table.select(column for column in schema if column not in MAY_BE_NULL)
        assert always.null_count().sum_horizontal().item() == 0, name
    for (name, column), words in ALLOWED.items():
        assert set(any_world.table(name)[column].unique()) <= words


def test_keys_are_unique(any_world: World) -> None:
    for name, key in KEYS.items():
        table = any_world.table(name)
        assert table.select(key).n_unique() == table.height, name


def test_every_id_exists(any_world: World) -> None:
    users, hosts, rooms = (any_world.table(name) for name in ("users", "hosts", "rooms"))
    for name, schema in SCHEMAS.items():
        table = any_world.table(name)
        for column, known in (("user_id", users), ("host_id", hosts), ("room_id", rooms)):
            if column in schema:
                assert table[column].is_in(known[column].implode()).all(), (name, column)
        if "room_id" in schema and name != "rooms":
            pairs = table.select("room_id", "host_id").unique().join(rooms, on=["room_id", "host_id"], how="anti")
            assert pairs.is_empty(), name
    guests = rooms.explode("cohost_ids").drop_nulls("cohost_ids")
    assert guests["cohost_ids"].is_in(hosts["host_id"].implode()).all()
    assert (guests["cohost_ids"] != guests["host_id"]).all()


def test_nothing_happens_outside_the_window(any_world: World) -> None:
    end = any_world.report.end
    for name, schema in SCHEMAS.items():
        for column in set(schema) & {"at", "entered_at", "left_at", "started_at", "ended_at", "registered_at"}:
            times = any_world.table(name)[column].drop_nulls()
            assert (times < end).all(), (name, column)
            if name not in {"hosts", "users", "follows", "notices"}:
                assert (times >= any_world.report.start).all(), (name, column)


def test_entries_lie_within_their_broadcast_and_one_user_is_in_one_room(any_world: World) -> None:
    end = any_world.report.end
    rooms = any_world.table("rooms").select("room_id", "started_at", pl.col("ended_at").fill_null(end))
    watches = any_world.table("watches").join(rooms, on="room_id")
    assert (watches["entered_at"] > watches["started_at"]).all()
    assert (watches["entered_at"] < watches["ended_at"]).all()
    left = watches.drop_nulls("left_at")
    assert (left["left_at"] >= left["entered_at"]).all()
    assert (left["left_at"] <= left["ended_at"]).all()
    ordered = watches.sort("user_id", "entered_at").with_columns(
        before=pl.col("left_at").fill_null(end).shift().over("user_id")
    )
    assert (ordered.drop_nulls("before")["entered_at"] >= ordered.drop_nulls("before")["before"]).all()


def test_hosts_run_one_broadcast_at_a_time_and_none_on_announced_leave(any_world: World) -> None:
    rooms = any_world.table("rooms").sort("host_id", "started_at")
    assert (rooms["ended_at"].drop_nulls() > rooms.drop_nulls("ended_at")["started_at"]).all()
    following = rooms.with_columns(next_start=pl.col("started_at").shift(-1).over("host_id")).drop_nulls("next_start")
    assert (following["ended_at"] < following["next_start"]).all()
    leaves = any_world.table("notices")
    assert (leaves["at"] < leaves["from"]).all()
    assert (leaves["from"] < leaves["to"]).all()
    away = rooms.join(leaves, on="host_id").filter(pl.col("started_at").is_between("from", "to", closed="left"))
    assert away.is_empty()


def test_engagements_lie_within_a_stay(any_world: World) -> None:
    stays = any_world.table("watches").sort("entered_at")
    acts = any_world.table("engagements").sort("at")
    joined = acts.join_asof(
        stays, left_on="at", right_on="entered_at", by=["user_id", "room_id"], check_sortedness=False
    )
    assert joined["entered_at"].null_count() == 0
    assert (joined["at"] <= joined["left_at"].fill_null(any_world.report.end)).all()
    assert (acts["count"] >= 1).all()
    assert (acts.filter(pl.col("kind") == "gift")["value_minor"] > 0).all()


def test_orders_follow_an_entry_and_refunds_follow_orders(any_world: World) -> None:
    stays = any_world.table("watches").sort("entered_at")
    lines = any_world.table("purchases").sort("at")
    joined = lines.join_asof(
        stays, left_on="at", right_on="entered_at", by=["user_id", "room_id"], check_sortedness=False
    )
    assert joined["entered_at"].null_count() == 0
    late = joined["at"] - joined["left_at"].fill_null(any_world.report.end)
    assert (late <= timedelta(minutes=30)).all()
    assert (lines["amount_minor"] > 0).all()
    assert lines.group_by("order_id").agg(pl.col("at").n_unique())["at"].max() == 1
    orders = lines.group_by("order_id").agg(
        pl.col("at").first(), pl.col("host_id").first(), pl.col("amount_minor").sum()
    )
    refunds = any_world.table("refunds").join(orders, on="order_id", suffix="_order")
    assert refunds.height == any_world.table("refunds").height
    assert (refunds["at"] > refunds["at_order"]).all()
    assert (refunds["host_id"] == refunds["host_id_order"]).all()
    assert (refunds["amount_minor"] <= refunds["amount_minor_order"]).all()


def test_follows_and_unfollows_alternate(any_world: World) -> None:
    follows = any_world.table("follows").sort("user_id", "host_id", "at")
    before = follows.with_columns(before=pl.col("action").shift().over("user_id", "host_id"))
    assert (before.filter(pl.col("before").is_null())["action"] == "follow").all()
    assert (before.drop_nulls("before")["action"] != before.drop_nulls("before")["before"]).all()
    assert (follows["action"] == "unfollow").any()


def test_blocked_hosts_are_neither_shown_nor_visited_until_unblocked(any_world: World) -> None:
    marks = any_world.table("feedback").filter(pl.col("kind").is_in(["block", "unblock"])).sort("at")
    assert marks.height > 0
    acts = [
        any_world.table("watches").select("user_id", "host_id", at="entered_at"),
        *(
            any_world.table(name).select("user_id", "host_id", "at")
            for name in ("engagements", "purchases", "impressions")
        ),
        any_world.table("follows").select("user_id", "host_id", "at"),
    ]
    joined = (
        pl.concat(acts)
        .sort("at")
        .join_asof(
            marks.rename({"at": "marked_at"}),
            left_on="at",
            right_on="marked_at",
            by=["user_id", "host_id"],
            check_sortedness=False,
        )
    )
    assert (joined["kind"].fill_null("unblock") == "unblock").all()
    alternating = marks.sort("user_id", "host_id", "at").with_columns(
        before=pl.col("kind").shift().over("user_id", "host_id").fill_null("unblock")
    )
    assert (alternating["kind"] != alternating["before"]).all()


def test_newcomers_appear_after_they_registered(any_world: World) -> None:
    hosts, users = any_world.table("hosts"), any_world.table("users")
    start = any_world.report.start
    assert (hosts["registered_at"] > start).any()
    assert (users["registered_at"] > start).any()
    rooms = any_world.table("rooms").join(hosts, on="host_id")
    assert (rooms["started_at"] > rooms["registered_at"]).all()
    for name, time in (("watches", "entered_at"), ("impressions", "at"), ("follows", "at")):
        acts = any_world.table(name).join(users, on="user_id").join(hosts, on="host_id", suffix="_host")
        assert (acts[time] >= acts["registered_at"]).all(), name
        assert (acts[time] >= acts["registered_at_host"]).all(), name


def test_impressions_carry_usable_propensities_and_consecutive_positions(any_world: World) -> None:
    shown = any_world.table("impressions")
    assert shown["propensity"].is_between(0.0, 1.0).all()
    assert (shown["propensity"] > 0).all()
    slates = shown.group_by("user_id", "at").agg(
        first=pl.col("position").min(),
        last=pl.col("position").max(),
        places=pl.col("position").n_unique(),
        rows=pl.len(),
    )
    assert (slates["first"] == 1).all()
    assert (slates["last"] == slates["rows"]).all()
    assert (slates["places"] == slates["rows"]).all()


def test_the_engine_sets_no_row_aside(demo: World) -> None:
    """Read as any event folder is: every table is known, `_truth` is passed over, nothing is quarantined."""
    report = validate(demo.report.out, now=None)
    assert set(report.tables) == set(SCHEMAS)
    for name, quality in report.tables.items():
        assert quality.rows == quality.good == demo.table(name).height, (name, quality)
