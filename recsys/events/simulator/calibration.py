"""How close a simulated market comes to published figures: each measured on the event tables alone, as on real data.

`TARGETS` holds each figure with its tolerance, where it comes from and how it is measured here (the sources leave
the definition open in places). `measure` computes them from a folder of event tables; `compare` puts both side by
side. Periods: figures of the public log are taken over the first 21 days, as the log had; the others over all days.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

LOG_DAYS = 21
ENGAGED_S = 10.0
MONTH_DAYS = 30
LOG, DOCUMENTS = "public log", "source documents"


@dataclass(frozen=True)
class Target:
    """A figure to be met: |measured − target| ≤ tolerance."""

    name: str
    target: float
    tolerance: float
    source: str
    definition: str


TARGETS = (
    Target("stay_mean_minutes", 10.0, 2.0, LOG, "mean stay of entries of at least 10 s"),
    Target("stay_median_minutes", 3.6, 0.7, LOG, "median stay of entries of at least 10 s"),
    Target("comments_per_minute", 0.016, 0.004, LOG, "comments ÷ minutes watched"),
    Target("likes_per_minute", 0.014, 0.004, LOG, "like rows (bursts of taps) ÷ minutes watched"),
    Target("quiet_host_share", 0.70, 0.08, LOG, "hosts with a broadcast who had fewer than 5 entries"),
    Target(
        "periodic_user_share", 0.27, 0.06, LOG, "viewers with 3 returns to one host 24 h ± 2 h after the entry before"
    ),
    Target("top_host_spend_share", 1.0, 0.05, LOG, "orders and gifts: share of a payer's top host, median of payers"),
    Target("top_host_watch_share", 0.36, 0.07, LOG, "share of that host in the payer's watch time, mean of payers"),
    Target("gift_gini", 0.94, 0.09, LOG, "Gini of the value given, over all who gave (heavy tail: scatters by 0.05)"),
    Target("unentered_per_entry", 2.6, 0.4, LOG, "impressions not entered ÷ entries"),
    Target("live_peak_hour", 20.0, 2.0, LOG, "local hour with most live rooms: 18 to 22"),
    Target("viewing_peak_hour", 21.0, 3.0, LOG, "local hour with most entries: 18 to 24"),
    Target(
        "noon_bump", 1.7, 0.6, LOG, "entries 12–13 ÷ mean of 10–11 and 15–16; the source says only that there is one"
    ),
    Target(
        "repurchase_share", 0.65, 0.08, DOCUMENTS, "customers of a host in one 30-day stretch who buy there in the next"
    ),
    Target("fan_reach", 0.62, 0.08, DOCUMENTS, "fans active while a broadcast is live who are shown or enter it"),
    Target("loyal_stay_minutes", 24.0, 5.0, DOCUMENTS, "mean stay of entries at a host one bought from before"),
    Target("loyal_taps_per_comment", 8.0, 3.0, DOCUMENTS, "taps of likes ÷ comments in those stays"),
)


@dataclass(frozen=True)
class Figure:
    """A target beside what was measured; NaN when the world is too short or too small to tell."""

    target: Target
    measured: float

    @property
    def met(self) -> bool:
        return abs(self.measured - self.target.target) <= self.target.tolerance


def compare(events: Path, utc_offset_hours: float) -> list[Figure]:
    """Every target beside the measured figure of a folder of event tables."""
    measured = measure(events, utc_offset_hours)
    return [Figure(target, measured[target.name]) for target in TARGETS]


def measure(events: Path, utc_offset_hours: float) -> dict[str, float]:
    """All figures of TARGETS by name. Reads whole tables: meant for worlds of some million events."""
    tables = _Tables(Path(events), timedelta(hours=utc_offset_hours))
    return {
        **_stays(tables),
        **_exposure(tables),
        **_rhythm(tables),
        **_spending(tables),
        **_loyalty(tables),
        "quiet_host_share": _quiet_hosts(tables),
        "periodic_user_share": _periodic_users(tables),
        "fan_reach": _fan_reach(tables),
    }


class _Tables:
    """Event tables of one folder; stays in minutes are added to the watches."""

    def __init__(self, events: Path, offset: timedelta) -> None:
        self.events, self.offset = events, offset
        self.rooms = self.read("rooms")
        self.watches = self.read("watches").with_columns(
            minutes=(pl.col("left_at") - pl.col("entered_at")).dt.total_microseconds() / 60e6
        )
        start = self.rooms["started_at"].min()
        assert isinstance(start, datetime), "a market has broadcasts"
        self.start = start
        self.log_end = start + timedelta(days=LOG_DAYS)

    def read(self, table: str) -> pl.DataFrame:
        return pl.read_parquet(self.events / table / "*.parquet")

    def genuine_lines(self) -> pl.DataFrame:
        """Order lines without those of planted fake buyers, whom the sources do not have or had removed."""
        cheats = self.events / "_truth" / "cheats"
        lines = self.read("purchases")
        return lines.join(self.read("_truth/cheats"), on="user_id", how="anti") if cheats.is_dir() else lines

    def local_hour(self, column: str) -> pl.Expr:
        return (pl.col(column) + self.offset).dt.hour()


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")


def _stays(tables: _Tables) -> dict[str, float]:
    watches = tables.watches
    engaged = watches.filter(pl.col("minutes") * 60 >= ENGAGED_S)["minutes"]
    minutes = float(watches["minutes"].sum())
    kinds = tables.read("engagements")["kind"]
    return {
        "stay_mean_minutes": _number(engaged.mean()),
        "stay_median_minutes": _number(engaged.median()),
        "comments_per_minute": _ratio(float((kinds == "comment").sum()), minutes),
        "likes_per_minute": _ratio(float((kinds == "like").sum()), minutes),
    }


def _exposure(tables: _Tables) -> dict[str, float]:
    """An impression counts as entered when its user enters the room within two minutes."""
    shown = tables.read("impressions").select("user_id", "room_id", "at").sort("at")
    entries = tables.watches.select("user_id", "room_id", "entered_at").sort("entered_at")
    joined = shown.join_asof(
        entries,
        left_on="at",
        right_on="entered_at",
        by=["user_id", "room_id"],
        strategy="forward",
        tolerance=timedelta(minutes=2),
        check_sortedness=False,
    )
    return {"unentered_per_entry": _ratio(float(joined["entered_at"].null_count()), float(len(entries)))}


def _rhythm(tables: _Tables) -> dict[str, float]:
    last = tables.watches["entered_at"].max()
    quarters = tables.rooms.select(
        pl.datetime_ranges("started_at", pl.col("ended_at").fill_null(last), interval="15m").alias("at")
    ).explode("at")
    live_hours = quarters.select(tables.local_hour("at").alias("hour"))["hour"]
    hours = tables.watches.select(tables.local_hour("entered_at").alias("hour"))["hour"]
    count = np.bincount(hours.to_numpy(), minlength=24)
    return {
        "live_peak_hour": float(np.bincount(live_hours.to_numpy(), minlength=24).argmax()),
        "viewing_peak_hour": float(count.argmax()),
        "noon_bump": _ratio(float(count[12]), float(count[10] + count[15]) / 2.0),
    }


def _quiet_hosts(tables: _Tables) -> float:
    on_air = tables.rooms.filter(pl.col("started_at") < tables.log_end).select("host_id").unique()
    entries = tables.watches.filter(pl.col("entered_at") < tables.log_end).group_by("host_id").len()
    return _number((on_air.join(entries, on="host_id", how="left")["len"].fill_null(0) < 5).mean())


def _periodic_users(tables: _Tables) -> float:
    entries = tables.watches.filter(pl.col("entered_at") < tables.log_end).sort("user_id", "host_id", "entered_at")
    # Several entries on one day are one visit, timed by the first.
    visits = entries.group_by(
        "user_id", "host_id", (pl.col("entered_at") + tables.offset - timedelta(hours=5)).dt.date().alias("day")
    )
    first = visits.agg(pl.col("entered_at").min().alias("at"))
    gap = pl.col("at").diff().over("user_id", "host_id", order_by="at").dt.total_minutes() / 60
    returns = (
        first.with_columns(daily=((gap - 24.0).abs() <= 2.0)).group_by("user_id", "host_id").agg(pl.col("daily").sum())
    )
    periodic = returns.filter(pl.col("daily") >= 3)["user_id"].n_unique()
    return _ratio(periodic, entries["user_id"].n_unique())


def _spending(tables: _Tables) -> dict[str, float]:
    orders = tables.genuine_lines().select("user_id", "host_id", "at", value="amount_minor")
    gifts = (
        tables.read("engagements")
        .filter(pl.col("kind") == "gift")
        .select("user_id", "host_id", "at", value="value_minor")
    )
    recent = pl.col("at") < tables.log_end
    spent = pl.concat([orders, gifts]).filter(recent)
    by_pair = spent.group_by("user_id", "host_id").agg(pl.col("value").sum())
    total = by_pair.group_by("user_id").agg(total=pl.col("value").sum())
    top = by_pair.sort("value", "host_id", descending=True).unique("user_id", keep="first", maintain_order=True)
    watched = (
        tables.watches.filter(pl.col("entered_at") < tables.log_end)
        .group_by("user_id", "host_id")
        .agg(pl.col("minutes").sum())
    )
    all_minutes = watched.group_by("user_id").agg(all_minutes=pl.col("minutes").sum())
    top = (
        top.join(total, on="user_id")
        .join(watched, on=["user_id", "host_id"], how="left")
        .join(all_minutes, on="user_id")
    )
    per_giver = gifts.filter(recent).group_by("user_id").agg(pl.col("value").sum())["value"]
    return {
        "top_host_spend_share": _number((top["value"] / top["total"]).median()),
        "top_host_watch_share": _number((top["minutes"].fill_null(0) / top["all_minutes"]).mean()),
        "gift_gini": gini(per_giver.to_numpy().astype(np.float64)),
    }


def gini(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Gini coefficient of non-negative values (n,): 0 = all alike, towards 1 = one has everything."""
    ordered = np.sort(values)
    n, total = len(ordered), float(ordered.sum())
    if n == 0 or total == 0.0:
        return float("nan")
    return float(2.0 * (np.arange(1, n + 1) * ordered).sum() / (n * total) - (n + 1) / n)


