"""Broadcasts and who came back to them: what demand is judged on, and the naive forecast it is held against.

A viewer is counted as returning to a broadcast if he had entered a room of the host, or followed him, before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import rankdata

from recsys.events.facts import FactKind
from recsys.models.demand import QUANTITIES
from recsys.pipeline.world import World
from recsys.progress import Progress, silent
from training.demand import expected_demand
from training.labels import AFTER_BROADCAST_US

LAST = 5
"""Broadcasts over which the naive forecast takes the mean."""
LEAST_HOSTS = 20
DECILES = 10
REPLICATES = 400
_TIES = [int(FactKind.ENTRY), int(FactKind.FOLLOW)]

Floats = npt.NDArray[np.float64]


def returning_totals(broadcasts: pl.DataFrame, facts: pl.DataFrame, known_us: int | None = None) -> pl.DataFrame:
    """What broadcasts had of users with an earlier tie: host, room, viewers, buyers, orders.

    Args:
        broadcasts: host, room, started_at, ended_at of those asked for.
        facts: all facts of users before the end of the last one, from the first tie on.
        known_us: ties before this instant count, µs; None: those before the broadcast's start.
    """
    of_user = facts.filter(pl.col("user") >= 0).with_columns(pl.col("user", "host").cast(pl.Int64))
    since = of_user.filter(pl.col("kind").is_in(_TIES)).group_by("user", "host").agg(since=pl.col("at").min())
    bound = pl.col("started_at") if known_us is None else pl.lit(known_us)
    spans = broadcasts.select("host", "room", "started_at", "ended_at")
    came = of_user.filter(pl.col("kind") == int(FactKind.ENTRY)).select("user", "room").unique()
    viewers = spans.join(came, on="room").join(since, on=["user", "host"]).filter(pl.col("since") < bound)
    lines = of_user.filter(pl.col("kind") == int(FactKind.ORDER_LINE)).select("user", "host", at="at", order="aux")
    orders = (
        spans.join(lines, on="host")
        .filter((pl.col("at") >= pl.col("started_at")) & (pl.col("at") < pl.col("ended_at") + AFTER_BROADCAST_US))
        .join(since, on=["user", "host"])
        .filter(pl.col("since") < bound)
    )
    return (
        spans.join(viewers.group_by("room").agg(viewers=pl.len()), on="room", how="left")
        .join(
            orders.group_by("room").agg(buyers=pl.col("user").n_unique(), orders=pl.col("order").n_unique()),
            on="room",
            how="left",
        )
        .select("host", "room", pl.col(*QUANTITIES).fill_null(0).cast(pl.Int64))
    )


def last_broadcasts(rooms: pl.DataFrame, facts: pl.DataFrame, as_of_us: int) -> pl.DataFrame:
    """The naive forecast as of an instant: host and the mean `<name>_last` of its last `LAST` finished broadcasts.

    Args:
        rooms: all broadcasts (`room_table`); facts: those before the as-of.
    """
    over = rooms.filter(pl.col("ended_at") + AFTER_BROADCAST_US < as_of_us).sort("started_at", "room")
    totals = returning_totals(over.group_by("host", maintain_order=True).tail(LAST), facts)
    return totals.group_by("host").agg(pl.col(*QUANTITIES).mean().name.suffix("_last")).sort("host")


def next_broadcasts(rooms: pl.DataFrame, as_of_us: int, end_us: int) -> pl.DataFrame:
    """The first broadcast of every host that starts after the as-of, where it and the half hour after it are over.

    A host whose next one is not over by `end_us` is left out: the one after it is no substitute.
    """
    later = rooms.filter((pl.col("started_at") > as_of_us) & (pl.col("started_at") < end_us)).sort("started_at", "room")
    first = later.unique("host", keep="first", maintain_order=True)
    return first.filter((pl.col("ended_at") + AFTER_BROADCAST_US < end_us).fill_null(False))


def judged_demand(
    world: World,
    n_users: int,
    rooms: pl.DataFrame,
    facts: pl.DataFrame,
    as_of_us: int,
    seed: int,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Expected against observed totals of every host's next broadcast, beside the mean of its last ones.

    Args:
        world: the state as of the cut `as_of_us`, µs, which knows `n_users` users.
        rooms: all broadcasts (`room_table`); facts: those with a user, before and after the cut.

    Returns:
        per quantity its figures (`figures`), or why it cannot be judged; nothing without a demand model.
    """
    demand = world.models.demand
    if demand is None:
        return []
    expected = expected_demand(world, demand, np.arange(n_users), as_of_us, progress)
    end = int(facts["at"].to_numpy().max()) + 1
    observed = returning_totals(next_broadcasts(rooms, as_of_us, end), facts, as_of_us)
    both = expected.join(observed.rename({name: f"{name}_seen" for name in QUANTITIES}), on="host")
    last = last_broadcasts(rooms, facts.filter(pl.col("at") < as_of_us), as_of_us)
    both = both.join(last, on="host").sort("host")
    found: list[dict[str, Any]] = []
    for name in QUANTITIES:
        if name not in expected.columns:
            continue
        if len(both) < LEAST_HOSTS or not both[f"{name}_seen"].sum():
            why = f"{len(both)} hosts whose next broadcast is over, {both[f'{name}_seen'].sum()} {name} in them"
            found.append({"quantity": name, "skipped": why})
            continue
        columns = [both[column].to_numpy().astype(np.float64)
                   for column in (name, f"{name}_seen", f"{name}_last", f"{name}_low", f"{name}_high")]  # fmt: skip
        found.append({"quantity": name, **figures(*columns, seed=seed)})
    return found


