"""Learning the ranker and the strength heads from a training log."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.bundle import StageResult
from recsys.config import EngineConfig
from recsys.events.facts import US_PER_DAY
from recsys.models.additive import AdditiveModel
from recsys.models.additive_training import Choices, fit_probability, fit_ranker
from recsys.models.baselines import memory, popularity
from recsys.models.calibration import IsotonicMap, calibration_error, log_loss_skill, sigmoid
from recsys.models.strength import StrengthHead
from recsys.pipeline.features import FEATURES
from recsys.ties.features import TIE_FEATURES
from training.log import TrainingLog

LEAST_REQUESTS = 200
LEAST_TIES = 500
LEAST_RETURNS = 50
_THINNED_BY = {"known": "tie_known", "popular": "host_entries_30m"}


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
    trial = fit_ranker(FEATURES, part, plain, seed, threads, **_THINNED_BY)
    later, groups, labels = log.rows[~in_early].T, log.groups[~early], log.labels[~in_early]
    scores = {
        "ranker": trial.score(later),
        "memory": memory(FEATURES, later.astype(np.float64)),
        "popularity": popularity(FEATURES, later.astype(np.float64)),
    }
    metrics = {f"{name}_ndcg_at_10": ndcg_at_10(score, groups, labels) for name, score in scores.items()}
    gain = metrics["ranker_gain_over_memory"] = metrics["ranker_ndcg_at_10"] - metrics["memory_ndcg_at_10"]
    if gain <= 0.0:
        why = f"NDCG@10 on later requests is {-gain:.4f} below the memory formula's; what cannot beat it does not ship"
        return None, metrics, StageResult(name="ranker", status="failed", why=why)
    whole = Choices(log.rows, log.groups, log.labels, weights)
    model = fit_ranker(FEATURES, whole, config.ranker, seed, threads, **_THINNED_BY)
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


def learn_strength(
    log: TrainingLog, broadcasts: pl.DataFrame, entries: pl.DataFrame, later_us: int, config: EngineConfig
) -> tuple[StrengthHead | None, dict[str, float], StageResult]:
    """The head `returns`: P(the user enters the host's next broadcast), asked at a moment the user is here.

    Args:
        log: logged ties.
        broadcasts: all broadcasts that started before the as-of, as for `next_broadcast`.
        entries: user, room of all entries before the as-of.
        later_us: ties logged before it train, those after it calibrate.
    """
    answered = next_broadcast(log.ties, broadcasts, entries)
    tied = answered.filter(pl.col("tied"))
    early, later = tied.filter(pl.col("at") < later_us), tied.filter(pl.col("at") >= later_us)
    enough = len(early) >= LEAST_TIES and len(later) >= LEAST_TIES
    if not enough or min(int(early["came"].sum()), int(later["came"].sum())) < LEAST_RETURNS:
        why = (
            f"{len(early)} ties with a next broadcast to train on ({int(early['came'].sum())} returns) and "
            f"{len(later)} to calibrate ({int(later['came'].sum())}); needed {LEAST_TIES} and {LEAST_RETURNS} each"
        )
        return None, {}, StageResult(name="strength", status="skipped", why=why)
    model = fit_probability(
        TIE_FEATURES,
        log.tie_rows[early["row"]],
        early["came"].to_numpy(),
        config.strength,
        config.build.seed,
        config.build.threads,
    )
    in_time = later.sort("at", "row")
    fit_on, judge_on = in_time.head(len(later) // 2), in_time.tail(len(later) - len(later) // 2)
    raw = {name: sigmoid(model.score(log.tie_rows[f["row"]].T)) for name, f in (("fit", fit_on), ("judge", judge_on))}
    trial = IsotonicMap.fit(raw["fit"], fit_on["came"].to_numpy())
    judged, truth = trial.apply(raw["judge"]), judge_on["came"].to_numpy()
    metrics = {
        "strength_base_rate": float(truth.mean()),
        "strength_ece": calibration_error(judged, truth),
        "strength_log_loss_skill": log_loss_skill(judged, truth),
        "strength_ties_judged": float(len(truth)),
    }
    said = sigmoid(model.score(log.tie_rows[later["row"]].T))
    strangers = answered.filter(~pl.col("tied"))
    stranger = (float(strangers["came"].sum()) + 0.01) / (len(strangers) + 1.0)
    head = StrengthHead("returns", model, IsotonicMap.fit(said, later["came"].to_numpy()), stranger)
    return head, metrics, StageResult(name="strength", status="passed")


def next_broadcast(ties: pl.DataFrame, broadcasts: pl.DataFrame, entries: pl.DataFrame) -> pl.DataFrame:
    """Logged ties whose host broadcast again, with `came`: whether the user entered that next broadcast.

    Adds `row`, the position in the log. Ties whose host's next broadcast is still to come or has not ended are left
    out: nobody knows yet.

    Args:
        ties: user, host, at.
        broadcasts: host, room, started_at and `finished`, whether its end is known by the as-of.
        entries: user, room of all entries before the as-of.
    """
    asked = ties.with_row_index("row").with_columns(after=pl.col("at") + 1).sort("after")
    starts = broadcasts.select("host", "room", "started_at", "finished").sort("started_at")
    met = asked.join_asof(
        starts, left_on="after", right_on="started_at", by="host", strategy="forward", check_sortedness=False
    ).filter(pl.col("finished"))
    came = entries.select("user", "room").unique().with_columns(came=pl.lit(1, dtype=pl.Int8))
    return met.join(came, on=["user", "room"], how="left").with_columns(pl.col("came").fill_null(0)).sort("row")
