"""Bins without searching are the bins a search finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.models.binning import Binning

numbers = st.floats(-1e305, 1e305)
near = st.integers(-40, 40).map(lambda i: i / 8)
edge_lists = st.lists(st.lists(st.one_of(numbers, near), max_size=20, unique=True).map(sorted), min_size=1, max_size=4)


def searched(edges: list[np.ndarray], values: np.ndarray) -> np.ndarray:
    return np.array([np.where(np.isnan(v), len(e) + 1, e.searchsorted(v)) for e, v in zip(edges, values, strict=True)])


def around(edges: np.ndarray) -> np.ndarray:
    """Every edge, its neighbours among the numbers, the middles, and what is no number."""
    with np.errstate(under="ignore"):
        beside = [np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf), edges / 2 + np.roll(edges, 1) / 2]
    odd = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-300, -1e-300, 1e300, -1e300])
    return np.concatenate([edges, *beside, odd])


@given(edge_lists)
def test_equals_a_search(lists: list[list[float]]) -> None:
    edges = [np.array(one, dtype=np.float64) + 0.0 for one in lists]
    edges = [one[np.concatenate([[True], np.diff(one) > 0])] if len(one) else one for one in edges]
    everything = np.concatenate([around(one) for one in edges])
    values = np.tile(everything, (len(edges), 1))
    binning = Binning(edges)
    np.testing.assert_array_equal(binning(values) - binning.starts[:, None], searched(edges, values))


@pytest.mark.parametrize(
    "edges",
    [
        np.concatenate([[1e-35], np.linspace(0.5, 0.5001, 40), [1e300]]),  # many in one place: searched after all
        np.concatenate([[-1e-35], np.geomspace(1e-9, 1e3, 60)]),
        np.linspace(-3, 3, 127),
        np.arange(20.0) + 0.5,
        np.array([-0.0, 1.0]),
    ],
)
def test_the_spacings_models_have(edges: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([around(edges), rng.normal(size=500), rng.lognormal(sigma=4, size=500)])[None, :]
    np.testing.assert_array_equal(Binning([edges])(values), searched([edges], values))
    narrow = np.clip(values, -1e30, 1e30).astype(np.float32)
    np.testing.assert_array_equal(Binning([edges])(narrow), searched([edges], narrow))


def test_no_features() -> None:
    assert Binning([])(np.empty((0, 3))).shape == (0, 3)
