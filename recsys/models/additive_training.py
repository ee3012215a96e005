"""Training of additive models with LightGBM (offline only).

A ranker is trained in three steps. Candidates are thinned: the entered room, the rooms of known hosts and the most
popular ones stay, of the others a sample does, with the correction of sampled softmax (Bengio, Senécal, 2008). Teachers
of any depth are boosted on the listwise softmax loss (the choice of one room among those live: McFadden's conditional
logit; ListNet with one relevant item, Cao et al., ICML 2007). Trees of depth two are then boosted towards a mix of the
truth and what the teachers say (Hinton, Vinyals, Dean, 2015), and become tables (`recsys.models.additive`).

Shape letters: N rows, F features, R requests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from recsys.config import ProbabilityConfig, RankerConfig
from recsys.models.additive import AdditiveModel
from recsys.models.boosted_trees import from_boosted_trees
from recsys.models.boosting import LEAF_ROWS, Floats, Objective, boost
from recsys.models.choice_network import fit_choice_network


@dataclass(frozen=True)
class Choices:
    """Requests with one entered room each.

    Args:
        rows: (N, F) float32, NaN for missing; candidates of a request stand together.
        groups: (R,) candidates per request, summing to N.
        labels: (N,) 1 for the room entered, 0 for the others.
        weights: (R,) weight of each request, or None.
    """

    rows: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int8]
    weights: Floats | None = None


def fit_ranker(
    features: Sequence[str],
    choices: Choices,
    config: RankerConfig,
    seed: int,
    threads: int,
    *,
    known: str,
    popular: str,
    always: Sequence[tuple[str, str]] = (),
) -> AdditiveModel:
    """The ranker, in additive form; its score is the log-odds of a choice up to a constant per request.

    Args:
        features: F names.
        choices: what was chosen.
        config: settings.
        seed: of thinning, bagging and feature sampling.
        threads: of the booster.
        known: feature that is positive for hosts the viewer knows: never thinned.
        popular: feature by which candidates count as popular.
        always: pairs of features that may meet in a joint term whatever the scout finds.
    """
    thin, correction = thinned(choices, features.index(known), features.index(popular), config, seed)
    data = _dataset(thin, config, threads)
    truth = thin.labels.astype(np.float64)
    target = truth
    if config.teacher_rounds:
        objective = _softmax_loss(thin, truth, correction)
        shapes = ((31, -1, 0.06, config.teacher_rounds), (8, 3, 0.12, round(1.4 * config.teacher_rounds)))
        said = np.zeros(len(truth))
        for i, (leaves, depth, rate, rounds) in enumerate(shapes):
            teacher = _boost(data, objective, rounds, leaves, depth, rate, 0.4, threads, seed + i)
            said += np.asarray(teacher.predict(thin.rows, num_threads=threads)) / len(shapes)
        if config.network_share:
            network = fit_choice_network(
                thin.rows, thin.groups, thin.labels, correction, thin.weights, seed=seed, threads=threads
            )
            said = (1.0 - config.network_share) * said + config.network_share * network.score(thin.rows)
        opinion = softmax(said + correction, thin.groups)
        target = config.truth_share * truth + (1.0 - config.truth_share) * opinion
    return _tables(features, data, thin, target, correction, config, seed, threads, always)


def fit_tables(
    features: Sequence[str],
    thin: Choices,
    target: Floats,
    correction: Floats,
    config: RankerConfig,
    seed: int,
    threads: int,
) -> AdditiveModel:
    """Tables boosted towards `target` (N,), the share of each candidate in its request's choice.

    Args:
        thin: candidates from `thinned`, also with fewer features; `correction` (N,) as it came with them.
    """
    return _tables(features, _dataset(thin, config, threads), thin, target, correction, config, seed, threads)


def _tables(
    features: Sequence[str],
    data: lgb.Dataset,
    thin: Choices,
    target: Floats,
    correction: Floats,
    config: RankerConfig,
    seed: int,
    threads: int,
    always: Sequence[tuple[str, str]] = (),
) -> AdditiveModel:
    objective = _softmax_loss(thin, target, correction)
    shape = (4, 2, config.learning_rate, 0.5, threads, seed + 9)
    scout = _boost(data, objective, config.rounds // 4, *shape)
    pairs = [[j] for j in range(len(features))] + _best_pairs(scout.dump_model(), config.pairs)
    pairs += [[features.index(a), features.index(b)] for a, b in always]
    booster = _boost(data, objective, config.rounds, *shape, pairs)
    return from_boosted_trees(features, booster.dump_model())


def _dataset(thin: Choices, config: RankerConfig, threads: int) -> lgb.Dataset:
    return lgb.Dataset(
        thin.rows,
        thin.labels,
        params={
            "max_bin": config.bins,
            "num_threads": threads,
            "verbosity": -1,
            "min_data_in_leaf": LEAF_ROWS,
            "feature_pre_filter": False,
        },
        free_raw_data=False,
    )


def _best_pairs(dump: Mapping[str, Any], count: int) -> list[list[int]]:
    """The pairs of features that trees of depth two gained most by splitting on together."""
    gains: dict[tuple[int, int], float] = defaultdict(float)
    for tree in dump["tree_info"]:
        root = tree["tree_structure"]
        for child in (root.get("left_child", {}), root.get("right_child", {})):
            if "split_feature" in child and child["split_feature"] != root["split_feature"]:
                first, second = sorted((root["split_feature"], child["split_feature"]))
                gains[first, second] += child["split_gain"]
    ordered = sorted(gains, key=lambda pair: (-gains[pair], pair))
    return [list(pair) for pair in ordered[:count]]


def fit_probability(
    features: Sequence[str],
    rows: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int8],
    config: ProbabilityConfig,
    seed: int,
    threads: int,
    weights: Floats | None = None,
) -> AdditiveModel:
    """A model of the log-odds of `labels` (N,) in additive form, from rows (N, F) that count `weights` (N,) each."""
    settings = {"max_bin": config.bins, "verbosity": -1, "min_data_in_leaf": LEAF_ROWS}
    data = lgb.Dataset(rows, labels, weight=weights, params=settings)
    booster = _boost(data, "binary", config.rounds, 4, 2, config.learning_rate, 0.5, threads, seed)
    return from_boosted_trees(features, booster.dump_model())


def _boost(
    data: lgb.Dataset,
    objective: Objective | str,
    rounds: int,
    leaves: int,
    depth: int,
    rate: float,
    feature_share: float,
    threads: int,
    seed: int,
    together: list[list[int]] | None = None,
) -> lgb.Booster:
    """Boost; `together` lists the groups of features that may share a path (None: any)."""
    others: dict[str, Any] = {"max_depth": depth, "min_sum_hessian_in_leaf": 0.5}
    if together is not None:
        others["interaction_constraints"] = together
    return boost(
        data, rounds, objective=objective, leaves=leaves, rate=rate, feature_share=feature_share, threads=threads,
        seed=seed, **others,
    )  # fmt: skip


def thinned(choices: Choices, known: int, popular: int, config: RankerConfig, seed: int) -> tuple[Choices, Floats]:
    """Fewer candidates, and what to add to their scores inside the softmax so that it estimates the whole one."""
    n = len(choices.labels)
    request = np.repeat(np.arange(len(choices.groups)), choices.groups)
    order = np.lexsort((-np.nan_to_num(choices.rows[:, popular], nan=-np.inf), request))
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n) - np.repeat(np.cumsum(choices.groups) - choices.groups, choices.groups)
    stays = (choices.labels > 0) | (choices.rows[:, known] > 0) | (place < config.kept_popular)
    drawn = np.random.default_rng(seed).random(n) < config.sampled_share
    kept = np.flatnonzero(stays | drawn)
    correction = np.where(stays[kept], 0.0, -np.log(config.sampled_share))
    groups = np.bincount(request[kept], minlength=len(choices.groups))
    return Choices(choices.rows[kept], groups, choices.labels[kept], choices.weights), correction


def _softmax_loss(choices: Choices, target: Floats, correction: Floats) -> Objective:
    """Gradient and diagonal Hessian of −Σ target · log softmax(score + correction) per request."""
    weight = None if choices.weights is None else np.repeat(choices.weights, choices.groups)

    def loss(score: Floats, _: lgb.Dataset) -> tuple[Floats, Floats]:
        chance = softmax(score + correction, choices.groups)
        gradient, curvature = chance - target, np.maximum(chance * (1.0 - chance), 1e-6)
        return (gradient, curvature) if weight is None else (gradient * weight, curvature * weight)

    return loss


def softmax(score: Floats, groups: npt.NDArray[np.int64]) -> Floats:
    """Softmax within each run of `groups` rows."""
    starts = np.cumsum(groups) - groups
    exponent = np.exp(np.clip(score - np.repeat(np.maximum.reduceat(score, starts), groups), -50.0, 0.0))
    shares: Floats = exponent / np.repeat(np.add.reduceat(exponent, starts), groups)
    return shares
