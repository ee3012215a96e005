"""Ranking of live rooms on a time cut: `laotie evaluate` on real and on simulated events."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from recsys.config import EngineConfig
from recsys.events.simulator import load_world, simulate
from recsys.instants import parse_instant
from training.evaluate import evaluate

DRIVER_CUT = "2022-01-15"
NOW_US = 4_000_000_000_000_000
"""A clock later than any fact, so that none is set aside as lying in the future."""


def measure_events(path: Path, cut: str | None, config: dict[str, Any]) -> dict[str, Any]:
    """Every method and stratum on the events in `path`, trained before `cut` and judged after it."""
    as_of = None if cut is None else parse_instant(cut, where="cut")
    resolved = EngineConfig.model_validate(config)
    return evaluate(path, out=None, config=resolved, as_of_us=as_of, now_us=NOW_US).document()


def measure_world(world: str, users: int, hosts: int, days: int, seed: int, config: dict[str, Any]) -> dict[str, Any]:
    """The same on a simulated market; its latest fifth is judged."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "world"
        simulate(load_world(world), users=users, hosts=hosts, days=days, seed=seed, out=folder)
        return measure_events(folder, None, config)
