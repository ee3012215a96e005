"""What compiled loops promise and what our tests see of them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recsys.compiled import compiled, kept_in


@compiled
def _last(values: np.ndarray, at: int) -> float:
    return float(values[at])


@compiled
def _share(part: float, whole: float) -> float:
    return part / whole


def test_a_loop_that_leaves_its_array_raises_in_tests() -> None:
    assert _last(np.arange(3.0), 2) == 2.0
    with pytest.raises(IndexError):
        _last(np.arange(3.0), 3)


def test_machine_code_is_kept_where_the_environment_says() -> None:
    folder = kept_in()
    assert folder is not None and folder.is_relative_to(os.environ["NUMBA_CACHE_DIR"])


def test_division_by_zero_is_as_in_numpy() -> None:
    assert _share(1.0, 0.0) == np.inf and np.isnan(_share(0.0, 0.0))


def test_without_a_folder_to_keep_it_in_a_loop_is_compiled_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    where: dict[str, object] = {"compiled": compiled}
    with caplog.at_level(logging.WARNING):  # the source of this function is in no file
        exec("def twice(value):\n    return 2 * value\ntwice = compiled(twice)", where)
    assert where["twice"](4) == 8  # type: ignore[operator]
    assert "twice is compiled anew in every process (set NUMBA_CACHE_DIR)" in caplog.text


def test_the_command_line_does_not_load_the_compiler() -> None:
    probe = "import sys, recsys.cli; recsys.cli.build_app(); print('numba' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert run.stdout.strip() == "False"
