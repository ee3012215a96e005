"""Quarantine: rows that break a rule are set aside with their reason, every other row is used.

Three kinds of rules: those of the row itself (`recsys.events.schemas`), those that need the clock or the room (here),
and duplicate keys (`recsys.events.keys`).

**No rule looks into the future of the row it judges.** Whether a row is good must be decided by what was known at its
own time, or else a past score would change when the future arrives. So

- a room speaks about a row (`host_differs_from_room`, `entered_after_end`) only if it had started by the row's time; an
  entry before the start of its room is a row whose room is not known yet: it is used, without the room, and noted
- an end counts against later entries only, and of contradicting ends the earliest holds
- of rows with one key the earliest wins

One row may speak of two instants (`entered_at` and `left_at`); if one is impossible the whole row is set aside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from recsys.errors import ConfigError
from recsys.events.keys import has_shared_keys, one_per_key
from recsys.events.reading import EventTables, reading, wanted_type
from recsys.events.refunds import effective_refunds
from recsys.events.report import QualityReport, TableQuality
from recsys.events.schemas import REASON_ORDER, TABLES, columns_of, reason
from recsys.ids import IdKind

CLOCK_TOLERANCE = timedelta(hours=1)
TIME_OF = {"watches": "entered_at", "engagements": "at", "purchases": "at", "impressions": "at"}
"""Tables whose rows name a room, and the column that says when they happened."""
GUEST_TABLES = ("engagements", "purchases")
"""In these the host may also be a co-host of the room: one gives to, and buys from, a guest."""

Narrow = Callable[[pl.LazyFrame], pl.LazyFrame]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Events:
    """The good rows.

    Columns are those of the schemas, with every time as int64 µs since the epoch. Tables that name a room have
    `room_started_at` besides: the start of that room, null where no rooms table knows it; it may be later than the row
    itself, and then the room was not known yet.

    Attributes:
        quality: what was read, used and set aside.
        tables: good rows, one per key; an open row and its completion are one row. Absent tables are absent.
        rooms: the good rooms, in memory (empty without a rooms table).
        refunds: refunds that have an order: order_id, user_id, host_id, at (when it takes effect), amount_minor, kind.
        id_kinds: role → kind of ids.
    """

    quality: QualityReport
    tables: dict[str, pl.LazyFrame]
    rooms: pl.DataFrame
    refunds: pl.DataFrame
    id_kinds: dict[str, IdKind]
    _rows: dict[str, pl.LazyFrame] = field(repr=False)
    _shared: frozenset[str] = field(repr=False)

    def narrowed(self, table: str, narrow: Narrow) -> pl.LazyFrame:
        """Good rows of one table after `narrow`. Cheaper than filtering `tables`: keys are compared among the narrowed
        rows only. So of the rows of one key `narrow` may drop all (by user), or the later ones, which lose anyway."""
        rows = narrow(self._rows[table])
        return one_per_key(table, rows).drop("good_rows") if table in self._shared else rows


def clean(tables: EventTables, *, now: datetime | None = None) -> Events:
    """Set broken rows aside and count them.

    Args:
        now: the wall clock; rows more than an hour later are set aside. None: no such rule.

    Raises:
        InputRefused: a file turns out to be damaged.
        ConfigError: `now` has no time zone.
    """
    if now is not None and now.tzinfo is None:
        raise ConfigError("a time without a time zone names no instant", where="now", got=now, hint="give it in UTC")
    latest_us = None if now is None else (now + CLOCK_TOLERANCE - _EPOCH) // timedelta(microseconds=1)
    qualities: dict[str, TableQuality] = {}
    rows: dict[str, pl.LazyFrame] = {}
    shared: set[str] = set()
    rooms: pl.DataFrame | None = None
    for table in TABLES:  # rooms come first: the others are judged by them
        if table not in tables.scans:
            continue
        with reading(f"{tables.folder}, table {table}"):
            kept, total, counts = _by_row_rules(table, tables.scans[table])
            kept, n_good, more, notes = _by_clock_and_room(table, kept, latest_us, rooms)
            counts |= more
            if table == "rooms":
                kept, notes = _without_own_host(kept)
                kept = kept.collect(engine="streaming").lazy()
            if has_shared_keys(table, kept, n_good):
                shared.add(table)
                used = one_per_key(table, kept).select(pl.col("good_rows").sum()).collect(engine="streaming").item()
                counts["duplicate_key"], n_good = n_good - used, used
            if table in shared and "user_id" not in TABLES[table].KEY:
                # rows of one key may name several users, so keys cannot be compared bucket by bucket; these are small
                kept = one_per_key(table, kept).drop("good_rows").collect().lazy()
                shared.discard(table)
            if table == "rooms":
                rooms = kept.collect()
        rows[table] = kept
        counts = {name: counts[name] for name in REASON_ORDER if counts.get(name)}
        qualities[table] = TableQuality(total, n_good, counts, notes)
    good = {t: one_per_key(t, f).drop("good_rows") if t in shared else f for t, f in rows.items()}
    with reading(f"{tables.folder}, table refunds"):
        refunds = _refunds(good, qualities, tables.id_kinds)
    report = QualityReport(qualities, dict(tables.unused_columns), list(tables.unknown_files))
    rooms = pl.DataFrame(schema=_empty_rooms(tables)) if rooms is None else rooms
    return Events(report, good, rooms, refunds, dict(tables.id_kinds), rows, frozenset(shared))


def _by_row_rules(table: str, scan: pl.LazyFrame) -> tuple[pl.LazyFrame, int, dict[str, int]]:
    """Rows that keep the rules of their schema (times as µs), how many there were, and broken rows by first reason."""
    kept, failed = TABLES[table].filter(scan)
    counts: dict[str, int] = {}
    for rules, n in failed.cooccurrence_counts().items():
        first = min((reason(table, rule) for rule in rules), key=REASON_ORDER.index)
        counts[first] = counts.get(first, 0) + n
    total = int(scan.select(pl.len()).collect(engine="streaming").item())
    times = columns_of(table, "time", "plan")
    return kept.lazy().with_columns(pl.col(times).to_physical()), total, counts


def _by_clock_and_room(
    table: str, rows: pl.LazyFrame, latest_us: int | None, rooms: pl.DataFrame | None
) -> tuple[pl.LazyFrame, int, dict[str, int], dict[str, int]]:
    """Rows that agree with the clock and with their room, how many, broken rows by reason, and notes."""
    names = rows.collect_schema().names()
    times = columns_of(table, "time")
    late = pl.any_horizontal([pl.col(t) > latest_us for t in times]) if latest_us is not None else pl.lit(False)
    broken: dict[str, pl.Expr] = {"later_than_now": late}
    noted: dict[str, pl.Expr] = {}
    if table in TIME_OF:
        names = [*names, "room_started_at"]
        if rooms is None:
            rows = rows.with_columns(room_started_at=pl.lit(None, pl.Int64))
        else:
            at, start = pl.col(TIME_OF[table]), pl.col("room_started_at")
            rows = rows.join(_room_side(table, rooms), on="room_id", how="left")
            same = pl.col("host_id") == pl.col("room_host")
            if table in GUEST_TABLES:
                same = same | pl.col("room_cohosts").list.contains(pl.col("host_id"))
            broken["host_differs_from_room"] = (start <= at) & ~same
            if table == "watches":
                broken["entered_after_end"] = (start <= at) & (pl.col("room_ended_at") < at)
            noted["room_unknown"] = start.is_null() & pl.col("room_id").is_not_null()
            noted["before_room_start"] = start > at
    sums, before = [], pl.lit(False)
    for name, rule in broken.items():
        breaks = rule.fill_null(False)
        sums.append((~before & breaks).sum().alias(name))
        before = before | breaks
    sums += [(~before & note.fill_null(False)).sum().alias(name) for name, note in noted.items()]
    found = rows.select(*sums, n=pl.len()).collect(engine="streaming").row(0, named=True)
    counts = {name: int(found[name]) for name in broken}
    notes = {name: int(found[name]) for name in noted if found[name]}
    if any(counts.values()):
        rows = rows.filter(~before)
    return rows.select(names), int(found["n"]) - sum(counts.values()), counts, notes


def _room_side(table: str, rooms: pl.DataFrame) -> pl.LazyFrame:
    """What the rows of `table` need to know of their room."""
    columns = [pl.col("room_id"), pl.col("host_id").alias("room_host"), pl.col("started_at").alias("room_started_at")]
    if table == "watches":
        columns.append(pl.col("ended_at").alias("room_ended_at"))
    if table in GUEST_TABLES:
        columns.append(pl.col("cohost_ids").fill_null([]).alias("room_cohosts"))
    return rooms.lazy().select(columns)


def _without_own_host(rooms: pl.LazyFrame) -> tuple[pl.LazyFrame, dict[str, int]]:
    """Rooms with the co-hosts other than the host, each once, in ascending order."""
    ids = pl.col("cohost_ids")
    others = ids.list.drop_nulls().list.unique().list.set_difference(pl.concat_list("host_id")).list.sort()
    dropped = (ids.list.contains(pl.col("host_id")) | (ids.list.drop_nulls().list.len() < ids.list.len())).sum()
    n = int(rooms.select(dropped).collect(engine="streaming").item() or 0)
    return rooms.with_columns(cohost_ids=others), {"cohost_is_host": n} if n else {}


def _refunds(
    good: dict[str, pl.LazyFrame], qualities: dict[str, TableQuality], kinds: dict[str, IdKind]
) -> pl.DataFrame:
    """Refunds with their orders; notes how many wait."""
    ids = {name: wanted_type("purchases", name, kinds) for name in ("order_id", "user_id", "host_id")}
    none = pl.DataFrame(schema={**ids, "at": pl.Int64(), "amount_minor": pl.Int64(), "kind": pl.String()})
    if "refunds" not in good:
        return none
    refunds = good["refunds"].collect(engine="streaming")
    effective, waiting = none, refunds.height
    if "purchases" in good:
        effective, waiting = effective_refunds(refunds, good["purchases"])
    if waiting:
        qualities["refunds"].notes["waiting"] = waiting
    return effective


def _empty_rooms(tables: EventTables) -> dict[str, pl.DataType]:
    return {
        name: pl.Int64() if name in ("started_at", "ended_at") else wanted_type("rooms", name, tables.id_kinds)
        for name in TABLES["rooms"].columns()
    }
