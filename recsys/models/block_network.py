"""The served ranker: small networks over blocks of features, explained by the exact share of every block.

score(x) = c + Σ_k u_k · σ(V_k σ(W_k z + a_k) + b_k), σ(t) = max(t, 0), z the features on a common scale.
Blocks group features by what they speak of: the tie, what viewers like this one choose, the room now, the host.
A block at its *reference* says nothing: no tie, everything else as on average. What is the same for all candidates of
a request is the viewer's block; its term is told first. The contribution of any other block is its Shapley value
(Shapley, 1953) between reference and candidate, given the viewer: the mean over all orders of what the score moves by
when the block is told. With few blocks it is exact: one evaluation per subset of blocks, for which the first layer is
worked out once per block. Contributions and bias sum to the score, and a block at its reference has none.

Shape letters: n rows, F features, B blocks without the viewer's, S = 2^B subsets, K networks, H hidden units of all
networks together, J units of a network's second layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import groupby
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled
from recsys.models.bound import check_shapes, check_table, column_blocks, rows_needed, rows_of
from recsys.models.common_scale import scaled

Numbers = npt.NDArray[np.floating[Any]]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

VIEWER, TIE = "viewer", "tie"
"""The block of features that all candidates of a request share, and the one at its reference for most of them."""
_WEIGHTS = ("first", "first_bias", "second", "second_bias", "last")
_ARRAYS = ("centre", "scale", "reference", *_WEIGHTS)


@dataclass(frozen=True, eq=False)
class BlockNetwork:
    """Networks whose outputs are added. Immutable; any number of threads may read it.

    Args:
        features: names of the F inputs, in order.
        blocks: (F,) name of each one's block; features of a block stand together, `VIEWER` and `TIE` before others.
        centre, scale: (F,) of sign(x)·log(1 + |x|); a missing value is put at the centre.
        reference: (F,) scaled values at which a block says nothing.
        first, first_bias: W (H, F) and a (H,); rows of one network stand together, H / K each.
        second, second_bias: V (K, J, H / K) and b (K, J).
        last: u (K, J).
        constant: c.
        inputs: (F,) rows of the feature table the features are read from; see `bound_to`.
        private_bonus: how much more than the log-odds of the choice a host the viewer knows scores; it is learnt in,
            and what reads scores as chances takes it off.
    """

    features: tuple[str, ...]
    blocks: tuple[str, ...]
    centre: Numbers
    scale: Numbers
    reference: Numbers
    first: Numbers
    first_bias: Numbers
    second: Numbers
    second_bias: Numbers
    last: Numbers
    constant: float
    inputs: npt.NDArray[np.intp] | None = None
    private_bonus: float = 0.0

    def bound_to(self, names: Sequence[str]) -> BlockNetwork:
        """The same model reading its features, by name, from tables with rows `names`.

        Raises:
            LaotieError: a feature of the model is not among `names`.
        """
        return replace(self, inputs=rows_of(self.features, names))

    @cached_property
    def _needed(self) -> int:
        return rows_needed(self.inputs, len(self.features))

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """Names of the 1 + B terms: the viewer, then the other blocks."""
        return (VIEWER, *(name for name in self._spans if name != VIEWER))

    @cached_property
    def bias(self) -> float:
        """The score of a candidate of whom nothing is known, for a viewer as they are on average."""
        return float(self._outcome(self._start[None].copy())[0])

    def score(self, values: Numbers) -> Floats:
        """Scores (n,) of feature-major `values`, (F, n) or the table of the names the model is bound to; NaN: missing.

        Raises:
            LaotieError: `values` has other rows than the model has features.
        """
        return column_blocks(lambda some: self._outcome(self._told(some, slice(None)) + self._start), values)

    def score_request(self, values: Numbers, tied: npt.NDArray[np.intp]) -> Floats:
        """`score` of the candidates of one request, with less work: in single precision.

        Args:
            values: as for `score`; features of the viewer have one value each in all n columns.
            tied: columns, ascending, whose tie is not at its reference.
        """
        if not values.shape[1]:
            return np.empty(0)
        net, viewers, tie = self._single, self._viewers, self._spans.get(TIE, slice(0))
        others = slice(max(viewers, tie.stop), None)
        moved_Fn = net._moved(values, net._untied)
        hidden_nH = moved_Fn[viewers:].T @ net.first[:, others].T
        start_nH = net._start + moved_Fn[:viewers, :1].T @ net.first[:, :viewers].T
        _complete(hidden_nH, start_nH[0], tied, net._told(values, tie, tied))
        return net._from_first(hidden_nH)

    def contributions(self, values: Numbers, scores: Floats | None = None) -> Floats:
        """What each term adds to the score, (1 + B, n), of `values` as for `score`.

        Args:
            scores: (n,) what was said of them, which is what the terms add up to with the bias; `score` by default.
        """
        net = self._single
        moved_Fn = net._moved(values, slice(None))
        spans = [span for name, span in self._spans.items() if name != VIEWER]
        start_nH = net._start + moved_Fn[: self._viewers].T @ net.first[:, : self._viewers].T
        told_BnH = np.empty((len(spans), *start_nH.shape), dtype=np.float32)
        moves_Bn = np.empty((len(spans), len(start_nH)), dtype=np.bool_)
        for block, span in enumerate(spans):
            np.matmul(moved_Fn[span].T, net.first[:, span].T, out=told_BnH[block])
            moved_Fn[span].any(axis=0, out=moves_Bn[block])  # a block at its reference has no share
        n_subsets = 1 << moves_Bn.sum(axis=0)
        first_n = np.cumsum(n_subsets) - n_subsets
        hidden_SH = np.empty((n_subsets.sum(), start_nH.shape[1]), dtype=np.float32)
        _tell(start_nH, told_BnH, moves_Bn, first_n, hidden_SH)
        said_S = net._outcome(hidden_SH)
        # What single precision rounds away moves from one share to another, never out of their sum.
        said_S[first_n + n_subsets - 1] = self.score(values) if scores is None else scores
        out = np.empty((1 + len(spans), len(start_nH)))
        _share(said_S, moves_Bn, first_n, _orders(len(spans)), out)
        out[0] -= self.bias
        return out

    def arrays(self, prefix: str) -> dict[str, npt.NDArray[np.generic]]:
        """The model as plain arrays for a bundle, named with `prefix`; `from_arrays` reads them back."""
        named: dict[str, npt.NDArray[np.generic]] = {
            f"{prefix}_features": np.array(self.features, dtype=np.str_),
            f"{prefix}_blocks": np.array(self.blocks, dtype=np.str_),
            f"{prefix}_constant": np.array([self.constant]),
            f"{prefix}_private_bonus": np.array([self.private_bonus]),
        }
        return named | {f"{prefix}_{name}": getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, names: Sequence[str], arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> BlockNetwork:
        """The model written by `arrays`, bound to `names`. BundleRefused: its arrays do not fit each other."""
        features, blocks = (tuple(str(name) for name in arrays[f"{prefix}_{kind}"]) for kind in ("features", "blocks"))
        weights = {name: np.array(arrays[f"{prefix}_{name}"]) for name in _ARRAYS}
        (k, units, width), n = weights["second"].shape, len(features)
        shapes = dict.fromkeys(("centre", "scale", "reference"), (n,)) | {"first": (k * width, n)}
        shapes |= {"first_bias": (k * width,), "second_bias": (k, units), "last": (k, units)}
        check_shapes(weights, shapes, where=f"models/{prefix}")
        constant = float(arrays[f"{prefix}_constant"][0])
        bonus = float(arrays.get(f"{prefix}_private_bonus", np.zeros(1))[0])  # bundles before it had none
        return cls(features, blocks, **weights, constant=constant, private_bonus=bonus).bound_to(names)

    @cached_property
    def _spans(self) -> dict[str, slice]:
        """Where the features of each block stand."""
        spans, at = {}, 0
        for name, of_block in groupby(self.blocks):
            size = len(list(of_block))
            spans[name], at = slice(at, at + size), at + size
        return spans

    @cached_property
    def _start(self) -> Numbers:
        """The first layer with every block at its reference, (H,)."""
        return np.asarray(self.first @ self.reference + self.first_bias, dtype=self.first.dtype)

    @cached_property
    def _viewers(self) -> int:
        """How many features, the first ones, are of the viewer's block."""
        return sum(name == VIEWER for name in self.blocks)

    @cached_property
    def _single(self) -> BlockNetwork:
        """The same with weights in single precision; features are still put on their scale in double, for a block at
        its reference is to be there exactly."""
        return replace(self, **{name: getattr(self, name).astype(np.float32) for name in _WEIGHTS})

    @cached_property
    def _untied(self) -> npt.NDArray[np.intp]:
        """Positions of all features but those of the tie."""
        return np.array([i for i, name in enumerate(self.blocks) if name != TIE], dtype=np.intp)

    def _told(self, values: Numbers, of: slice, columns: npt.NDArray[np.intp] | None = None) -> Numbers:
        """What some features add to the first layer beyond their reference, (columns, H)."""
        return np.asarray(self._moved(values, of, columns).T @ self.first[:, of].T)

    def _moved(
        self, values: Numbers, of: slice | npt.NDArray[np.intp], columns: npt.NDArray[np.intp] | None = None
    ) -> Numbers:
        """Some features on the common scale less their reference, (features, columns)."""
        check_table(values, self._needed, exactly=self.inputs is None)
        rows = np.arange(len(self.features))[of] if self.inputs is None else self.inputs[of]
        return scaled(values, self.centre[of], self.scale[of], self.reference[of], rows, columns, self.first.dtype)

    def _outcome(self, hidden_nH: Numbers) -> Floats:
        """Scores (n,) from the first layer (n, H) before σ; it is overwritten."""
        return self._from_first(np.maximum(hidden_nH, 0.0, out=hidden_nH))

    def _from_first(self, hidden_nH: Numbers) -> Floats:
        """Scores (n,) from the first layer (n, H)."""
        width = self.second.shape[2]
        out = np.full(len(hidden_nH), self.constant)
        for k, (second, bias, last) in enumerate(zip(self.second, self.second_bias, self.last, strict=True)):
            units_nJ = hidden_nH[:, k * width : (k + 1) * width] @ second.T
            _rectify(units_nJ, bias)
            out += units_nJ @ last
        return out


