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
    exact = epoch.vectors().astype(np.float64) @ queries.T.astype(np.float64)
    best = np.argsort(-exact, axis=0, kind="stable")[:100].T
    hits = [len(np.intersect1d(epoch.nearest(query, 100), of_it)) for query, of_it in zip(queries, best, strict=True)]
    return {"index_recall_at_100": float(np.sum(hits)) / best.size}
