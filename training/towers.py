"""Examples for the two-tower model from the facts before an instant."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.bundle import StageResult
from recsys.config import EngineConfig
from recsys.evaluation.bootstrap import user_bootstrap
from recsys.events import Events, Vocabularies, room_table, tie_facts, user_parts, user_table
from recsys.events.facts import US_PER_DAY, FactKind
from recsys.models.two_tower import HALF_LIVES_DAYS, TwoTower
from recsys.models.two_tower_training import Examples, fit_two_tower
from recsys.progress import Progress, silent
from training.trust import host_categories

LEAST_EXAMPLES = 500
LEAST_TRIALS = 200
"""Entries at hosts new to the viewer that decide between tower and factors."""
LOOKED_BACK = 200
"""Entries before an example that make its history in training; online nothing is cut."""
SHOWN_WITHIN_US = 15 * 60_000_000
"""Rooms shown so shortly before an entry were alternatives to it."""


_TOLD = ("watches", "impressions")


def fit_tower(
    events: Events, vocabularies: Vocabularies, config: EngineConfig, as_of_us: int, progress: Progress = silent
) -> tuple[TwoTower | None, StageResult]:
    """The two-tower model from facts before `as_of_us`."""
    if not {"watches", "rooms"} <= events.tables.keys():
        return None, StageResult(name="tower", status="skipped", why="needs watches and rooms")
    n_parts = user_parts(events, config.ties.user_buckets if len(vocabularies.users) > 20_000 else 1)
    parts = []
    for part in range(n_parts):
        facts = tie_facts(events, vocabularies, before_us=as_of_us, bucket=(part, n_parts), only=_TOLD)
        kinds = [int(FactKind.ENTRY), int(FactKind.IMPRESSION)]
        parts.append(facts.filter(pl.col("kind").is_in(kinds)).select("kind", "user", "host", "at"))
        progress("tower", (part + 1) / n_parts)
    told = pl.concat(parts)
    rooms = room_table(events, vocabularies).filter(pl.col("started_at") < as_of_us)
    rng = np.random.default_rng(config.build.seed)
    tiers = _tiers(events, vocabularies)
    examples = examples_of(told, rooms, config.tower.examples, config.tower.negatives, rng, tiers)
    if len(examples) < LEAST_EXAMPLES:
        why = f"{len(examples)} entries with a choice of rooms, {LEAST_EXAMPLES} needed"
        return None, StageResult(name="tower", status="skipped", why=why)
    names = host_categories(events, vocabularies, as_of_us)
    code = {name: i for i, name in enumerate(sorted({name for name in names if name is not None}), start=1)}
    category = np.array([code.get(name, 0) if name is not None else 0 for name in names], dtype=np.int64)
    tower = fit_two_tower(examples, category, tiers, config.tower, config.build.seed, config.build.threads)
    return tower, StageResult(name="tower", status="passed")


def _tiers(events: Events, vocabularies: Vocabularies) -> npt.NDArray[np.int8]:
    """Code of every user's city tier (U,), 0 unknown; at most the first hundred tiers are told apart."""
    table = user_table(events, vocabularies).drop_nulls("city_tier")
    names = table["city_tier"].cast(pl.String)
    code = {name: i for i, name in enumerate(names.unique().sort().to_list()[:100], start=1)}
    found = np.zeros(len(vocabularies.users), dtype=np.int8)
    found[table["user"].to_numpy()] = [code.get(name, 0) for name in names]
    return found


def examples_of(
    told: pl.DataFrame,
    rooms: pl.DataFrame,
    most: int,
    negatives: int,
    rng: np.random.Generator,
    tiers: npt.NDArray[np.int8] | None = None,
) -> Examples:
    """Sampled entries with what was known before each and what else could have been entered.

    Args:
        told: kind (ENTRY or IMPRESSION), user, host, at.
        rooms: host, started_at, ended_at (null: still live).
        tiers: (U,) code of each user's city tier.
    """
    entries = told.filter(pl.col("kind") == int(FactKind.ENTRY)).sort("user", "at", "host")
    user, host, at = (entries[name].to_numpy().astype(np.int64) for name in ("user", "host", "at"))
    n = len(at)
    chosen = np.sort(rng.choice(n, min(most, n), replace=False)) if n else np.empty(0, dtype=np.int64)
    others, correction = _others(told, rooms, user[chosen], host[chosen], at[chosen], negatives, rng)
    usable = (others >= 0).any(axis=1)
    chosen, others, correction = chosen[usable], others[usable], correction[usable]
    starts, history, counts = _histories(user, host, at, chosen)
    return Examples(
        host=host[chosen],
        at_us=at[chosen],
        tier=np.zeros(len(chosen), dtype=np.int64) if tiers is None else tiers[user[chosen]].astype(np.int64),
        starts=starts,
        history=history,
        counts=counts,
        others=others,
        correction=correction,
    )


class Trial(NamedTuple):
    """Whether the tower finds hosts the viewer did not know better than the factors do, with figures and stage."""

    better: bool
    metrics: dict[str, float]
    stage: StageResult


