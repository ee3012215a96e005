"""From events to the dense rows of users, hosts, rooms and orders, and the tables of attributes in those rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from recsys.events.quarantine import TIME_OF, Events
from recsys.ids import Vocabulary

_ROLES = ("users", "hosts", "rooms", "orders")


@dataclass(frozen=True)
class Vocabularies:
    """The four vocabularies of a lineage of bundles."""

    users: Vocabulary = field(default_factory=Vocabulary)
    hosts: Vocabulary = field(default_factory=Vocabulary)
    rooms: Vocabulary = field(default_factory=Vocabulary)
    orders: Vocabulary = field(default_factory=Vocabulary)

    def save(self, folder: Path) -> None:
        """Write `<role>.ids` into an existing folder."""
        for name in _ROLES:
            getattr(self, name).save(folder / f"{name}.ids")

    @classmethod
    def load(cls, folder: Path) -> Vocabularies:
        """Read what `save` wrote.

        Raises:
            BundleRefused: a file is missing or damaged.
        """
        return cls(*(Vocabulary.load(folder / f"{name}.ids") for name in _ROLES))


def build_vocabularies(events: Events, *, as_of_us: int) -> Vocabularies:
    """Vocabularies of every id named by a row earlier than `as_of_us`, in ascending order of ids.

    Users and hosts with attributes count from their registration, or always if it is not given. Rooms are those of the
    rooms table; only without one, those that other rows name.
    """
    made = Vocabularies()
    _extend(made, events, as_of_us)
    return made


def extend_vocabularies(vocabularies: Vocabularies, events: Events, *, as_of_us: int | None = None) -> None:
    """Append every id of `events` (of rows before `as_of_us`) that has no row yet, in ascending order of ids.

    Known rows keep their meaning.
    """
    _extend(vocabularies, events, as_of_us)


def _extend(vocabularies: Vocabularies, events: Events, as_of_us: int | None) -> None:
    for name in _ROLES:
        found = _ids(events, name.removesuffix("s"), as_of_us)
        if found:
            ids = pl.concat(found).drop_nulls().unique().sort()
            getattr(vocabularies, name).extend(ids)


def _ids(events: Events, role: str, as_of_us: int | None) -> list[pl.Series]:
    """Distinct ids of one role, table by table."""
    found = []
    for table, rows in events.tables.items():
        names = rows.collect_schema().names()
        column = f"{role}_id"
        if table == "refunds" or column not in names:
            continue  # a refund names nobody whom its order does not name
        if role == "room" and table != "rooms" and "rooms" in events.tables:
            continue
        time = {**TIME_OF, "rooms": "started_at", "hosts": "registered_at", "users": "registered_at"}.get(table, "at")
        if as_of_us is not None:
            rows = rows.filter(pl.col(time).is_null() | (pl.col(time) < as_of_us))
        found.append(rows.select(pl.col(column).unique()).collect(engine="streaming").to_series().alias("id"))
        if table == "rooms" and role == "host":
            guests = rows.select(pl.col("cohost_ids").explode(empty_as_null=False, keep_nulls=False)).unique()
            found.append(guests.collect().to_series().alias("id"))
    return found


def room_table(events: Events, vocabularies: Vocabularies) -> pl.DataFrame:
    """The rooms that have a row, ordered by it.

    Returns:
        room, host (Int64 rows), cohosts (List[Int64], never null), started_at, ended_at (µs; null: not known to have
        ended), category, title. `started_at` and `ended_at` are facts: whoever reads them must respect the as-of.
    """
    rooms = events.rooms
    hosts = _row_column(vocabularies.hosts, rooms["host_id"])
    guests = rooms["cohost_ids"].fill_null([])
    flat = guests.explode(empty_as_null=False)
    owner = pl.Series("owner", range(rooms.height), pl.UInt32).repeat_by(guests.list.len()).explode(empty_as_null=False)
    table = rooms.select(
        _row_column(vocabularies.rooms, rooms["room_id"]).alias("room"),
        hosts.alias("host"), "started_at", "ended_at", "category", "title",
    ).with_row_index("owner")  # fmt: skip
    known = pl.DataFrame(
        {"owner": owner, "cohosts": _row_column(vocabularies.hosts, flat)}, schema_overrides={"owner": pl.UInt32}
    )
    lists = known.filter(pl.col("cohosts") >= 0).group_by("owner", maintain_order=True).agg("cohosts")
    return (
        table.join(lists, on="owner", how="left")
        .with_columns(pl.col("cohosts").fill_null([]))
        .filter(pl.col("room") >= 0)
        .sort("room")
        .select("room", "host", "cohosts", "started_at", "ended_at", "category", "title")
    )


def host_table(events: Events, vocabularies: Vocabularies) -> pl.DataFrame:
    """Attributes of the hosts that have a row, ordered by it: host (Int64), category, city_tier, registered_at (µs)."""
    return _attributes(events, "hosts", "host", vocabularies.hosts, ["category", "city_tier", "registered_at"])


def user_table(events: Events, vocabularies: Vocabularies) -> pl.DataFrame:
    """Attributes of the users that have a row, ordered by it: user (Int64), city_tier, registered_at (µs)."""
    return _attributes(events, "users", "user", vocabularies.users, ["city_tier", "registered_at"])


def _attributes(events: Events, table: str, role: str, vocabulary: Vocabulary, columns: list[str]) -> pl.DataFrame:
    if table not in events.tables:
        types = {name: pl.Int64() if name == "registered_at" else pl.String() for name in columns}
        return pl.DataFrame(schema={role: pl.Int64(), **types})
    rows = events.tables[table].collect(engine="streaming")
    rows = rows.with_columns(_row_column(vocabulary, rows[f"{role}_id"]).alias(role))
    return rows.filter(pl.col(role) >= 0).sort(role).select(role, *columns)


def _row_column(vocabulary: Vocabulary, ids: pl.Series) -> pl.Series:
    return pl.Series("row", vocabulary.rows(ids), pl.Int64)
