"""What compiled loops promise and what our tests see of them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def test_without_a_folder_to_keep_it_in_a_loop_is_compiled_and_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.compiled._said", set())
    where: dict[str, Any] = {"compiled": compiled}
    with caplog.at_level(logging.WARNING):  # the source of these functions is in no file
        for name in ("twice", "again"):
            exec(f"def {name}(value):\n    return 2 * value\n{name} = compiled({name})", where)
    assert where["twice"](4) == where["again"](4) == 8
    assert caplog.text.count("compiled anew in every process") == 1


def kept(tmp_path: Path, then: str, before: str = "") -> str:
    """What a fresh process prints and logs that ranks three numbers with its cache below `tmp_path`."""
    program = (
        before + "import logging; logging.basicConfig()\nimport numpy as np\nfrom recsys.pipeline import spans\n"
        "table, one = np.array([[2.0, np.nan, 1.0]]), np.array([0])\n"
        "spans.Spans([3]).rank(table, spans.Ranking(one, one > 0, one == 0, one))\nprint(table.tolist())\n" + then
    )
    variables = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=variables)
    assert ran.stdout.startswith("[[1.0, 2.0, 0.0]]"), ran.stderr
    return ran.stdout + ran.stderr


HITS = "print(sum(sum(loop.stats.cache_hits.values()) for loop in (spans._key, spans._place)))"


def test_what_is_kept_is_read_by_the_next_and_a_damaged_file_is_no_reason_to_stop(tmp_path: Path) -> None:
    assert kept(tmp_path, HITS).splitlines()[1] == "0"
    assert kept(tmp_path, HITS).splitlines()[1] == "2"
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".nbi", ".nbc") and "_key" in path.name]
    assert {path.suffix for path in files} == {".nbi", ".nbc"}
    for suffix, left in ((".nbc", 0), (".nbc", 40), (".nbi", 0), (".nbi", 20)):
        for path in files:
            if path.suffix == suffix:
                path.write_bytes(path.read_bytes()[:left])
        said = kept(tmp_path, HITS)
        assert said.count("kept machine code cannot be read") == 1 and said.splitlines()[1] == "1"


def test_a_full_disk_costs_the_cache_and_nothing_else(tmp_path: Path) -> None:
    full = (
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    )
    assert kept(tmp_path, "", before=full).count("machine code cannot be kept") == 1


def test_the_command_line_does_not_load_the_compiler() -> None:
    probe = "import sys, recsys.cli; recsys.cli.build_app(); print('numba' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert run.stdout.strip() == "False"
