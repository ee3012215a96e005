"""Nobody waits for a loop to be compiled: after loading, no request calls one for types it has not been called with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

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
