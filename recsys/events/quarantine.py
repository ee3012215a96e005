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

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from recsys.errors import ConfigError
from recsys.events.keys import ROWS_COMPARED, has_shared_keys, one_per_key, parts_by_key
from recsys.events.known import LINE_COLUMNS, Known, check_kinds, continuing, rooms_with_known
from recsys.events.lake.partition import bucket_of, has_buckets
from recsys.events.lake.view import LakeView
from recsys.events.log_tables import log_source
from recsys.events.reading import EventTables, reading, wanted_type
from recsys.events.refunds import effective_refunds
from recsys.events.report import QualityReport, TableQuality
from recsys.events.row_rules import by_row_rules, typed_rows
from recsys.events.schemas import REASON_ORDER, TABLES, columns_of
from recsys.events.single_rows import CLOCK_TOLERANCE_US
from recsys.id_kinds import IdKind
from recsys.instants import from_datetime

TIME_OF = {"watches": "entered_at", "engagements": "at", "purchases": "at", "impressions": "at"}
"""Tables whose rows name a room, and the column that says when they happened."""
GUEST_TABLES = ("engagements", "purchases")
"""In these the host may also be a co-host of the room: one gives to, and buys from, a guest."""

Narrow = Callable[[pl.LazyFrame], pl.LazyFrame]


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
    _typed: dict[str, pl.LazyFrame] = field(repr=False)  # rows that keep their own rules
    _judge: dict[str, Narrow] = field(repr=False)  # sets aside what disagrees with the clock or the room
    _shared: frozenset[str] = field(repr=False)  # tables in which several rows share a key
    _source: EventTables = field(repr=False)
    _in_memory: frozenset[str] = field(repr=False)  # tables of `_typed` that were collected

    @property
    def lake(self) -> LakeView | None:
        """What is seen of the lake the rows come from, if they come from one."""
        return self._source.lake

    @property
    def offsets(self) -> dict[str, int]:
        """Last offset that is contained, per source that has offsets."""
        if self.lake is None:
            return {}
        manifest = self.lake.manifest
        return {manifest.source_name: manifest.seq} | {log_source(log): at for log, at in manifest.logs.items()}

    @property
    def buckets(self) -> int | None:
        """How many buckets of users the rows are kept in; None: they come from no lake."""
        return None if self._source.lake is None else self._source.lake.buckets

    def narrowed(self, table: str, narrow: Narrow, bucket: tuple[int, int] | None = None) -> pl.LazyFrame:
        """Good rows of one table after `narrow`. Cheaper than filtering `tables`: few rows meet rooms and keys.

        So of the rows of one key `narrow` may drop all (by user), or the later ones, which lose anyway.

        Args:
            bucket: (b, B): of a lake, only the users of bucket b of B.
        """
        typed = self._typed[table]
        if bucket is not None and self.buckets is not None and has_buckets(table):
            typed = self.of_bucket(table, bucket)
        rows = self._judge[table](narrow(typed))
        return one_per_key(table, rows).drop("good_rows") if table in self._shared else rows

    def of_bucket(self, table: str, bucket: tuple[int, int]) -> pl.LazyFrame:
        """Rows of a lake's bucket of users that keep their own rules."""
        if table not in self._in_memory:
            return typed_rows(table, self._source.of_bucket(table, bucket))[0]
        users = self._typed[table].collect_schema()["user_id"]
        return self._typed[table].filter(bucket_of("user_id", users, bucket[1]) == bucket[0])


