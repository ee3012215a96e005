"""Choosing models and settings for ties nobody has seen before, on a part kept back from them.

The bounds are amounts of work, not of time, so that the same input and seed choose the same on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recsys.models.collaborative.cosine import Cosine
from recsys.models.collaborative.ease import Ease, dense_dimension
from recsys.models.collaborative.ensemble import Blend, FittedBlend, candidate_pool, tuned_weights
from recsys.models.collaborative.interactions import Interactions
from recsys.models.collaborative.low_pass import LowPass, LowPassConfig
from recsys.models.collaborative.neighbours import Neighbours, NeighboursConfig
from recsys.models.collaborative.protocol import CollaborativeModel, FittedCollaborative
from recsys.models.collaborative.search import (
    Bench,
    Found,
    Trial,
    Tunable,
    als_moves,
    cosine_moves,
    ease_moves,
    low_pass_moves,
    search,
)
from recsys.models.collaborative.validation import Draw, Quality, internal_check
from recsys.progress import Progress, silent

_ALS_FACTORS, _HOSTS_OF_ALS_FACTORS = 128, 2_000
_LEAST_ALS_FITS = 3  # with more factors; else fewer of them


class SelectionConfig(BaseModel):
    """Bounds of the search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(20, ge=1)
    """Places that count."""
    held_out_share: float = Field(0.05, gt=0, lt=1)
    """Small, since what suits a thinner graph is too sharp for the whole one."""
    check_cells: int = Field(100_000_000, ge=1)
    """At most so many users × hosts are scored in one check; beyond it, random users are asked."""
    check_users: int = Field(5000, ge=1)
    """Nor more users than so many."""
    check_answers: int = Field(20_000, ge=1)
    """Of the users of the first draw not asked for the settings, and of further draws, so many answers are wanted for
    the weights; …"""
    draws: int = Field(3, ge=2)
    """… ties are kept back at most so often, and so that all checks of weights together stay within `check_cells`."""
    tuning_pairs: int = Field(2_000_000, ge=1)
    """With more ties than this, settings are searched on a random part of the users."""
    low_pass_fits: int = Field(8, ge=1)
    ease_fits: int = Field(14, ge=0)
    ease_tera_ops: float = Field(8.0, gt=0)
    """EASE inverts a matrix in each fit: so few fits that their cubes add up to no more than this, in 10¹²."""
    als_fits: int = Field(6, ge=0)
    """0 leaves ALS, and with it `implicit`, out."""
    als_max_factors: int = Field(512, ge=1)
    als_tera_ops: float = Field(3.0, gt=0)
    """So few fits of ALS, and of so few factors, that their multiply-adds add up to no more than this, in 10¹²."""
    cosine_fits: int = Field(4, ge=0)
    """0 leaves the cosine softmax out."""
    cosine_tera_ops: float = Field(4.0, gt=0)
    """So few fits of the cosine softmax that their multiply-adds add up to no more than this, in 10¹²."""
    neighbour_giga_ops: float = Field(3.0, ge=0)
    """Neighbours are counted only if the pairs of hosts that users have in common are no more than this, in 10⁹."""
    neighbour_entries: int = Field(60_000_000, ge=1)
    """At most so many weights of theirs are kept, at 8 bytes each; so few of each host."""
    threads: int = Field(1, ge=1)
    """For ALS and the filter; linear algebra uses what its library was given."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen model, and every trial that led to it.

    `fitted` is the model on the ties it was chosen with: a start for training on all. It and `quality` are None if
    nothing could be tried.
    """

    model: CollaborativeModel
    quality: Quality | None
    trials: tuple[Trial, ...]
    fitted: FittedCollaborative | None = field(default=None, compare=False, repr=False)


