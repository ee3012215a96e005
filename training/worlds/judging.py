"""Kendall's τ per user between the planted order of his hosts and what each method says of them.

Judged are all hosts a user has in mind at the end of the window (neither forgotten nor blocked), seen in the events or
not; the ranker's score exists for hosts who are live then, so it is judged on those, beside the
others on the same pairs.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.config import EngineConfig
from recsys.evaluation.reach import kendall_tau_b
from recsys.events.simulator import WorldConfig, simulate
from recsys.live.artefact import assemble
from recsys.models.baselines import memory
from recsys.models.strength import strength_head
from recsys.pipeline.scoring import scored
from recsys.pipeline.world import World
from recsys.ties.algebra import Floats
from recsys.ties.features import TIE_FEATURES
from training.build import train
from training.worlds.oracle import Oracle
from training.worlds.pairs import LEAST_PAIRS, Pairs, host_rates, pairs_of, usable

METHODS = ("entries", "memory", "strength", "score", "oracle")
_ENTRIES = TIE_FEATURES.index("tie_entries")
_MEMORY_READS = ("tie_share_of_user", "tie_share_3d")


@dataclass(frozen=True)
class WorldSize:
    """Size of a judged world."""

    users: int = 300
    hosts: int = 120
    days: int = 42


@dataclass
class JudgedWorld:
    """One world and seed.

    `taus`: user_id, pairs (`all` or `live`), one column per method; a constant method has τ 0 there: it says nothing of
    the order. `metrics`: the training's own, each head's calibration among them.
    """

    world: str
    seed: int
    size: WorldSize
    taus: pl.DataFrame
    metrics: dict[str, float] = field(default_factory=dict)
    training_cpu_s: float = 0.0
    peak_memory_mib: float = 0.0

    def document(self) -> dict[str, Any]:
        """Plain data, without the rows."""
        means = {
            part: frame.select(pl.col(METHODS).mean()).row(0, named=True)
            for (part,), frame in self.taus.partition_by("pairs", as_dict=True).items()
        }
        return {
            "world": self.world,
            "seed": self.seed,
            **asdict(self.size),
            "tau": means,
            "judged_users": {p: len(f) for (p,), f in self.taus.partition_by("pairs", as_dict=True).items()},
            "metrics": self.metrics,
            "training_cpu_s": self.training_cpu_s,
            "peak_memory_mib": self.peak_memory_mib,
        }


def judge_world(law: WorldConfig, seed: int, size: WorldSize, oracle: Oracle, config: EngineConfig) -> JudgedWorld:
    """Simulate a world, train on its events up to the end of the window, and compare with what is planted."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "world"
        simulate(law, users=size.users, hosts=size.hosts, days=size.days, seed=seed, out=folder)
        begun = time.process_time()
        trained = train(usable(folder), config, None)
        spent = time.process_time() - begun
        world, as_of = assemble(trained.parts).world, trained.as_of_us
        pairs = pairs_of(folder, law, world, trained.vocabularies, as_of)
    said = _said(world, pairs, oracle, as_of)
    taus = pl.concat([taus_of(said, "all"), taus_of(said.filter(pl.col("score").is_not_nan()), "live")])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return JudgedWorld(law.name, seed, size, taus, trained.metrics, spent, peak)


def taus_of(said: pl.DataFrame, part: str) -> pl.DataFrame:
    """τ-b of every method per user with at least LEAST_PAIRS pairs whose planted strengths differ."""
    kept = said.filter((pl.len().over("user_id") >= LEAST_PAIRS) & (pl.col("planted").n_unique().over("user_id") > 1))
    judged = kept.select("user_id").unique().sort("user_id").with_columns(pairs=pl.lit(part))
    for method in METHODS:
        if part == "all" and method == "score":
            judged = judged.with_columns(pl.lit(None, dtype=pl.Float64).alias(method))
            continue
        tau = kendall_tau_b(kept.select("user_id", method, "planted"), score=method, planted="planted")
        judged = judged.join(tau.select("user_id", pl.col("tau_b").fill_null(0.0).alias(method)), on="user_id")
    return judged.sort("user_id")


