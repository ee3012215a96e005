"""Who gets the first places: hosts the viewer knows or not, small or large, of town or country, beside who is live and
who is entered.

A ranking that shows known hosts more often than viewers enter them repeats too much, one that shows them less explores
too much; a group of hosts with a smaller share of the first places than of the entries is shown too little. The *gap*
is that difference, its interval over users.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.evaluation.bootstrap import user_bootstrap
from recsys.events import Events, Vocabularies, host_table
from recsys.pipeline.features import FEATURES
from recsys.ties.algebra import Floats

PLACES = 10
SIZE_BOUNDS = (20, 500)
"""Visitors of a host: small below the first, large from the second on; as in the strata of the evaluation."""
MOST_TIERS = 8
"""City tiers told apart, those with most hosts; hosts of others count as unknown."""
GAP = "gap"
"""First places less entered."""
SIDES = ("live", "first places", "entered", GAP)
_UNKNOWN = "tier unknown"
_KNOWN, _VISITORS = FEATURES.index("tie_known"), FEATURES.index("host_visitors")


class ExposureLog:
    """Shares of every group at each request: among the rooms live, in the first places, and of the room entered.

    Args:
        tiers: the city tier of each host, by its row; None: not known. Without two tiers there is no gap between them.
    """

    def __init__(self, tiers: Sequence[str | None] = ()) -> None:
        names = pl.Series("tier", tiers, dtype=pl.String).drop_nulls().value_counts(sort=True)["tier"]
        named = sorted(names.head(MOST_TIERS).to_list())
        self._groups: dict[str, tuple[str, ...]] = {
            "repeat and explore": ("known hosts", "new hosts"),
            "host size": ("small hosts", "medium hosts", "large hosts"),
        }
        code = {name: i for i, name in enumerate(named)}
        self._tier = np.array([code.get(tier, len(named)) if tier is not None else len(named) for tier in tiers])
        if len(named) > 1:
            self._groups["city tier"] = (*(f"tier {name}" for name in named), _UNKNOWN)
        self._rows: list[dict[str, float]] = []

    def log(self, user: int, values: Floats, score: Floats, right: int, hosts: npt.NDArray[np.integer]) -> None:
        """One request of `user`: features (F, n), scores (n,) and hosts (n,) of the n rooms live, of which `right` was
        entered."""
        first = np.argsort(-score, kind="stable")[:PLACES]
        known = values[_KNOWN] > 0
        size = np.digitize(np.nan_to_num(values[_VISITORS]), SIZE_BOUNDS)
        masks = {"known hosts": known, "new hosts": ~known}
        masks |= {name: size == i for i, name in enumerate(self._groups["host size"])}
        if tiers := self._groups.get("city tier"):
            tier = np.full(len(hosts), len(tiers) - 1)
            told = hosts < len(self._tier)  # a host who came later is of no known tier
            tier[told] = self._tier[hosts[told]]
            masks |= {name: tier == i for i, name in enumerate(tiers)}
        row: dict[str, float] = {"user_id": user}
        for name, mask in masks.items():
            shares = [float(part) for part in (mask.mean(), mask[first].mean(), mask[right])]
            row |= {
                f"{name}/{side}": share for side, share in zip(SIDES, [*shares, shares[1] - shares[2]], strict=True)
            }
        self._rows.append(row)

    def document(self, seed: int) -> list[dict[str, Any]]:
        """`question`, `group`, `side`, `share`, `low`, `high`: means over requests, intervals over users."""
        names = [(q, group, side) for q, groups in self._groups.items() for group in groups for side in SIDES]
        columns = [f"{group}/{side}" for _, group, side in names]
        table = user_bootstrap(pl.DataFrame(self._rows), columns, seed=seed)
        found = [
            {"question": question, "group": group, "side": side, "share": mean, "low": low, "high": high}
            for (question, group, side), (mean, low, high) in zip(
                names, table.select("mean", "low", "high").iter_rows(), strict=True
            )
        ]
        absent = {row["group"] for row in found if row["side"] == "live" and not row["share"]}
        return [row for row in found if row["group"] != _UNKNOWN or _UNKNOWN not in absent]


def host_tiers(events: Events, vocabularies: Vocabularies) -> list[str | None]:
    """The city tier of each host, by its row."""
    tiers: list[str | None] = [None] * len(vocabularies.hosts)
    for host, tier in host_table(events, vocabularies).select("host", "city_tier").iter_rows():
        tiers[host] = tier
    return tiers
