"""What the ranking loses without a group of features: one training log, refitted per group on the same requests.

Every variant is a LightGBM LambdaMART of one fixed shape on some of the columns of the log, fitted on requests before
the cut and judged on those after it, so that differences come from the features alone. It is not the served ranker
(additive, distilled), whose level is in the table of the data set. Collaborative models are refitted
as often as in a build; states move on with every fact.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.config import EngineConfig
from recsys.evaluation.bootstrap import user_bootstrap
from recsys.events import Events, build_vocabularies, last_fact_us, room_table
from recsys.events.simulator import load_world, simulate
from recsys.instants import parse_instant
from recsys.models.baselines import memory, popularity
from recsys.models.boosting import boost
from recsys.models.suite import PERSONAL_FEATURES
from recsys.pipeline.features import FEATURES, REQUEST_FEATURES
from recsys.pipeline.moment import MOMENT_FEATURES
from recsys.pipeline.tied import ROOM_TIE_FEATURES
from recsys.ties.features import TIE_FEATURES
from training.learn import request_ndcg
from training.learning import replayed
from training.log import TrainingLog
from training.worlds.pairs import usable

WINDOW = 16
"""Hosts a truncated history reaches back to, as the window of a sequence model would."""
_TIES = frozenset((*TIE_FEATURES, *ROOM_TIE_FEATURES, *REQUEST_FEATURES))
_LONG = frozenset(
    name
    for name in TIE_FEATURES
    if name
    in (
        "tie_entries", "tie_entries_14d", "tie_share_of_user", "tie_days_since_first", "tie_active_days",
        "tie_broadcasts_attended", "tie_attendance", "tie_hour_match", "tie_stay_mean_min", "tie_beyond_mean_min",
        "tie_beyond_30d_min", "tie_comments", "tie_comments_30d", "tie_order_lines", "tie_lines_120d",
    )
)  # fmt: skip
_DAYS = frozenset(name for name in TIE_FEATURES if "_since" in name or name.endswith(("_2h", "_12h", "_3d", "_14d")))
_MISSED = frozenset(("tie_broadcasts_missed", "tie_attendance", "tie_broadcasts_attended"))
_FOLLOWS = frozenset(("tie_followed", "tie_follow_age_days", "tie_unfollowed", "host_fans"))
_TRANSITIONS = frozenset(name for name in FEATURES if name.startswith("transition_"))


def variants() -> dict[str, frozenset[str]]:
    """Features of each variant, by name."""
    everything = frozenset(FEATURES)
    personal, moment = frozenset(PERSONAL_FEATURES), frozenset(MOMENT_FEATURES)
    return {
        "blend: everything": everything,
        "ties only": _TIES,
        "collaborative only": personal,
        "room moment only": moment | frozenset(REQUEST_FEATURES),
        "without ties": everything - _TIES,
        "without collaborative": everything - personal,
        "without transitions": everything - _TRANSITIONS,
        "without follow signals": everything - _FOLLOWS,
        "recency by days only": everything - _MISSED,
        "recency by missed broadcasts only": everything - _DAYS,
        f"history of {WINDOW} hosts": everything - _LONG,
    }


def measure_events(path: Path, cut: str | None, config: dict[str, Any]) -> dict[str, Any]:
    """All variants on the events in `path`; without a cut the latest fifth is judged."""
    as_of = None if cut is None else parse_instant(cut, where="cut")
    return _measure(usable(path), as_of, EngineConfig.model_validate(config))


def measure_world(world: str, users: int, hosts: int, days: int, seed: int, config: dict[str, Any]) -> dict[str, Any]:
    """All variants on a simulated market."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "world"
        simulate(load_world(world), users=users, hosts=hosts, days=days, seed=seed, out=folder)
        return _measure(usable(folder), None, EngineConfig.model_validate(config))


