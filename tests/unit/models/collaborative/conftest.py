"""Ties with planted structure, so that the right answer is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.models.collaborative.interactions import Interactions


def planted_blocks(n_users: int = 60, n_hosts: int = 40, blocks: int = 4, share: float = 0.6, seed: int = 3):
    """Users and hosts fall into blocks (row % blocks); a user has ties to a random `share` of his block only."""
    rng = np.random.default_rng(seed)
    same = np.arange(n_users)[:, None] % blocks == np.arange(n_hosts)[None, :] % blocks
    users, hosts = np.nonzero(same & (rng.random(same.shape) < share))
    return Interactions.from_rows(users, hosts, n_users=n_users, n_hosts=n_hosts), same


@pytest.fixture
def blocks():
    return planted_blocks()


@pytest.fixture
def noisy() -> Interactions:
    """No structure but popularity: 50 users × 30 hosts."""
    rng = np.random.default_rng(11)
    users, hosts = np.nonzero(rng.random((50, 30)) < np.linspace(0.05, 0.5, 30))
    return Interactions.from_rows(users, hosts, n_users=50, n_hosts=30)
