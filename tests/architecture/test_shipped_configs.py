"""Every YAML file we ship loads; one that no loader claims is a mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys.config import EngineConfig, load_config

CONFIGS = Path(__file__).parents[2] / "configs"


def load_world(path: Path) -> Any:
    from recsys.events.simulator import load_world

    return load_world(path)


LOADERS: dict[str, Callable[[Path], Any]] = {"configs": load_config, "worlds": load_world}
"""Loader by the folder a file lies in."""


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.y*ml")), ids=lambda path: path.name)
def test_it_loads(path: Path) -> None:
    LOADERS[path.parent.name](path)


def test_default_yaml_shows_the_defaults() -> None:
    assert load_config(CONFIGS / "default.yaml") == EngineConfig()
