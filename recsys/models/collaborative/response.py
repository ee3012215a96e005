"""The response of a low-pass filter, found on kept-back ties from one pass over the graph.

However a history is weighted over the eigenvalues, its scores are the same few Chebyshev terms summed with other
coefficients, and the target exponent only multiplies. So the terms of the hosts in reach are kept, and settings are
tried on those alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.models.collaborative.interactions import FloatArray
from recsys.models.collaborative.low_pass import GraphOperator, LowPassConfig, coefficients
from recsys.models.collaborative.validation import Check, Quality, list_gains, members, quality_of, top_unseen

_POOL = 8  # of each setting that marks out the pool, the best 8 · k hosts
_BLOCK_CELLS = 1_500_000  # of one term; all terms of a block are held at once
_MARKS = ((1.0, 0.0), (4.0, -0.15), (0.25, 0.15))  # cutoff factor and target step of the settings that mark it out
_MOVES = (("cutoff", 2.0), ("cutoff", 0.5), ("target_exponent", 0.1), ("target_exponent", -0.1))
_SIZES = (1.0, 0.5, 0.25)


@dataclass(frozen=True, slots=True)
class TermPool:
    """Terms (degree + 1, n_users, n_pool) of the hosts that may come on top, and what is known of each of those."""

    terms: FloatArray
    log_degrees: FloatArray
    relevant: npt.NDArray[np.bool_]
    left_out: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.int64]
    k: int

    def quality(self, config: LowPassConfig) -> Quality:
        """Quality of the filter with this response and target exponent."""
        scores = np.tensordot(coefficients(config), self.terms, axes=1)
        scores *= np.exp(np.float32(config.target_exponent) * self.log_degrees)
        scores[self.left_out] = -np.inf
        k = min(self.k, scores.shape[1])
        places = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, places, axis=1), axis=1, kind="stable")
        places = np.take_along_axis(places, order, axis=1)
        return quality_of(list_gains(np.take_along_axis(self.relevant, places, axis=1), self.counts))


def tuned_response(operator: GraphOperator, check: Check) -> tuple[LowPassConfig, Quality]:
    """The operator's settings with cutoff and target exponent moved to where `check` is answered best."""
    pool = _term_pool(operator, check)
    best = operator.config
    quality = pool.quality(best)
    for size in _SIZES:
        improved = True
        while improved:
            improved = False
            for name, step in _MOVES:
                trial = _moved(best, name, step, size)
                found = pool.quality(trial) if trial is not None else quality
                if trial is not None and found.beats(quality):
                    best, quality, improved = trial, found, True
    return best, quality


def _moved(config: LowPassConfig, name: str, step: float, size: float) -> LowPassConfig | None:
    value = getattr(config, name)
    value = value * step**size if name == "cutoff" else value + step * size
    try:
        return LowPassConfig.model_validate(config.model_dump() | {name: float(f"{value:.4g}")})
    except ValueError:
        return None


def _term_pool(operator: GraphOperator, check: Check) -> TermPool:
    step = max(1, _BLOCK_CELLS // max(check.histories.shape[1], 1))
    starts = range(0, check.histories.shape[0], step)
    with ThreadPoolExecutor(operator.config.threads) as pool:
        parts = list(pool.map(lambda start: _part(operator, check, slice(start, start + step)), starts))
    terms, log_degrees, relevant, left_out = (np.concatenate(part, axis=-2) for part in zip(*parts, strict=True))
    width = int((~left_out).sum(axis=1).max(initial=1))  # hosts marked out twice or known already go to the end
    first = np.argsort(left_out, axis=1, kind="stable")[:, :width]
    terms = np.stack([np.take_along_axis(term, first, axis=1) for term in terms])
    log_degrees, relevant, left_out = (
        np.take_along_axis(of, first, axis=1) for of in (log_degrees, relevant, left_out)
    )
    counts = np.diff(check.relevant.indptr).astype(np.int64)
    return TermPool(terms, log_degrees, relevant, left_out, counts, check.k)


def _part(operator: GraphOperator, check: Check, rows: slice) -> Iterator[npt.NDArray[np.generic]]:
    histories = check.histories[rows]
    terms = list(operator.terms(histories))
    logs = np.log(np.maximum(operator.host_degrees, 1e-9)).astype(np.float32)
    found = []
    for factor, move in _MARKS:
        shares = coefficients(operator.config.model_copy(update={"cutoff": operator.config.cutoff * factor}))
        total = terms[0] * shares[0]
        for share, term in zip(shares[1:], terms[1:], strict=True):
            total += term * share
        scores = np.multiply(total.T, np.exp((operator.config.target_exponent + move) * logs))
        found.append(top_unseen(scores, histories, min(_POOL * check.k, histories.shape[1])))
    hosts = np.sort(np.concatenate(found, axis=1), axis=1)
    left_out = members(hosts, histories)
    left_out[:, 1:] |= hosts[:, 1:] == hosts[:, :-1]
    users = np.arange(len(hosts))[:, None]
    return iter(
        (np.stack([term[hosts, users] for term in terms]), logs[hosts], members(hosts, check.relevant[rows]), left_out)
    )
