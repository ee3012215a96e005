"""Learning the ranker from a training log."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.bundle import StageResult
from recsys.config import EngineConfig, RankerConfig
from recsys.events.facts import US_PER_DAY
from recsys.models.additive import AdditiveModel
from recsys.models.additive_training import Choices, fit_ranker, thinned
from recsys.models.baselines import MEMORY_FEATURES, memory, popularity
from recsys.models.block_network import BlockNetwork
from recsys.models.choice_network import SecondTask, fit_choice_network
from recsys.pipeline.features import BLOCKS, FEATURES, N_TIE, WITHOUT_TIE, of_known_hosts
from training.domains import private_weight_metrics
from training.drift import no_candidates, sampled_candidates
from training.latest import Tiers, judged_latest
from training.log import TrainingLog

LEAST_REQUESTS = 200
KNOWN, POPULAR = "tie_known", "host_entries_30m"
"""Features by which candidates are thinned."""
ALWAYS = [("host_category", "host_trust"), ("tie_known", "user_repeat_share")]
"""The weight of trust is learnt per category, and that of knowing the host per viewer's habit of repeating."""
fit_tables_on = partial(fit_ranker, FEATURES, known=KNOWN, popular=POPULAR, always=ALWAYS)
"""Tables, taught by trees and a network if the settings say so."""


@dataclass(frozen=True)
class LearntRanker:
    """The ranker or None, and what became of the stage.

    `metrics` are of the later part: `ranker_ndcg_at_10` of the form that ships, and the same of the tables, of the
    network if one was tried, of the memory formula and of popularity on the same requests; `ranker_candidates_recall`
    is the share of entries there whose rooms were candidates, 1 where all live rooms are; `latest` says for whom the
    ranker works, with intervals (`training.latest.judged_latest`), and `candidates` (C, …) are a sample of these
    requests' candidates for the drift of a later build (`training.drift.sampled_candidates`).
    """

    model: BlockNetwork | AdditiveModel | None
    stage: StageResult
    metrics: dict[str, float] = field(default_factory=dict)
    latest: dict[str, Any] = field(default_factory=dict)
    candidates: npt.NDArray[np.float32] = field(default_factory=no_candidates)


def learn_ranker(
    log: TrainingLog,
    later_us: int,
    config: EngineConfig,
    came: pl.DataFrame | None = None,
    tiers: Tiers | None = None,
) -> LearntRanker:
    """Try both forms on requests before `later_us`, measure on those after, then train the better one on all.

    Tables are tried without teachers: a floor of what ships, at a third of the cost.

    Args:
        came: what the network learns besides: of logged ties `row`, `came` (whether the user entered the host's next
            broadcast) and `ended_at`, when that was known.
    """
    early = (log.requests["at"] < later_us).to_numpy()
    if int(early.sum()) < LEAST_REQUESTS or int((~early).sum()) < LEAST_REQUESTS // 4:
        why = f"{int(early.sum())} requests to train on and {int((~early).sum())} later ones; needed {LEAST_REQUESTS}"
        return LearntRanker(None, StageResult(name="ranker", status="skipped", why=why))
    seed, threads = config.build.seed, config.build.threads
    part = choices_of(log, config.ranker, early)
    plain = config.ranker.model_copy(update={"teacher_rounds": 0})
    forms: dict[str, BlockNetwork | AdditiveModel] = {"tables": fit_tables_on(part, plain, seed, threads)}
    if config.ranker.network_epochs:
        known = None if came is None else came.filter(pl.col("ended_at") < later_us)
        forms["network"] = fit_network(part, config.ranker, seed, threads, second_task(log, known))
    held_back = choices_of(log, config.ranker, ~early)
    later, groups, labels = held_back.rows.T, held_back.groups, held_back.labels
    tried = {form: model.score(later) for form, model in forms.items()}
    few = later[[FEATURES.index(name) for name in MEMORY_FEATURES]].astype(np.float64)
    best = max(tried, key=lambda form: float(request_ndcg(tried[form], groups, labels).mean()))
    scores = {
        "ranker": tried[best],
        **tried,
        "memory": memory(MEMORY_FEATURES, few),
        "popularity": popularity(MEMORY_FEATURES, few),
    }
    found = {name: request_ndcg(score, groups, labels) for name, score in scores.items()}
    metrics = {f"{name}_ndcg_at_10": float(values.mean()) for name, values in found.items()}
    bonus = config.ranker.private_bonus if best == "network" else 0.0
    metrics["ranker_candidates_recall"] = len(groups) / (len(groups) + int((log.missed >= later_us).sum()))
    metrics |= private_weight_metrics(scores["ranker"], later, groups, labels, bonus)
    latest = judged_latest(log, ~early, scores["ranker"], found, tiers or Tiers(), config)
    seen = sampled_candidates(held_back.rows, scores["ranker"], groups)
    gain = metrics["ranker_gain_over_memory"] = metrics["ranker_ndcg_at_10"] - metrics["memory_ndcg_at_10"]
    if gain <= 0.0:
        why = f"NDCG@10 on later requests is {-gain:.4f} below the memory formula's; what cannot beat it does not ship"
        return LearntRanker(None, StageResult(name="ranker", status="failed", why=why), metrics, latest, seen)
    whole = (choices_of(log, config.ranker), config.ranker, seed, threads)
    model = fit_network(*whole, second_task(log, came)) if best == "network" else fit_tables_on(*whole)
    return LearntRanker(model, StageResult(name="ranker", status="passed"), metrics, latest, seen)


