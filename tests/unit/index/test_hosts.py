"""The host index against a matrix product."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.index import HostIndex, IndexInputError


def test_equals_a_matrix_product() -> None:
    rng = np.random.default_rng(0)
    hosts, queries = rng.standard_normal((300, 20)), rng.standard_normal((30, 20))
    found, scores = HostIndex(hosts).search(queries, 10)
    expected = np.argsort(-(queries.astype(np.float32) @ hosts.astype(np.float32).T), axis=1)[:, :10]
    assert np.array_equal(found, expected)
    assert np.allclose(scores, np.take_along_axis(queries @ hosts.T, expected, axis=1), rtol=1e-4, atol=1e-5)


def test_neighbours_leave_the_host_itself_out_and_cosine_ignores_length() -> None:
    hosts = np.array([[1.0, 0.0], [9.0, 9.0], [1.0, 0.1], [0.0, 0.0]])
    assert HostIndex(hosts).neighbours(0, 9)[0].tolist() == [1, 2, 3]
    near, scores = HostIndex(hosts, normalise=True).neighbours(0, 2)
    assert near.tolist() == [2, 1]
    assert scores[1] == pytest.approx(0.5**0.5)


def test_is_a_copy_and_refuses_what_is_not_finite() -> None:
    hosts = np.ones((3, 16), dtype=np.float32)
    index = HostIndex(hosts)
    hosts[:] = 0
    assert index.search(np.ones((1, 16)), 5)[1].tolist() == [[16.0] * 3]
    with pytest.raises(IndexInputError, match="row 1"):
        HostIndex(np.array([[1.0], [np.nan]]))
    with pytest.raises(IndexInputError):
        index.search(np.full((1, 16), np.inf), 1)
