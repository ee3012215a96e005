"""Learning the ranker from a training log."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from recsys.bundle import StageResult
from recsys.config import EngineConfig
from recsys.events.facts import US_PER_DAY
from recsys.models.additive import AdditiveModel
from recsys.models.additive_training import Choices, fit_ranker
from recsys.models.baselines import memory, popularity
from recsys.pipeline.features import FEATURES
from training.domains import private_weight_metrics
from training.log import TrainingLog

LEAST_REQUESTS = 200
KNOWN, POPULAR = "tie_known", "host_entries_30m"
"""Features by which candidates are thinned."""
ALWAYS = [("host_category", "host_trust"), ("tie_known", "user_repeat_share")]
"""The weight of trust is learnt per category, and that of knowing the host per viewer's habit of repeating."""
_FIT = partial(fit_ranker, known=KNOWN, popular=POPULAR, always=ALWAYS)


def learn_ranker(
    log: TrainingLog, later_us: int, config: EngineConfig
) -> tuple[AdditiveModel | None, dict[str, float], StageResult]:
    """Try on requests before `later_us` without teachers, measure on those after, then train on all with teachers.

    Returns:
        The ranker or None, metrics of the later part (`ranker_ndcg_at_10`, and the same of the memory formula and of
        popularity on the same requests), and what became of the stage.
    """
    early = (log.requests["at"] < later_us).to_numpy()
    if int(early.sum()) < LEAST_REQUESTS or int((~early).sum()) < LEAST_REQUESTS // 4:
        why = f"{int(early.sum())} requests to train on and {int((~early).sum())} later ones; needed {LEAST_REQUESTS}"
        return None, {}, StageResult(name="ranker", status="skipped", why=why)
    in_early = np.repeat(early, log.groups)
    seed, threads = config.build.seed, config.build.threads
    asked = log.requests["at"].to_numpy()
    weights = config.ranker.recency ** ((asked.max() - asked) / US_PER_DAY)
    part = Choices(log.rows[in_early], log.groups[early], log.labels[in_early], weights[early])
    plain = config.ranker.model_copy(update={"teacher_rounds": 0})  # a floor of what ships, at a third of the cost
    trial = _FIT(FEATURES, part, plain, seed, threads)
    later, groups, labels = log.rows[~in_early].T, log.groups[~early], log.labels[~in_early]
    scores = {
        "ranker": trial.score(later),
        "memory": memory(FEATURES, later.astype(np.float64)),
        "popularity": popularity(FEATURES, later.astype(np.float64)),
    }
    metrics = {f"{name}_ndcg_at_10": ndcg_at_10(score, groups, labels) for name, score in scores.items()}
    metrics |= private_weight_metrics(scores["ranker"], later, groups, labels)
    gain = metrics["ranker_gain_over_memory"] = metrics["ranker_ndcg_at_10"] - metrics["memory_ndcg_at_10"]
    if gain <= 0.0:
        why = f"NDCG@10 on later requests is {-gain:.4f} below the memory formula's; what cannot beat it does not ship"
        return None, metrics, StageResult(name="ranker", status="failed", why=why)
    whole = Choices(log.rows, log.groups, log.labels, weights)
    model = _FIT(FEATURES, whole, config.ranker, seed, threads)
    return model, metrics, StageResult(name="ranker", status="passed")


def ndcg_at_10(scores: npt.NDArray[np.floating], groups: npt.NDArray[np.int64], labels: npt.NDArray[np.int8]) -> float:
    """Mean NDCG@10 over requests with one right room each; equal scores share their places' mean gain."""
    starts = np.cumsum(groups) - groups
    right = np.repeat(scores[labels == 1], groups)
    higher = np.add.reduceat(scores > right, starts)
    equal = np.add.reduceat(scores == right, starts)
    gains = np.zeros(int(groups.max()) + 12)
    gains[:10] = 1.0 / np.log2(np.arange(2, 12))
    summed = np.concatenate([[0.0], np.cumsum(gains)])
    return float(np.mean((summed[higher + equal] - summed[higher]) / equal))
