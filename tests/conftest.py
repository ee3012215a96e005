"""What all tests share: one thread for everybody, so that the suite is fast beside others and runs the same everywhere.

Also the small market (`market`), generated once, and the bundle built of it (`built`), for tests that need a world in
motion or the commands end to end.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("house", derandomize=True, deadline=None)  # the same examples and verdicts on every machine
settings.load_profile("house")

for _name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # read when polars and numpy are first imported, after this

# A compiled loop that leaves its arrays raises instead of reading on; what is kept is no one else's, for checked and
# unchecked machine code look alike to the cache.
os.environ |= {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(Path(__file__).parents[1] / ".compiled-checked")}

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NOW_US = int(NOW.timestamp() * 1e6)
CHEAP = {
    "build.threads": 1,
    "build.ranker_requests": 2500,
    "build.strength_rows": 6000,
    "build.factors": 8,
    "ranker.teacher_rounds": 10,
    "ranker.network_share": 0.0,
    "ranker.network_epochs": 0,
    "ranker.rounds": 80,
    "ranker.pairs": 15,
    "ranker.bins": 31,
    "strength.rounds": 40,
    "strength.bins": 31,
    "heads.rounds": 40,
    "heads.bins": 31,
    "demand.instants": 8,
    "demand.users": 1600,
    "tower.dimensions": 8,
    "tower.examples": 1500,
    "tower.epochs": 2,
    "gates": [],
}
"""Settings of builds in tests: every stage is real, the models small. No gate, for a small market decides nothing."""
SET = [part for name, value in CHEAP.items() for part in ("--set", f"{name}={value}")]
"""The same on the command line."""


@dataclass(frozen=True)
class Built:
    """A published bundle and the events it was built from."""

    events: Path
    bundles: Path
    as_of_us: int
    document: dict[str, Any]

    @property
    def bundle(self) -> Path:
        """The bundle itself."""
        return self.bundles / str(self.document["bundle"])


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Event tables of the demo world (400 users, 60 hosts, 21 days)."""
    from recsys.events.simulator import demo_world

    out = tmp_path_factory.mktemp("market") / "events"
    demo_world(out)
    return out


@pytest.fixture(scope="session")
def built(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A bundle of the demo world as of two days before its end: later events remain to be replayed."""
    from recsys.config import EngineConfig, load_config
    from recsys.events import clean, last_fact_us, open_events
    from recsys.events.facts import US_PER_DAY
    from training.build import build

    last = last_fact_us(clean(open_events(market), now=NOW))
    assert last is not None
    as_of = last - 2 * US_PER_DAY
    config: EngineConfig = load_config(None, CHEAP)
    bundles = tmp_path_factory.mktemp("built") / "bundles"
    document = build(market, bundles, config=config, as_of_us=as_of, now_us=NOW_US)
    return Built(market, bundles, as_of, document)
