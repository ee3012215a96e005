"""What the online path loads when every one of its modules is imported, seen from a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

ONLINE = ("serving", "recsys.live", "recsys.pipeline", "recsys.index", "recsys.ties")
NEVER_ONLINE = {"torch", "implicit", "lightgbm", "sklearn", "pandas", "training"}

IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def loaded_by(*packages: str) -> set[str]:
    run = subprocess.run([sys.executable, "-c", IMPORT_ALL, *packages], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_online_path_never_loads_training_libraries() -> None:
    assert loaded_by(*ONLINE) & NEVER_ONLINE == set()


@pytest.mark.parametrize("package", ["recsys.events", "recsys.ties"])
def test_faiss_comes_with_the_index_only(package: str) -> None:
    assert "faiss" not in loaded_by(package)


def test_the_probe_sees_what_it_looks_for() -> None:
    assert "faiss" in loaded_by("recsys.index")


def test_command_line_starts_light() -> None:
    """Help lists the commands of every package and imports nothing that takes time."""
    probe = "import atexit, sys, recsys.cli; atexit.register(lambda: print(*sys.modules)); recsys.cli.main()"
    run = subprocess.run([sys.executable, "-c", probe, "--help"], capture_output=True, text=True, check=True)
    said, _, modules = run.stdout.rstrip().rpartition("\n")
    assert "build" in said and "serve" in said and "training.commands" in modules.split()
    heavy = {"numpy", "polars", "numba", "scipy", "pandas", "pydantic", "yaml", "orjson", "msgspec", "fastapi", "httpx",
             "faiss", "implicit", "lightgbm", "torch", "rich.console"}  # fmt: skip
    assert set(modules.split()) & heavy == set()
