"""Facts out of good rows: the only way from event tables into the rest of the engine.

A row is read when any of its instants lies in the window and gives one fact per instant that does. `fact_stream` sorts
by every column, so the frame does not depend on the order of the input rows. `tie_facts` reads one bucket of users at a
time: the bucket is joined to the lazy scan before anything is held in memory.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

import polars as pl

from recsys.errors import LaotieError
from recsys.events.facts import FACT_SCHEMA, FactKind
from recsys.events.lake.partition import bucket_of
from recsys.events.quarantine import TIME_OF, Events
from recsys.events.reading import reading
from recsys.events.schemas import TABLES, columns_of
from recsys.events.vocabularies import Vocabularies

_ENGAGEMENT = {"like": FactKind.LIKE, "comment": FactKind.COMMENT, "gift": FactKind.GIFT, "share": FactKind.SHARE}
_FOLLOW = {"follow": FactKind.FOLLOW, "unfollow": FactKind.UNFOLLOW}
_FEEDBACK = {
    "not_interested": FactKind.NOT_INTERESTED, "block": FactKind.BLOCK,
    "unblock": FactKind.UNBLOCK, "report": FactKind.REPORT,
}  # fmt: skip
_REFUND = {
    "return": FactKind.REFUND, "refund_only": FactKind.REFUND,
    "counterfeit": FactKind.DISPUTE, "dispute": FactKind.DISPUTE,
}  # fmt: skip
_USER_TABLES = ("watches", "engagements", "purchases", "refunds", "follows", "feedback", "impressions")
_ROOM_TABLES = ("rooms", "notices")

ROWS_OF_PART = 3_000_000
"""Rows of one part of a lake's users at most, on average (some 300 bytes each while states are made of them)."""

Window = tuple[int | None, int | None]


@dataclass(frozen=True)
class _Shape:
    """How one kind of fact is made of a row: the column of its time, and the expressions of the other columns."""

    at: str
    kind: pl.Expr
    count: pl.Expr = field(default_factory=lambda: pl.lit(1))
    value: pl.Expr = field(default_factory=lambda: pl.lit(0))
    aux: pl.Expr = field(default_factory=lambda: pl.lit(0))

    def reads(self) -> set[str]:
        """The columns these facts are made of."""
        made = (self.kind, self.count, self.value, self.aux)
        return {self.at, *_OF_FACTS, *(name for column in made for name in column.meta.root_names())}


_OF_FACTS = ("user_id", "user", "host", "room", "order")


def _one_of(column: str, kinds: dict[str, FactKind], default: FactKind) -> pl.Expr:
    numbers = {name: int(kind) for name, kind in kinds.items()}
    return pl.col(column).replace_strict(numbers, default=int(default), return_dtype=pl.UInt8)


def _is(kind: FactKind) -> pl.Expr:
    return pl.lit(int(kind))


_SHAPES: dict[str, tuple[_Shape, ...]] = {
    "rooms": (
        _Shape("started_at", _is(FactKind.ROOM_START), count=pl.lit(0)),
        _Shape("ended_at", _is(FactKind.ROOM_END), count=pl.lit(0)),
    ),
    "watches": (
        _Shape("entered_at", _is(FactKind.ENTRY), value=pl.col("room_started_at").fill_null(0)),
        _Shape(
            "left_at",
            _is(FactKind.STAY),
            value=(pl.col("left_at") - pl.col("entered_at")) // 1_000,
            aux=pl.col("entered_at"),
        ),
    ),
    "engagements": (
        _Shape(
            "at",
            _one_of("kind", _ENGAGEMENT, FactKind.OTHER_ENGAGEMENT),
            count=pl.col("count").fill_null(1),
            value=pl.col("value_minor").fill_null(0),
        ),
    ),
    "purchases": (
        _Shape(
            "at",
            _is(FactKind.ORDER_LINE),
            count=pl.col("quantity").fill_null(1),
            value=pl.col("amount_minor"),
            aux=pl.col("order"),
        ),
    ),
    "refunds": (
        _Shape("at", _one_of("kind", _REFUND, FactKind.REFUND), value=pl.col("amount_minor"), aux=pl.col("order")),
    ),
    "follows": (_Shape("at", _one_of("action", _FOLLOW, FactKind.FOLLOW)),),
    "feedback": (_Shape("at", _one_of("kind", _FEEDBACK, FactKind.REPORT)),),
    "impressions": (_Shape("at", _is(FactKind.IMPRESSION), value=pl.col("position")),),
    "notices": (_Shape("at", _is(FactKind.LEAVE_NOTICE), count=pl.lit(0), value=pl.col("from"), aux=pl.col("to")),),
}


