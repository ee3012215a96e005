"""What a transition model says of candidates, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys.models.transition import TransitionModel
from recsys.models.transition_counts import TRANSITION_FEATURES


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
