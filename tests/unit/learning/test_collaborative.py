"""The host graph of a build: few entries for a host, and nothing dense in a market too wide for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys.config import EngineConfig
from recsys.models.collaborative import ease
from recsys.ties.algebra import BlockState, identity
from recsys.ties.blocks import blocks
from training import collaborative
from training.collaborative import fit_collaborative

N_USERS, N_HOSTS = 300, 40
TASTES = 4


def visits(seed: int = 0) -> dict[str, Any]:
    """Viewers of a few tastes, who come to hosts of theirs and now and then to another."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(N_USERS), 8)
    host = rng.integers(0, N_HOSTS // TASTES, len(user)) * TASTES + user % TASTES
    strays = rng.random(len(user)) < 0.1
    host[strays] = rng.integers(0, N_HOSTS, int(strays.sum()))
    keys = np.unique(user << 32 | host)
    block = blocks(360).visits
    rows = identity(block, len(keys)).copy()
    rows.ints[:, block.int_column("n_entries")] = rng.integers(1, 6, len(keys))
    return {"visits": BlockState(block, keys, rows)}


def configured(**build: int) -> EngineConfig:
    return EngineConfig.model_validate({"build": {"threads": 1, "factors": 8, **build}})


def test_a_host_keeps_the_entries_of_largest_magnitude(monkeypatch: pytest.MonkeyPatch) -> None:
    _, every, _ = fit_collaborative(visits(), configured(graph_neighbours=6), N_USERS, N_HOSTS)
    assert every is not None and np.diff(every.indptr).tolist() == [N_HOSTS - 1] * N_HOSTS, "few hosts: all entries"
    monkeypatch.setattr(collaborative, "FEW_HOSTS", 1)
    _, few, stages = fit_collaborative(visits(), configured(graph_neighbours=6), N_USERS, N_HOSTS)
    assert few is not None and {stage.status for stage in stages} == {"passed"}
    assert np.diff(few.indptr).tolist() == [6] * N_HOSTS
    for host in range(N_HOSTS):
        whole, kept = (slice(graph.indptr[host], graph.indptr[host + 1]) for graph in (every, few))
        largest = np.sort(np.abs(every.data[whole]))[-6:]
        np.testing.assert_array_equal(np.sort(np.abs(few.data[kept])), largest)


def test_a_wide_market_is_compared_in_pairs_and_the_stage_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def dense(matrix: np.ndarray) -> None:
        raise AssertionError(f"a dense matrix of {matrix.shape} in a market that is too wide")

    monkeypatch.setattr(ease, "invert_in_place", dense)
    config = configured(graph_solved=N_HOSTS - 1, graph_neighbours=6)
    _, graph, stages = fit_collaborative(visits(), config, N_USERS, N_HOSTS)
    assert graph is not None and np.diff(graph.indptr).max() <= 6
    assert "40 hosts" in stages[1].why and "39" in stages[1].why
    alike = [
        np.mean(graph.indices[graph.indptr[host] : graph.indptr[host + 1]] % TASTES == host % TASTES)
        for host in range(N_HOSTS)
    ]
    assert np.mean(alike) > 0.9, "the closest hosts share a taste"
    with pytest.raises(AssertionError, match="too wide"):
        fit_collaborative(visits(), configured(graph_solved=N_HOSTS), N_USERS, N_HOSTS)
