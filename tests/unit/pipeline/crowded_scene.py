"""A scene in which every host is on air, for tests of the pipeline."""

from __future__ import annotations

from typing import Any

from recsys.config import EngineConfig, load_config
from tests.small_world import HOUR, MINUTE, T0, Scene

NOW = T0 + 6 * HOUR
VIEWER, BUSY = 0, 1


def crowded(n_hosts: int = 40, **settings: Any) -> Scene:
    """Every host on air; the hosts with higher rows have more entries by others."""
    scene = Scene(n_hosts, load_config(None, settings) if settings else EngineConfig())
    for host in range(n_hosts):
        scene.room(host, host, T0 + host)
    for host in range(n_hosts):
        for i in range(host):
            scene.enter(10 + i, host, T0 + HOUR + i * MINUTE)
    return scene
