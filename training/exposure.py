"""Who gets the first places: hosts the viewer knows or not, small or large, beside who is live and who is entered.

A ranking that shows known hosts more often than viewers enter them repeats too much, one that shows them less explores
too much; a group of hosts with a smaller share of the first places than of the entries is shown too little.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from recsys.evaluation.bootstrap import user_bootstrap
from recsys.pipeline.features import FEATURES
from recsys.ties.algebra import Floats

PLACES = 10
SIZE_BOUNDS = (20, 500)
"""Visitors of a host: small below the first, large from the second on; as in the strata of the evaluation."""
GROUPS = {
    "repeat and explore": ("known hosts", "new hosts"),
    "host size": ("small hosts", "medium hosts", "large hosts"),
}
SIDES = ("live", "first places", "entered")
_KNOWN, _VISITORS = FEATURES.index("tie_known"), FEATURES.index("host_visitors")


class ExposureLog:
    """Shares of every group at each request: among the rooms live, in the first places, and of the room entered."""

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []

    def log(self, user: int, values: Floats, score: Floats, right: int) -> None:
        """One request of `user`: features (F, n) and scores (n,) of the n rooms live, of which `right` was entered."""
        first = np.argsort(-score, kind="stable")[:PLACES]
        known = values[_KNOWN] > 0
        size = np.digitize(np.nan_to_num(values[_VISITORS]), SIZE_BOUNDS)
        masks = {"known hosts": known, "new hosts": ~known}
        masks |= {name: size == i for i, name in enumerate(GROUPS["host size"])}
        row: dict[str, float] = {"user_id": user}
        for name, mask in masks.items():
            parts = (mask.mean(), mask[first].mean(), mask[right])
            row |= {f"{name}/{side}": float(part) for side, part in zip(SIDES, parts, strict=True)}
        self._rows.append(row)

    def document(self, seed: int) -> list[dict[str, Any]]:
        """`question`, `group`, `side`, `share`, `low`, `high`: means over requests, intervals over users."""
        names = [(q, group, side) for q, groups in GROUPS.items() for group in groups for side in SIDES]
        columns = [f"{group}/{side}" for _, group, side in names]
        table = user_bootstrap(pl.DataFrame(self._rows), columns, seed=seed)
        return [
            {"question": question, "group": group, "side": side, "share": mean, "low": low, "high": high}
            for (question, group, side), (mean, low, high) in zip(
                names, table.select("mean", "low", "high").iter_rows(), strict=True
            )
        ]