def second_task(log: TrainingLog, came: pl.DataFrame | None) -> SecondTask | None:
    """Whether logged ties came back, asked of a network: `row` (position in the log) and `came`; None without any."""
    if came is None or not len(came):
        return None
    rows = np.full((len(came), len(FEATURES)), np.nan, dtype=np.float32)
    rows[:, :N_TIE] = log.tie_rows[came["row"].to_numpy()]
    return SecondTask(rows, came["came"].to_numpy().astype(np.float32))


def fit_network(
    choices: Choices, config: RankerConfig, seed: int, threads: int, second: SecondTask | None = None
) -> BlockNetwork:
    """Networks over the blocks of all features, trained on thinned choices with `config.network_epochs` passes.

    The bonus of known hosts is taken off inside the softmax, so the scores come out with it on (logit
    adjustment: Menon et al., ICLR 2021).
    """
    thin, correction = thinned(choices, FEATURES.index(KNOWN), FEATURES.index(POPULAR), config, seed)
    own = of_known_hosts(thin.rows.T)
    networks = fit_choice_network(
        thin.rows, thin.groups, thin.labels, correction - config.private_bonus * own, thin.weights,
        epochs=config.network_epochs, rate=config.network_rate, decay=config.network_decay,
        dropout=config.network_dropout, networks=config.networks, seed=seed, threads=threads, second=second,
    )  # fmt: skip
    return replace(networks.served(FEATURES, BLOCKS, WITHOUT_TIE), private_bonus=config.private_bonus)


def choices_of(log: TrainingLog, config: RankerConfig, of: npt.NDArray[np.bool_] | None = None) -> Choices:
    """The log's requests, or those `of` (R,), each weighing `recency` ^ its age at the latest request of the log."""
    asked = log.requests["at"].to_numpy()
    weights = config.recency ** ((asked.max() - asked) / US_PER_DAY)
    if of is None:
        return Choices(log.rows, log.groups, log.labels, weights)
    rows = log.candidates_of(of)
    return Choices(log.rows[rows], log.groups[of], log.labels[rows], weights[of])


def request_ndcg(
    scores: npt.NDArray[np.floating], groups: npt.NDArray[np.int64], labels: npt.NDArray[np.int8]
) -> npt.NDArray[np.float64]:
    """NDCG@10 of each request with one right room (R,); equal scores share their places' mean gain."""
    starts = np.cumsum(groups) - groups
    right = np.repeat(scores[labels == 1], groups)
    higher = np.add.reduceat(scores > right, starts)
    equal = np.add.reduceat(scores == right, starts)
    gains = np.zeros(int(groups.max()) + 12)
    gains[:10] = 1.0 / np.log2(np.arange(2, 12))
    summed = np.concatenate([[0.0], np.cumsum(gains)])
    return np.asarray((summed[higher + equal] - summed[higher]) / equal)
