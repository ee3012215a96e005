"""What each collaborative model is worth, alone and in a blend, on a split that nothing is reported on.

    python benchmarks/members.py PAIRS -k 20 [--split-seed 77] [--users 6000]
        [--models filter,als512,cosine --blends filter+als512+cosine]

Of every user of PAIRS (see `laotie bench-pairs`) a fifth of the items is kept back. Each model is fitted on the rest
with the settings below; the weights of blends are found on the users judged, so their level flatters and differences
count. Prints a table in Markdown, with the processor time of each fit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

from recsys.config import BuildConfig
from recsys.ids import Vocabulary
from recsys.models.collaborative.als import Als, AlsConfig
from recsys.models.collaborative.cosine import Cosine
from recsys.models.collaborative.ease import Ease, EaseConfig
from recsys.models.collaborative.ensemble import candidate_pool, tuned_weights
from recsys.models.collaborative.interactions import Csr, FloatArray, Interactions, power
from recsys.models.collaborative.low_pass import LowPass, LowPassConfig
from recsys.models.collaborative.neighbours import Neighbours, NeighboursConfig
from recsys.models.collaborative.protocol import CollaborativeModel, FittedCollaborative
from recsys.models.collaborative.validation import Check, Quality
from training.results.pairs import pairs_of, split


@dataclass(frozen=True)
class GraphFilter:
    """GF-CF as its paper has it, to measure against: Shen et al., «How Powerful is Graph Convolution for
    Recommendation?», CIKM 2021, eq. 10: the neighbours of neighbours and `share` of an ideal low-pass filter."""

    rank: int = 256
    share: float = 0.3
    name: str = "gf_cf"

    def fit(
        self, interactions: Interactions, seed: int, start: FittedCollaborative | None = None,  # noqa: ARG002
    ) -> FittedGraphFilter:  # fmt: skip
        """The normalised ties and their leading right singular vectors."""
        degrees = interactions.host_degrees()
        by_user = sp.diags_array(power(interactions.user_degrees(), -0.5))
        graph = (by_user @ interactions.matrix @ sp.diags_array(power(degrees, -0.5))).tocsr().astype(np.float32)
        vectors = svds(graph, k=self.rank, random_state=seed)[2]
        return FittedGraphFilter(graph, vectors, power(degrees, -0.5), self.share * power(degrees, 0.5))


@dataclass(frozen=True)
class FittedGraphFilter:
    """`r Gᵀ G + share · r D^-½ Vᵀ V D^½` of histories r, with the ties G and singular vectors V, (rank, n_hosts)."""

    graph: Csr
    vectors: FloatArray
    before: FloatArray
    after: FloatArray
    name: str = "gf_cf"

    def scores(self, histories: Csr) -> FloatArray:
        """See `FittedCollaborative.scores`."""
        ideal = (histories @ sp.diags_array(self.before) @ self.vectors.T) @ self.vectors
        return np.asarray((histories @ self.graph.T @ self.graph).toarray() + ideal * self.after, dtype=np.float32)


def _als(factors: int, confidence: float) -> Callable[[int], CollaborativeModel]:
    return lambda n_hosts: Als(AlsConfig.suited_to(n_hosts, factors=factors, confidence=confidence))


def _ease(kept: int) -> Callable[[int], CollaborativeModel]:
    return lambda _: Ease(EaseConfig(neighbours=kept, dense_hosts=1))


MODELS: dict[str, Callable[[int], CollaborativeModel]] = {
    "plain EASE": lambda _: Ease(EaseConfig(user_exponent=0, host_exponent=0, target_exponent=0)),
    "EASE": lambda _: Ease(),
    "filter": lambda n_hosts: LowPass(LowPassConfig(cutoff=0.3 if n_hosts < 10_000 else 0.6)),
    "als128": _als(128, 40),
    "als256": _als(256, 80),
    "als512": _als(512, 80),
    "cosine": lambda _: Cosine(),
    "neighbours": lambda _: Neighbours(),
    "neighbours by themselves": lambda _: Neighbours(NeighboursConfig.by_itself(BuildConfig().graph_neighbours)),
    **{f"EASE of {kept}": _ease(kept) for kept in (1500, 600, 300, 200, 100)},
    "GF-CF": lambda _: GraphFilter(),
}
"""By name, for so many hosts."""


def drawn(path: Path, seed: int, users: int, k: int) -> tuple[Interactions, Check]:
    """Ties to learn from, and `users` random users with what was kept back of them."""
    train, held = split(pairs_of(path), seed=seed)
    user_ids, host_ids = Vocabulary(), Vocabulary()
    user_ids.extend(train["user_id"].unique().sort())
    host_ids.extend(train["item_id"].unique().sort())

    def matrix(pairs: pl.DataFrame) -> Interactions:
        rows = user_ids.rows(pairs["user_id"]), host_ids.rows(pairs["item_id"])
        known = (rows[0] >= 0) & (rows[1] >= 0)
        return Interactions.from_rows(*(of[known] for of in rows), n_users=len(user_ids), n_hosts=len(host_ids))

    learnt, relevant = matrix(train), matrix(held).matrix
    able = np.flatnonzero(np.diff(relevant.indptr))
    asked = np.sort(np.random.default_rng(seed).choice(able, min(users, len(able)), replace=False))
    return learnt, Check(learnt.matrix[asked], relevant[asked], k)


def row(name: str, quality: Quality, more: str) -> None:
    """Print one line of the table."""
    print(f"| {name} | {quality.recall:.4f} / {quality.ndcg:.4f} | {more} |", flush=True)


def main() -> None:
    """Fit, judge and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("pairs", type=Path)
    options.add_argument("-k", type=int, default=20)
    options.add_argument("--split-seed", type=int, default=77)
    options.add_argument("--users", type=int, default=6_000, help="that are judged")
    options.add_argument("--models", default="plain EASE,EASE,filter,als128,als256,als512,cosine,neighbours,GF-CF")
    options.add_argument("--blends", default="filter+als256,filter+als512,filter+als512+cosine")
    given = options.parse_args()
    models, blends = given.models.split(","), [blend.split("+") for blend in given.blends.split(",") if blend]
    if lacking := {name for blend in blends for name in blend} - set(models):
        options.error(f"--blends names what --models does not: {', '.join(sorted(lacking))}")
    learnt, check = drawn(given.pairs, given.split_seed, given.users, given.k)
    print(
        f"{learnt.n_pairs} pairs of {learnt.n_users} users and {learnt.n_hosts} items; {check.histories.shape[0]} asked"
    )
    print(f"\n| | Recall@{given.k} / NDCG@{given.k} | |\n| --- | --- | --- |")
    fitted: dict[str, FittedCollaborative] = {}
    with threadpool_limits(1):
        for name in models:
            begun = time.process_time()
            fitted[name] = MODELS[name](learnt.n_hosts).fit(learnt, 1)
            spent_s = time.process_time() - begun
            row(name, check.quality(fitted[name]), f"{spent_s:.0f} s")
        for names in blends:
            weights, quality = blended([fitted[name] for name in names], check)
            row(" + ".join(names), quality, " : ".join(f"{weight:g}" for weight in weights))


def blended(members: Sequence[FittedCollaborative], check: Check) -> tuple[tuple[float, ...], Quality]:
    """Weights found on the users asked, more readily than a choice would, and the quality there."""
    return tuned_weights([candidate_pool(members, check)], [1.0] * len(members), errors=0.5)


if __name__ == "__main__":
    main()
