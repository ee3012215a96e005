"""Features of what people chose among (`recsys.models.audience`), for the candidates of one request.

Shape letters: n candidates, F features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.models.audience import TASTES, Audience
from recsys.ties.algebra import Floats

CHOICE_FEATURES = (
    "host_conversion_12h",
    "host_conversion_7d",
    "host_peers_30m_share",
    "transition_chance",
    "transition_chance_last",
    "transition_chance_rank",
    *(f"taste_{name}_gap" for name in TASTES),
    "taste_rate",
    "taste_age",
)
"""Names of the features, in the order of the rows of `choice_features`."""


def choice_features(
    audience: Audience | None,
    user: int,
    hosts: npt.NDArray[np.integer[Any]],
    age_min: Floats,
    lifts: Floats,
    at: int,
) -> Floats:
    """Features (F, n) of candidate hosts at instant `at`, µs; all NaN without an audience.

    Args:
        audience: the running numbers.
        user: user row, −1 for nobody known.
        hosts: (n,) host rows.
        age_min: (n,) minutes since the start of the rooms.
        lifts: (2, n) transition lifts from the viewer's recent hosts and from the last one, NaN without any.
    """
    values = np.full((len(CHOICE_FEATURES), len(hosts)), np.nan)
    if audience is None:
        return values
    conversions, segments, rate, idle = audience.read(hosts, at)
    values[:2] = conversions
    peers = segments[audience.segment_of(user)]
    values[2] = 0.5 * _share(peers) + 0.5 * _share(segments.sum(axis=0))
    values[3:5] = np.where(np.isnan(lifts), 1.0, lifts) * conversions[1]
    values[5, np.argsort(-values[3], kind="stable")] = np.arange(len(hosts))
    taste = audience.taste(user)
    candidate = np.stack([rate, np.log(age_min * 60.0 + 30.0), idle, np.log(conversions[1])])
    values[6:10] = candidate - taste[:, None]
    values[10:] = taste[:2, None]
    return values


def _share(rate: Floats) -> Floats:
    return (rate + 1e-3) / (float(rate.sum()) + 1e-3 * max(len(rate), 1))
