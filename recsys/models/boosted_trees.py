"""Boosted trees as an additive model: exact, if no path looks at more than two features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.errors import LaotieError
from recsys.models.additive import AdditiveModel, Floats, PairTerm


def from_boosted_trees(features: Sequence[str], dump: Mapping[str, Any]) -> AdditiveModel:
    """The exact additive form of boosted trees whose paths look at two features at most, bound to `features`.

    A leaf is a box over the features of its path; its value is added to the table of those features over that box.

    Args:
        features: names of the inputs, in the order the trees number them.
        dump: what LightGBM's `Booster.dump_model()` returns; numerical splits only.

    Raises:
        LaotieError: a path looks at three features or a split is not «≤».
    """
    leaves: list[tuple[float, dict[int, tuple[float, float, bool]]]] = []
    for tree in dump["tree_info"]:
        _collect(tree["tree_structure"], {}, leaves)
    thresholds: list[set[float]] = [set() for _ in features]
    for _, box in leaves:
        for j, (low, high, _missing) in box.items():
            thresholds[j].update(edge for edge in (low, high) if np.isfinite(edge))
    edges = tuple(np.array(sorted(t)) for t in thresholds)
    mains = tuple(np.zeros(len(e) + 2) for e in edges)
    grids: dict[tuple[int, int], Floats] = {}
    bias = 0.0
    for value, box in leaves:
        if len(box) > 2:
            raise LaotieError("a tree path looks at more than two features", got=sorted(box), expected="at most two")
        cells = {j: _cells(edges[j], *interval) for j, interval in box.items()}
        match sorted(box):
            case []:
                bias += value
            case [j]:
                mains[j][cells[j]] += value
            case [i, j]:
                grid = grids.setdefault((i, j), np.zeros((len(edges[i]) + 2, len(edges[j]) + 2)))
                grid[np.ix_(cells[i], cells[j])] += value
    used = [j for j, e in enumerate(edges) if len(e) or mains[j].any()]
    new = {j: i for i, j in enumerate(used)}
    pairs = tuple(_compact(new[i], new[j], grid) for (i, j), grid in sorted(grids.items()))
    names, kept_edges, kept_mains = (
        zip(*((features[j], edges[j], mains[j]) for j in used), strict=True) if used else ((),) * 3
    )
    return AdditiveModel(tuple(names), tuple(kept_edges), tuple(kept_mains), pairs, bias).bound_to(features)


def _collect(
    node: Mapping[str, Any],
    box: dict[int, tuple[float, float, bool]],
    leaves: list[tuple[float, dict[int, tuple[float, float, bool]]]],
) -> None:
    if "split_feature" not in node:
        leaves.append((float(node["leaf_value"]), box))
        return
    if node["decision_type"] != "<=":
        raise LaotieError("only numerical splits can be tabulated", got=node["decision_type"], expected="<=")
    j, threshold = int(node["split_feature"]), float(node["threshold"])
    low, high, missing = box.get(j, (-np.inf, np.inf, True))
    missing_left = _missing_goes_left(node, threshold)
    _collect(node["left_child"], {**box, j: (low, min(high, threshold), missing and missing_left)}, leaves)
    _collect(node["right_child"], {**box, j: (max(low, threshold), high, missing and not missing_left)}, leaves)


def _missing_goes_left(node: Mapping[str, Any], threshold: float) -> bool:
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    return threshold >= 0.0  # without NaN at training time LightGBM reads NaN as zero


def _cells(edges: Floats, low: float, high: float, missing: bool) -> npt.NDArray[np.intp]:
    """Bins of the interval (low, high], and the bin of missing values if it belongs to the box."""
    start = 0 if np.isneginf(low) else int(np.searchsorted(edges, low)) + 1
    stop = len(edges) + 1 if np.isposinf(high) else int(np.searchsorted(edges, high)) + 1
    inside = np.arange(start, max(start, stop), dtype=np.intp)
    return np.append(inside, len(edges) + 1) if missing else inside


def _compact(i: int, j: int, grid: Floats) -> PairTerm:
    """Merge neighbouring equal rows and columns of a pair's grid."""
    first = np.concatenate([[0], np.cumsum((grid[1:] != grid[:-1]).any(axis=1))]).astype(np.int32)
    second = np.concatenate([[0], np.cumsum((grid[:, 1:] != grid[:, :-1]).any(axis=0))]).astype(np.int32)
    rows, columns = np.unique(first, return_index=True)[1], np.unique(second, return_index=True)[1]
    return PairTerm(i, j, first, second, np.ascontiguousarray(grid[np.ix_(rows, columns)]))
