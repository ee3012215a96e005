"""Tuning the ranker on a time cut: one training log, many fits, resumable.

The stretch before the as-of is replayed once and its log kept in memory; a trial fits the network (or, with
`ranker.network_epochs` 0, the tables without teachers) on its earlier requests and is judged by NDCG@10 on its later
ones, as the trial of a build is. So nothing after the as-of is looked at: give an as-of
before the days that are to be reported. The study lies in an SQLite file, and a later call goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from recsys.config import EngineConfig, RankerConfig
from recsys.errors import InputRefused
from recsys.events import clean, last_fact_us, open_events, room_table
from recsys.progress import Progress, silent
from training.learn import choices_of, fit_network, fit_tables_on, request_ndcg, second_task
from training.learning import came_back, replayed
from training.log import TrainingLog
from training.states import vocabularies_before

Suggest = Callable[[Any, str], Any]


@dataclass(frozen=True)
class Tuned:
    """The best settings of a study so far. `default` is the NDCG@10 of the settings it started from."""

    best: dict[str, Any]
    ndcg_at_10: float
    default: float
    trials: int


def tune(
    events: Path,
    study: Path,
    *,
    config: EngineConfig,
    as_of_us: int | None,
    now_us: int,
    trials: int,
    minutes: float,
    out: Path | None = None,
    progress: Progress = silent,
) -> Tuned:
    """Spend at most `trials` further trials and `minutes` on the settings of the ranker.

    Args:
        study: SQLite file of the study; made if it is not there, gone on with if it is. One study, one data set, as-of
            and config: they are part of its name.
        out: YAML for the best settings, with how they were found; None: not written.

    Raises:
        InputRefused: no facts, or no requests to train or judge on.
    """
    cleaned = clean(open_events(events), now=datetime.fromtimestamp(now_us / 1e6, UTC))
    last = last_fact_us(cleaned)
    if last is None or not {"watches", "rooms"} <= set(cleaned.tables):
        raise InputRefused("nothing to tune on", where=events, got=sorted(cleaned.tables), expected="watches and rooms")
    as_of = last + 1 if as_of_us is None else as_of_us
    vocabularies = vocabularies_before(cleaned, as_of)
    rooms = room_table(cleaned, vocabularies)
    past = replayed(cleaned, vocabularies, config, rooms, int(rooms["started_at"].to_numpy().min()), as_of, progress)
    form = "network" if config.ranker.network_epochs else "tables"
    name = f"{events.resolve().name}-{as_of}-{config.build.seed}-{form}"
    came = came_back(past.log, rooms, past.facts, as_of)
    found = search(past.log, past.later_us, config, study, name, trials, minutes, progress, came)
    if out is not None:
        day = datetime.fromtimestamp(as_of / 1e6, UTC)
        note = (
            f"# NDCG@10 {found.ndcg_at_10:.4f} (defaults {found.default:.4f}) on the latest requests before the as-of, "
            f"{found.trials} trials.\n"
            f"# laotie tune {events.name} --as-of {day:%Y-%m-%d} --trials {found.trials} --minutes {minutes:g}\n"
        )
        out.write_text(note + yaml.safe_dump({"ranker": found.best}, sort_keys=False), encoding="utf-8")
    return found


def search(
    log: TrainingLog,
    later_us: int,
    config: EngineConfig,
    study: Path,
    name: str,
    trials: int,
    minutes: float,
    progress: Progress = silent,
    came: pl.DataFrame | None = None,
) -> Tuned:
    """Trials on one log; the first trial of a study is the config itself.

    Args:
        came: the network's second task, as for `training.learn.learn_ranker`.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    judge, space = _judge(log, later_us, config, came), space_of(config.ranker)
    sampler = optuna.samplers.TPESampler(seed=config.build.seed, n_startup_trials=8)
    stored = optuna.create_study(
        study_name=name, storage=f"sqlite:///{study}", direction="maximize", sampler=sampler, load_if_exists=True
    )
    if not stored.trials:
        stored.enqueue_trial({key: getattr(config.ranker, key) for key in space})
    before = len(stored.trials)

    def objective(trial: optuna.Trial) -> float:
        progress("tuning", min(1.0, (trial.number - before) / max(trials, 1)))
        return judge({key: suggest(trial, key) for key, suggest in space.items()})

    stored.optimize(objective, n_trials=trials, timeout=60.0 * minutes)
    done = [trial for trial in stored.trials if trial.value is not None]
    return Tuned(dict(stored.best_params), stored.best_value, float(done[0].value or 0.0), len(done))


_OF_BOTH: Mapping[str, Suggest] = {
    "recency": lambda trial, key: trial.suggest_float(key, 0.7, 1.0),
    "sampled_share": lambda trial, key: trial.suggest_float(key, 0.1, 1.0),
}
_OF_TABLES: Mapping[str, Suggest] = {
    "rounds": lambda trial, key: trial.suggest_int(key, 150, 1200, log=True),
    "learning_rate": lambda trial, key: trial.suggest_float(key, 0.04, 0.3, log=True),
    "pairs": lambda trial, key: trial.suggest_int(key, 0, 200),
}
_OF_NETWORK: Mapping[str, Suggest] = {
    "network_epochs": lambda trial, key: trial.suggest_int(key, 2, 24),
    "network_rate": lambda trial, key: trial.suggest_float(key, 1e-3, 1e-2, log=True),
    "network_decay": lambda trial, key: trial.suggest_float(key, 1e-3, 0.5, log=True),
    "network_dropout": lambda trial, key: trial.suggest_float(key, 0.0, 0.4),
}


def space_of(config: RankerConfig) -> Mapping[str, Suggest]:
    """What is tuned, in the form that is tried: how long and how boldly it learns, how fast requests age, how many
    candidates stay. The shape of the network is that of every answer, and is not tuned."""
    return {**(_OF_NETWORK if config.network_epochs else _OF_TABLES), **_OF_BOTH}


def _judge(
    log: TrainingLog, later_us: int, config: EngineConfig, came: pl.DataFrame | None
) -> Callable[[dict[str, Any]], float]:
    early = (log.requests["at"] < later_us).to_numpy()
    if not early.any() or early.all():
        raise InputRefused(
            "no requests to train or to judge on",
            where="--as-of",
            got=f"{int(early.sum())} of {len(early)} lie in the earlier part of the stretch",
            expected="some in the earlier part and some in the later",
            hint="give an --as-of within the data or soon after its end, or more events",
        )
    in_early = np.repeat(early, log.groups)
    later, groups, labels = log.rows[~in_early].T, log.groups[~early], log.labels[~in_early]
    second = second_task(log, None if came is None else came.filter(pl.col("ended_at") < later_us))

    def ndcg(settings: dict[str, Any]) -> float:
        ranker = RankerConfig.model_validate({**config.ranker.model_dump(), **settings, "teacher_rounds": 0})
        whole = (choices_of(log, ranker, early), ranker, config.build.seed, config.build.threads)
        model = fit_network(*whole, second) if ranker.network_epochs else fit_tables_on(*whole)
        return float(request_ndcg(model.score(later), groups, labels).mean())

    return ndcg