def judged_line(row: Mapping[str, Any]) -> dict[str, str]:
    """A line of the table of judged demand."""
    return {
        "of": row["quantity"],
        "hosts": f"{row['hosts']:,}",
        "expected": f"{row['expected']:,.1f}",
        "observed": f"{row['observed']:,.0f}",
        "observed / expected (95 %)": f"{row['ratio']:.3f} ({row['ratio_low']:.3f}–{row['ratio_high']:.3f})",
        "rank correlation": f"{row['rank_correlation']:.3f}",
        "of the last five": f"{row['rank_correlation_last']:.3f}",
        "gain (95 %)": f"{row['gain']:+.3f} ({row['gain_low']:+.3f} … {row['gain_high']:+.3f})",
        "inside its interval": f"{row['covered']:.1%}",
    }


def figures(said: Floats, seen: Floats, last: Floats, low: Floats, high: Floats, *, seed: int) -> dict[str, Any]:
    """Figures of n hosts; intervals (95 %) draw hosts.

    `ratio`: sum observed / sum expected. `rank_correlation`: Spearman's, `_last` of the naive forecast, `_gain` the
    difference; `error`: mean absolute, likewise. `covered`: share of hosts inside the interval. `deciles`: by what was
    expected.
    """
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(said), len(said)) for _ in range(REPLICATES)]
    ratios = [seen[i].sum() / max(said[i].sum(), 1e-9) for i in drawn]
    gains = [_spearman(said[i], seen[i]) - _spearman(last[i], seen[i]) for i in drawn]
    rank, rank_last = _spearman(said, seen), _spearman(last, seen)
    groups = np.array_split(np.argsort(said, kind="stable"), DECILES)
    return {
        "hosts": len(said),
        "expected": float(said.sum()),
        "observed": float(seen.sum()),
        "last": float(last.sum()),
        "ratio": float(seen.sum() / max(said.sum(), 1e-9)),
        **_ends("ratio", ratios),
        "rank_correlation": rank,
        "rank_correlation_last": rank_last,
        "gain": rank - rank_last,
        **_ends("gain", gains),
        "error": float(np.abs(said - seen).mean()),
        "error_last": float(np.abs(last - seen).mean()),
        "covered": float(((seen >= low) & (seen <= high)).mean()),
        "deciles": [{"said": float(said[g].mean()), "observed": float(seen[g].mean()), "n": len(g)} for g in groups],
    }


def _ends(name: str, values: list[float]) -> dict[str, float]:
    low, high = np.nanquantile(values, [0.025, 0.975]).tolist()
    return {f"{name}_low": low, f"{name}_high": high}


def _spearman(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation; 0 where one of the two is constant."""
    x, y = rankdata(a), rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else 0.0
