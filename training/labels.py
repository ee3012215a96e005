"""What logged ties did next: the labels of the strength heads, from facts later than the moment a tie was written down.

Two kinds. Of the host's next broadcast: did the user enter it, stay, comment, buy. Within a horizon: did he buy again,
did he turn away. A label is given only where the facts known by the as-of decide it; other ties are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.events.facts import US_PER_DAY, FactKind

STAY_MS = 60_000
"""A stay of a minute is a stay."""
AFTER_BROADCAST_US = 30 * 60_000_000
"""Orders up to half an hour after a broadcast count as its orders."""
REBUY_DAYS = 30
AWAY_DAYS = 7
TURNED_AWAY = (FactKind.UNFOLLOW, FactKind.BLOCK, FactKind.REFUND, FactKind.DISPUTE)


@dataclass(frozen=True)
class Labels:
    """Labels by head: frames `row` (position in the log) and `y` (0 or 1); heads without any say why in `absent`."""

    of: Mapping[str, pl.DataFrame]
    absent: Mapping[str, str]


@dataclass(frozen=True)
class LoggedTies:
    """Ties as they were written down, and what happened next: what probabilities of the next broadcast learn from.

    Args:
        ties: user, host, at, tied, weight (`training.tie_log.TieLog.frame`); rows (R, F_tie) their features.
        rooms: all broadcasts (`room_table`).
        facts: facts from the first logged tie on, before the as-of `as_of_us`, µs.
        later_us: ties logged before it train, those after it calibrate and judge.
    """

    ties: pl.DataFrame
    rows: npt.NDArray[np.float32]
    rooms: pl.DataFrame
    facts: pl.DataFrame
    later_us: int
    as_of_us: int

    def labels(self, product_slot_s: float) -> tuple[Labels, pl.DataFrame]:
        """As `broadcast_labels`."""
        slot_ms = round(1000 * product_slot_s)
        return broadcast_labels(self.ties, self.rooms, self.facts, before_us=self.as_of_us, product_slot_ms=slot_ms)

    def asked(self, labels: pl.DataFrame) -> pl.DataFrame:
        """Labels (row, y) with the ties they are of, in the order of the log."""
        return labels.join(self.ties.with_row_index("row"), on="row", how="left").sort("row")

    def split(self, asked: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The earlier ties of `asked`, and the later ones in the order of time."""
        later = pl.col("at") >= self.later_us
        return asked.filter(~later), asked.filter(later).sort("at", "row")


def next_broadcast(ties: pl.DataFrame, broadcasts: pl.DataFrame, entries: pl.DataFrame) -> pl.DataFrame:
    """Logged ties whose host broadcast again, with `came`: whether the user entered that next broadcast.

    Adds `row`, the position in the log. Ties whose host's next broadcast is still to come or has not ended are left
    out: nobody knows yet.

    Args:
        ties: user, host, at.
        broadcasts: host, room, started_at and `finished`, whether its end is known by the as-of.
        entries: user, room of all entries before the as-of.
    """
    asked = ties.with_row_index("row").with_columns(after=pl.col("at") + 1).sort("after")
    starts = broadcasts.select("host", "room", "started_at", "finished", pl.col("^ended_at$")).sort("started_at")
    met = asked.join_asof(
        starts, left_on="after", right_on="started_at", by="host", strategy="forward", check_sortedness=False
    ).filter(pl.col("finished"))
    came = entries.select("user", "room").unique().with_columns(came=pl.lit(1, dtype=pl.Int8))
    return met.join(came, on=["user", "room"], how="left").with_columns(pl.col("came").fill_null(0)).sort("row")


