"""Choosing models and settings for ties nobody has seen before, on a part kept back from them.

The bounds are amounts of work, not of time, so that the same input and seed choose the same on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recsys.models.collaborative.ease import Ease, EaseConfig, dense_dimension
from recsys.models.collaborative.ensemble import Blend, candidate_pool, tuned_weights
from recsys.models.collaborative.graph_filter import GraphFilter, GraphFilterConfig
from recsys.models.collaborative.host_weights import HostWeights
from recsys.models.collaborative.interactions import Interactions, power
from recsys.models.collaborative.protocol import CollaborativeModel, FittedCollaborative
from recsys.models.collaborative.validation import Check, Quality, internal_check
from recsys.progress import Progress, silent

Config: TypeAlias = GraphFilterConfig | EaseConfig
_TARGET_STEPS = (-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2)
_MIN_GAIN = 2e-5


class SelectionConfig(BaseModel):
    """Bounds of the search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(20, ge=1)
    """Places that count."""
    held_out_share: float = Field(0.2, gt=0, lt=1)
    check_users: int = Field(4000, ge=1)
    """At most so many users are asked."""
    tuning_pairs: int = Field(2_000_000, ge=1)
    """With more ties than this, settings are searched on a random part of the users."""
    graph_filter_trials: int = Field(14, ge=1)
    ease_trials: int = Field(24, ge=1)
    ease_tera_ops: float = Field(60.0, ge=0)
    """EASE trials stop when the cubes of the inverted matrices' sides add up to this, in 10¹²; two are always made."""
    dense_gib: float = Field(4.0, gt=0)
    """EASE is left out if the one matrix it inverts would be larger; fitting needs about as much again in parts."""
    use_als: bool = True
    threads: int = Field(1, ge=1)
    """For ALS; linear algebra uses what its library was given."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting that was tried, and how it did on the ties kept back."""

    model: str
    settings: dict[str, object]
    quality: Quality


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen model, not yet fitted, and every trial that led to it; `quality` is None if nothing could be tried."""

    model: CollaborativeModel
    quality: Quality | None
    trials: tuple[Trial, ...]


def select_model(
    interactions: Interactions, config: SelectionConfig, *, seed: int, progress: Progress = silent
) -> Selection:
    """Search settings of each family on an internal split, then the weights of their blend.

    Where no user has two hosts nothing can be kept back, and the answer is a graph filter with its defaults.
    """
    sample = _sampled(interactions, config.tuning_pairs, seed)
    train, check = internal_check(
        sample, share=config.held_out_share, max_users=config.check_users, k=config.k, seed=seed
    )
    if not check.histories.shape[0]:
        return Selection(GraphFilter(), None, ())
    search = _Search(train, check, seed, progress)
    found: list[tuple[CollaborativeModel, FittedCollaborative, Quality]] = [
        search.run(GraphFilterConfig(), config.graph_filter_trials, "choosing the graph filter")
    ]
    side = dense_dimension(train.n_users, train.n_hosts)
    full_side = dense_dimension(interactions.n_users, interactions.n_hosts)
    if 4 * full_side**2 <= config.dense_gib * 2**30:
        affordable = int(config.ease_tera_ops * 1e12 // max(side, 1) ** 3)
        found.append(search.run(EaseConfig(), min(config.ease_trials, max(2, affordable)), "choosing EASE"))
    if config.use_als:
        found.append(search.als(config.threads))
    model, quality = _blended(found, check, search.trials)
    return Selection(model, quality, tuple(search.trials))


def _blended(
    found: Sequence[tuple[CollaborativeModel, FittedCollaborative, Quality]], check: Check, trials: list[Trial]
) -> tuple[CollaborativeModel, Quality]:
    start = int(np.argmax([quality.objective for _, _, quality in found]))
    if len(found) == 1:
        return found[0][0], found[0][2]
    weights, quality = tuned_weights(candidate_pool([fitted for _, fitted, _ in found], check), start)
    trials.append(Trial("blend", {model.name: w for (model, _, _), w in zip(found, weights, strict=True)}, quality))
    kept = [(model, weight) for (model, _, _), weight in zip(found, weights, strict=True) if weight > 0]
    if len(kept) == 1:
        return kept[0][0], quality
    return Blend(tuple(model for model, _ in kept), tuple(weight for _, weight in kept)), quality


def _sampled(interactions: Interactions, max_pairs: int, seed: int) -> Interactions:
    if interactions.n_pairs <= max_pairs:
        return interactions
    n_users = max(1, int(interactions.n_users * max_pairs / interactions.n_pairs))
    users = np.random.default_rng(seed + 2).choice(interactions.n_users, n_users, replace=False)
    return Interactions(interactions.matrix[np.sort(users)])


class _Search:
    """Pattern search: a step up and down in each setting, halved when none of them helps."""

    def __init__(self, train: Interactions, check: Check, seed: int, progress: Progress) -> None:
        self.train, self.check, self.seed, self.progress = train, check, seed, progress
        self.trials: list[Trial] = []
        self.host_degrees = train.host_degrees()

    def run(
        self, start: Config, max_trials: int, step_name: str
    ) -> tuple[CollaborativeModel, FittedCollaborative, Quality]:
        """Best settings found from `start` within `max_trials` fits, and the model fitted with them."""
        moves = _ease_moves if isinstance(start, EaseConfig) else _graph_moves
        tried: set[str] = {start.model_dump_json(exclude={"target_exponent"})}
        best, fitted, quality = self._try(start)
        spent, size = 1, 1.0
        while spent < max_trials and size > 0.2:
            improved = False
            for move in moves(size):
                trial = move(best)
                key = "" if trial is None else trial.model_dump_json(exclude={"target_exponent"})
                if trial is None or key in tried or spent >= max_trials:
                    continue
                tried.add(key)
                self.progress(step_name, spent / max_trials)
                candidate, candidate_fitted, candidate_quality = self._try(trial)
                spent += 1
                if candidate_quality.objective > quality.objective + _MIN_GAIN:
                    best, fitted, quality, improved = candidate, candidate_fitted, candidate_quality, True
            if not improved:
                size /= 2
        self.progress(step_name, 1.0)
        return _model(best), fitted, quality

    def _try(self, config: Config) -> tuple[Config, HostWeights, Quality]:
        """Fit once and read off the best target exponent near the one given: it only rescales the scores."""
        fitted = _model(config).fit(self.train, self.seed)
        sign = 1 if isinstance(config, EaseConfig) else -1
        factors = [power(self.host_degrees, sign * step) for step in _TARGET_STEPS]
        qualities = self.check.qualities(fitted, factors)
        at = int(np.argmax([quality.objective for quality in qualities]))
        target = round(config.target_exponent + _TARGET_STEPS[at], 3)
        best = _changed(config, target_exponent=target) or config
        settings = best.model_dump(exclude={"neighbours", "dense_hosts"})
        self.trials.append(Trial(fitted.name, settings, qualities[at]))
        return best, fitted.rescaled(factors[at]), qualities[at]

    def als(self, threads: int) -> tuple[CollaborativeModel, FittedCollaborative, Quality]:
        """ALS with its default settings, from a few sizes."""
        from recsys.models.collaborative.als import Als, AlsConfig

        model = Als(AlsConfig(threads=threads))
        fitted = model.fit(self.train, self.seed)
        quality = self.check.quality(fitted)
        self.trials.append(Trial(model.name, model.config.model_dump(), quality))
        return model, fitted, quality


def _model(config: Config) -> Ease | GraphFilter:
    return Ease(config) if isinstance(config, EaseConfig) else GraphFilter(config)


def _changed(config: Config, **changes: float) -> Config | None:
    """`config` with some settings changed; None if that leaves their bounds."""
    try:
        return type(config).model_validate({**config.model_dump(), **changes})
    except ValueError:
        return None


Move: TypeAlias = Callable[[Config], "Config | None"]


def _ease_moves(size: float) -> list[Move]:
    factor = 2.0**size
    return [
        _scaled("regularization", 1 / factor),
        _scaled("regularization", factor),
        _shifted("host_exponent", 0.1 * size),
        _shifted("host_exponent", -0.1 * size),
        _shifted("user_exponent", 0.15 * size),
        _shifted("user_exponent", -0.15 * size),
    ]


def _graph_moves(size: float) -> list[Move]:
    return [_shifted(name, sign * 0.2 * size) for name in ("source_exponent", "user_exponent") for sign in (1, -1)]


def _shifted(name: str, step: float) -> Move:
    return lambda config: _changed(config, **{name: round(getattr(config, name) + step, 4)})


def _scaled(name: str, factor: float) -> Move:
    return lambda config: _changed(config, **{name: getattr(config, name) * factor})