def nearest_trial(ranks: pl.DataFrame, fitted: StageResult, seed: int) -> Trial:
    """Judge tower against factors.

    Args:
        ranks: user, factors, tower: at which place among all live rooms each had the room entered, 0 the first.
        fitted: what became of fitting the tower.

    Returns:
        the verdict, and as metrics the mean of 1 / log₂(place + 2) of both and the interval of their difference.
    """
    if fitted.status != "passed":
        return Trial(False, {}, fitted)
    if len(ranks) < LEAST_TRIALS:
        why = f"{len(ranks)} later entries at hosts the viewer did not know, {LEAST_TRIALS} needed"
        return Trial(False, {}, StageResult(name="tower", status="skipped", why=why))
    gains = ranks.select(
        user_id="user", **{name: 1.0 / (pl.col(name) + 2.0).log(2.0) for name in ("factors", "tower")}
    ).with_columns(gain=pl.col("tower") - pl.col("factors"))
    rows = {row["metric"]: row for row in user_bootstrap(gains, ["factors", "tower", "gain"], seed=seed).to_dicts()}
    metrics = {f"nearest_{name}_ndcg": rows[name]["mean"] for name in ("factors", "tower")}
    metrics |= {"nearest_gain_low": rows["gain"]["low"], "nearest_gain_high": rows["gain"]["high"]}
    if rows["gain"]["low"] > 0.0:
        return Trial(True, metrics, fitted)
    why = f"NDCG {rows['tower']['mean']:.4f} against the factors' {rows['factors']['mean']:.4f}: they go on searching"
    return Trial(False, metrics, StageResult(name="tower", status="failed", why=why))


def _histories(
    user: npt.NDArray[np.int64], host: npt.NDArray[np.int64], at: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Decayed counts of the hosts a user entered strictly before each chosen entry; entries sorted by user and time."""
    same = np.concatenate([[True], (user[1:] != user[:-1]) | (at[1:] != at[:-1])])
    instant = np.maximum.accumulate(np.where(same, np.arange(len(at)), 0))[chosen]  # entries of one instant know none
    first = np.searchsorted(user, user[chosen])
    lengths = np.minimum(instant - first, LOOKED_BACK)
    example = np.repeat(np.arange(len(chosen)), lengths)
    before = np.repeat(instant - lengths - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
    pair, of = np.unique(example * (int(host.max(initial=0)) + 1) + host[before], return_inverse=True)
    age_days = (at[chosen][example] - at[before]) / US_PER_DAY
    decayed = [np.bincount(of, np.exp2(-age_days / half_life), len(pair)) for half_life in HALF_LIVES_DAYS]
    history = pair % (int(host.max(initial=0)) + 1)
    starts = np.searchsorted(pair // (int(host.max(initial=0)) + 1), np.arange(len(chosen) + 1))
    return starts.astype(np.int64), history, np.stack(decayed, axis=1).astype(np.float32)


def _others(
    told: pl.DataFrame,
    rooms: pl.DataFrame,
    user: npt.NDArray[np.int64],
    host: npt.NDArray[np.int64],
    at: npt.NDArray[np.int64],
    negatives: int,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Hosts live at each entry but not entered: those just shown to the user, then a sample of the rest."""
    shown = told.filter(pl.col("kind") == int(FactKind.IMPRESSION)).sort("user", "at")
    shown_user, shown_host, shown_at = (shown[name].to_numpy().astype(np.int64) for name in ("user", "host", "at"))
    starts, ends = rooms.sort("started_at"), rooms.filter(pl.col("ended_at").is_not_null()).sort("ended_at")
    opening = list(zip(starts["started_at"].to_list(), starts["host"].to_list(), strict=True))
    closing = list(zip(ends["ended_at"].to_list(), ends["host"].to_list(), strict=True))
    live: dict[int, int] = {}
    opened = closed = 0
    others = np.full((len(at), negatives), -1, dtype=np.int64)
    correction = np.zeros((len(at), negatives), dtype=np.float32)
    for i in np.argsort(at, kind="stable").tolist():
        now, right = int(at[i]), int(host[i])
        while opened < len(opening) and opening[opened][0] < now:
            live[opening[opened][1]] = live.get(opening[opened][1], 0) + 1
            opened += 1
        while closed < len(closing) and closing[closed][0] < now:
            of = closing[closed][1]
            live[of] -= 1
            if not live[of]:
                del live[of]
            closed += 1
        if right not in live:
            continue  # not a choice among rooms known to be live
        low, high = np.searchsorted(shown_user, [user[i], user[i] + 1])
        span = low + np.searchsorted(shown_at[low:high], [now - SHOWN_WITHIN_US, now])
        exposed = [h for h in dict.fromkeys(shown_host[span[0] : span[1]].tolist()) if h in live and h != right]
        exposed = exposed[max(0, len(exposed) - negatives // 2) :]
        rest = np.array([h for h in live if h != right and h not in exposed], dtype=np.int64)
        left = negatives - len(exposed)
        drawn = rest if len(rest) <= left else rng.choice(rest, left, replace=False)
        others[i, : len(exposed)] = exposed
        others[i, len(exposed) : len(exposed) + len(drawn)] = drawn
        if len(rest) > left:
            correction[i, len(exposed) :] = -np.log(left / len(rest))
    return others, correction
