"""Learning the strength heads: trained on earlier ties, calibrated and judged on later ones.

A head is served only where it beats the base rate with its interval and its error is what chance explains plus a tenth
of the base rate at most (`recsys.evaluation.probabilities`); otherwise its stage says why not. Strength is judged by
the gates instead, and a bundle that fails them is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.bundle import StageResult
from recsys.config import EngineConfig, ProbabilityConfig
from recsys.evaluation.probabilities import ProbabilityReport, judge
from recsys.events.facts import US_PER_DAY, FactKind
from recsys.models.additive import AdditiveModel
from recsys.models.additive_training import fit_probability
from recsys.models.calibration import sigmoid
from recsys.models.strength import HEADS, STRENGTH, StrengthHead
from recsys.ties.features import TIE_FEATURES
from training.bond import fit_strength
from training.calibrating import calibration, one_outcome
from training.labels import AWAY_DAYS, REBUY_DAYS, TURNED_AWAY, LoggedTies, horizon_label

LEAST_TIES = 500
LEAST_HAPPENED = 50
_CALIBRATING_SHARE = 0.4
"""Latest share of the ties with a horizon label, which calibrates and judges."""
FOLDS = 3


@dataclass
class LearntHeads:
    """Heads by name (those served), judgements by name (all that could be judged) and what became of each."""

    heads: dict[str, StrengthHead] = field(default_factory=dict)
    reports: dict[str, ProbabilityReport] = field(default_factory=dict)
    stages: list[StageResult] = field(default_factory=list)

    def metrics(self) -> dict[str, float]:
        """What gates read: every figure of every judged head; of strength under shorter names besides."""
        found = {f"head_{name}_{figure}": v for name, r in self.reports.items() for figure, v in r.figures().items()}
        if STRENGTH in self.reports:
            strength = self.reports[STRENGTH]
            found |= {
                "strength_base_rate": strength.base_rate,
                "strength_ece": strength.ece,
                "strength_ece_beyond_chance": strength.ece_beyond_chance,
                "strength_log_loss_skill": strength.skill,
                "strength_ties_judged": float(strength.rows),
            }
        return found

    def documents(self) -> list[dict[str, Any]]:
        """Every judged head with its reliability curve, for reports."""
        return [{"head": name, "means": HEADS[name], **report.document()} for name, report in self.reports.items()]


def learn_heads(logged: LoggedTies, config: EngineConfig) -> LearntHeads:
    """All heads of the next broadcast that one log can teach."""
    learnt = LearntHeads()
    labels, met = logged.labels(config.ties.product_slot_s)
    rows = logged.rows
    for name in (STRENGTH, "returns", "stays", "lingers", "comments", "buys"):
        event = "returns" if name == STRENGTH else name
        if event in labels.absent:
            learnt.stages.append(_stage(name, "skipped", labels.absent[event]))
            continue
        table = logged.asked(labels.of[event])
        strangers = table.filter(~pl.col("tied"))
        stranger = (float(strangers["y"].sum()) + 0.01) / (len(strangers) + 1.0)
        ends = met.select("row", "room", "ended_at")
        tied = table.filter(pl.col("tied")).join(ends, on="row", how="left", maintain_order="left")
        early, later = logged.split(tied)
        middle = len(later) // 2
        if why := too_little(early, (later.head(middle), later.tail(len(later) - middle))):
            learnt.stages.append(_stage(name, "skipped", why))
            continue
        if name == STRENGTH:
            _judged_strength(learnt, rows, tied, later.tail(len(later) - middle), logged.as_of_us, stranger, config)
            continue
        model = fitted(rows, early, config.strength if name == "returns" else config.heads, config)
        said = sigmoid(model.score(rows[later["row"]].T))
        latter = np.arange(len(later)) >= middle  # the map of the former half is judged on the latter
        _judged(learnt, name, model, later, said, [(~latter, latter)], stranger, config.build.seed)
    return learnt


def learn_horizon_head(
    learnt: LearntHeads,
    name: str,
    ties: pl.DataFrame,
    rows: npt.NDArray[np.float32],
    facts: pl.DataFrame,
    span_us: int,
    as_of_us: int,
    config: EngineConfig,
) -> None:
    """The head `rebuys` or `turns_away`, added to `learnt`.

    Labels of neighbouring moments overlap, so users are kept apart: what is said of a third of the users at later
    moments comes from a model of the others' earlier ones, and is judged by a map fitted on the others. The map that
    is served is fitted on all of it, the model on all earlier moments.

    Args:
        span_us: length of the data.
    """
    days = REBUY_DAYS if name == "rebuys" else AWAY_DAYS
    kinds = (FactKind.ORDER_LINE,) if name == "rebuys" else TURNED_AWAY
    if span_us < 2 * days * US_PER_DAY:
        why = f"{days} days do not fit twice into {span_us / US_PER_DAY:.1f} days of data"
        learnt.stages.append(_stage(name, "skipped", why))
        return
    if not facts["kind"].is_in([int(kind) for kind in kinds]).any():
        words = "an order" if name == "rebuys" else "an unfollow, a block or a refund"
        learnt.stages.append(_stage(name, "skipped", f"no event tells of {words}"))
        return
    labels = horizon_label(ties, facts, kinds=kinds, days=days, before_us=as_of_us)
    table = labels.join(ties.with_row_index("row"), on="row", how="left").filter(pl.col("tied")).sort("row")
    at = table["at"].to_numpy()
    later_us = int(np.quantile(at, 1.0 - _CALIBRATING_SHARE)) if len(at) else 0
    early, later = table.filter(pl.col("at") < later_us), table.filter(pl.col("at") >= later_us)
    if why := too_little(early, (later,)):
        learnt.stages.append(_stage(name, "skipped", why))
        return
    rng = np.random.default_rng(config.build.seed)
    fold = rng.integers(0, FOLDS, 1 + int(table["user"].to_numpy().max()))
    early_fold, later_fold = fold[early["user"]], fold[later["user"]]
    said = np.empty(len(later))
    for k in range(FOLDS):
        others = fitted(rows, early.filter(pl.Series(early_fold != k)), config.heads, config)
        said[later_fold == k] = sigmoid(others.score(rows[later["row"].filter(pl.Series(later_fold == k))].T))
    parts = [(later_fold != k, later_fold == k) for k in range(FOLDS)]
    model = fitted(rows, early, config.heads, config)
    _judged(learnt, name, model, later, said, parts, float("nan"), config.build.seed)


def too_little(early: pl.DataFrame, later: Sequence[pl.DataFrame]) -> str:
    """Why these ties do not suffice to train on (`early`) and to calibrate and judge on (`later`), or nothing."""
    both = [min(int(part["y"].sum()), len(part) - int(part["y"].sum())) for part in (early, *later)]
    n_later = sum(len(part) for part in later)
    if min(len(early), n_later) >= LEAST_TIES and min(both[0], len(later) * min(both[1:])) >= LEAST_HAPPENED:
        return ""
    return (
        f"{len(early)} ties to train on, it happened in {int(early['y'].sum())}; {n_later} to calibrate, it happened "
        f"in {sum(int(part['y'].sum()) for part in later)}; needed {LEAST_TIES} and {LEAST_HAPPENED} of either outcome"
    )


def _judged_strength(
    learnt: LearntHeads,
    rows: npt.NDArray[np.float32],
    tied: pl.DataFrame,
    latter: pl.DataFrame,
    as_of_us: int,
    stranger: float,
    config: EngineConfig,
) -> None:
    """Judge on the `latter` ties what was learnt from all whose outcome was known before, then learn from all."""
    cut = int(latter["at"].to_numpy().min())
    before = fit_strength(rows, tied.filter(pl.col("ended_at") < cut), cut, stranger, config)
    said = before.probability(rows[latter["row"]].T.astype(np.float64))
    truth, weight, users = (latter[column].to_numpy() for column in ("y", "weight", "user"))
    learnt.reports[STRENGTH] = judge(
        said, truth, users=users, weight=weight, outcomes=one_outcome(latter), seed=config.build.seed
    )
    learnt.heads[STRENGTH] = fit_strength(rows, tied, as_of_us, stranger, config)
    learnt.stages.append(_stage(STRENGTH, "passed", ""))


def _judged(
    learnt: LearntHeads,
    name: str,
    model: AdditiveModel,
    later: pl.DataFrame,
    said: npt.NDArray[np.float64],
    parts: Sequence[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]],
    stranger: float,
    seed: int,
) -> None:
    """Judge what a model `said` of later ties, calibrate it on all of them, serve it if it is worth it.

    Args:
        parts: pairs of masks: on the former a map is fitted, which is judged on the latter.
    """
    truth, weight, users = (later[column].to_numpy() for column in ("y", "weight", "user"))
    judged = np.full(len(later), np.nan)
    for fit_on, judge_on in parts:
        judged[judge_on] = calibration(said[fit_on], truth[fit_on], weight[fit_on]).apply(said[judge_on])
    known = np.isfinite(judged)
    same = one_outcome(later)[known]
    report = judge(judged[known], truth[known], users=users[known], weight=weight[known], outcomes=same, seed=seed)
    learnt.reports[name] = report
    if not report.worth_serving:
        why = (
            f"skill {report.skill:.4f} (from {report.skill_low:.4f}), calibration error {report.ece:.5f} at a base "
            f"rate of {report.base_rate:.5f} where chance explains {report.ece_chance:.5f}: not served"
        )
        learnt.stages.append(_stage(name, "failed", why))
        return
    learnt.heads[name] = StrengthHead(name, model, calibration(said, truth, weight), stranger)
    learnt.stages.append(_stage(name, "passed", ""))


def fitted(
    rows: npt.NDArray[np.float32], early: pl.DataFrame, settings: ProbabilityConfig, config: EngineConfig
) -> AdditiveModel:
    """An additive model of the outcomes `y` of the logged ties `early` (row, y, weight)."""
    weight = early["weight"].to_numpy()
    labels = early["y"].to_numpy()
    build = config.build
    return fit_probability(
        TIE_FEATURES, rows[early["row"]], labels, settings, build.seed, build.threads, weight / weight.mean()
    )


def _stage(name: str, status: str, why: str) -> StageResult:
    stage = STRENGTH if name == STRENGTH else f"head {name}"
    return StageResult.model_validate({"name": stage, "status": status, "why": why})
