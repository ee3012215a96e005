"""Rules of the house that no linter knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for package in ("recsys", "training", "serving") for path in (ROOT / package).rglob("*.py"))
MOST_LINES = 300
VAGUE = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES, "split it along its ideas"
    assert not {path.stem, *path.relative_to(ROOT).parts[:-1]} & VAGUE, "name it after what it does"
    assert not re.search(r"^\s*(import|from) (pickle|joblib|cloudpickle|dill)\b", text, re.MULTILINE), (
        "no pickled state"
    )
    assert text.startswith('"""') or not text.strip(), "say what the module is for"


def test_every_package_has_an_init() -> None:
    folders = {path.parent for path in SOURCES}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