def _loyalty(tables: _Tables) -> dict[str, float]:
    orders = tables.genuine_lines().select("user_id", "host_id", "at").unique()
    first = orders.group_by("user_id", "host_id").agg(first_order=pl.col("at").min())
    loyal = tables.watches.join(first, on=["user_id", "host_id"]).filter(pl.col("entered_at") > pl.col("first_order"))
    acts = (
        tables.read("engagements").join(first, on=["user_id", "host_id"]).filter(pl.col("at") > pl.col("first_order"))
    )
    taps = float(acts.filter(pl.col("kind") == "like")["count"].sum())
    last = tables.watches["entered_at"].max()
    assert isinstance(last, datetime), "a market has entries"
    cut, month = last - timedelta(days=MONTH_DAYS), timedelta(days=MONTH_DAYS)
    before = orders.filter(pl.col("at").is_between(cut - month, cut)).select("user_id", "host_id").unique()
    again = orders.filter(pl.col("at") > cut).select("user_id", "host_id").unique()
    long_enough = cut - month >= tables.start - timedelta(days=1)
    rebuys = before.join(again, on=["user_id", "host_id"], how="semi")
    return {
        "loyal_stay_minutes": _number(loyal["minutes"].mean()),
        "loyal_taps_per_comment": _ratio(taps, float((acts["kind"] == "comment").sum())),
        "repurchase_share": _ratio(len(rebuys), len(before)) if long_enough else float("nan"),
    }


def _fan_reach(tables: _Tables) -> float:
    follows = tables.read("follows").sort("at")
    rooms = tables.rooms.filter(pl.col("started_at") < tables.log_end).sort("started_at")
    pairs = (
        follows.select("user_id", "host_id")
        .unique()
        .join(rooms.select("room_id", "host_id", "started_at", "ended_at"), on="host_id")
    )
    state = pairs.sort("started_at").join_asof(
        follows, left_on="started_at", right_on="at", by=["user_id", "host_id"], check_sortedness=False
    )
    fans = state.filter(pl.col("action") == "follow").drop("at", "action")
    shown = tables.read("impressions").select("user_id", "room_id", "at")
    entered = tables.watches.select("user_id", "room_id", at="entered_at")
    seen = pl.concat([shown, entered]).sort("at")
    active = fans.join_asof(
        seen.select("user_id", "at"),
        left_on="started_at",
        right_on="at",
        by="user_id",
        strategy="forward",
        check_sortedness=False,
    ).filter(pl.col("at") <= pl.col("ended_at"))
    reached = active.join(seen.select("user_id", "room_id").unique(), on=["user_id", "room_id"], how="semi")
    return _ratio(len(reached), len(active))