@compiled
def _complete(hidden_nH: Numbers, start_H: Numbers, tied: npt.NDArray[np.intp], tie_mH: Numbers) -> None:
    """σ of first layers that lack what is the same for all and, in the rows `tied`, ascending, what their ties say."""
    j = 0
    for i in range(len(hidden_nH)):
        row = hidden_nH[i]
        for h in range(len(row)):
            row[h] += start_H[h]
        if j < len(tied) and tied[j] == i:
            for h in range(len(row)):
                row[h] += tie_mH[j, h]
            j += 1
        for h in range(len(row)):
            row[h] = 0.0 if row[h] < 0.0 else row[h]


@compiled
def _rectify(units_nJ: Numbers, bias_J: Numbers) -> None:
    """σ of the second layer, its bias added."""
    for i in range(len(units_nJ)):
        row = units_nJ[i]
        for j in range(len(row)):
            told = row[j] + bias_J[j]
            row[j] = 0.0 if told < 0.0 else told


@compiled
def _tell(start_nH: Numbers, told_BnH: Numbers, moves_Bn: npt.NDArray[np.bool_], first_n: Ints, out: Numbers) -> None:
    """First layers of every subset of the blocks that move a row, those of row i from `first_n[i]` on; bit b of a
    subset's number: it has the b-th of them."""
    for i in range(len(start_nH)):
        subsets = out[first_n[i] :]
        subsets[0] = start_nH[i]
        n_subsets = 1
        for block in range(len(moves_Bn)):
            if moves_Bn[block, i]:
                for s in range(n_subsets):  # the subsets with it are those of the blocks before it, and it
                    subsets[n_subsets + s] = subsets[s] + told_BnH[block, i]
                n_subsets *= 2


