"""Scores without training: what a learnt model has to beat, and what serves while there is none.

All read the rows of a feature table by name, shape (F, n), and return one score per candidate (n,).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys.ties.algebra import Floats

MEMORY_POPULARITY = 0.05
"""Weight of popularity in the memory formula: it orders hosts the viewer never saw and overrules none he knows."""


MEMORY_FEATURES = ("tie_share_of_user", "tie_share_3d", "host_entries_2h_share")
"""The features `memory` and `popularity` read."""


def popularity(names: Sequence[str], values: Floats) -> Floats:
    """Entries of the last hours: the share of the host's 2 h rate among the candidates."""
    return np.asarray(values[names.index("host_entries_2h_share")])


def memory(names: Sequence[str], values: Floats) -> Floats:
    """The memory formula: ½ long-term count + ½ recency decay + a little popularity.

    Counts and decayed counts (3 d) enter as shares of the viewer's own, popularity as the 2 h share among candidates.
    """
    count = np.nan_to_num(values[names.index("tie_share_of_user")])
    recency = np.nan_to_num(values[names.index("tie_share_3d")])
    total: Floats = 0.5 * count + 0.5 * recency + MEMORY_POPULARITY * popularity(names, values)
    return total


class PriorRanker:
    """A ranker of stated weights, for bundles whose data cannot train one. Same face as `AdditiveModel`.

    Each term is weight · log(1 + scale · feature), NaN counting as nothing; the sum is read as log-odds. The weights
    say an order of importance, not a fit: follows and purchases, then visits, what similar viewers like, popularity.
    A follow adds 4.2 and an order 3.5: more than any share (at most 3.0) or popularity (1.5) alone can.
    """

    bias = -4.0
    _TERMS = (
        ("tie_followed", 6.0, 1.0),
        ("tie_order_lines", 5.0, 1.0),
        ("tie_entries_14d", 1.5, 1.0),
        ("tie_entries_2h", 0.5, 1.0),
        ("tie_comments_30d", 0.5, 1.0),
        ("tie_not_interested", -2.0, 1.0),
        ("cf_graph_share", 1.0, 20.0),
        ("transition_recent", 1.0, 20.0),
        ("host_entries_2h_share", 0.5, 20.0),
    )

    def __init__(self, features: Sequence[str]) -> None:
        self.features = tuple(features)
        self._rows = [self.features.index(name) for name, _, _ in self._TERMS]

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms, in the order of the contributions."""
        return tuple(name for name, _, _ in self._TERMS)

    def contributions(self, values: Floats) -> Floats:
        """What each term adds, (T, n)."""
        weights = np.array([weight for _, weight, _ in self._TERMS])
        scales = np.array([scale for _, _, scale in self._TERMS])
        raw = np.nan_to_num(values[self._rows])
        terms: Floats = weights[:, None] * np.log1p(scales[:, None] * np.maximum(raw, 0.0))
        return terms

    def score(self, values: Floats) -> Floats:
        """Scores (n,)."""
        total: Floats = self.contributions(values).sum(axis=0)
        return self.bias + total