def clean(tables: EventTables, *, now: datetime | None = None, known: Known | None = None) -> Events:
    """Set broken rows aside and count them.

    Args:
        known: rooms and orders of the events before these, when these continue them (`known_before`).
        now: the wall clock; rows more than an hour later are set aside. None: no such rule.

    Raises:
        InputRefused: a file turns out to be damaged, or ids are of another kind than the known ones.
        ConfigError: `now` has no time zone.
    """
    if now is not None and now.tzinfo is None:
        raise ConfigError("a time without a time zone names no instant", where="now", got=now, hint="give it in UTC")
    latest_us = None if now is None else from_datetime(now) + CLOCK_TOLERANCE_US
    kinds = dict(tables.id_kinds)
    if known is not None:
        check_kinds(known.id_kinds(), kinds)
        kinds = {**known.id_kinds(), **kinds}
    qualities: dict[str, TableQuality] = {}
    typed: dict[str, pl.LazyFrame] = {}
    judges: dict[str, Narrow] = {}
    shared: set[str] = set()
    in_memory: set[str] = set()
    rooms: pl.DataFrame | None = None
    judging = known.rooms if known is not None and known.rooms.height else None
    for table in TABLES:  # rooms come first: the others are judged by them
        if table not in tables.scans:
            continue
        with reading(f"{tables.folder}, table {table}"):
            typed[table], total, counts = by_row_rules(table, tables.scans[table])
            judges[table], n_good, more, notes = _by_clock_and_room(table, typed[table], latest_us, judging)
            kept = judges[table](typed[table])
            counts |= more
            if table == "rooms":
                kept, notes = _without_own_host(kept)
                told = kept.collect(engine="streaming")
                if judging is not None:
                    told = continuing(told, judging)
                counts["duplicate_key"], n_good = n_good - told.height, told.height
                kept = typed[table] = told.lazy()
                judges[table] = _agreed
            if has_shared_keys(table, _apart(table, tables, kept, judges[table], n_good), n_good):
                shared.add(table)
                used = one_per_key(table, kept).select(pl.col("good_rows").sum()).collect(engine="streaming").item()
                counts["duplicate_key"], n_good = counts.get("duplicate_key", 0) + n_good - used, used
            if table in shared and "user_id" not in TABLES[table].KEY:
                # rows of one key may name several users, so keys cannot be compared bucket by bucket; these are small
                kept = one_per_key(table, kept).drop("good_rows").collect().lazy()
                typed[table], judges[table] = kept, _agreed
                shared.discard(table)
                in_memory.add(table)
            if table == "rooms":
                rooms = kept.collect()
                judging = rooms if judging is None else rooms_with_known(rooms, judging)
        counts = {name: counts[name] for name in REASON_ORDER if counts.get(name)}
        qualities[table] = TableQuality(total, n_good, counts, notes)
    judged = {table: judges[table](rows) for table, rows in typed.items()}
    good = {t: one_per_key(t, rows).drop("good_rows") if t in shared else rows for t, rows in judged.items()}
    with reading(f"{tables.folder}, table refunds"):
        refunds = _refunds(good, qualities, kinds, known)
    report = QualityReport(qualities, dict(tables.unused_columns), list(tables.unknown_files))
    rooms = pl.DataFrame(schema=_empty_rooms(kinds)) if rooms is None else rooms
    held = frozenset(in_memory)
    return Events(report, good, rooms, refunds, kinds, typed, judges, frozenset(shared), tables, held)


