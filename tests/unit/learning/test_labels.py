"""Labels of a timeline told by hand."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest

from recsys.events.facts import FACT_SCHEMA, US_PER_DAY, FactKind
from training.labels import TURNED_AWAY, Labels, broadcast_labels, horizon_label

MINUTE = 60_000_000
HOUR = 60 * MINUTE
SLOT_MS = 360_000


def facts(*rows: tuple[int, FactKind, int, int, int, int, int]) -> pl.DataFrame:
    """(at, kind, user, host, room, value, aux)."""
    whole = [(at, int(kind), user, host, room, 1, value, aux) for at, kind, user, host, room, value, aux in rows]
    return pl.DataFrame(whole, schema=FACT_SCHEMA, orient="row")


def logged(*rows: tuple[int, int, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"user": pl.Int64, "host": pl.Int64, "at": pl.Int64}, orient="row")


ROOMS = pl.DataFrame(
    {
        "room": [10, 11, 12],
        "host": [0, 0, 1],
        "started_at": [10 * HOUR, 34 * HOUR, 10 * HOUR],
        "ended_at": [12 * HOUR, 36 * HOUR, None],
    }
)
TOLD = facts(
    (10 * HOUR + 1, FactKind.ENTRY, 7, 0, 10, 10 * HOUR, 0),
    (10 * HOUR + 2, FactKind.COMMENT, 7, 0, 10, 0, 0),
    (10 * HOUR + 30 * MINUTE, FactKind.STAY, 7, 0, 10, 800_000, 10 * HOUR + 1),
    (12 * HOUR + 20 * MINUTE, FactKind.ORDER_LINE, 7, 0, -1, 500, 1),
    (12 * HOUR + 21 * MINUTE, FactKind.ORDER_LINE, 7, 0, -1, 500, 1),
    (12 * HOUR + 29 * MINUTE, FactKind.ORDER_LINE, 7, 0, -1, 500, 2),
    (10 * HOUR + 3, FactKind.ENTRY, 8, 0, 10, 10 * HOUR, 0),
    (10 * HOUR + 30_000_000, FactKind.STAY, 8, 0, 10, 29_000, 10 * HOUR + 3),
    (10 * HOUR + 4, FactKind.ENTRY, 9, 0, 10, 10 * HOUR, 0),
    (13 * HOUR, FactKind.ORDER_LINE, 9, 0, -1, 500, 3),
)
ASKED = logged((7, 0, HOUR), (8, 0, HOUR), (9, 0, HOUR), (6, 0, HOUR), (7, 1, HOUR))


def said(labels: Labels, name: str) -> list[tuple[int, int]]:
    return labels.of[name].sort("row").rows()


def test_what_became_of_each_tie_at_the_next_broadcast() -> None:
    labels, met = broadcast_labels(ASKED, ROOMS, TOLD, before_us=40 * HOUR, product_slot_ms=SLOT_MS)
    assert said(labels, "returns") == [(0, 1), (1, 1), (2, 1), (3, 0)]  # the last host's broadcast has not ended
    assert said(labels, "stays") == [(0, 1), (1, 0), (3, 0)]  # nobody knows how long user 9 stayed
    assert said(labels, "lingers") == [(0, 1), (1, 0), (3, 0)]
    assert said(labels, "comments") == [(0, 1), (1, 0), (2, 0), (3, 0)]
    assert said(labels, "buys") == [(0, 1), (1, 0), (2, 0), (3, 0)]  # user 9 bought an hour after the end
    assert met["orders"].to_list() == [2, 0, 0, 0]
    assert not labels.absent


def test_orders_are_not_judged_while_the_half_hour_after_the_end_runs() -> None:
    labels, _ = broadcast_labels(ASKED, ROOMS, TOLD, before_us=12 * HOUR + 10 * MINUTE, product_slot_ms=SLOT_MS)
    assert len(labels.of["returns"]) == 4 and len(labels.of["buys"]) == 0


@pytest.mark.parametrize(
    ("kinds", "absent"),
    [
        ((FactKind.ENTRY,), {"stays", "lingers", "comments", "buys"}),
        ((FactKind.ENTRY, FactKind.STAY), {"comments", "buys"}),
        ((FactKind.ENTRY, FactKind.COMMENT, FactKind.ORDER_LINE), {"stays", "lingers"}),
    ],
)
def test_heads_without_their_events_are_named(kinds: Sequence[FactKind], absent: set[str]) -> None:
    told = TOLD.filter(pl.col("kind").is_in([int(kind) for kind in kinds]))
    labels, _ = broadcast_labels(ASKED, ROOMS, told, before_us=40 * HOUR, product_slot_ms=SLOT_MS)
    assert (
        set(labels.absent) == absent and set(labels.of) == {"returns", "stays", "lingers", "comments", "buys"} - absent
    )
    assert all("no event tells of" in why for why in labels.absent.values())


def test_a_horizon_counts_from_the_moment_asked_and_must_be_over() -> None:
    told = facts(
        (0, FactKind.UNFOLLOW, 1, 0, -1, 0, 0),  # before
        (2 * US_PER_DAY, FactKind.REFUND, 1, 0, -1, 0, 0),
        (2 * US_PER_DAY, FactKind.BLOCK, 1, 5, -1, 0, 0),  # another host
        (11 * US_PER_DAY, FactKind.DISPUTE, 2, 0, -1, 0, 0),
    )
    asked = logged(
        (1, 0, 1), (1, 0, 2 * US_PER_DAY), (1, 0, 2 * US_PER_DAY + 1),
        (2, 0, 4 * US_PER_DAY - 1), (2, 0, 4 * US_PER_DAY), (2, 0, 5 * US_PER_DAY),
    )  # fmt: skip
    found = horizon_label(asked, told, kinds=TURNED_AWAY, days=7, before_us=12 * US_PER_DAY)
    assert found.rows() == [(0, 1), (1, 1), (2, 0), (3, 0), (4, 1)]
