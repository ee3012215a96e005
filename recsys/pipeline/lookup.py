"""The pipeline: sources → filters → scorer → selector → explanation. One function, offline and online."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.index.epoch import Epoch
from recsys.models.suite import Viewer
from recsys.pipeline.filters import filtered
from recsys.pipeline.reasons import reasons
from recsys.pipeline.request import OUTCOMES, SOURCES, Answer, Outcome, Request
from recsys.pipeline.scoring import Scored, ToScore, heads_of, scored_each
from recsys.pipeline.selection import select
from recsys.pipeline.sources import Candidates, candidates, propensities
from recsys.pipeline.world import World

_CODES = {outcome: code for code, outcome in enumerate(OUTCOMES)}
_SOURCE_COUNTS = tuple(f"source {name}" for name in SOURCES)


class _Found(NamedTuple):
    """What the sources found for one request, and what the filters left of it."""

    request: Request
    viewer: Viewer
    found: Candidates
    kept: Candidates
    removed: list[tuple[Outcome, npt.NDArray[np.int64]]]


def lookup(world: World, request: Request) -> Answer:
    """Answer one request from the state as it is.

    Args:
        world: must hold every fact before `request.at` and none at or after it.
        request: who asks, when, for how many.

    Returns:
        At most `k` rooms, fewer only when fewer are eligible (`short_why` says so). Every candidate is in `candidates`
        with what became of it.
    """
    return lookups(world, [request])[0]


def lookups(world: World, requests: Sequence[Request]) -> list[Answer]:
    """Answer several requests of one instant: each as `lookup` does, to the last bit, at less cost than one by one."""
    epoch = world.index.publish()
    n_hosts = len(world.standings)
    viewers = [world.models.viewer(world.ties, world.blocks, one.user, n_hosts, one.at) for one in requests]
    begun = [_found(world, epoch, request, viewer) for request, viewer in zip(requests, viewers, strict=True)]
    asked = [ToScore(one.request.user, one.viewer, one.kept.rooms) for one in begun]
    made = scored_each(world, asked, requests[0].at)
    return [_answer(world, epoch, one, scores) for one, scores in zip(begun, made, strict=True)]


def _found(world: World, epoch: Epoch, request: Request, viewer: Viewer) -> _Found:
    found = candidates(world, epoch, request, viewer)
    kept, removed = filtered(world, epoch, request, viewer, found)
    if len(kept) < request.k and request.fill and request.rooms is None and len(found) < len(epoch):
        # The sources are bounded and do not know the filters: with too few left, every room live now is considered.
        found = candidates(world, epoch, request, viewer, everything=True)
        kept, removed = filtered(world, epoch, request, viewer, found)
    return _Found(request, viewer, found, kept, removed)


def _answer(world: World, epoch: Epoch, begun: _Found, scores: Scored) -> Answer:
    request, viewer, found, kept, removed = begun
    order, reserved = select(world, request, kept, world.rooms.host[kept.rooms].astype(np.int64), scores.score)
    rooms, through = kept.rooms[order], scores.hosts[order]
    breakdown = scores.breakdown(order)
    words: list[list[str]] = []
    heads: dict[str, np.ndarray] = {}
    if request.heads:
        tied = (scores.tie_of(order) >= 0).nonzero()[0]
        heads = heads_of(world, rooms, through, breakdown.values, tied)
    if request.explain:
        words = reasons(
            world, scores.ties, scores.tie_of(order), rooms, through, kept.source[order], reserved, request.at,
            with_history=len(viewer.hosts) > 0,
        )  # fmt: skip
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
        if not request.fill:
            short = f"the sources asked for have {len(kept)}"
        else:
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
