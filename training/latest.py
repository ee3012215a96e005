"""For whom a ranking works: requests by stratum, who gets the first places, and whether fans are reached.

A build judges its ranker on the latest requests of the log, which that ranker was trained without. What it says there
is by score alone, among the rooms logged; `laotie evaluate` asks the pipeline, after a cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.config import EngineConfig
from recsys.evaluation.reach import mean_fan_reach
from recsys.evaluation.strata import by_city_tier, by_follow, by_host_size, by_known_host, by_tie_age, metric_table
from recsys.events import Events, Vocabularies, user_table
from recsys.pipeline.features import FEATURES
from training.exposure import SIZE_BOUNDS, ExposureLog, among_first, host_tiers
from training.log import TrainingLog

STRATA = ("host_known", "followed", "tie_age", "host_size", "city")


@dataclass(frozen=True)
class Tiers:
    """City tiers: of each host by its row (None: not known), and of users, `user` and `city_tier`."""

    hosts: Sequence[str | None] = ()
    users: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema={"user": pl.Int64, "city_tier": pl.String}))


def tiers_of(events: Events, vocabularies: Vocabularies) -> Tiers:
    """The city tiers that the tables of hosts and users tell."""
    return Tiers(host_tiers(events, vocabularies), user_table(events, vocabularies).select("user", "city_tier"))


def with_strata(requests: pl.DataFrame) -> pl.DataFrame:
    """Adds the columns `STRATA`.

    Args:
        requests: of the host entered `known`, `follows`, `last_seen_days` (NaN: never), `host_visitors`; of the viewer
            `city_tier`.
    """
    return by_city_tier(by_host_size(by_tie_age(by_follow(by_known_host(requests))), SIZE_BOUNDS))


def judged_latest(
    log: TrainingLog,
    latest: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.floating],
    found: Mapping[str, npt.NDArray[np.float64]],
    tiers: Tiers,
    config: EngineConfig,
) -> dict[str, Any]:
    """What the report of a build says of the latest requests, as of `evaluate`'s.

    Args:
        latest: (R,) which requests of the log they are.
        scores: of their candidates, by the ranker that has not seen them.
        found: NDCG@10 of each of them by each method.

    Returns:
        `ranking`: NDCG@10 of every method over all requests and by stratum; `exposure` (`ExposureLog.document`);
        `fan_reach`: the share of a viewer's live hosts, followed or bought from, among his first k, by score; empty if
        there are none.
    """
    seed, groups = config.build.seed, log.groups[latest]
    of = log.candidates_of(latest)
    values, hosts, entered = log.rows[of].T, log.hosts[of], log.labels[of] == 1
    requests = _entered(log.requests.filter(pl.Series(latest)), values[:, entered], tiers)
    frame = with_strata(requests).with_columns(pl.Series(name, ndcg) for name, ndcg in found.items())
    columns = {"method": "metric", "ndcg_at_10": "mean", "ndcg_at_10_low": "low", "ndcg_at_10_high": "high"}
    table = metric_table(frame, STRATA, list(found), seed=seed)
    exposure = ExposureLog(tiers.hosts)
    exposure.log_many(requests["user_id"].to_numpy(), values, scores, groups, entered, hosts)
    return {
        "ranking": table.select("stratum", "value", "share", "requests", **columns).to_dicts(),
        "exposure": exposure.document(seed),
        "fan_reach": _reach(requests["user_id"], values, scores, groups, hosts, config.pipeline.k, seed),
    }


def _entered(requests: pl.DataFrame, values: npt.NDArray[np.float32], tiers: Tiers) -> pl.DataFrame:
    """The requests with what `with_strata` reads; features (F, R) of the rooms entered."""
    read = {name: values[FEATURES.index(name)] for name in _READ}
    return requests.select(
        user_id="user",
        known="known",
        follows=pl.Series(read["tie_followed"] > 0.5),
        last_seen_days=pl.Series(read["tie_hours_since_entry"] / 24.0),
        host_visitors=pl.Series(read["host_visitors"]),
    ).join(tiers.users.rename({"user": "user_id"}), on="user_id", how="left", maintain_order="left")


def _reach(
    users: pl.Series,
    values: npt.NDArray[np.float32],
    scores: npt.NDArray[np.floating],
    groups: npt.NDArray[np.int64],
    hosts: npt.NDArray[np.int32],
    k: int,
    seed: int,
) -> dict[str, float]:
    followed, lines = (values[FEATURES.index(name)] for name in ("tie_followed", "tie_order_lines"))
    private = np.flatnonzero((followed > 0.5) | (lines > 0))
    if not len(private):
        return {}
    request = np.repeat(np.arange(len(groups)), groups)[private]
    fans = pl.DataFrame(
        {"request_id": request, "user_id": users.to_numpy()[request], "host_id": hosts[private], "room_id": private}
    )
    shown = fans.filter(pl.Series(among_first(scores, groups, k)[private]))
    answers = shown.select("request_id", "room_id", rank=pl.lit(1))
    reach = mean_fan_reach(fans, answers, k, seed=seed).row(0, named=True)
    return {"reach": reach["mean"], "low": reach["low"], "high": reach["high"], "k": float(k)}


_READ = ("tie_followed", "tie_hours_since_entry", "host_visitors")
