"""One small market and its bundle for all tests of the service."""

from __future__ import annotations

from pathlib import Path

import pytest

from .served_world import simulated, write_bundle


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `events` and `bundles`."""
    root = tmp_path_factory.mktemp("market")
    write_bundle(simulated(root / "events"), root / "bundles")
    return root
