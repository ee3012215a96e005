"""Choosing models and settings for ties nobody has seen before, on a part kept back from them.

The bounds are amounts of work, not of time, so that the same input and seed choose the same on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recsys.models.collaborative.ease import Ease, dense_dimension
from recsys.models.collaborative.ensemble import Blend, candidate_pool, tuned_weights
from recsys.models.collaborative.graph_filter import GraphFilter
from recsys.models.collaborative.interactions import Interactions
from recsys.models.collaborative.protocol import CollaborativeModel
from recsys.models.collaborative.search import (
    Bench,
    Found,
    Trial,
    Tunable,
    als_moves,
    ease_moves,
    graph_filter_moves,
    search,
)
from recsys.models.collaborative.validation import Check, Quality, internal_check
from recsys.progress import Progress, silent


class SelectionConfig(BaseModel):
    """Bounds of the search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(20, ge=1)
    """Places that count."""
    held_out_share: float = Field(0.2, gt=0, lt=1)
    check_cells: int = Field(160_000_000, ge=1)
    """At most so many users × hosts are scored in one check; beyond it, random users are asked."""
    tuning_pairs: int = Field(2_000_000, ge=1)
    """With more ties than this, settings are searched on a random part of the users."""
    graph_filter_fits: int = Field(8, ge=1)
    ease_fits: int = Field(14, ge=1)
    ease_tera_ops: float = Field(8.0, gt=0)
    """EASE is tuned on the most followed hosts only, so many that the cubes of its fits add up to this, in 10¹²."""
    dense_gib: float = Field(4.0, gt=0)
    """EASE is left out if the one matrix it inverts would be larger; fitting needs about as much again in parts."""
    als_fits: int = Field(10, ge=0)
    """0 leaves ALS, and with it `implicit`, out."""
    als_max_factors: int = Field(256, ge=1)
    threads: int = Field(1, ge=1)
    """For ALS; linear algebra uses what its library was given."""


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
        sample,
        share=config.held_out_share,
        max_users=max(1, config.check_cells // sample.n_hosts),
        k=config.k,
        seed=seed,
    )
    if not check.histories.shape[0]:
        return Selection(GraphFilter(), None, ())
    bench = Bench(train, check, seed, [], progress)
    found = [search(bench, GraphFilter(), graph_filter_moves, config.graph_filter_fits, "choosing the graph filter")]
    if 4 * dense_dimension(interactions.n_users, interactions.n_hosts) ** 2 <= config.dense_gib * 2**30:
        found.append(_ease(bench, config))
    if config.als_fits:
        found.append(_als(bench, config))
    model, quality = _blended(found, check, bench.trials)
    return Selection(model, quality, tuple(bench.trials))


def _ease(bench: Bench, config: SelectionConfig) -> Found:
    """Search on the head of the catalogue if the whole would cost too much, then fit the best on the whole."""
    side = int((config.ease_tera_ops * 1e12 / config.ease_fits) ** (1 / 3))
    if dense_dimension(bench.train.n_users, bench.train.n_hosts) <= side:
        return search(bench, Ease(), ease_moves, config.ease_fits, "choosing EASE")
    head = _head(bench, side)
    best: Tunable = Ease()
    if head.check.histories.shape[0]:
        best = search(head, best, ease_moves, config.ease_fits, "choosing EASE on the most followed hosts").model
    return search(bench, best, ease_moves, 1, "checking EASE on all hosts")


def _als(bench: Bench, config: SelectionConfig) -> Found:
    from recsys.models.collaborative.als import Als, AlsConfig  # pulls in implicit, which not everybody has or needs

    start = Als(AlsConfig(threads=config.threads))

    def allowed(model: Tunable) -> bool:
        return isinstance(model, Als) and model.config.factors <= config.als_max_factors

    return search(bench, start, als_moves, config.als_fits, "choosing ALS", allowed)


def _blended(found: Sequence[Found], check: Check, trials: list[Trial]) -> tuple[CollaborativeModel, Quality]:
    start = int(np.argmax([one.quality.objective for one in found]))
    if len(found) == 1:
        return found[0].model, found[0].quality
    weights, quality = tuned_weights(candidate_pool([one.fitted for one in found], check), start)
    pairs = list(zip((one.model for one in found), weights, strict=True))
    trials.append(Trial("blend", {model.name: weight for model, weight in pairs}, quality))
    kept = [(model, weight) for model, weight in pairs if weight > 0]
    if len(kept) == 1:
        return kept[0][0], quality
    return Blend(tuple(model for model, _ in kept), tuple(weight for _, weight in kept)), quality


def _sampled(interactions: Interactions, max_pairs: int, seed: int) -> Interactions:
    if interactions.n_pairs <= max_pairs:
        return interactions
    n_users = max(1, int(interactions.n_users * max_pairs / interactions.n_pairs))
    users = np.random.default_rng(seed + 2).choice(interactions.n_users, n_users, replace=False)
    return Interactions(interactions.matrix[np.sort(users)])


def _head(bench: Bench, n_hosts: int) -> Bench:
    """The same bench with the `n_hosts` hosts of highest degree only; trials go to the same list."""
    hosts = np.sort(np.argsort(-bench.train.host_degrees(), kind="stable")[:n_hosts])
    histories, relevant = bench.check.histories[:, hosts], bench.check.relevant[:, hosts]
    asked = np.flatnonzero((np.diff(histories.indptr) > 0) & (np.diff(relevant.indptr) > 0))
    train = bench.train.matrix[:, hosts]
    train = train[np.flatnonzero(np.diff(train.indptr))]
    check = Check(histories[asked], relevant[asked], bench.check.k)
    return Bench(Interactions(train), check, bench.seed, bench.trials, bench.progress)
