"""The laws of the demo market: the calibrated world with fewer unknown hosts, since it has only sixty."""

from __future__ import annotations

from recsys.events.simulator.config import Hosts, WorldConfig

DEMO = WorldConfig(
    name="demo", about="a small town of hosts where everybody has a few fans", hosts=Hosts(popularity_sigma=0.8)
)
