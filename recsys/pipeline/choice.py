"""Features of what people chose among (`recsys.models.audience`), for the candidates of one request.

Shape letters: n candidates, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled
from recsys.models.audience import TASTES, Audience
from recsys.pipeline.spans import Spans
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
    users: Sequence[int],
    hosts: npt.NDArray[np.integer[Any]],
    age_min: Floats,
    lifts: Floats,
    at: int,
    spans: Spans,
    out: Floats,
) -> None:
    """Write the features (F, n) of candidate hosts at instant `at`, µs, into `out`, except the rank; all NaN without an
    audience.

    Args:
        audience: the running numbers.
        users: user row of each request, −1 for nobody known.
        hosts: (n,) host rows.
        age_min: (n,) minutes since the start of the rooms.
        lifts: (2, n) transition lifts from the viewer's recent hosts and from the last one, NaN without any.
        spans: which candidates belong to which request.
    """
    if audience is None:
        out[:] = np.nan
        return
    conversions, segments, rate, idle = audience.read(hosts, at)
    segment_of = np.array([audience.segment_of(user) for user in users])
    tastes = np.array([audience.taste(user).tolist() for user in users])
    lately = np.empty((2, len(hosts)))
    _choices(np.array(spans.bounds), segment_of, tastes, conversions, segments, rate, idle, age_min, lifts, lately, out)
    spans.shares(lately, lately)
    _mean(lately, out[2])


@compiled
def _mean(both: Floats, out: Floats) -> None:
    """The mean (n,) of two rows (2, n)."""
    for i in range(len(out)):
        out[i] = 0.5 * both[0, i] + 0.5 * both[1, i]


@compiled
def _choices(
    bounds: npt.NDArray[np.int64], segment_of: npt.NDArray[np.int64], tastes: Floats, conversions: Floats,
    segments: Floats, rate: Floats, idle: Floats, age_min: Floats, lifts: Floats, lately: Floats, out: Floats,
) -> None:  # fmt: skip
    """All but shares and ranks; into `lately` (2, n) recent entries by viewers like each request's, and by all."""
    for request in range(len(segment_of)):
        taste = tastes[request]
        for i in range(bounds[request], bounds[request + 1]):
            lately[0, i], lately[1, i] = segments[segment_of[request], i], 0.0
            for s in range(len(segments)):
                lately[1, i] += segments[s, i]
            for d in range(2):
                lift = 1.0 if np.isnan(lifts[d, i]) else lifts[d, i]
                out[d, i], out[3 + d, i] = conversions[d, i], lift * conversions[1, i]
            out[6, i] = rate[i] - taste[0]
            out[7, i] = np.log(age_min[i] * 60.0 + 30.0) - taste[1]
            out[8, i] = idle[i] - taste[2]
            out[9, i] = np.log(conversions[1, i]) - taste[3]
            out[10, i], out[11, i] = taste[0], taste[1]
