"""Other rankers trained on the same log as the served one, to be judged on the same requests: `evaluate --compare`.

What is served has to be held against what it could have been: boosted trees trained for the metric, a network of two
tasks, a linear floor, and tables on one part of the features only.

Shape letters: N rows (candidates of all requests), F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.config import EngineConfig
from recsys.models.additive import AdditiveModel
from recsys.models.additive_training import Choices, fit_tables, thinned
from recsys.models.boosting import boost
from recsys.models.choice_network import fit_choice_network
from recsys.models.suite import PERSONAL_FEATURES
from recsys.pipeline.features import FEATURES
from training.learn import KNOWN, POPULAR, choices_of, second_task
from training.log import TrainingLog

Scorer = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
"""Rows (N, F) → scores (N,)."""

_PARTS: Mapping[str, Callable[[str], bool]] = {
    "ties alone": lambda name: name.startswith("tie_"),
    "collaborative alone": lambda name: name in PERSONAL_FEATURES,
    "room and host alone": lambda name: name.startswith(("room_", "host_", "cohosts")),
}


def fit_rivals(log: TrainingLog, came: pl.DataFrame, config: EngineConfig) -> dict[str, Scorer]:
    """Train every rival on the whole log; minutes of processor time.

    Args:
        log: the training log of the served ranker.
        came: logged ties with an answer: `row` (position in the log) and `came`, whether the user entered the host's
            next broadcast; the network's second task.
        config: of the build; its seeds, threads, recency and thinning.

    Returns:
        By name: `LambdaMART` (LightGBM, all candidates), `network` (two tasks), `linear`, and tables without
        teachers on one part of the features only.
    """
    choices = choices_of(log, config.ranker)
    seed, threads = config.build.seed, config.build.threads
    rivals: dict[str, Scorer] = {"LambdaMART": _lambdamart(choices, config)}
    thin, correction = thinned(choices, FEATURES.index(KNOWN), FEATURES.index(POPULAR), config.ranker, seed)
    for name, wide, task in (("network", True, second_task(log, came)), ("linear", False, None)):
        network = fit_choice_network(
            thin.rows, thin.groups, thin.labels, correction, thin.weights,
            seed=seed, threads=threads, wide=wide, second=task,
        )  # fmt: skip
        rivals[name] = network.score
    for name, belongs in _PARTS.items():
        columns = np.flatnonzero([belongs(feature) for feature in FEATURES])
        part = Choices(thin.rows[:, columns], thin.groups, thin.labels, thin.weights)
        names = [FEATURES[column] for column in columns]
        model = fit_tables(names, part, part.labels.astype(np.float64), correction, config.ranker, seed, threads)
        rivals[name] = partial(_of_part, model, columns)
    return rivals


def _of_part(
    model: AdditiveModel, columns: npt.NDArray[np.intp], rows: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    return model.score(rows[:, columns].T.astype(np.float64))


def _lambdamart(choices: Choices, config: EngineConfig) -> Scorer:
    assert choices.weights is not None
    data = lgb.Dataset(
        choices.rows,
        choices.labels,
        group=choices.groups,
        weight=np.repeat(choices.weights, choices.groups),
        params={"max_bin": config.ranker.bins, "verbosity": -1},
    )
    booster = boost(
        data, config.ranker.teacher_rounds or 250, objective="lambdarank", leaves=31, rate=0.06, feature_share=0.4,
        threads=config.build.threads, seed=config.build.seed, min_data_in_leaf=100, lambdarank_truncation_level=15,
    )  # fmt: skip
    return lambda rows: np.asarray(booster.predict(rows, num_threads=config.build.threads), dtype=np.float64)
