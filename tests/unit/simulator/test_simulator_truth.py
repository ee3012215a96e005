"""The planted truth is what behaviour follows, and each world is what it says it is."""

from __future__ import annotations

import numpy as np
import polars as pl

from recsys.events.simulator.circle import strength_of
from recsys.events.simulator.config import Relations
from tests.unit.simulator.simulated_world import World


def entry_counts(world: World, last_days: int | None = None) -> pl.DataFrame:
    watches = world.table("watches")
    if last_days is not None:
        watches = watches.filter(pl.col("entered_at") >= world.report.end - pl.duration(days=last_days))
    return watches.group_by("user_id", "host_id").agg(count=pl.len())


def ties(world: World) -> pl.DataFrame:
    """Planted ties of users with at least five hosts in mind."""
    kept = world.truth("strengths").filter(~pl.col("forgotten") & ~pl.col("blocked"))
    return kept.filter(pl.len().over("user_id") >= 5)


def rank_correlation(frame: pl.DataFrame, column: str) -> float:
    """Mean over users of Spearman's correlation of a column with the planted strength; constant columns count as 0."""
    per_user = frame.group_by("user_id").agg(
        rho=pl.corr(pl.col(column).rank(), pl.col("strength").rank()).fill_nan(0.0)
    )
    return float(np.asarray(per_user["rho"].fill_null(0.0)).mean())


def counted(world: World, last_days: int | None = None) -> pl.DataFrame:
    counts = entry_counts(world, last_days)
    return ties(world).join(counts, on=["user_id", "host_id"], how="left").with_columns(pl.col("count").fill_null(0))


def test_planted_strength_shows_in_what_users_do(calibrated: World) -> None:
    recent = counted(calibrated, last_days=20)
    assert rank_correlation(recent, "count") > 0.28
    strong, weak = recent.filter(pl.col("strength") > 0.4), recent.filter(pl.col("strength") < 0.05)
    assert min(strong.height, weak.height) > 200
    assert float(np.asarray(strong["count"]).mean()) > 7 * float(np.asarray(weak["count"]).mean())


def test_counts_are_as_good_as_possible_where_they_should_be(counts_suffice: World) -> None:
    """Against counts drawn from the planted strengths themselves, the best any method could have to go by."""
    observed = counted(counts_suffice)
    broadcasts = counts_suffice.table("rooms").group_by("host_id").agg(broadcasts=pl.len())
    ideal = observed.join(broadcasts, on="host_id")
    draws = np.random.default_rng(0).binomial(np.asarray(ideal["broadcasts"]), np.asarray(ideal["strength"]))
    best = rank_correlation(ideal.with_columns(ideal=pl.Series(draws)), "ideal")
    assert best > 0.85
    assert rank_correlation(observed, "count") > 0.97 * best


def test_counts_mislead_where_ties_move(calibrated: World, counts_suffice: World) -> None:
    moving, fixed = rank_correlation(counted(calibrated), "count"), rank_correlation(counted(counts_suffice), "count")
    assert moving < fixed - 0.1


def test_private_domain_lives_from_follows_and_traffic_from_the_feed(calibrated: World, traffic: World) -> None:
    def share(world: World, source: str) -> float:
        return float(np.asarray(world.table("watches")["source"] == source).mean())

    assert share(calibrated, "follow") > 0.25
    assert share(traffic, "follow") < 0.1
    assert share(traffic, "recommend") > 0.8

    def taps_per_comment(world: World) -> float:
        acts = world.table("engagements")
        taps = acts.filter(pl.col("kind") == "like")["count"].sum()
        return float(taps) / acts.filter(pl.col("kind") == "comment").height

    assert taps_per_comment(traffic) > 3 * taps_per_comment(calibrated)


def test_untrusted_hosts_have_more_refunds(calibrated: World) -> None:
    cheats = calibrated.truth("cheats").select("user_id")
    orders = calibrated.table("purchases").join(cheats, on="user_id", how="anti").unique("order_id")
    refunded = orders.with_columns(
        refunded=pl.col("order_id").is_in(calibrated.table("refunds")["order_id"].implode())
    ).join(calibrated.truth("hosts"), on="host_id")
    rate = {
        bad: float(np.asarray(refunded.filter((pl.col("trust") < 0.7) == bad)["refunded"]).mean())
        for bad in (True, False)
    }
    assert rate[True] > 1.5 * rate[False]


def test_fake_buyers_order_at_one_host_after_seconds_and_hold_no_tie(calibrated: World) -> None:
    cheats = calibrated.truth("cheats")
    assert cheats.height == 10
    assert cheats.join(calibrated.truth("hosts").filter("cheat"), on="host_id").height == cheats.height
    orders = calibrated.table("purchases").join(cheats.select("user_id"), on="user_id")
    assert orders.height > 0
    assert orders.join(cheats, on=["user_id", "host_id"]).height == orders.height
    stays = calibrated.table("watches").join(cheats.select("user_id"), on="user_id")
    assert ((stays["left_at"] - stays["entered_at"]).dt.total_seconds().drop_nulls() <= 100).all()
    assert calibrated.truth("strengths").join(cheats.select("user_id"), on="user_id").is_empty()


def test_truth_tells_who_follows_and_who_is_blocked(calibrated: World) -> None:
    keys = ["user_id", "host_id"]
    truth = calibrated.truth("strengths")
    assert truth.select(keys).n_unique() == truth.height
    last = calibrated.table("follows").sort("at").group_by(keys, maintain_order=True).last()
    following = last.filter(pl.col("action") == "follow").select(keys).sort(keys)
    # A fact that falls a few minutes beyond the window is planted already and not written yet.
    planted = truth.filter("following").select(keys)
    assert following.join(planted, on=keys, how="semi").height >= 0.99 * max(following.height, planted.height)
    bonds = truth["bond"]
    assert bonds.is_between(0.0, 1.0).all()
    expected = strength_of(Relations(), truth["affinity"].to_numpy(), bonds.to_numpy())
    free = ~truth["blocked"].to_numpy()
    np.testing.assert_allclose(truth["strength"].to_numpy()[free], expected[free], rtol=1e-5)
    assert (truth.filter("blocked")["strength"] == 0).all()


def test_propensities_agree_with_the_shares_of_the_slots(calibrated: World) -> None:
    """Explore slots are used no more often than their share; the rail states its own chance."""
    shown = calibrated.table("impressions")
    slates = shown.select("user_id", "at").n_unique()
    for slot, share in (("newcomer", 0.25), ("venue", 0.1), ("commercial", 0.15)):
        seen = shown.filter(pl.col("slot") == slot)
        assert seen.height <= 1.1 * share * slates
        assert (seen["propensity"] <= share + 1e-12).all()
    assert (shown.filter(pl.col("slot") == "follow")["propensity"] == 0.25).all()