@compiled
def _share(said: Floats, moves_Bn: npt.NDArray[np.bool_], first_n: Ints, orders: Floats, out: Floats) -> None:
    """Into `out` (1 + B, n) the score without any block, and every block's Shapley value, from the scores `said` of the
    subsets of `_tell`; `orders[m, s]` is the share of the orders of m blocks in which s given ones, and no others, come
    before a given one."""
    for i in range(len(first_n)):
        said_S = said[first_n[i] :]
        out[0, i] = said_S[0]
        n_moves = 0
        for block in range(len(moves_Bn)):
            n_moves += moves_Bn[block, i]
        b = 0
        for block in range(len(moves_Bn)):
            share = 0.0
            if moves_Bn[block, i]:
                for s in range(1 << n_moves):
                    if not s >> b & 1:
                        size = 0
                        for other in range(n_moves):
                            size += s >> other & 1
                        share += orders[n_moves, size] * (said_S[s | 1 << b] - said_S[s])
                b += 1
            out[1 + block, i] = share


@lru_cache
def _orders(blocks: int) -> Floats:
    found = np.zeros((blocks + 1, blocks + 1))
    for m in range(1, blocks + 1):
        for s in range(m):
            found[m, s] = factorial(s) * factorial(m - s - 1) / factorial(m)
    return found