def fact_stream(
    events: Events,
    vocabularies: Vocabularies,
    *,
    from_us: int | None,
    before_us: int | None,
    only: Container[str] = TABLES,
) -> pl.DataFrame:
    """All facts with from_us <= at < before_us (None: no bound), sorted by all columns of the schema.

    Args:
        only: the tables that are read.

    Raises:
        LaotieError: a user, host or order of these facts has no row; extend the vocabularies first.
        InputRefused: ids of another kind than the vocabularies', or a damaged file.
    """
    tables = [table for table in _ROOM_TABLES + _USER_TABLES if table in events.tables and table in only]
    parts = [_facts(events, vocabularies, table, (from_us, before_us), None) for table in tables]
    return pl.concat([_empty(), *parts]).sort(list(FACT_SCHEMA))


def tie_facts(
    events: Events,
    vocabularies: Vocabularies,
    *,
    before_us: int,
    bucket: tuple[int, int] | None,
    only: Container[str] = TABLES,
) -> pl.DataFrame:
    """Facts with a user and at < before_us, unsorted.

    Args:
        only: the tables that are read.
        bucket: (b, B): only a B-th of the users; None: all. Of a lake these are the users whose ids fall into bucket b
            of B (powers of two), and only files that hold some of them are read; else users with row % B == b.

    Raises:
        LaotieError, InputRefused: as `fact_stream`.
    """
    tables = [table for table in _USER_TABLES if table in events.tables and table in only]
    return pl.concat([_empty(), *(_facts(events, vocabularies, table, (None, before_us), bucket) for table in tables)])


def last_fact_us(events: Events) -> int | None:
    """The time of the last fact, µs; None without facts. The default as-of is this + 1."""
    latest: list[int] = []
    for table in (*_ROOM_TABLES, *_USER_TABLES):
        if table not in events.tables:
            continue
        rows = events.refunds.lazy() if table == "refunds" else events.tables[table]
        with reading(f"table {table}"):
            found = rows.select(pl.max_horizontal(pl.col(columns_of(table, "time")).max())).collect(engine="streaming")
        if found.item() is not None:
            latest.append(int(found.item()))
    return max(latest, default=None)


def user_parts(events: Events, wanted: int) -> int:
    """How many parts of users to ask `tie_facts` for: `wanted`, of a lake at most as many as it has buckets, and more
    if a part would have more than `ROWS_OF_PART` rows; then a bucket is read more than once."""
    if events.buckets is None:
        return wanted
    return max(min(wanted, events.buckets), suggested_buckets(events, rows_per_bucket=ROWS_OF_PART))