def _apart(table: str, tables: EventTables, kept: pl.LazyFrame, judge: Narrow, n: int) -> Iterator[pl.LazyFrame]:
    """The rows kept, in parts that share no key: of a lake its buckets, so that every file is read once."""
    buckets = 1 << (n // ROWS_COMPARED).bit_length()
    if buckets == 1 or tables.lake is None or "user_id" not in TABLES[table].KEY:
        yield from parts_by_key(table, kept, n)
        return
    for bucket in range(buckets):
        yield judge(typed_rows(table, tables.of_bucket(table, (bucket, buckets)))[0])


def _by_clock_and_room(
    table: str, rows: pl.LazyFrame, latest_us: int | None, rooms: pl.DataFrame | None
) -> tuple[Narrow, int, dict[str, int], dict[str, int]]:
    """What keeps the rows that agree with the clock and with their room; how many do; broken rows by reason; notes."""
    times = columns_of(table, "time")
    late = pl.any_horizontal([pl.col(t) > latest_us for t in times]) if latest_us is not None else pl.lit(False)
    broken: dict[str, pl.Expr] = {"later_than_now": late}
    noted: dict[str, pl.Expr] = {}
    beside: pl.LazyFrame | None = None
    if table in TIME_OF and rooms is not None:
        beside = _room_side(table, rooms)
        at, start, same = pl.col(TIME_OF[table]), pl.col("room_started_at"), pl.col("host_id") == pl.col("room_host")
        if table in GUEST_TABLES:
            same = same | pl.col("room_cohosts").list.contains(pl.col("host_id"))
        broken["host_differs_from_room"] = (start <= at) & ~same
        if table == "watches":
            broken["entered_after_end"] = (start <= at) & (pl.col("room_ended_at") < at)
        noted["room_unknown"] = start.is_null() & pl.col("room_id").is_not_null()
        noted["before_room_start"] = start > at

    def with_room(rows: pl.LazyFrame) -> pl.LazyFrame:
        if beside is not None:
            return rows.join(beside, on="room_id", how="left")
        return rows.with_columns(room_started_at=pl.lit(None, pl.Int64)) if table in TIME_OF else rows

    sums, before = [], pl.lit(False)
    for name, rule in broken.items():
        breaks = rule.fill_null(False)
        sums.append((~before & breaks).sum().alias(name))
        before = before | breaks
    sums += [(~before & note.fill_null(False)).sum().alias(name) for name, note in noted.items()]
    found = with_room(rows).select(*sums, n=pl.len()).collect(engine="streaming").row(0, named=True)
    counts = {name: int(found[name]) for name in broken}
    notes = {name: int(found[name]) for name in noted if found[name]}

    def judge(rows: pl.LazyFrame) -> pl.LazyFrame:
        names = rows.collect_schema().names() + (["room_started_at"] if table in TIME_OF else [])
        rows = with_room(rows)
        return (rows.filter(~before) if any(counts.values()) else rows).select(names)

    return judge, int(found["n"]) - sum(counts.values()), counts, notes


def _agreed(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The judge of rows that were judged before."""
    return rows


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
    good: dict[str, pl.LazyFrame],
    qualities: dict[str, TableQuality],
    kinds: dict[str, IdKind],
    known: Known | None,
) -> pl.DataFrame:
    """Refunds with their orders; notes how many wait."""
    ids = {name: wanted_type("purchases", name, kinds) for name in ("order_id", "user_id", "host_id")}
    none = pl.DataFrame(schema={**ids, "at": pl.Int64(), "amount_minor": pl.Int64(), "kind": pl.String()})
    asked = [good["refunds"]] if "refunds" in good else []
    lines = [good["purchases"].select(LINE_COLUMNS)] if "purchases" in good else []
    if known is not None and known.refunds.height:
        asked.append(known.refunds.lazy())
    if known is not None and known.lines.height:
        lines.append(known.lines.lazy())
    if not asked:
        return none
    refunds = pl.concat(asked, how="diagonal_relaxed").collect(engine="streaming")
    if len(asked) > 1:
        refunds = one_per_key("refunds", refunds.lazy()).drop("good_rows").collect()
    effective, waiting = none, refunds.height
    if lines:
        of = lines[0] if len(lines) == 1 else one_per_key("purchases", pl.concat(lines, how="vertical_relaxed"))
        effective, waiting = effective_refunds(refunds, of)
    if waiting and "refunds" in good:
        qualities["refunds"].notes["waiting"] = waiting
    return effective


def _empty_rooms(kinds: dict[str, IdKind]) -> dict[str, pl.DataType]:
    return {
        name: pl.Int64() if name in ("started_at", "ended_at") else wanted_type("rooms", name, kinds)
        for name in TABLES["rooms"].columns()
    }
