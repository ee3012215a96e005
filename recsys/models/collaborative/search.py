"""Pattern search over the settings of one family of models, bounded by a number of fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
from pydantic import BaseModel

from recsys.models.collaborative.ease import Ease
from recsys.models.collaborative.interactions import power
from recsys.models.collaborative.low_pass import LowPass
from recsys.models.collaborative.protocol import CollaborativeModel, FittedCollaborative
from recsys.models.collaborative.response import tuned_response
from recsys.models.collaborative.validation import Draw, Quality
from recsys.progress import Progress

Moves: TypeAlias = list[dict[str, float]]
"""What to change: a setting and by how much, or a setting with `*` before it and by what factor."""

_DEGREE_STEPS = (-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2)
_SMALLEST_SIZE = 0.5


class Tunable(CollaborativeModel, Protocol):
    """A model that is a dataclass around a typed config."""

    @property
    def config(self) -> BaseModel: ...


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting that was tried, and how it did on the ties kept back."""

    model: str
    settings: dict[str, object]
    quality: Quality


@dataclass(frozen=True, slots=True)
class Found:
    """The best of a search: its settings, fitted on the search's ties, and how good it was."""

    model: Tunable
    fitted: FittedCollaborative
    quality: Quality


@dataclass(frozen=True, slots=True)
class Bench:
    """What candidates are fitted on and checked with, and where trials are noted."""

    draw: Draw
    seed: int
    trials: list[Trial]
    progress: Progress


def search(
    bench: Bench,
    start: Tunable,
    moves: Callable[[float], Moves],
    max_fits: int,
    step: str,
    allowed: Callable[[Tunable], bool] = lambda _: True,
) -> Found:
    """The best model found from `start`, trying every move at size 1, then at ½, keeping what helps beyond luck.

    Args:
        moves: the moves of a given size.
        max_fits: bound of the number of models fitted, at least 1.
        step: the name progress is reported under.
        allowed: what may be fitted; `start` always is.
    """
    best = _tried(bench, start)
    seen = {_key(start)}
    fits, size = 1, 1.0
    while fits < max_fits and size >= _SMALLEST_SIZE:
        improved = False
        for move in moves(size):
            candidate = _moved(best.model, move)
            if candidate is None or _key(candidate) in seen or fits >= max_fits or not allowed(candidate):
                continue
            seen.add(_key(candidate))
            bench.progress(step, fits / max_fits)
            found = _tried(bench, candidate)
            fits += 1
            if found.quality.beats(best.quality):
                best, improved = found, True
        if not improved:
            size /= 2
    bench.progress(step, 1.0)
    return best


def ease_moves(size: float) -> Moves:
    """Moves of `EaseConfig`."""
    return [
        {"*regularization": 2.0**size},
        {"*regularization": 0.5**size},
        {"host_exponent": 0.1 * size},
        {"host_exponent": -0.1 * size},
        {"user_exponent": 0.15 * size},
        {"user_exponent": -0.15 * size},
    ]


def low_pass_moves(size: float) -> Moves:
    """Moves of `LowPassConfig`; cutoff and target exponent are found within each trial."""
    return [
        {name: sign * 0.1 * size} for name in ("source_exponent", "host_exponent", "user_exponent") for sign in (1, -1)
    ]


def als_moves(size: float) -> Moves:
    """Moves of `AlsConfig`."""
    return [
        {"*factors": 2.0**size},
        {"*regularization": 2.0**size},
        {"*confidence": 2.0**size},
        {"*regularization": 0.5**size},
        {"*confidence": 0.5**size},
        {"*factors": 0.5**size},
    ]


def cosine_moves(size: float) -> Moves:
    """Moves of `CosineConfig`."""
    return [
        {"*temperature": 0.8**size},
        {"*temperature": 1.5**size},
        {"source_exponent": 0.2 * size},
        {"source_exponent": -0.2 * size},
    ]


def _tried(bench: Bench, model: Tunable) -> Found:
    """Fit and check; what can be read off without fitting again is set to its best on the way."""
    if isinstance(model, LowPass):
        operator = model.operator(bench.draw.train, bench.seed)
        config, quality = tuned_response(operator, bench.draw.check)
        found = Found(LowPass(config), replace(operator, config=config), quality)
    elif isinstance(model, Ease):
        found = _ease_rescaled(bench, model)
    else:
        fitted = model.fit(bench.draw.train, bench.seed)
        found = Found(model, fitted, bench.draw.check.quality(fitted))
    bench.trials.append(Trial(model.name, found.model.config.model_dump(), found.quality))
    return found


def _ease_rescaled(bench: Bench, model: Ease) -> Found:
    """The target exponent only multiplies scores, so the best one nearby is read off."""
    fitted = model.fit(bench.draw.train, bench.seed)
    degrees = bench.draw.train.host_degrees()
    qualities = bench.draw.check.qualities(fitted, degrees, _DEGREE_STEPS)
    at, unmoved = int(np.argmax([quality.objective for quality in qualities])), _DEGREE_STEPS.index(0.0)
    if not qualities[at].beats(qualities[unmoved]):
        at = unmoved
    moved = _moved(model, {"target_exponent": _DEGREE_STEPS[at]})
    if moved is None:  # beyond the bounds of the setting
        moved, at = model, unmoved
    return Found(moved, fitted.rescaled(power(degrees, _DEGREE_STEPS[at])), qualities[at])


def _moved(model: Tunable, move: dict[str, float]) -> Tunable | None:
    """`model` with some settings moved; None if that leaves their bounds."""
    settings = model.config.model_dump()
    for name, step in move.items():
        key = name.removeprefix("*")
        value = settings[key] * step if name.startswith("*") else settings[key] + step
        settings[key] = round(value) if isinstance(settings[key], int) else float(f"{value:.4g}")
    try:
        config = type(model.config).model_validate(settings)
    except ValueError:
        return None
    instance: Any = model
    moved: Tunable = replace(instance, config=config)
    return moved


def _key(model: Tunable) -> str:
    read_off = {"target_exponent"} | ({"cutoff"} if isinstance(model, LowPass) else set())
    return model.config.model_dump_json(exclude=read_off)
