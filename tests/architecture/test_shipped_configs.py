"""Every YAML file we ship loads; one that no loader claims is a mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from recsys.config import EngineConfig, load_config
from recsys.events.simulator import WorldConfig, load_world
from serving.config import ServingConfig, load_serving_config

CONFIGS = Path(__file__).parents[2] / "configs"


LOADERS: dict[str, tuple[Callable[[Path], BaseModel], type[BaseModel]]] = {
    "configs": (load_config, EngineConfig),
    "worlds": (load_world, WorldConfig),
    "serving.yaml": (load_serving_config, ServingConfig),
}
"""Loader, and what it makes, by the name of the file, else by the folder it lies in."""


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.y*ml")), ids=lambda path: path.name)
def test_it_loads(path: Path) -> None:
    load, made = LOADERS.get(path.name, LOADERS[path.parent.name])
    assert type(load(path)) is made


def test_default_yaml_shows_the_defaults() -> None:
    assert load_config(CONFIGS / "default.yaml") == EngineConfig()


def test_serving_yaml_shows_the_defaults() -> None:
    assert load_serving_config(CONFIGS / "serving.yaml") == ServingConfig()
