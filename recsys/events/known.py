"""What is known already when more events arrive: the rooms and orders that later rows may speak of.

Rows after a bundle's as-of may end a room that started before it, enter such a room, or give back money of an earlier
order. Cleaned alone, they would be rows of unknown rooms and refunds that wait for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from recsys.errors import BundleRefused, InputRefused
from recsys.events.keys import one_per_key
from recsys.events.schemas import TABLES, is_id, role
from recsys.id_kinds import IdKind, id_kind

if TYPE_CHECKING:
    from recsys.events.quarantine import Events

LINE_COLUMNS = ["order_id", "line", "user_id", "host_id", "at", "amount_minor"]
_ROOM = ["room_id", "host_id", "started_at", "ended_at", "cohost_ids"]
_NAMES = ("rooms", "lines", "refunds")


@dataclass(frozen=True)
class Known:
    """In external ids, times in µs.

    Attributes:
        rooms: room_id, host_id, started_at, ended_at (null: not ended by then), cohost_ids.
        lines: order lines: order_id, line, user_id, host_id, at, amount_minor.
        refunds: those that wait for their order: order_id, host_id, at, amount_minor, kind.
    """

    rooms: pl.DataFrame
    lines: pl.DataFrame
    refunds: pl.DataFrame

    def id_kinds(self) -> dict[str, IdKind]:
        """Role → kind of ids, of the frames that are not empty."""
        kinds: dict[str, IdKind] = {}
        for table, frame in (("rooms", self.rooms), ("purchases", self.lines), ("refunds", self.refunds)):
            for name, column in TABLES[table].columns().items():
                if frame.height and is_id(column) and name in frame.columns and name != "cohost_ids":
                    kind = id_kind(frame.schema[name])
                    if kind is not None and frame[name].null_count() < frame.height:
                        kinds.setdefault(role(column), kind)
        return kinds

    def save(self, folder: Path) -> None:
        """Write `known_<name>.arrow` into an existing folder, uncompressed."""
        for name in _NAMES:
            getattr(self, name).write_ipc(folder / f"known_{name}.arrow", compression="uncompressed")

    @classmethod
    def load(cls, folder: Path) -> Known:
        """Read what `save` wrote.

        Raises:
            BundleRefused: a file is missing or damaged.
        """
        try:
            return cls(*(pl.read_ipc(folder / f"known_{name}.arrow") for name in _NAMES))
        except (OSError, pl.exceptions.PolarsError) as error:
            raise BundleRefused("what was known cannot be read", where=folder, got=error) from error


def known_before(events: Events, *, before_us: int) -> Known:
    """The rooms, orders and waiting refunds of facts before `before_us`."""
    ended = pl.when(pl.col("ended_at") < before_us).then("ended_at")
    rooms = events.rooms.filter(pl.col("started_at") < before_us).select(_ROOM).with_columns(ended_at=ended)
    lines = pl.DataFrame(schema={name: pl.Int64() for name in LINE_COLUMNS})
    if "purchases" in events.tables:
        lines = (
            events.tables["purchases"].filter(pl.col("at") < before_us).select(LINE_COLUMNS).collect(engine="streaming")
        )
    names = ["order_id", "host_id", "at", "amount_minor", "kind"]
    waiting = pl.DataFrame(schema={name: pl.String() if name == "kind" else pl.Int64() for name in names})
    if "refunds" in events.tables:
        refunds = events.tables["refunds"].filter(pl.col("at") < before_us).select(names).collect(engine="streaming")
        open_for = lines.select("order_id", _host="host_id")
        mine = refunds.join(open_for, on="order_id", how="left", maintain_order="left") if lines.height else None
        if mine is None:
            waiting = refunds
        else:
            met = pl.col("_host").is_not_null() & (pl.col("host_id").is_null() | (pl.col("host_id") == pl.col("_host")))
            done = mine.filter(met.fill_null(False)).select("order_id", "at").unique()
            waiting = refunds.join(done, on=["order_id", "at"], how="anti", maintain_order="left")
    return Known(rooms, lines, waiting)


def continuing(rooms: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Rows of `rooms` that agree with what is `known` of their room: its host, start and co-hosts hold.

    A row of another host is left out, and an open one of another start; an end tells of the room it ends, whatever
    start it gives. What was known is earlier than any row that continues it, so this is the rule of
    `recsys.events.keys` with the known row as the one that leads.
    """
    held = known.select("room_id", _host="host_id", _start="started_at", _guests="cohost_ids")
    start, ended = pl.col("_start"), pl.col("ended_at")
    agrees = pl.when(ended.is_null()).then(pl.col("started_at") == start).otherwise(ended >= start)
    return (
        rooms.join(held, on="room_id", how="left", maintain_order="left")
        .filter(start.is_null() | ((pl.col("host_id") == pl.col("_host")) & agrees))
        .with_columns(
            started_at=pl.coalesce(start, "started_at"),
            cohost_ids=pl.when(start.is_null()).then("cohost_ids").otherwise("_guests"),
        )
        .select(rooms.columns)
    )


def rooms_with_known(rooms: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Rooms of these events and those known before; a room of both is one, with the earlier of its ends."""
    both = pl.concat([known, rooms.select(known.columns)], how="vertical_relaxed")
    return one_per_key("rooms", both.lazy()).drop("good_rows").collect()


def check_kinds(known: dict[str, IdKind], got: dict[str, IdKind]) -> None:
    """Refuses events whose ids are of another kind than those that are known.

    Raises:
        InputRefused: naming the role.
    """
    for of, kind in got.items():
        if known.get(of, kind) != kind:
            raise InputRefused("ids of two kinds", where=f"{of} ids", got=kind, expected=known[of],
                               hint="write them in the type of the events the bundle was built from")  # fmt: skip
