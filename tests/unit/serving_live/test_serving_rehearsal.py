"""Nobody waits for a loop to be compiled: after loading, no request calls one for types it has not been called with."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from numba.core.dispatcher import Dispatcher

import recsys
from serving.answers import document
from serving.asked import Asked
from serving.config import ServingConfig
from serving.engine import Engine

from .served_world import AS_OF, Clock
from .test_serving_http import room


def variants() -> dict[str, int]:
    """Of every compiled loop of the package how many machine codes there are in this process."""
    found: dict[str, Any] = {}
    for module in pkgutil.walk_packages(recsys.__path__, "recsys."):
        if not module.name.startswith(("recsys.evaluation", "recsys.events", "recsys.cli")):
            members = vars(importlib.import_module(module.name))
            found |= {f"{module.name}.{name}": one for name, one in members.items() if isinstance(one, Dispatcher)}
    return {name: len(one.signatures) for name, one in found.items()}


def test_every_loop_a_request_needs_is_ready_when_the_bundle_is(market: Path, tmp_path: Path) -> None:
    engine = Engine.open(market / "bundles", tmp_path / "log.db", ServingConfig(), Clock(AS_OF + 100_000_000))
    ready = variants()
    assert sum(ready.values()) > 10
    engine.apply([(f"r{i}", "rooms", room(i + 1, category="tea" if i % 3 else None)) for i in range(40)])
    for user in (None, 10**12, *range(1, 20)):
        document(engine.lookup(Asked(user, 10)), breakdown=True)
    follows = [("follows", {"user_id": user, "host_id": 1, "at": AS_OF + 99_000_000}) for user in (1, 2, 10**12)]
    engine.apply([(f"f{i}", table, row | {"action": "follow"}) for i, (table, row) in enumerate(follows)])
    for user in (1, 2, 10**12):
        document(engine.lookup(Asked(user, 10)), breakdown=True)
    for i, one in enumerate(engine.lookup_many([Asked(user, 10) for user in (None, 1, 2, 3, 10**12)])):
        document(one)
        engine.apply([], [(one, f"request-{i}")])
    grown = {name: (ready.get(name, 0), n) for name, n in variants().items() if n > ready.get(name, 0)}
    assert grown == {}, "recsys.pipeline.rehearsal does not come by here"
