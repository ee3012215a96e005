"""Compiled loops are kept on disk by the content of their own file, so what they take from others must never change."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for path in (ROOT / "recsys").rglob("*.py") if "@compiled" in path.read_text(encoding="utf-8"))
NEVER_CHANGE = {"NEVER", "US_PER_DAY"}
"""Constants from elsewhere that a loop may read."""


def foreign_names(source: str) -> set[str]:
    """Names from elsewhere in this project that compiled functions mention, themselves or through a constant of their
    module, but for those that never change."""
    tree = ast.parse(source)
    foreign = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
        if (getattr(node, "module", None) or alias.name).startswith(("recsys", "serving", "training"))
    } - NEVER_CHANGE
    for node in tree.body:  # a constant worked out from another is another
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and mentions(node.value) & foreign:
            foreign |= {name for target in getattr(node, "targets", None) or [node.target] for name in mentions(target)}
    loops = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(one, ast.Name) and one.id == "compiled" for one in node.decorator_list)
    ]
    return foreign & {name for loop in loops for statement in loop.body for name in mentions(statement)}


def mentions(node: ast.AST) -> set[str]:
    """Every name in a piece of source."""
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_loops_use_nothing_of_other_modules(path: Path) -> None:
    assert foreign_names(path.read_text(encoding="utf-8")) == set()


def test_the_rule_sees_what_it_looks_for() -> None:
    assert len(SOURCES) > 5
    loop = "@compiled\ndef g(x):\n    return f(x) + NEVER + A + c.d\n"
    assert foreign_names("from recsys.a import f, NEVER\n" + loop) == {"f"}
    assert foreign_names("from recsys.a import b\nA = 2 * b\n" + loop) == {"A"}
    assert foreign_names("import recsys.c as c\nA = 2\n" + loop) == {"c"}
