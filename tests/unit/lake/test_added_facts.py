"""What the nightly delta takes for new: facts that are there more often than before."""

from __future__ import annotations

import polars as pl

from recsys.events.facts import FACT_SCHEMA
from training.delta import added_facts


def test_added_facts_are_counted_with_repetitions() -> None:
    rows = {name: [1, 1, 1, 2] for name in FACT_SCHEMA}
    has = pl.DataFrame(rows, schema=FACT_SCHEMA)
    assert added_facts(has[:1], has).sort("at")["at"].to_list() == [1, 1, 2]  # type: ignore[union-attr]
    assert added_facts(has[:3], has)["at"].to_list() == [2]  # type: ignore[union-attr]
    assert added_facts(has, has[1:]) is None
