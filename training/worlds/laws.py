"""What somebody who knows the laws of a simulated world reads off its events: the bond, followed event by event.

The filter starts where the world starts (the mean initial bond for hosts followed before the window, else none) and
applies the world's own laws to what was observed: growth with every stay, orders good or bad, cooling with every
broadcast missed (docs/simulator.md). Traits nobody sees (loyalty, warmth, affinity) stand at their medians, so this is
one reading among others; `training.worlds.oracle` weighs them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.events.simulator import WorldConfig

_PAIR = ["user_id", "host_id"]
_MISSED, _STAY, _ORDER, _BAD = range(4)
_DAY_TURNS = timedelta(hours=3)
"""A broadcast day turns at 05:00 local time; the market is at UTC+8."""


def followed_bond(folder: Path, law: WorldConfig, pairs: pl.DataFrame) -> npt.NDArray[np.float64]:
    """The bond (n,) of each pair at the end of the window as the laws move it, from the events in `folder`.

    Args:
        pairs: `user_id`, `host_id`, each pair once.
    """
    asked = pairs.select(_PAIR).with_row_index("pair")
    watches = pl.read_parquet(folder / "watches" / "**/*.parquet")
    steps = pl.concat([_stays(watches), _orders(folder), _missed(folder, watches, asked)])
    moved = steps.join(asked, on=_PAIR).sort("pair", "at").group_by("pair", maintain_order=True)
    begun = _before_the_window(folder, watches)
    known = asked.join(begun, on=_PAIR, how="left")["old"].fill_null(False).to_numpy()
    bond = np.where(known, law.relations.initial_bond_mean, 0.0)
    for pair, kinds, depths in moved.agg("kind", "depth").iter_rows():
        bond[pair] = _moved(float(bond[pair]), zip(kinds, depths, strict=True), law)
    return bond


def _moved(bond: float, steps: Iterable[tuple[int, float]], law: WorldConfig) -> float:
    relations = law.relations
    liking = 1.0 / (1.0 + math.exp(0.0))
    for kind, depth in steps:
        match kind:
            case 0:  # _MISSED
                bond *= 1.0 - relations.cooling
            case 1:  # _STAY
                bond += relations.growth * liking * depth * (1.0 - bond)
            case 2:  # _ORDER
                bond += relations.good_order_growth * (1.0 - bond)
            case _:
                bond *= 1.0 - relations.bad_order_loss
    return bond


def _stays(watches: pl.DataFrame) -> pl.DataFrame:
    minutes = (pl.col("left_at") - pl.col("entered_at")).dt.total_seconds().fill_null(0) / 60.0
    depth = 0.2 + 0.8 * (minutes / 20.0).clip(0.0, 1.0)
    return watches.select(*_PAIR, at=pl.col("entered_at"), kind=pl.lit(_STAY), depth=depth)


def _orders(folder: Path) -> pl.DataFrame:
    orders = pl.read_parquet(folder / "purchases" / "**/*.parquet").unique("order_id", keep="first")
    refunds = pl.read_parquet(folder / "refunds" / "**/*.parquet").select("order_id", bad=pl.lit(True)).unique()
    kind = pl.when(pl.col("bad").fill_null(False)).then(_BAD).otherwise(_ORDER).cast(pl.Int32)
    judged = orders.join(refunds, on="order_id", how="left")
    return judged.select(*_PAIR, "at", kind=kind, depth=pl.lit(0.0))


def _missed(folder: Path, watches: pl.DataFrame, asked: pl.DataFrame) -> pl.DataFrame:
    """The host's broadcasts the user did not enter, at their ends' day."""
    day = (pl.col("started_at") + _DAY_TURNS).dt.date()
    rooms = pl.read_parquet(folder / "rooms" / "**/*.parquet").sort("started_at").unique("room_id", keep="first")
    own = rooms.select("host_id", "room_id", at=pl.col("started_at"), day=day)
    entered = watches.select("user_id", "room_id").unique()
    missed = asked.select(_PAIR).join(own, on="host_id").join(entered, on=["user_id", "room_id"], how="anti")
    return missed.select(*_PAIR, "at", kind=pl.lit(_MISSED), depth=pl.lit(0.0))


def _before_the_window(folder: Path, watches: pl.DataFrame) -> pl.DataFrame:
    start = watches["entered_at"].min()
    follows = pl.read_parquet(folder / "follows" / "**/*.parquet").filter(pl.col("action") == "follow")
    return follows.filter(pl.col("at") < start).select(*_PAIR, old=pl.lit(True)).unique()
