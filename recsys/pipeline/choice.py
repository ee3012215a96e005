"""Features of what people chose among (`recsys.models.audience`), for the candidates of one request.

Shape letters: n candidates, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

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
    out[:2] = conversions
    lately = np.empty((2, len(hosts)))
    segments.sum(axis=0, out=lately[1])
    tastes = np.empty((len(TASTES), len(spans)))
    for i, (user, part) in enumerate(zip(users, spans.parts(), strict=True)):
        lately[0, part] = segments[audience.segment_of(user), part]
        tastes[:, i] = audience.taste(user)
    lately = spans.shares(lately)
    lately *= 0.5
    np.add(lately[0], lately[1], out=out[2])
    np.multiply(np.where(np.isnan(lifts), 1.0, lifts), conversions[1], out=out[3:5])
    taste = spans.spread(tastes)
    np.subtract(rate, taste[0], out=out[6])
    np.subtract(np.log(age_min * 60.0 + 30.0), taste[1], out=out[7])
    np.subtract(idle, taste[2], out=out[8])
    np.subtract(np.log(conversions[1]), taste[3], out=out[9])
    out[10:] = taste[:2]
