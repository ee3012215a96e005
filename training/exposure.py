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
        self._users: list[npt.NDArray[np.int64]] = []
        self._shares: dict[str, list[npt.NDArray[np.float64]]] = {}

    def log(self, user: int, values: Floats, score: Floats, right: int, hosts: npt.NDArray[np.integer]) -> None:
        """One request of `user`: features (F, n), scores (n,) and hosts (n,) of the n rooms live, of which `right` was
        entered."""
        entered = np.arange(len(hosts)) == right
        self.log_many(np.array([user]), values, score, np.array([len(hosts)]), entered, hosts)

    def log_many(
        self,
        users: npt.NDArray[np.integer],
        values: npt.NDArray[np.floating],
        scores: npt.NDArray[np.floating],
        groups: npt.NDArray[np.int64],
        entered: npt.NDArray[np.bool_],
        hosts: npt.NDArray[np.integer],
    ) -> None:
        """Requests of `users` (R,), one after another: features (F, N), scores, hosts and whether it was `entered` (N,)
        of each request's `groups` (R,) rooms, one or more; one of them was entered."""
        starts = np.cumsum(groups) - groups
        first = among_first(scores, groups, PLACES)
        n_first = np.minimum(groups, PLACES)
        known = values[_KNOWN] > 0
        size = np.digitize(np.nan_to_num(values[_VISITORS]), SIZE_BOUNDS)
        masks = {"known hosts": known, "new hosts": ~known}
        masks |= {name: size == i for i, name in enumerate(self._groups["host size"])}
        if tiers := self._groups.get("city tier"):
            tier = np.full(len(hosts), len(tiers) - 1)
            told = hosts < len(self._tier)  # a host who came later is of no known tier
            tier[told] = self._tier[hosts[told]]
            masks |= {name: tier == i for i, name in enumerate(tiers)}
        self._users.append(users.astype(np.int64))
        for name, mask in masks.items():
            live = np.add.reduceat(mask, starts, dtype=np.float64) / groups
            placed = np.add.reduceat(mask & first, starts, dtype=np.float64) / n_first
            chosen = mask[entered].astype(np.float64)
            for side, share in zip(SIDES, (live, placed, chosen, placed - chosen), strict=True):
                self._shares.setdefault(f"{name}/{side}", []).append(share)

    def document(self, seed: int) -> list[dict[str, Any]]:
        """`question`, `group`, `side`, `share`, `low`, `high`: means over requests, intervals over users."""
        names = [(q, group, side) for q, groups in self._groups.items() for group in groups for side in SIDES]
        columns = [f"{group}/{side}" for _, group, side in names]
        shares = {name: np.concatenate(self._shares[name]) for name in columns}
        table = user_bootstrap(pl.DataFrame({"user_id": np.concatenate(self._users), **shares}), columns, seed=seed)
        found = [
            {"question": question, "group": group, "side": side, "share": mean, "low": low, "high": high}
            for (question, group, side), (mean, low, high) in zip(
                names, table.select("mean", "low", "high").iter_rows(), strict=True
            )
        ]
        absent = {row["group"] for row in found if row["side"] == "live" and not row["share"]}
        return [row for row in found if row["group"] != _UNKNOWN or _UNKNOWN not in absent]


def among_first(scores: npt.NDArray[np.floating], groups: npt.NDArray[np.int64], places: int) -> npt.NDArray[np.bool_]:
    """Which rooms (N,) are among the `places` best of their request; of equal ones the first. `groups` (R,)."""
    found = np.zeros(len(scores), dtype=np.bool_)
    ends = np.cumsum(groups)
    for start, end in zip((ends - groups).tolist(), ends.tolist(), strict=True):
        found[start:end][np.argsort(-scores[start:end], kind="stable")[:places]] = True
    return found


def host_tiers(events: Events, vocabularies: Vocabularies) -> list[str | None]:
    """The city tier of each host, by its row."""
    tiers: list[str | None] = [None] * len(vocabularies.hosts)
    for host, tier in host_table(events, vocabularies).select("host", "city_tier").iter_rows():
        tiers[host] = tier
    return tiers