def select_model(
    interactions: Interactions, config: SelectionConfig, *, seed: int, progress: Progress = silent
) -> Selection:
    """Search settings of each family on an internal split, then the weights of their blend on answers of others.

    Where no user has two hosts nothing can be kept back, and the answer is a low-pass filter with its defaults.
    """
    sample = _sampled(interactions, config.tuning_pairs, seed)
    first, *more = _draws(sample, config, seed)
    start = LowPass(LowPassConfig(threads=config.threads))
    if not first.check.histories.shape[0]:
        return Selection(start, None, ())
    bench = Bench(first, seed, [], progress)
    found = [search(bench, start, low_pass_moves, config.low_pass_fits, "choosing the low-pass filter")]
    side = dense_dimension(interactions.n_users, interactions.n_hosts)
    ease_fits = min(config.ease_fits, int(config.ease_tera_ops * 1e12 / max(side, 1) ** 3))
    if ease_fits:
        found.append(search(bench, Ease(), ease_moves, ease_fits, "choosing EASE"))
    if config.als_fits:
        found.append(_als(bench, config))
    cosine_fits = min(config.cosine_fits, int(config.cosine_tera_ops * 1e12 / max(Cosine().work(first.train), 1)))
    if cosine_fits:
        found.append(search(bench, Cosine(), cosine_moves, cosine_fits, "choosing the cosine softmax"))
    if Neighbours().work(interactions) <= config.neighbour_giga_ops * 1e9:
        kept = max(1, min(NeighboursConfig().neighbours, config.neighbour_entries // interactions.n_hosts))
        # not searched: by itself a blunter one does better, but the blend wants what others lack, the closest few
        neighbours = Neighbours(NeighboursConfig(neighbours=kept))
        found.append(search(bench, neighbours, lambda _: [], 1, "counting neighbours"))
    model, fitted, quality = _blended(found, bench, more)
    return Selection(model, quality, tuple(bench.trials), fitted)


def _als(bench: Bench, config: SelectionConfig) -> Found:
    """The search begins with 128 factors, doubled for every fourfold number of hosts beyond 2,000, confidence times √2
    with them, as far as bounds and the rank of the ties allow."""
    from recsys.models.collaborative.als import Als, AlsConfig  # pulls in implicit, which not everybody has or needs

    train = bench.draw.train
    rank, budget = min(train.matrix.shape), config.als_tera_ops * 1e12

    def allowed(model: Tunable) -> bool:
        if not isinstance(model, Als) or model.config.factors > min(config.als_max_factors, max(4, rank)):
            return False
        return model.config.factors <= _ALS_FACTORS or _LEAST_ALS_FITS * model.work(train) <= budget

    def of(factors: int) -> Als:
        confidence = 40 * math.sqrt(max(1.0, factors / _ALS_FACTORS))
        return Als(AlsConfig.suited_to(train.n_hosts, factors=factors, confidence=confidence, threads=config.threads))

    octaves = int(math.log(max(1.0, train.n_hosts / _HOSTS_OF_ALS_FACTORS), 4))
    factors = min(_ALS_FACTORS << octaves, max(4, rank // 2))
    while factors > 4 and not allowed(of(factors)):
        factors //= 2
    start = of(factors)
    fits = min(config.als_fits, max(1, int(budget / start.work(train))))
    return search(bench, start, als_moves, fits, "choosing ALS", allowed)


def _blended(
    found: Sequence[Found], bench: Bench, more: Sequence[Draw]
) -> tuple[CollaborativeModel, FittedCollaborative, Quality]:
    if len(found) == 1:
        return found[0].model, found[0].fitted, found[0].quality
    others = bench.draw.others
    pools = [candidate_pool([one.fitted for one in found], others)] if others.histories.shape[0] else []
    for at, draw in enumerate(more):
        bench.progress("weighing the blend", at / len(more))
        pools.append(candidate_pool([one.model.fit(draw.train, bench.seed) for one in found], draw.check))
    # all alike but neighbours, which are there for what others lack
    weights, quality = tuned_weights(pools, [float(not isinstance(one.model, Neighbours)) for one in found])
    bench.trials.append(
        Trial("blend", {one.model.name: weight for one, weight in zip(found, weights, strict=True)}, quality)
    )
    kept = [(one, weight) for one, weight in zip(found, weights, strict=True) if weight > 0]
    if len(kept) == 1:
        return kept[0][0].model, kept[0][0].fitted, quality
    members, shares = zip(*kept, strict=True)
    blend = Blend(tuple(member.model for member in members), shares)
    return blend, FittedBlend(tuple(member.fitted for member in members), shares), quality


def _draws(sample: Interactions, config: SelectionConfig, seed: int) -> list[Draw]:
    """The first, for settings and perhaps weights, and those only for weights, as few as bounds and answers allow.

    Ties kept back in one draw may be kept back in another. The first asks others for the weights where not all can be
    asked for settings; else there is at least one more.
    """
    most = max(1, min(config.check_users, config.check_cells // sample.n_hosts))

    def drawn(number: int, max_others: int) -> Draw:
        share, own_seed = config.held_out_share, seed + 1000 * number
        return internal_check(sample, share=share, max_users=most, k=config.k, seed=own_seed, max_others=max_others)

    first = drawn(0, most)
    asked, others = first.check, first.others
    missing = max(0, config.check_answers - others.relevant.nnz)
    cells = config.check_cells - math.prod(others.histories.shape)
    number = min(math.ceil(missing / max(asked.relevant.nnz, 1)), cells // max(math.prod(asked.histories.shape), 1))
    least = 0 if others.relevant.nnz else 1
    return [first, *(drawn(at, 0) for at in range(1, 1 + max(least, min(number, config.draws - 1))))]


def _sampled(interactions: Interactions, max_pairs: int, seed: int) -> Interactions:
    if interactions.n_pairs <= max_pairs:
        return interactions
    n_users = max(1, int(interactions.n_users * max_pairs / interactions.n_pairs))
    users = np.random.default_rng(seed + 2).choice(interactions.n_users, n_users, replace=False)
    return Interactions(interactions.matrix[np.sort(users)])
