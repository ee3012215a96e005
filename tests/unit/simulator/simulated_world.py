"""A generated world as the tests of this folder see it."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from recsys.events.simulator import SimulationReport, read_truth


@dataclass
class World:
    """A generated world; tables are read once."""

    report: SimulationReport
    _read: dict[str, pl.DataFrame] = field(default_factory=dict)

    def table(self, name: str) -> pl.DataFrame:
        if name not in self._read:
            self._read[name] = pl.read_parquet(self.report.out / name / "*.parquet")
        return self._read[name]

    def truth(self, name: str) -> pl.DataFrame:
        return read_truth(self.report.out, name)
