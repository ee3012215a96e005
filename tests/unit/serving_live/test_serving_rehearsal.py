"""Nobody waits for a loop to be compiled: after loading, no request calls one for types it has not been called with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest

from recsys.events.facts import US_PER_DAY
from recsys.models.transition import TransitionModel
from recsys.pipeline.rehearsal import rehearse
from serving.config import ServingConfig
from serving.loading import load_bundle

from .served_world import AS_OF

ROOT = Path(__file__).parents[3]
PROGRAM = Path(__file__).with_name("rehearsed_requests.py")


@pytest.mark.parametrize("kind", ["tables", "network", "no_ties"])
def test_every_loop_a_request_needs_is_ready_when_the_bundle_is(tmp_path: Path, kind: str) -> None:
    """In a process of its own, where nothing else has called a loop."""
    call = [sys.executable, "-m", "tests.unit.serving_live.rehearsed_requests", str(tmp_path / "log.db"), kind]
    ran = subprocess.run(call, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    told = orjson.loads(ran.stdout)
    assert told["loops"] > 15
    assert told["called first by a request"] == {}, "recsys.pipeline.rehearsal does not come by here"


def test_an_old_bundle_and_a_new_one_are_rehearsed_at_their_own_time(market: Path) -> None:
    """Nothing overflows; warnings are errors here, and lines on stderr at every start of a service."""
    loaded = load_bundle(market / "bundles" / "b1", ServingConfig(), None, AS_OF)
    entries = pl.DataFrame({"user": [0, 0], "host": [0, 1], "at": [AS_OF - 60_000_000, AS_OF - 1]})
    transition = loaded.live.world.models.transition = TransitionModel.fit(entries, as_of=AS_OF)
    learnt = transition.to_arrays()
    for later in (0, 5_000 * US_PER_DAY):
        transition.reference_at = AS_OF + later
        rehearse(loaded.live.world, AS_OF + later)
    transition.reference_at = AS_OF
    for name, held in transition.to_arrays().items():
        np.testing.assert_array_equal(held, learnt[name], err_msg=name)
    assert loaded.live.world.ties.fresh_users == 0, "a rehearsal moves nothing of the bundle"
