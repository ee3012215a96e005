"""What was read, used and set aside: the report behind `validate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TableQuality:
    """One table. `good` + the sum of `quarantined` (reason → rows) is always `rows`.

    `notes` are counts of rows that are good but deserve a word:

    - `waiting`: refunds whose order has not been seen
    - `room_unknown`: rows whose room is in no rooms table; `before_room_start`: rows earlier than the start of their
      room, which is then not known yet. Both are used, without their room
    - `cohost_is_host`: rooms that list their own host (or a null) among the co-hosts; it is dropped from the list
    """

    rows: int
    good: int
    quarantined: dict[str, int]
    notes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class QualityReport:
    """All tables, the columns that were not used, and the files that belong to no table."""

    tables: dict[str, TableQuality]
    unused_columns: dict[str, list[str]] = field(default_factory=dict)
    unknown_files: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The document of `laotie validate --json`: {"tables": {table: {"rows": n, …}}, "notes": …}."""
        notes: dict[str, Any] = {name: dict(table.notes) for name, table in self.tables.items() if table.notes}
        for name, columns in self.unused_columns.items():
            notes.setdefault(name, {})["unused_columns"] = columns
        return {
            "tables": {
                name: {"rows": table.rows, "good": table.good, "quarantined": dict(table.quarantined)}
                for name, table in self.tables.items()
            },
            "notes": notes,
            "unknown_files": list(self.unknown_files),
        }
