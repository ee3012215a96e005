"""Planted pairs of one simulated world and what the states say of them, row by row.

Shape letters: n pairs, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.config import EngineConfig
from recsys.events import Events, Vocabularies, build_vocabularies, clean, last_fact_us, open_events
from recsys.events.facts import NEVER
from recsys.events.simulator import WorldConfig, read_truth
from recsys.live.artefact import ROOM_COLUMNS, WorldParts, assemble
from recsys.models.baselines import PriorRanker
from recsys.models.suite import Models
from recsys.pipeline.features import FEATURES
from recsys.pipeline.tied import ties_at
from recsys.pipeline.world import World
from recsys.ties.algebra import Floats
from recsys.ties.features import TIE_FEATURES
from training.states import snapshot
from training.worlds.laws import followed_bond

LEAST_PAIRS = 3
"""Users with fewer hosts in mind have no order worth the name."""
_HOST_FEATURES = ("host_entries", "host_visitors", "host_broadcasts", "host_stay_min", "host_orders")
_USER_FEATURES = ("user_entries", "user_hosts", "user_stay_min", "user_orders", "user_days")
ORACLE_FEATURES = (*TIE_FEATURES, "law_bond", "tied", *_HOST_FEATURES, *_USER_FEATURES)


@dataclass(frozen=True)
class Pairs:
    """`frame`: user_id, host_id, planted, user, host (rows of the vocabularies), tied; sorted by user, host.

    `values` (n, F) the tie features, NaN for pairs without a tie; `all_values` what an oracle may read besides.
    """

    frame: pl.DataFrame
    values: npt.NDArray[np.float32]
    all_values: npt.NDArray[np.float32]


def usable(folder: Path) -> Events:
    """The events of a simulated world, cleaned."""
    return clean(open_events(folder), now=datetime(2100, 1, 1, tzinfo=UTC))


def observed(folder: Path, law: WorldConfig, config: EngineConfig) -> Pairs:
    """The planted pairs of a world and its states, without training anything."""
    events = usable(folder)
    as_of = int(last_fact_us(events) or 0) + 1
    vocabularies = build_vocabularies(events, as_of_us=as_of)
    shot = snapshot(events, vocabularies, config, as_of)
    models = Models(affinity=config.affinity, ranker=PriorRanker(FEATURES))
    rooms = shot.rooms.select(ROOM_COLUMNS)
    parts = WorldParts(
        config, shot.states, shot.standings, rooms, shot.leaves, shot.priors, models, len(vocabularies.hosts)
    )
    return pairs_of(folder, law, assemble(parts).world, vocabularies, as_of)


def pairs_of(folder: Path, law: WorldConfig, world: World, vocabularies: Vocabularies, as_of: int) -> Pairs:
    """The hosts every user has in mind (neither forgotten nor blocked), with what `world` knows of them at `as_of`."""
    planted = read_truth(folder, "strengths").filter(~pl.col("forgotten") & ~pl.col("blocked"))
    numbered = planted.with_columns(
        user=pl.Series(vocabularies.users.rows(planted["user_id"]), dtype=pl.Int64),
        host=pl.Series(vocabularies.hosts.rows(planted["host_id"]), dtype=pl.Int64),
    ).filter((pl.col("user") >= 0) & (pl.col("host") >= 0) & (pl.len().over("user_id") >= LEAST_PAIRS))
    frame = numbered.select("user_id", "host_id", pl.col("strength").alias("planted"), "user", "host").sort(
        "user", "host"
    )
    values = np.full((len(frame), len(TIE_FEATURES)), np.nan, dtype=np.float32)
    tied = np.zeros(len(frame), dtype=np.bool_)
    start = 0
    for (user,), part in frame.group_by("user", maintain_order=True):
        hosts = part["host"].to_numpy().astype(np.int64)
        never = np.full(len(hosts), NEVER, dtype=np.int64)
        ties, known = ties_at(world, int(user), hosts, never, as_of)
        values[start + ties.asked] = known.T
        tied[start + ties.asked] = True
        start += len(part)
    frame = frame.with_columns(tied=pl.Series(tied))
    extra = np.column_stack([followed_bond(folder, law, frame), tied, _around(folder, frame)])
    return Pairs(frame, values, np.column_stack([values, extra]).astype(np.float32))


def host_rates(world: World, hosts: npt.NDArray[np.int64], at: int) -> Floats:
    """Entries of the last two hours, decayed, of host rows (n,)."""
    from recsys.ties.algebra import decay_to

    block = world.blocks.host
    rates: Floats = decay_to(block, world.hosts.rows.take(hosts), at)[:, block.decay_column("entries_2h")]
    return rates


def _around(folder: Path, pairs: pl.DataFrame) -> Floats:
    """What hosts and users did with everybody else, (n, …)."""
    watches = pl.read_parquet(folder / "watches" / "**/*.parquet")
    orders = pl.read_parquet(folder / "purchases" / "**/*.parquet").unique("order_id", keep="first")
    minutes = (pl.col("left_at") - pl.col("entered_at")).dt.total_seconds().fill_null(0) / 60.0
    broadcasts = (
        pl.read_parquet(folder / "rooms" / "**/*.parquet")
        .group_by("host_id")
        .agg(host_broadcasts=pl.col("room_id").n_unique())
    )
    hosts = watches.group_by("host_id").agg(
        host_entries=pl.len(), host_visitors=pl.col("user_id").n_unique(), host_stay_min=minutes.mean()
    )
    users = watches.group_by("user_id").agg(
        user_entries=pl.len(), user_hosts=pl.col("host_id").n_unique(), user_stay_min=minutes.mean(),
        user_days=pl.col("entered_at").dt.date().n_unique(),
    )  # fmt: skip
    joined = (
        pairs.select("user_id", "host_id")
        .join(hosts, on="host_id", how="left", maintain_order="left")
        .join(broadcasts, on="host_id", how="left", maintain_order="left")
        .join(orders.group_by("host_id").agg(host_orders=pl.len()), on="host_id", how="left", maintain_order="left")
        .join(users, on="user_id", how="left", maintain_order="left")
        .join(orders.group_by("user_id").agg(user_orders=pl.len()), on="user_id", how="left", maintain_order="left")
    )
    return joined.select(pl.col(_HOST_FEATURES + _USER_FEATURES).cast(pl.Float64).fill_null(0.0)).to_numpy()
