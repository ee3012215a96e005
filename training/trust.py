"""Trust in hosts at build time, and how well it foresaw which orders would go wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from recsys.bundle import StageResult
from recsys.evaluation.probabilities import judge
from recsys.events import Events, Vocabularies, room_table
from recsys.events.facts import FactKind
from recsys.models.trust import HostTrust
from training.states import Snapshot

LEAST_REFUNDED = 50
"""With fewer refunded orders nobody can say whether trust foresaw them."""


def fit_trust(
    events: Events, vocabularies: Vocabularies, shot: Snapshot, order: Sequence[str] | None = None
) -> tuple[HostTrust | None, StageResult]:
    """Trust as of the snapshot; `order`: the categories in the order of an earlier fit, which a ranker has learnt."""
    trust = HostTrust.fit(shot.states, host_categories(events, vocabularies, shot.as_of_us), order)
    if trust is None:
        return None, StageResult(name="trust", status="skipped", why="no order before the as-of")
    return trust, StageResult(name="trust", status="passed")


def host_categories(events: Events, vocabularies: Vocabularies, as_of_us: int) -> list[str | None]:
    """The category of every host row: what the hosts table says, else the most frequent one of its rooms so far."""
    found: list[str | None] = [None] * len(vocabularies.hosts)
    if "rooms" in events.tables:
        rooms = room_table(events, vocabularies).filter(
            (pl.col("started_at") < as_of_us) & pl.col("category").is_not_null()
        )
        counted = (
            rooms.group_by("host", "category").len().sort("host", "len", "category", descending=[False, True, False])
        )
        for host, category in (
            counted.group_by("host", maintain_order=True).first().select("host", "category").iter_rows()
        ):
            found[host] = category
    if "hosts" in events.tables and "category" in events.tables["hosts"].collect_schema().names():
        table = events.tables["hosts"].select("host_id", "category").drop_nulls().collect()
        for host, category in zip(vocabularies.hosts.rows(table["host_id"]).tolist(), table["category"], strict=True):
            if host >= 0:
                found[host] = category
    return found


def trust_metrics(trust: HostTrust | None, facts: pl.DataFrame) -> dict[str, float]:
    """How often an order that went wrong later came from a host trusted less than one whose order went well.

    Args:
        trust: as of the beginning of `facts`.
    """
    if trust is None:
        return {}
    orders = facts.filter(pl.col("kind") == int(FactKind.ORDER_LINE)).select("host", order="aux").unique()
    wrong = (
        facts.filter(pl.col("kind").is_in([int(FactKind.REFUND), int(FactKind.DISPUTE)])).select(order="aux").unique()
    )
    judged = orders.join(wrong.with_columns(wrong=pl.lit(1)), on="order", how="left").sort("order", "host")
    y = judged["wrong"].fill_null(0).to_numpy()
    found = {
        "trust_prior_mean": trust.prior_mean,
        "trust_prior_strength": trust.prior_strength,
        "trust_hosts": float((trust.votes_for + trust.votes_against > 0).sum()),
    }
    if min(y.sum(), len(y) - y.sum()) >= LEAST_REFUNDED:
        hosts = judged["host"].to_numpy().astype(np.int64)
        known = np.minimum(hosts, len(trust.refunds) - 1)
        believed, _ = trust.of(hosts, trust.refunds[known], trust.disputes[known])
        found["trust_refund_auc"] = judge(1.0 - believed, y, users=hosts).auc
    return found
