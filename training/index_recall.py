"""Whether the index over live rooms finds what brute force finds: the recall that a gate reads."""

from __future__ import annotations

import numpy as np

from recsys.live.artefact import WorldParts, assemble


def index_metrics(parts: WorldParts, seed: int) -> dict[str, float]:
    """Recall@100 of the live-room index against brute force; empty (gate skipped) without vectors or live rooms."""
    if not len(parts.models.index_vectors) or not len(parts.rooms):
        return {}
    epoch = assemble(parts).world.index.publish()
    queries = np.random.default_rng(seed).normal(size=(64, epoch.dimension)).astype(np.float32)
    found, _ = epoch.search(queries, 100)
    exact = epoch.vectors().astype(np.float64) @ queries.T.astype(np.float64)
    best = epoch.rooms[np.argsort(-exact, axis=0, kind="stable")[: found.shape[1]]].T
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found, best, strict=True)]
    return {"index_recall_at_100": float(np.sum(hits)) / best.size}
