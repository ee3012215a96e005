"""The pipeline: sources → filters → scorer → selector → explanation. One function, offline and online."""

from __future__ import annotations

import numpy as np

from recsys.pipeline.filters import filtered
from recsys.pipeline.reasons import reasons
from recsys.pipeline.request import OUTCOMES, SOURCES, Answer, Outcome, Request
from recsys.pipeline.scoring import heads_of, scored
from recsys.pipeline.selection import select
from recsys.pipeline.sources import candidates, propensities
from recsys.pipeline.world import World

_CODES = {outcome: code for code, outcome in enumerate(OUTCOMES)}
_SOURCE_COUNTS = tuple(f"source {name}" for name in SOURCES)


def lookup(world: World, request: Request) -> Answer:
    """Answer one request from the state as it is.

    Args:
        world: must hold every fact before `request.at` and none at or after it.
        request: who asks, when, for how many.

    Returns:
        At most `k` rooms, fewer only when fewer are eligible (`short_why` says so). Every candidate is in `candidates`
        with what became of it.
    """
    epoch = world.index.publish()
    viewer = world.models.viewer(world.ties, world.blocks, request.user, len(world.standings), request.at)
    found = candidates(world, epoch, request, viewer)
    kept, removed = filtered(world, epoch, request, found)
    if len(kept) < request.k and request.rooms is None and len(found) < len(epoch):
        # The sources are bounded and do not know the filters: with too few left, every room live now is considered.
        found = candidates(world, epoch, request, viewer, everything=True)
        kept, removed = filtered(world, epoch, request, found)
    scores = scored(world, request.user, viewer, kept.rooms, request.at)
    order, reserved = select(world, request, kept, world.rooms.host[kept.rooms].astype(np.int64), scores.score)
    rooms, through = kept.rooms[order], scores.hosts[order]
    breakdown = scores.breakdown(order)
    words: list[list[str]] = []
    heads: dict[str, np.ndarray] = {}
    if request.explain:
        tie_of = scores.tie_of(order)
        heads = heads_of(world, rooms, through, breakdown.values, (tie_of >= 0).nonzero()[0])
        words = reasons(world, scores.ties, tie_of, rooms, through, kept.source[order], reserved, request.at)
    outcomes = np.full(len(kept), _CODES[Outcome.NOT_SELECTED], dtype=np.int8)
    outcomes[order] = _CODES[Outcome.SHOWN]
    story = [(kept.rooms, outcomes)]
    story += [(rows, np.full(len(rows), _CODES[why], dtype=np.int8)) for why, rows in removed]
    brought = np.bincount(found.source, minlength=len(SOURCES)).tolist()
    counts = {name: n for name, n in zip(_SOURCE_COUNTS, brought, strict=True) if n}
    counts |= {"live": len(epoch), "candidates": len(found)} | {str(why): len(rows) for why, rows in removed}
    counts |= {"scored": len(kept), "shown": len(order)}
    short = None
    if len(order) < request.k:
        short = "no room is live" if not len(found) else f"only {len(kept)} candidates are eligible"
    return Answer(
        rooms=rooms,
        hosts=world.rooms.host[rooms].astype(np.int64),
        score=scores.score[order],
        strength=scores.strength[order],
        sources=kept.source[order],
        reserved=reserved,
        propensity=propensities(world, epoch, kept.source[order]),
        reasons=words,
        breakdown=breakdown,
        candidates=np.concatenate([rows for rows, _ in story]),
        outcomes=np.concatenate([codes for _, codes in story]),
        stage_counts=counts,
        short_why=short,
        weights=scores.domain_weights() if request.explain else {},
        heads=heads,
    )
