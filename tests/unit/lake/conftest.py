"""A small market, written once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from recsys.events.simulator import WorldConfig, simulate


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Event tables of 150 users, 15 hosts and 5 days."""
    folder = tmp_path_factory.mktemp("market") / "events"
    simulate(WorldConfig(), users=150, hosts=15, days=5, seed=3, out=folder, start=datetime(2026, 1, 5, tzinfo=UTC))
    return folder
