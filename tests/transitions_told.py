"""What transition models are fitted to in tests, and what they say of candidates, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from recsys.events.facts import US_PER_S
from recsys.models.transition import TransitionModel
from recsys.models.transition_counts import TRANSITION_FEATURES, TransitionConfig

PLAIN = TransitionConfig(
    lag_weights=(1.0, 0.5), gap_half_life_s=100.0, max_gap_s=1_000.0, half_life_days=1.0, prior=0.0
)


def entries(*rows: tuple[int, int, float]) -> pl.DataFrame:
    """(user, host, seconds)."""
    schema = {"user": pl.Int32, "host": pl.Int32, "at": pl.Int64}
    return pl.DataFrame([(user, host, int(at * US_PER_S)) for user, host, at in rows], schema=schema, orient="row")


def told(
    model: TransitionModel,
    recent: Sequence[int],
    ages_s: Sequence[float],
    candidates: np.ndarray | None = None,
    *,
    at: int | None = None,
) -> dict[str, np.ndarray]:
    """Name → (c,) of `TransitionModel.features`."""
    found = model.features(model.next_hosts(recent, ages_s, at=at), candidates)
    return dict(zip(TRANSITION_FEATURES, found, strict=True))


def chances(model: TransitionModel, *asked: Any, at: int | None = None) -> np.ndarray:
    """(c,) P(next | recent hosts); arguments as for `told`."""
    return told(model, *asked, at=at)["transition_recent"]