def suggested_buckets(events: Events, *, rows_per_bucket: int = 4_000_000) -> int:
    """A power of two that keeps the rows of one bucket of users near `rows_per_bucket`.

    Every bucket scans the tables once, so more buckets cost time and save memory (some 150 bytes a row).
    """
    rows = sum(quality.good for table, quality in events.quality.tables.items() if table in _USER_TABLES)
    return 1 << max(0, (rows - 1) // rows_per_bucket).bit_length()


def _empty() -> pl.DataFrame:
    return pl.DataFrame(schema=FACT_SCHEMA)


def _facts(
    events: Events, vocabularies: Vocabularies, table: str, window: Window, bucket: tuple[int, int] | None
) -> pl.DataFrame:
    """Facts of one table."""
    times = columns_of(table, "time")
    by_row = table in _USER_TABLES and events.buckets is None and bucket is not None

    def narrow(rows: pl.LazyFrame) -> pl.LazyFrame:
        # an early cut: rows of one key share their entry, and a key whose facts all lie outside is not needed
        if window[1] is not None and table != "rooms":
            rows = rows.filter(pl.col(times[0]) < window[1])
        return _of_bucket(vocabularies, rows, bucket) if by_row and bucket is not None else rows

    if table != "refunds":
        rows = events.narrowed(table, narrow, bucket)
    else:
        refunds = events.refunds.lazy()
        if bucket is not None and events.buckets is not None:
            refunds = refunds.filter(bucket_of("user_id", events.refunds.schema["user_id"], bucket[1]) == bucket[0])
        rows = narrow(refunds)
    rows = rows.filter(pl.any_horizontal([_inside(pl.col(time), window) for time in times]))
    rows = _with_rows(vocabularies, table, rows)
    read_by = set().union(*(shape.reads() for shape in _SHAPES[table]))
    rows = rows.select(name for name in rows.collect_schema().names() if name in read_by)
    with reading(f"table {table}"):
        read = rows.collect(engine="streaming")
    if table in _USER_TABLES and not by_row:
        found = pl.Series("user", vocabularies.users.rows(read["user_id"]))
        read = read.with_columns(user=found.replace(-1, None))
    for name in ("user", "host", "order"):
        if name in read.columns and read[name].null_count():
            raise LaotieError(f"an id of a {name} has no row", where=f"table {table}",
                              hint="build or extend the vocabularies with these events first")  # fmt: skip
    return pl.concat([_cut(read, window, shape) for shape in _SHAPES[table]])


def _inside(at: pl.Expr, window: Window) -> pl.Expr:
    inside = at.is_not_null()
    if window[0] is not None:
        inside = inside & (at >= window[0])
    return inside if window[1] is None else inside & (at < window[1])


def _of_bucket(vocabularies: Vocabularies, rows: pl.LazyFrame, bucket: tuple[int, int]) -> pl.LazyFrame:
    """`rows` of the users with row % B == b, with the column `user`."""
    users = vocabularies.users.table("user_id", "user", rows.collect_schema()["user_id"])
    mine = users.filter(pl.col("user") % bucket[1] == bucket[0])
    return rows.join(mine.lazy(), on="user_id", how="inner")


def _with_rows(vocabularies: Vocabularies, table: str, rows: pl.LazyFrame) -> pl.LazyFrame:
    """`rows` with the columns `host`, `room` (null: unknown, or not started by then) and `order`."""
    schema = rows.collect_schema()
    for name, vocabulary in (
        ("host", vocabularies.hosts),
        ("room", vocabularies.rooms),
        ("order", vocabularies.orders),
    ):
        if f"{name}_id" in schema.names():
            of = vocabulary.table(f"{name}_id", name, schema[f"{name}_id"])
            rows = rows.join(of.lazy(), on=f"{name}_id", how="left")
    if table in TIME_OF:
        early = (pl.col("room_started_at") > pl.col(TIME_OF[table])).fill_null(False)
        start = pl.when(early).then(None).otherwise("room_started_at")
        rows = rows.with_columns(room=pl.when(early).then(None).otherwise("room"), room_started_at=start)
    return rows


def _cut(rows: pl.DataFrame, window: Window, shape: _Shape) -> pl.DataFrame:
    """One kind of fact out of rows with dense columns."""

    def dense(name: str) -> pl.Expr:
        return pl.col(name).fill_null(-1) if name in rows.columns else pl.lit(-1)

    made = {
        "at": pl.col(shape.at), "kind": shape.kind, "user": dense("user"), "host": dense("host"), "room": dense("room"),
        "count": shape.count, "value": shape.value, "aux": shape.aux,
    }  # fmt: skip
    inside = rows.lazy().filter(_inside(pl.col(shape.at), window))
    return inside.select(made[name].cast(dtype).alias(name) for name, dtype in FACT_SCHEMA.items()).collect()
