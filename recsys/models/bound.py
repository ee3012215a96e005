"""What models read lies within bounds: compiled loops (`recsys.compiled`) do not look.

Tables of features have the rows a model reads, and arrays of a bundle fit each other. Long tables are read in bounded
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.errors import BundleRefused, LaotieError

_COLUMNS = 16_384


def rows_of(features: Sequence[str], names: Sequence[str]) -> npt.NDArray[np.intp]:
    """The row (F,) of each feature of a model in tables with rows `names`.

    Raises:
        LaotieError: a feature of the model is not among `names`.
    """
    lacking = sorted(set(features) - set(names))
    if lacking:
        raise LaotieError("features of the model are not computed", got=lacking, expected="features of this version")
    position = {name: i for i, name in enumerate(names)}
    return np.array([position[name] for name in features], dtype=np.intp)


def rows_needed(inputs: npt.NDArray[np.intp] | None, n_features: int) -> int:
    """How many rows a table must have whose rows `inputs` (F,) a model reads; None: its features and no other."""
    return n_features if inputs is None else int(inputs.max(initial=-1)) + 1


def check_table(values: npt.NDArray[Any], needed: int, *, exactly: bool) -> None:
    """See that a table has the rows a model reads, for compiled loops do not.

    Args:
        values: (F, n).
        needed: `rows_needed` of the model, `exactly` or at least.

    Raises:
        LaotieError: it has not.
    """
    if len(values) < needed or (exactly and len(values) > needed):
        expected = f"{needed} features" if exactly else f"at least {needed} rows"
        raise LaotieError("features do not match the model", got=f"{len(values)} rows", expected=expected)


def check_rows(
    starts: npt.NDArray[np.integer], hosts: npt.NDArray[np.integer], n_numbers: int, n_hosts: int, *, where: str
) -> None:
    """See that rows laid end to end (CSR) neither leave their arrays nor name a host that there is not.

    Args:
        starts: (r + 1,) where every row begins, and where the last one ends.
        hosts: (z,) hosts named by the rows.
        n_numbers: how many numbers stand beside them: z.
        n_hosts: hosts that there are.
        where: the part of the bundle.

    Raises:
        BundleRefused: they do.
    """
    whole = len(starts) and starts[0] == 0 and starts[-1] == len(hosts) == n_numbers and (np.diff(starts) >= 0).all()
    if not whole or (len(hosts) and not 0 <= hosts.min() <= hosts.max() < n_hosts):
        raise BundleRefused("rows or the hosts they name lie outside their arrays", where=where, got=len(hosts))


def check_shapes(arrays: Mapping[str, npt.NDArray[Any]], shapes: Mapping[str, tuple[int, ...]], *, where: str) -> None:
    """See that arrays have the shapes that others beside them ask for.

    Raises:
        BundleRefused: one of them has another.
    """
    for name, shape in shapes.items():
        got = arrays[name].shape
        if got != shape:
            raise BundleRefused("an array does not fit the others", where=f"{where}/{name}", got=got, expected=shape)


def column_blocks(
    score: Callable[[npt.NDArray[np.floating[Any]]], npt.NDArray[np.floating[Any]]],
    values: npt.NDArray[np.floating[Any]],
) -> npt.NDArray[np.float64]:
    """`score` (n,) of a table (F, n), some columns after the other: what it needs on the way does not grow with n."""
    n = values.shape[1]
    if n <= _COLUMNS:
        return np.asarray(score(values), dtype=np.float64)
    return np.concatenate([column_blocks(score, values[:, i : i + _COLUMNS]) for i in range(0, n, _COLUMNS)])
