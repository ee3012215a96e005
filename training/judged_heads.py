"""The heads judged on ties after the cut: what `laotie evaluate` says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from recsys.evaluation.probabilities import judge
from recsys.events.facts import FactKind
from recsys.models.strength import HEADS, STRENGTH, StrengthHead
from recsys.pipeline.world import World
from training.at_rest import MOST_TIES
from training.calibrating import one_outcome
from training.labels import AWAY_DAYS, REBUY_DAYS, TURNED_AWAY, broadcast_labels, horizon_label
from training.tie_log import TieLog

LEAST_HAPPENED = 10


class JudgedHeads:
    """Ties written down at the requests of an evaluation, to be judged when all facts are known."""

    def __init__(self, world: World, rng: Any) -> None:
        self.world = world
        self.ties = TieLog(world, rng, most=MOST_TIES)
        self.customers = TieLog(world, rng, of=("commerce",), strangers=0, most=MOST_TIES)

    def log(self, at: int, user: int) -> None:
        """Write down the user's ties as they are at `at`, µs."""
        self.ties.log(at, user)
        if "rebuys" in self.world.models.strength:
            self.customers.log(at, user)

    def documents(self, rooms: pl.DataFrame, facts: pl.DataFrame, seed: int) -> list[dict[str, Any]]:
        """Every served head with its figures and curve, or why it cannot be judged.

        Args:
            rooms: all broadcasts (`room_table`); facts: those after the cut.
        """
        end = int(facts["at"].to_numpy().max()) + 1
        ties = self.ties.frame()
        slot_ms = round(1000 * self.world.config.ties.product_slot_s)
        labels, met = broadcast_labels(ties, rooms, facts, before_us=end, product_slot_ms=slot_ms)
        horizons: Mapping[str, tuple[TieLog, tuple[FactKind, ...], int]] = {
            "turns_away": (self.ties, TURNED_AWAY, AWAY_DAYS),
            "rebuys": (self.customers, (FactKind.ORDER_LINE,), REBUY_DAYS),
        }
        found = []
        for name, head in self.world.models.strength.items():
            log, table = self.ties, labels.of.get("returns" if name == STRENGTH else name)
            if table is not None:
                table = table.join(met.select("row", "room"), on="row", how="left", maintain_order="left")
            if name in horizons:
                log, kinds, days = horizons[name]
                table = horizon_label(log.frame(), facts, kinds=kinds, days=days, before_us=end)
            found.append({"head": name, "means": HEADS[name], **_judged(head, log, table, seed)})
        return found


def _judged(head: StrengthHead, log: TieLog, labels: pl.DataFrame | None, seed: int) -> dict[str, Any]:
    if labels is None or int(labels["y"].sum()) < LEAST_HAPPENED:
        return {"skipped": f"it happened to fewer than {LEAST_HAPPENED} ties whose outcome is known by the end"}
    asked = labels.join(log.frame().with_row_index("row"), on="row", how="left").filter(pl.col("tied")).sort("row")
    if asked["y"].n_unique() < 2:
        return {"skipped": "it happened to all ties or to none"}
    p = head.probability(log.rows()[asked["row"]].T.astype("float64"))
    users, weight = asked["user"].to_numpy(), asked["weight"].to_numpy()
    return judge(
        p, asked["y"].to_numpy(), users=users, weight=weight, outcomes=one_outcome(asked), seed=seed
    ).document()
