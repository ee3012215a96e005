"""The blockwise inverse against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from recsys.models.collaborative.dense_inverse import invert_in_place


@pytest.mark.parametrize(("n", "leaf"), [(1, 4), (7, 8), (9, 8), (50, 8), (333, 16), (2300, 2200)])
def test_equals_numpy(n: int, leaf: int) -> None:
    rng = np.random.default_rng(n)
    graph = (rng.random((n, 40)) < 0.2).astype(np.float32)
    matrix = graph @ graph.T + 5 * np.eye(n, dtype=np.float32)
    expected = np.linalg.inv(matrix.astype(np.float64))
    invert_in_place(matrix, leaf=leaf)
    assert_allclose(matrix, expected, atol=1e-5)


def test_refuses_what_has_no_such_inverse() -> None:
    with pytest.raises(np.linalg.LinAlgError, match="side 3"):
        invert_in_place(-np.eye(3, dtype=np.float32))
