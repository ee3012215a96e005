"""The values of one row, as the rules and the intake read them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class Values(SimpleNamespace):
    """An attribute per column; the column `from` is `from_`. Absent columns are None."""

    def columns(self) -> dict[str, Any]:
        """The values by the names of their columns."""
        return {name.rstrip("_"): value for name, value in vars(self).items()}


def attribute(column: str) -> str:
    """The attribute of `Values` that holds a column."""
    return "from_" if column == "from" else column