def _measure(events: Events, cut: int | None, config: EngineConfig) -> dict[str, Any]:
    log, later_us = logged(events, cut, config)
    early = (log.requests["at"] < later_us).to_numpy()
    in_early = np.repeat(early, log.groups)
    columns = {name: j for j, name in enumerate(FEATURES)}
    groups, labels = log.groups[~early], log.labels[~in_early]
    later = log.rows[~in_early]
    asked = log.requests.filter(~pl.Series(early))
    scores: dict[str, npt.NDArray[np.float64]] = {
        "memory formula": memory(FEATURES, later.T.astype(np.float64)),
        "popularity": popularity(FEATURES, later.T.astype(np.float64)),
    }
    seconds = {}
    for name, kept in variants().items():
        begun = time.process_time()
        chosen = [columns[feature] for feature in FEATURES if feature in kept]
        train, test = log.rows[in_early][:, chosen], later[:, chosen]
        if name.startswith("history of"):
            train, test = (_forgotten(part, rows, kept) for part, rows in ((train, log.rows[in_early]), (test, later)))
        scores[name] = _fitted_score(train, log.groups[early], log.labels[in_early], test)
        seconds[name] = time.process_time() - begun
    found = {name: request_ndcg(score, groups, labels) for name, score in scores.items()}
    rows = [_row(name, values, found["blend: everything"], asked) for name, values in found.items()]
    for row in rows:
        row["training_cpu_s"] = seconds.get(row["method"])
    return {"requests": len(asked), "users": asked["user"].n_unique(), "trained_on": int(early.sum()), "rows": rows}


def logged(events: Events, cut: int | None, config: EngineConfig) -> tuple[TrainingLog, int]:
    """The training log up to the end of the data, and the instant from which its requests are judged, µs."""
    end = int(last_fact_us(events) or 0) + 1
    vocabularies = build_vocabularies(events, as_of_us=end)
    rooms = room_table(events, vocabularies)
    first = int(rooms["started_at"].to_numpy().min())
    cut = end - (end - first) // 5 if cut is None else cut
    return replayed(events, vocabularies, config, rooms, first, end).log, cut


def _row(
    name: str, values: npt.NDArray[np.float64], blend: npt.NDArray[np.float64], asked: pl.DataFrame
) -> dict[str, Any]:
    frame = asked.select(
        pl.col("user").alias("user_id"),
        ndcg=pl.Series(values),
        known=pl.when(pl.col("known")).then(pl.Series(values)),
        new=pl.when(~pl.col("known")).then(pl.Series(values)),
        loss=pl.Series(values - blend),
    )
    table = user_bootstrap(frame, ["ndcg", "known", "new", "loss"])
    row: dict[str, Any] = {"method": name}
    for found in table.iter_rows(named=True):
        row |= {
            f"{found['metric']}{part}": found[key] for part, key in (("", "mean"), ("_low", "low"), ("_high", "high"))
        }
    return row


def _forgotten(
    part: npt.NDArray[np.float32], rows: npt.NDArray[np.float32], kept: frozenset[str]
) -> npt.NDArray[np.float32]:
    """The same columns with every tie cleared that lies more than WINDOW hosts back."""
    names = [name for name in FEATURES if name in kept]
    gone = rows[:, FEATURES.index("tie_hosts_since")] >= WINDOW
    cleared = part.copy()
    for j, name in enumerate(names):
        if name in TIE_FEATURES:
            cleared[gone, j] = np.nan
        elif name in ROOM_TIE_FEATURES:
            cleared[gone, j] = 0.0
    return cleared


def _fitted_score(
    train: npt.NDArray[np.float32], groups: npt.NDArray[np.int64], labels: npt.NDArray[np.int8],
    test: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:  # fmt: skip
    data = lgb.Dataset(train, labels, group=groups, params={"max_bin": 63, "verbosity": -1})
    booster = boost(data, 120, objective="lambdarank", leaves=31, rate=0.1, feature_share=0.5, threads=1, seed=1)
    return np.asarray(booster.predict(test, num_threads=1))
