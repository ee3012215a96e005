"""The market simulator: event tables with planted truth, for what no public data set has in one place.

`simulate` writes a world to a folder; `load_world` reads its laws from YAML; `demo_world` is a small fixed one.
See docs/simulator.md for the laws, the planted files, and how the figures compare with their sources.
"""

from recsys.events.simulator.config import WorldConfig, load_world
from recsys.events.simulator.market import SimulationReport, demo_world, read_truth, simulate

__all__ = ["SimulationReport", "WorldConfig", "demo_world", "load_world", "read_truth", "simulate"]
