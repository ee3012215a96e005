"""Compiled loops are kept on disk by the date of their own file, so what they take from others must never change."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for path in (ROOT / "recsys").rglob("*.py") if "@compiled" in path.read_text(encoding="utf-8"))
NEVER_CHANGE = {"NEVER", "US_PER_DAY"}
"""Constants from elsewhere that a loop may read."""


def foreign_names(source: str) -> set[str]:
    """Names imported from this project that compiled functions mention, but for those that never change."""
    tree = ast.parse(source)
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("recsys", "serving", "training"))
        for alias in node.names
    }
    loops = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(one, ast.Name) and one.id == "compiled" for one in node.decorator_list)
    ]
    mentioned = {
        name.id
        for loop in loops
        for statement in loop.body
        for name in ast.walk(statement)
        if isinstance(name, ast.Name)
    }
    return imported & mentioned - NEVER_CHANGE


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_loops_use_nothing_of_other_modules(path: Path) -> None:
    assert foreign_names(path.read_text(encoding="utf-8")) == set()


def test_the_rule_sees_what_it_looks_for() -> None:
    assert len(SOURCES) > 5
    source = "from recsys.a import f, NEVER\n@compiled\ndef g(x):\n    return f(x) + NEVER\n"
    assert foreign_names(source) == {"f"}