def _said(world: World, pairs: Pairs, oracle: Oracle, at: int) -> pl.DataFrame:
    """What each method says of every pair; the score is NaN for hosts who are not live."""
    epoch = world.index.publish()
    live = world.rooms.host[epoch.rooms].astype(np.int64)
    head = strength_head(world.models.strength)
    parts, start = [], 0
    for (user,), part in pairs.frame.group_by("user", maintain_order=True):
        hosts, rows = part["host"].to_numpy().astype(np.int64), pairs.values[start : start + len(part)].T
        start += len(part)
        tied = part["tied"].to_numpy()
        values = rows.astype(np.float64)
        strength = np.zeros(len(hosts))
        if head is not None:
            strength = np.full(len(hosts), head.stranger)
            strength[tied] = head.probability(values[:, tied])
        parts.append(
            part.with_columns(
                entries=pl.Series(np.nan_to_num(values[_ENTRIES])),
                memory=pl.Series(_memory(world, values, hosts, at)),
                strength=pl.Series(strength),
                score=pl.Series(_score(world, int(user), epoch.rooms, live, hosts, at)),
            )
        )
    return pl.concat(parts).with_columns(oracle=pl.Series(oracle.score(pairs.all_values)))


def _memory(world: World, values: Floats, hosts: npt.NDArray[np.int64], at: int) -> Floats:
    rates = host_rates(world, hosts, at) + 1e-3
    names = (*_MEMORY_READS, "host_entries_2h_share")
    rows = np.stack([*(values[TIE_FEATURES.index(name)] for name in _MEMORY_READS), rates / rates.sum()])
    return memory(names, rows)


def _score(
    world: World,
    user: int,
    rooms: npt.NDArray[np.int64],
    live: npt.NDArray[np.int64],
    hosts: npt.NDArray[np.int64],
    at: int,
) -> Floats:
    """The ranker's score among all rooms live at `at`, for the hosts who are."""
    said = np.full(len(hosts), np.nan)
    wanted = np.isin(hosts, live)
    if wanted.any():
        viewer = world.models.viewer(world.ties, world.blocks, user, len(world.standings), at)
        score = scored(world, user, viewer, rooms, at).score
        said[wanted] = [score[live == host].max() for host in hosts[wanted]]
    return said


def closed_gap(judged: Sequence[pl.DataFrame], method: str, *, replicates: int = 1000) -> dict[str, float]:
    """Mean τ of memory, of `method` and of the oracle over all users of several seeds, with 95 % intervals over users.

    Args:
        judged: `JudgedWorld.taus` of one world, one set of pairs, a frame per seed. Users are resampled within seeds.

    Returns:
        `memory`, `tau`, `oracle`, `gain` = tau − memory and `closed` = gain / (oracle − memory), each but the first and
        third with `_low` and `_high`; `users`.
    """
    tables = [frame.select("memory", method, "oracle").to_numpy() for frame in judged]
    rng = np.random.default_rng(0)

    def figures(parts: Sequence[npt.NDArray[np.float64]]) -> tuple[float, float, float]:
        remembered, ours, best = np.concatenate(parts).mean(axis=0)
        return float(ours), float(ours - remembered), float((ours - remembered) / (best - remembered))

    drawn = np.array([figures([t[rng.integers(0, len(t), len(t))] for t in tables]) for _ in range(replicates)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    remembered, _, best = np.concatenate(tables).mean(axis=0)
    result = {"memory": float(remembered), "oracle": float(best), "users": float(sum(map(len, tables)))}
    for i, (name, value) in enumerate(zip(("tau", "gain", "closed"), figures(tables), strict=True)):
        result |= {name: value, f"{name}_low": float(low[i]), f"{name}_high": float(high[i])}
    return result
