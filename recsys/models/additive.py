"""The served model form: a sum of look-up tables over one or two features each.

score(x) = bias + Σ_j f_j(x_j) + Σ_(i,j) f_ij(x_i, x_j), every f piecewise constant (a generalised additive model with
pairwise terms: Lou, Caruana, Gehrke, Hooker, KDD 2013). It is trained by boosting trees that may look at
two features at most on any path (`recsys.models.additive_training`) and converted without loss: so it is as accurate as
that ensemble, its contributions add up exactly, and 500 rows cost table look-ups instead of tree walks.

Shape letters: n rows, F features, T terms (F main effects, then the pairs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled
from recsys.errors import BundleRefused
from recsys.models.binning import Binning
from recsys.models.bound import check_shapes, check_table, column_blocks, rows_needed, rows_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairTerm:
    """A term of two features: bins of each feature are first mapped to the coarser bins of the pair's own grid."""

    first: int
    second: int
    first_bins: npt.NDArray[np.int32]
    second_bins: npt.NDArray[np.int32]
    table: Floats


class _Tables(NamedTuple):
    """Tables end to end: a bin of a feature is a position in `mains`; pair p adds the `codes` of its features' bins,
    from `first_starts[p]` and `second_starts[p]` on, to a position in `cells`."""

    mains: Floats
    firsts: npt.NDArray[np.intp]
    seconds: npt.NDArray[np.intp]
    first_starts: npt.NDArray[np.intp]
    second_starts: npt.NDArray[np.intp]
    codes: npt.NDArray[np.intp]
    cells: Floats


class _Flat(NamedTuple):
    binning: Binning
    tables: _Tables


@compiled
def _add_tables(
    bins: npt.NDArray[np.int64], mains: Floats, firsts: npt.NDArray[np.intp], seconds: npt.NDArray[np.intp],
    first_starts: npt.NDArray[np.intp], second_starts: npt.NDArray[np.intp], codes: npt.NDArray[np.intp],
    cells: Floats, row_of: npt.NDArray[np.intp], out: Floats,
) -> None:  # fmt: skip
    """Add the values of all terms t, the features' and then the pairs', of columns whose features fall into `bins`
    (F, n), to the rows `row_of[t]` of `out` (R, n), one term after the other; the others are `_Tables`. Positions are
    unsigned, for then nobody looks whether they are negative."""
    n_features = len(bins)
    for j in range(n_features):
        row, bin_of = out[row_of[j]], bins[j]
        for i in range(len(row)):
            row[i] += mains[np.uint64(bin_of[i])]
    for p in range(len(firsts)):
        row, first, second = out[row_of[n_features + p]], bins[firsts[p]], bins[seconds[p]]
        first_start, second_start = first_starts[p], second_starts[p]
        for i in range(len(row)):
            a, b = np.uint64(first_start + first[i]), np.uint64(second_start + second[i])
            row[i] += cells[np.uint64(codes[a] + codes[b])]


