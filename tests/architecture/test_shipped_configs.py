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


def load_serving(path: Path) -> Any:
    from serving.config import load_serving_config

    return load_serving_config(path)


LOADERS: dict[str, Callable[[Path], Any]] = {"configs": load_config, "worlds": load_world, "serving.yaml": load_serving}
"""Loader by the name of the file, else by the folder it lies in."""


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.y*ml")), ids=lambda path: path.name)
def test_it_loads(path: Path) -> None:
    LOADERS.get(path.name, LOADERS[path.parent.name])(path)


def test_default_yaml_shows_the_defaults() -> None:
    assert load_config(CONFIGS / "default.yaml") == EngineConfig()


def test_serving_yaml_shows_the_defaults() -> None:
    from serving.config import ServingConfig

    assert load_serving(CONFIGS / "serving.yaml") == ServingConfig()
