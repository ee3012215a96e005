"""The two-tower model as it is served: numpy only. Training: `recsys.models.two_tower_training`.

The viewer's tower reads his whole history, never a window of it: of every host he entered the decayed counts of his
entries at several half-lives, straight from the state of the tie. Each of A attention heads mixes these counts into one
weight a host, takes the weighted mean of the hosts' history vectors and projects it; the hour of the day and his city
tier are added, so a viewer without any history has a vector, too. The host's tower is a vector and a bias per host,
plus those of its category.

    u = Σ_a P_a · Σ_i w_ai h_i / (ε + Σ_i w_ai) + hour + tier,    w_ai = Σ_k m_ak log(1 + e_ik),    score = u · v + bias

Covington, Adams, Sargin (RecSys 2016) average histories alike; decays as attention are ours, because they are exact
under the tie's algebra. Formulas: docs/formulas/two-tower.md.

Shape letters: H hosts, h hosts of a history, K half-lives, A attention heads, d dimensions, n candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from recsys.models.collaborative.interactions import Csr, FloatArray
from recsys.ties.algebra import decay_to
from recsys.ties.blocks import Blocks
from recsys.ties.store import TieStore

Vectors = npt.NDArray[np.float32]
HALF_LIVES_DAYS = (2 / 24, 12 / 24, 3.0, 14.0, float("inf"))
"""Of the decayed counts of entries a tie holds, and the plain count."""
_DECAYS = ("entries_2h", "entries_12h", "entries_3d", "entries_14d")
HOUR_SLOTS = 8
EPSILON = 1e-3


@dataclass(frozen=True)
class TwoTower:
    """Weights of both towers.

    Args:
        history: (H, d) history vectors, categories added in.
        hosts: (H, d + 1) host vectors and, last, biases, categories added in.
        mix: (A, K) non-negative, what an entry of each age counts for an attention head.
        project: (A, d, d).
        hours: (HOUR_SLOTS, d) by slot of the UTC day.
        tiers: (T, d) by city tier; row 0 for an unknown one.
        of_category: (C, d + 1) host vector and bias of hosts of which only the category is known; row 0: not even that.
        half_lives_days: (K,) of the decayed counts; the last one is infinite: the plain count.
        tier_of_user: (U,) row of `tiers` of each user row; later users are of unknown tier.
    """

    history: Vectors
    hosts: Vectors
    mix: Vectors
    project: Vectors
    hours: Vectors
    tiers: Vectors
    of_category: Vectors
    half_lives_days: Vectors
    tier_of_user: npt.NDArray[np.int8]

    @property
    def name(self) -> str:
        """Name among the collaborative models."""
        return "two_tower"

    def viewer(
        self, hosts: npt.NDArray[np.integer], counts: npt.NDArray[np.floating[Any]], at_us: int, user: int = -1
    ) -> Vectors:
        """The vector (d,) of a viewer at instant `at_us`, µs.

        Args:
            hosts: (h,) host rows he entered; hosts newer than the model are passed over.
            counts: (h, K) decayed entries at each half-life, then the plain count.
            user: his row, −1 for nobody known.
        """
        known = hosts < len(self.history)
        slot = (at_us // (86_400_000_000 // HOUR_SLOTS)) % HOUR_SLOTS
        vector = self.hours[slot] + self.tiers[self.tier_of_user[user] if 0 <= user < len(self.tier_of_user) else 0]
        if known.any():
            # Copied so that one host is no `sgemv` of a transpose: for five columns OpenBLAS's (AVX-512, since its pull
            # request 3260) adds up a buffer it half wrote, whose garbage may be a NaN that signals in a right product.
            weights = np.log1p(counts[known]).astype(np.float32) @ np.ascontiguousarray(self.mix.T)
            means = weights.T @ self.history[hosts[known]] / (EPSILON + weights.sum(axis=0))[:, None]
            vector = vector + np.einsum("ade,ae->d", self.project, means)
        return np.asarray(vector, dtype=np.float32)

    def viewer_of(self, ties: TieStore, blocks: Blocks, user: int, at: int) -> Vectors:
        """The vector (d,) of a user as his ties are at `at`, µs."""
        visits, block = ties.of("visits", user), blocks.visits
        counts = np.empty((len(visits), len(self.half_lives_days)))
        decayed = decay_to(block, visits.rows, at)
        for i, name in enumerate(_DECAYS):
            counts[:, i] = decayed[:, block.decay_column(name)]
        counts[:, -1] = visits.rows.ints[:, block.int_column("n_entries")]
        return self.viewer(visits.hosts, counts, at, user)

    def search_vector(self, vector: Vectors) -> Vectors:
        """What a viewer's vector asks an index of `hosts` for: (d + 1,), the last one for the bias."""
        return np.append(vector, np.float32(1.0))

    def score(self, vector: Vectors, hosts: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """Scores (n,) of candidate hosts; those newer than the model score like a host of unknown category."""
        known = hosts < len(self.hosts)
        rows = np.where(known[:, None], self.hosts[np.where(known, hosts, 0)], self.of_category[0])
        return (rows[:, :-1] @ vector + rows[:, -1]).astype(np.float64)

    def scores(self, histories: Csr) -> FloatArray:
        """Scores (n_queries, H) of histories without times: every entry counts as old, at hour 0 of the day."""
        found = np.empty((histories.shape[0], len(self.hosts)), dtype=np.float32)
        everybody = np.arange(len(self.hosts))
        for row in range(histories.shape[0]):
            span = slice(histories.indptr[row], histories.indptr[row + 1])
            counts = np.zeros((span.stop - span.start, len(self.half_lives_days)))
            counts[:, -1] = np.expm1(histories.data[span])
            found[row] = self.score(self.viewer(histories.indices[span], counts, 0), everybody)
        return found

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Plain arrays for a bundle; `from_arrays` reads them back."""
        return {f"tower_{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The model written by `arrays`."""
        return cls(**{field.name: np.asarray(arrays[f"tower_{field.name}"]) for field in fields(cls)})