@dataclass(frozen=True, eq=False)
class AdditiveModel:
    """Tables of an additive model. Immutable; any number of threads may read it.

    Args:
        features: names of the F inputs, in order.
        edges: per feature the ascending thresholds; bin b holds edges[b−1] < x ≤ edges[b], the last bin missing values.
        mains: per feature a table of len(edges) + 2 values.
        pairs: terms of two features.
        bias: constant.
        inputs: (F,) rows of the feature table the features are read from; see `bound_to`.
    """

    features: tuple[str, ...]
    edges: tuple[Floats, ...]
    mains: tuple[Floats, ...]
    pairs: tuple[PairTerm, ...]
    bias: float
    inputs: npt.NDArray[np.intp] | None = None

    def bound_to(self, names: Sequence[str]) -> AdditiveModel:
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
        """Names of the T terms: a feature, or «first × second»."""
        return self.features + tuple(f"{self.features[p.first]} × {self.features[p.second]}" for p in self.pairs)

    def contributions(self, values: npt.NDArray[np.floating[Any]]) -> Floats:
        """What each term adds to the score, (T, n), from feature-major `values`; NaN is «missing».

        Args:
            values: (F, n), or the table of the names the model is bound to.
        """
        n_terms = len(self.features) + len(self.pairs)
        return self.sums(values, np.arange(n_terms), np.zeros((n_terms, values.shape[1])))

    def sums(self, values: npt.NDArray[np.floating[Any]], row_of: npt.NDArray[np.intp], out: Floats) -> Floats:
        """`out` (R, n) with every term t added to its row `row_of[t]`, in the order of the terms.

        Args:
            values: as for `contributions`.
        """
        check_table(values, self._needed, exactly=self.inputs is None)
        _add_tables(self._flat.binning(values, self.inputs), *self._flat.tables, row_of, out)
        return out

    def score(self, values: npt.NDArray[np.floating[Any]]) -> Floats:
        """Scores (n,) of feature-major `values`, as for `contributions`."""
        one = np.zeros(len(self.features) + len(self.pairs), dtype=np.intp)
        return self.bias + column_blocks(lambda some: self.sums(some, one, np.zeros((1, some.shape[1])))[0], values)

    def given(self, known: Mapping[str, float]) -> AdditiveModel:
        """The model of the other features where these have one value each: fewer terms, the same scores.

        A term of known features becomes part of the bias, a pair with one of them a main effect of the other.

        Args:
            known: value by feature; NaN is «missing». Features the model does not read are ignored.
        """
        bins = {j: _bin_of(self.edges[j], known[name]) for j, name in enumerate(self.features) if name in known}
        bias = self.bias + sum(float(self.mains[j][b]) for j, b in bins.items())
        mains, pairs = [main.copy() for main in self.mains], []
        kept = [j for j in range(len(self.features)) if j not in bins]
        new = {j: i for i, j in enumerate(kept)}
        for pair in self.pairs:
            i, j = pair.first, pair.second
            if i in bins and j in bins:
                bias += float(pair.table[pair.first_bins[bins[i]], pair.second_bins[bins[j]]])
            elif i in bins:
                mains[j] += pair.table[pair.first_bins[bins[i]]][pair.second_bins]
            elif j in bins:
                mains[i] += pair.table[:, pair.second_bins[bins[j]]][pair.first_bins]
            else:
                pairs.append(replace(pair, first=new[i], second=new[j]))
        return AdditiveModel(
            tuple(self.features[j] for j in kept),
            tuple(self.edges[j] for j in kept),
            tuple(mains[j] for j in kept),
            tuple(pairs),
            bias,
            None if self.inputs is None else self.inputs[kept],
        )

    @cached_property
    def _flat(self) -> _Flat:
        """All tables end to end: one pass over a request's columns reads them."""
        binning = Binning(self.edges)
        codes: list[npt.NDArray[np.intp]] = []
        starts: list[int] = []
        at_code = at_table = 0
        for pair in self.pairs:
            sides = ((pair.first, pair.first_bins * pair.table.shape[1] + at_table), (pair.second, pair.second_bins))
            for feature, code in sides:
                codes.append(code.astype(np.intp))
                starts.append(at_code - int(binning.starts[feature]))
                at_code += len(code)
            at_table += pair.table.size
        column = np.array(starts, dtype=np.intp).reshape(-1, 2)
        tables = _Tables(
            mains=np.concatenate([np.empty(0), *self.mains]),
            firsts=np.array([pair.first for pair in self.pairs], dtype=np.intp),
            seconds=np.array([pair.second for pair in self.pairs], dtype=np.intp),
            first_starts=np.ascontiguousarray(column[:, 0]),
            second_starts=np.ascontiguousarray(column[:, 1]),
            codes=np.concatenate([np.empty(0, dtype=np.intp), *codes]),
            cells=np.concatenate([np.empty(0), *(pair.table.ravel() for pair in self.pairs)]),
        )
        return _Flat(binning, tables)

    def arrays(self, prefix: str) -> dict[str, npt.NDArray[np.generic]]:
        """The model as plain arrays for a bundle, named with `prefix`; `from_arrays` reads them back."""
        flat: dict[str, npt.NDArray[np.generic]] = {
            f"{prefix}_features": np.array(self.features, dtype=np.str_),
            f"{prefix}_edges": np.concatenate([*self.edges, np.empty(0)]),
            f"{prefix}_edge_counts": np.array([len(e) for e in self.edges], dtype=np.int64),
            f"{prefix}_mains": np.concatenate([*self.mains, np.empty(0)]),
            f"{prefix}_bias": np.array([self.bias]),
            f"{prefix}_pairs": np.array(
                [[p.first, p.second, *p.table.shape] for p in self.pairs], dtype=np.int64
            ).reshape(-1, 4),
            f"{prefix}_pair_tables": np.concatenate([*(p.table.ravel() for p in self.pairs), np.empty(0)]),
            f"{prefix}_pair_bins": np.concatenate(
                [*(b for p in self.pairs for b in (p.first_bins, p.second_bins)), np.empty(0, dtype=np.int32)]
            ).astype(np.int32),
        }
        return flat

    @classmethod
    def from_arrays(cls, names: Sequence[str], arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> AdditiveModel:
        """The model written by `arrays`, bound to `names`.

        Raises:
            BundleRefused: the arrays do not fit together.
        """
        features = tuple(str(name) for name in arrays[f"{prefix}_features"])
        counts, described = arrays[f"{prefix}_edge_counts"].tolist(), arrays[f"{prefix}_pairs"].tolist()
        n_bins, where = [c + 2 for c in counts], f"models/{prefix}"
        if any(c < 0 for c in counts) or any(not 0 <= j < len(counts) for pair in described for j in pair[:2]):
            raise BundleRefused("numbers of edges or features of pairs are no such numbers", where=where)
        shapes = {"edge_counts": len(features), "edges": sum(counts), "mains": sum(n_bins)}
        shapes["pair_tables"] = sum(rows * columns for _, _, rows, columns in described)
        shapes["pair_bins"] = sum(n_bins[first] + n_bins[second] for first, second, _, _ in described)
        check_shapes(arrays, {f"{prefix}_{name}": (size,) for name, size in shapes.items()}, where="models")
        edges = _split(arrays[f"{prefix}_edges"], counts)
        mains = _split(arrays[f"{prefix}_mains"], n_bins)
        tables, bins, pairs = arrays[f"{prefix}_pair_tables"], arrays[f"{prefix}_pair_bins"], []
        at_table = at_bin = 0
        for first, second, rows, columns in described:
            a, b = n_bins[first], n_bins[second]
            table = tables[at_table : at_table + rows * columns].reshape(rows, columns)
            of_first, of_second = bins[at_bin : at_bin + a], bins[at_bin + a : at_bin + a + b]
            if not (0 <= of_first.min() <= of_first.max() < rows and 0 <= of_second.min() <= of_second.max() < columns):
                raise BundleRefused("bins of a pair lie outside its table", where=where, got=(a, b))
            pairs.append(PairTerm(first, second, of_first, of_second, table))
            at_table, at_bin = at_table + rows * columns, at_bin + a + b
        return cls(features, edges, mains, tuple(pairs), float(arrays[f"{prefix}_bias"][0])).bound_to(names)


def _bin_of(edges: Floats, value: float) -> int:
    return len(edges) + 1 if np.isnan(value) else int(edges.searchsorted(value))


def _split(flat: npt.NDArray[Any], counts: Sequence[int]) -> tuple[Floats, ...]:
    return tuple(np.split(flat, np.cumsum(counts)[:-1])) if counts else ()