def broadcast_labels(
    ties: pl.DataFrame, rooms: pl.DataFrame, facts: pl.DataFrame, *, before_us: int, product_slot_ms: int
) -> tuple[Labels, pl.DataFrame]:
    """Labels of the host's next broadcast for the logged ties.

    Args:
        ties: the log: user, host, at.
        rooms: all broadcasts (`room_table`).
        facts: the facts from the first logged tie on, before the as-of `before_us` (µs).
        product_slot_ms: a stay longer than two of these is a stay for the person.

    Returns:
        the labels of returns, stays, lingers, comments, buys; and `next_broadcast`'s frame with `orders`, how many the
        user placed in it (null where the half hour after it is not over).
    """
    of_pair = ("user", "host", "room", "at", "value", "aux")
    by_kind = {
        kind: facts.filter(pl.col("kind") == int(kind))
        .select(*of_pair)
        .with_columns(pl.col("user", "host").cast(pl.Int64))
        for kind in (FactKind.ENTRY, FactKind.STAY, FactKind.COMMENT, FactKind.ORDER_LINE)
    }
    ended = (pl.col("ended_at") < before_us).fill_null(False)
    broadcasts = rooms.filter(pl.col("started_at") < before_us).with_columns(finished=ended)
    met = next_broadcast(ties, broadcasts, by_kind[FactKind.ENTRY])
    stayed = by_kind[FactKind.STAY].group_by("user", "room").agg(stay_ms=pl.col("value").sum())
    commented = by_kind[FactKind.COMMENT].select("user", "room").unique().with_columns(commented=pl.lit(1, pl.Int8))
    met = met.join(stayed, on=["user", "room"], how="left").join(commented, on=["user", "room"], how="left")
    met = met.join(_orders(met, by_kind[FactKind.ORDER_LINE]), on=["user", "room"], how="left").with_columns(
        orders=pl.when(pl.col("ended_at") + AFTER_BROADCAST_US < before_us).then(pl.col("orders").fill_null(0))
    )
    stay = met.filter((pl.col("came") == 0) | pl.col("stay_ms").is_not_null())
    stay_ms = pl.col("stay_ms").fill_null(0)
    found = {
        "returns": _labels(met, pl.col("came") > 0),
        "stays": _labels(stay, stay_ms >= STAY_MS),
        "lingers": _labels(stay, stay_ms > 2 * product_slot_ms),
        "comments": _labels(met, pl.col("commented").is_not_null()),
        "buys": _labels(met.filter(pl.col("orders").is_not_null()), pl.col("orders") > 0),
    }
    needed = {
        "stays": FactKind.STAY,
        "lingers": FactKind.STAY,
        "comments": FactKind.COMMENT,
        "buys": FactKind.ORDER_LINE,
    }
    words = {FactKind.STAY: "an exit (left_at)", FactKind.COMMENT: "a comment", FactKind.ORDER_LINE: "an order"}
    absent = {name: f"no event tells of {words[kind]}" for name, kind in needed.items() if not len(by_kind[kind])}
    return Labels({name: frame for name, frame in found.items() if name not in absent}, absent), met.sort("row")


def horizon_label(
    ties: pl.DataFrame, facts: pl.DataFrame, *, kinds: tuple[FactKind, ...], days: float, before_us: int
) -> pl.DataFrame:
    """Whether one of `kinds` happened to the tie within `days` after it was written down: row, y.

    A fact at the very instant of the log was not known then and counts. Ties whose horizon is not over are left out.
    """
    horizon = round(days * US_PER_DAY)
    of_kind = facts.filter(pl.col("kind").is_in([int(kind) for kind in kinds]))
    events = of_kind.select(pl.col("user", "host").cast(pl.Int64), then="at").sort("then")
    asked = ties.with_row_index("row").filter(pl.col("at") + horizon < before_us).sort("at")
    met = asked.join_asof(
        events, left_on="at", right_on="then", by=["user", "host"], strategy="forward", check_sortedness=False
    )
    return _labels(met, (pl.col("then") - pl.col("at") <= horizon).fill_null(False)).sort("row")


def _labels(frame: pl.DataFrame, happened: pl.Expr) -> pl.DataFrame:
    return frame.select("row", y=happened.cast(pl.Int8))


def _orders(met: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """user, room, orders: distinct orders of the user with the host from the start to half an hour after the end."""
    spans = met.select("user", "host", "room", "started_at", "ended_at").unique()
    within = spans.join(lines.select("user", "host", "at", order="aux"), on=["user", "host"]).filter(
        (pl.col("at") >= pl.col("started_at")) & (pl.col("at") < pl.col("ended_at") + AFTER_BROADCAST_US)
    )
    return within.group_by("user", "room").agg(orders=pl.col("order").n_unique())
