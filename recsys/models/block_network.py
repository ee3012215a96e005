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

from recsys.errors import LaotieError
from recsys.models.bound import column_blocks, rows_of

Numbers = npt.NDArray[np.floating[Any]]
Floats = npt.NDArray[np.float64]

VIEWER, TIE = "viewer", "tie"
"""The block of features that all candidates of a request share, and the one at its reference for most of them."""
_CUT = 4.0
"""Scaled features are cut at so many standard deviations."""
_ARRAYS = ("centre", "scale", "reference", "first", "first_bias", "second", "second_bias", "last")


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
        private_bonus: how much more than the log-odds of the choice a host of the private domain scores; it is learnt
            in, and what reads scores as chances takes it off.
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
    def terms(self) -> tuple[str, ...]:
        """Names of the 1 + B terms: the viewer, then the other blocks."""
        return (VIEWER, *(name for name in self._spans if name != VIEWER))

    @cached_property
    def bias(self) -> float:
        """The score of a candidate of whom nothing is known, for a viewer as they are on average."""
        return float(self._outcome(self._start[:, None])[0])

    def score(self, values: Numbers) -> Floats:
        """Scores (n,) of feature-major `values`, (F, n) or the table of the names the model is bound to; NaN: missing.

        Raises:
            LaotieError: `values` has other rows than the model has features.
        """
        return column_blocks(
            lambda some: self._outcome(self._told(some, slice(None), slice(None)) + self._start[:, None]), values
        )

    def score_request(self, values: Numbers, tied: npt.NDArray[np.intp]) -> Floats:
        """`score` of the candidates of one request, with less work.

        Args:
            values: as for `score`; features of the viewer have one value each in all n columns.
            tied: columns whose tie is not at its reference.
        """
        if not values.shape[1]:
            return np.empty(0)
        viewer, tie = (self._spans.get(name, slice(0)) for name in (VIEWER, TIE))
        hidden = self._told(values, slice(max(viewer.stop, tie.stop), None), slice(None))
        hidden += (self._start + self._told(values, viewer, slice(1))[:, 0])[:, None]
        if len(tied):
            hidden[:, tied] += self._told(values, tie, tied)
        return np.asarray(self._outcome(hidden), np.float64)

    def contributions(self, values: Numbers) -> Floats:
        """What each term adds to the score, (1 + B, n), of `values` as for `score`."""
        moved_Fn = self._moved(values, slice(None), slice(None))
        told = {name: self.first[:, span] @ moved_Fn[span] for name, span in self._spans.items()}
        start_Hn = self._start[:, None] + told.pop(VIEWER, np.zeros((1, values.shape[1])))
        before, whole = self._outcome(np.stack([start_Hn, start_Hn + sum(told.values())]))
        out = np.zeros((1 + len(told), values.shape[1]))
        out[0] = before - self.bias
        light_Hn, parts_BHn = start_Hn.astype(np.float32), [part.astype(np.float32) for part in told.values()]
        codes = np.zeros(values.shape[1], dtype=np.int64)
        for block, name in enumerate(told):
            codes |= moved_Fn[self._spans[name]].any(axis=0).astype(np.int64) << block
        for code in set(codes.tolist()) - {0}:  # a block at its reference has no share and takes no part
            rows = np.flatnonzero(codes == code)
            blocks = [block for block in range(len(told)) if code >> block & 1]
            parts = np.stack([parts_BHn[block][:, rows] for block in blocks])
            out[1 + np.array(blocks)[:, None], rows] = self._shares(light_Hn[:, rows], parts, before[rows], whole[rows])
        return out

    def _shares(self, start_Hn: Numbers, parts_BHn: Numbers, before: Floats, whole: Floats) -> Floats:
        """Shapley values (B, n) of what blocks add to the first layer; subsets between none and all in float32.

        What float32 rounds away moves from one share to another, never out of their sum.
        """
        hidden_SHn = np.empty((1 << len(parts_BHn), *start_Hn.shape), dtype=np.float32)
        hidden_SHn[0] = start_Hn
        for block, part_Hn in enumerate(parts_BHn):  # the subsets with it are those of the blocks before it, and it
            np.add(hidden_SHn[: 1 << block], part_Hn, out=hidden_SHn[1 << block : 2 << block])
        said_Sn = np.concatenate([before[None], self._single._outcome(hidden_SHn[1:-1]), whole[None]])
        return np.asarray(_shapley(len(parts_BHn)) @ said_Sn)

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
        """The model written by `arrays`, bound to `names`."""
        features, blocks = (tuple(str(name) for name in arrays[f"{prefix}_{kind}"]) for kind in ("features", "blocks"))
        weights = {name: np.array(arrays[f"{prefix}_{name}"]) for name in _ARRAYS}
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
    def _start(self) -> Floats:
        """The first layer with every block at its reference, (H,)."""
        return np.asarray(self.first @ self.reference + self.first_bias)

    @cached_property
    def _single(self) -> BlockNetwork:
        """The same in float32."""
        return replace(self, **{name: getattr(self, name).astype(np.float32) for name in _ARRAYS})

    def _told(self, values: Numbers, of: slice, columns: Any) -> Floats:
        """What some features add to the first layer beyond their reference, (H, columns)."""
        return np.asarray(self.first[:, of] @ self._moved(values, of, columns))

    def _moved(self, values: Numbers, of: slice, columns: Any) -> Numbers:
        """Some features on the common scale less their reference, (features, columns)."""
        if self.inputs is None and len(values) != len(self.features):
            raise LaotieError(
                "features do not match the model", got=f"{len(values)} rows", expected=f"{len(self.features)} features"
            )
        rows = of if self.inputs is None else self.inputs[of]
        moved = scaled(values[rows][:, columns], self.centre[of], self.scale[of])
        moved -= self.reference[of, None]
        return moved

    def _outcome(self, hidden: Numbers) -> Numbers:
        """Scores (…, n) from the first layer (…, H, n)."""
        units = np.maximum(hidden, 0.0).reshape(*hidden.shape[:-2], *self.second.shape[::2], hidden.shape[-1])
        units = self.second @ units
        units += self.second_bias[:, :, None]
        np.maximum(units, 0.0, out=units)
        return np.asarray((self.last[:, None, :] @ units).sum(axis=(-3, -2)) + self.constant)


def scaled(values: Numbers, centre: Numbers, scale: Numbers) -> Numbers:
    """sign(x)·log(1 + |x|) of feature-major values (F, n), less the centre, over the scale, cut; missing: 0."""
    moved = np.abs(values)
    np.copysign(np.log1p(moved, out=moved), values, out=moved)
    moved -= centre[:, None]
    moved /= scale[:, None]
    np.minimum(np.maximum(moved, -_CUT, out=moved), _CUT, out=moved)  # twice as fast as np.clip
    np.copyto(moved, 0.0, where=np.isnan(moved))
    return moved


@lru_cache
def _shapley(blocks: int) -> Floats:
    """What the score of each subset weighs in each share, (B, S); bit b of a subset's number: it has block b."""
    inside = (np.arange(1 << blocks)[:, None] >> np.arange(blocks)) & 1
    size = inside.sum(axis=1)
    orders = np.array([factorial(k) * factorial(blocks - k - 1) / factorial(blocks) for k in range(blocks)])
    weights: Floats = np.where(inside, orders[size - 1][:, None], -orders[np.minimum(size, blocks - 1)][:, None])
    return weights.T
